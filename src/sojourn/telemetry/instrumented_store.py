"""InstrumentedStore: measures every call of a store, with the capabilities that the store has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import Any, Final, Protocol

from sojourn._core.immediate_store import immediate_store
from sojourn.record import Record, UnreadableRecord
from sojourn.store import (
    LIMIT_REACHED,
    REVOKED,
    SAVED,
    Closeable,
    Conflict,
    LocalStore,
    LoginSaved,
    NeedsPurge,
    Purged,
    RequiresEventLoop,
    RestrictsValues,
    SaveResult,
    Store,
    SupportsBatchObservers,
    SupportsBroadcast,
    SupportsBulk,
    SupportsCount,
    SupportsCutoffListing,
    SupportsGroupCommit,
    SupportsHistory,
    SupportsImmediate,
    SupportsKeyFingerprints,
    SupportsListing,
    SupportsServerTime,
    SupportsTimeout,
    SupportsUserIndex,
)
from sojourn.telemetry.semantic_conventions import error_type

#: Coroutines of capabilities, which are measured.
_MEASURED: Final[tuple[tuple[type, tuple[str, ...]], ...]] = (
    (
        SupportsUserIndex,
        ("save_login", "list_by_index", "invalidate_logins", "invalidate_all"),
    ),
    (SupportsBulk, ("delete_many", "create_many")),
    (SupportsBroadcast, ("publish",)),
    (SupportsCount, ("count",)),
    (SupportsListing, ("list_page",)),
    (SupportsCutoffListing, ("list_cutoffs",)),
    (SupportsHistory, ("add_history", "list_history")),
    (SupportsKeyFingerprints, ("register_keys",)),
    (SupportsServerTime, ("server_time",)),
)

#: Other members of capabilities, which are the store's own.
_FORWARDED: Final[tuple[tuple[type, tuple[str, ...]], ...]] = (
    (SupportsBroadcast, ("subscribe",)),
    (SupportsBatchObservers, ("add_batch_observer", "remove_batch_observer")),
    (SupportsGroupCommit, ("group_commit",)),
    (SupportsTimeout, ("set_timeout",)),
    (LocalStore, ("secret_path",)),
    (NeedsPurge, ("purge_interval",)),
    (RequiresEventLoop, ("requires_event_loop",)),
    (RestrictsValues, ("value_check",)),
    (Closeable, ("close",)),
)


class StoreCallObservers(Protocol):
    """Makes the functions that record the calls of a store."""

    def call_observer(
        self, operation: str, result: str, error: str | None
    ) -> Callable[[float], object]:
        """See ``Recorder.call_observer``."""
        ...

    def observation_failed(self, error: Exception) -> None:
        """Report that such a function raised an error, which does not reach the caller."""
        ...


class _Load(Protocol):
    """The type of ``Store.load``."""

    async def __call__(self, session_id: bytes) -> Record | None: ...


class _Save(Protocol):
    """The type of ``Store.save``."""

    async def __call__(self, record: Record, expected_version: int) -> SaveResult: ...


class InstrumentedStore:
    """Forwards every call to a store and reports its duration and its result.

    Args:
        store: the wrapped store.
        owner: makes the functions that record its calls.

    Attributes:
        store: the wrapped store.
        owner: makes the functions that record its calls.
        load, save: forward to the store, as every other method.
    """

    def __init__(self, store: Store, owner: StoreCallObservers) -> None:
        self.store: Store = store
        self.owner: StoreCallObservers = owner
        self._observers: dict[tuple[str, str, str | None], Callable[[float], object]] = {}
        self.load: _Load = self._measured_load()
        self.save: _Save = self._measured_save()
        # On the object, not in the class: the wrapped store may lack the capability.
        for capability, names in _MEASURED:
            if isinstance(store, capability):
                for name in names:
                    setattr(self, name, self._measured(name, getattr(store, name)))
        for capability, names in _FORWARDED:
            if isinstance(store, capability):
                for name in names:
                    setattr(self, name, getattr(store, name))
        immediate = immediate_store(store)
        if immediate is not None:
            self._add_immediate(immediate)

    def __repr__(self) -> str:
        """Show the wrapped store, as messages name it."""
        return repr(self.store)

    def __getattr__(self, name: str) -> Any:
        """Return a further member of the wrapped store."""
        if name.startswith("__") or name == "store":  # while a copy of this object is built
            raise AttributeError(name)
        return getattr(self.store, name)

    async def create(self, record: Record) -> bool:
        """Forward ``create``."""
        created: bool = await self._call("create", self.store.create, record)
        return created

    async def touch(self, record: Record) -> bool:
        """Forward ``touch``."""
        touched: bool = await self._call("touch", self.store.touch, record)
        return touched

    async def delete(self, session_id: bytes) -> bool:
        """Forward ``delete``."""
        deleted: bool = await self._call("delete", self.store.delete, session_id)
        return deleted

    async def purge(self, now: int, limit: int) -> Purged:
        """Forward ``purge``."""
        purged: Purged = await self._call("purge", self.store.purge, now, limit)
        return purged

    def _measured(
        self, operation: str, method: Callable[..., Coroutine[Any, Any, Any]]
    ) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def call(*args: Any, **options: Any) -> Any:
            return await self._call(operation, method, *args, **options)

        return call

    async def _call(
        self,
        operation: str,
        method: Callable[..., Coroutine[Any, Any, Any]],
        /,
        *args: Any,
        **options: Any,
    ) -> Any:
        started = perf_counter()
        try:
            result = await method(*args, **options)
        except BaseException as error:
            seconds = perf_counter() - started
            self._observe(operation, _failure(error), seconds, error_type(error))
            raise
        self._observe(operation, _outcome(operation, result), perf_counter() - started)
        return result

    def _observe(
        self, operation: str, result: str, seconds: float, error: str | None = None
    ) -> None:
        key = operation, result, error
        try:
            observe = self._observers.get(key)
            if observe is None:
                observe = self._observers[key] = self.owner.call_observer(*key)
            observe(seconds)
        except Exception as failure:  # noqa: BLE001 - an exporter must not fail a request (B-34)
            self.owner.observation_failed(failure)

    # Every request loads, and many save: these do what `_call` does without another coroutine and
    # without looking the observer up, which cost 3,000 instructions for each call.

    def _measured_load(self) -> _Load:
        load_from_store = self.store.load
        loaded = self.owner.call_observer("load", "ok", None)
        observe, failed = self._observe, self.owner.observation_failed

        async def load(session_id: bytes) -> Record | None:
            started = perf_counter()
            try:
                record = await load_from_store(session_id)
            except BaseException as error:
                observe("load", _failure(error), perf_counter() - started, error_type(error))
                raise
            if record is None:
                observe("load", "absent", perf_counter() - started)
                return None
            try:
                loaded(perf_counter() - started)
            except Exception as failure:  # noqa: BLE001 - an exporter must not fail a request (B-34)
                failed(failure)
            return record

        return load

    def _measured_save(self) -> _Save:
        save_to_store = self.store.save
        saved = self.owner.call_observer("save", "ok", None)
        observe, failed = self._observe, self.owner.observation_failed

        async def save(record: Record, expected_version: int) -> SaveResult:
            started = perf_counter()
            try:
                result = await save_to_store(record, expected_version)
            except BaseException as error:
                observe("save", _failure(error), perf_counter() - started, error_type(error))
                raise
            if result is not SAVED:
                observe("save", _outcome("save", result), perf_counter() - started)
                return result
            try:
                saved(perf_counter() - started)
            except Exception as failure:  # noqa: BLE001 - an exporter must not fail a request (B-34)
                failed(failure)
            return result

        return save

    def _add_immediate(self, store: SupportsImmediate) -> None:
        peek_store, swap_store = store.peek, store.swap
        loaded = self.owner.call_observer("load", "ok", None)
        saved = self.owner.call_observer("save", "ok", None)
        failed = self.owner.observation_failed

        def peek(session_id: bytes) -> Record | None:
            started = perf_counter()
            record = peek_store(session_id)
            if record is not None:  # otherwise `load` follows, and is reported
                try:
                    loaded(perf_counter() - started)
                except Exception as failure:  # noqa: BLE001 - an exporter must not fail a request (B-34)
                    failed(failure)
            return record

        def swap(record: Record, expected_version: int) -> bool:
            started = perf_counter()
            swapped = swap_store(record, expected_version)
            if swapped:  # otherwise `save` follows, and is reported
                try:
                    saved(perf_counter() - started)
                except Exception as failure:  # noqa: BLE001 - an exporter must not fail a request (B-34)
                    failed(failure)
            return swapped

        wrapper: Any = self
        wrapper.peek, wrapper.swap = peek, swap


def _outcome(operation: str, result: object) -> str:
    """Return how a call ended that returned a result."""
    if operation == "load":
        return "absent" if result is None else "ok"
    if result is SAVED or isinstance(result, LoginSaved):
        return "ok"
    if isinstance(result, Conflict):
        return "conflict"
    if result is REVOKED:
        return "revoked"
    if result is LIMIT_REACHED:
        return "limit_reached"
    if operation in {"save", "save_login"}:
        return "absent"
    if result is False:
        return "taken" if operation == "create" else "absent"
    return "ok"


def _failure(error: BaseException) -> str:
    """Return how a call ended that raised an error."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "cancelled"
    return "unreadable" if isinstance(error, UnreadableRecord) else "error"
