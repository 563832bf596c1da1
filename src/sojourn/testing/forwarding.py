"""ForwardingStore: base of test stores that wrap another store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Literal, TypeVar, get_args

from sojourn.record import Record
from sojourn.store import (
    Purged,
    SaveResult,
    Store,
    SupportsBulk,
    SupportsHistory,
    SupportsUserIndex,
    ValueCheck,
    value_check,
)

T = TypeVar("T")

_Contract = Literal["load", "create", "save", "touch", "delete", "purge"]
_UserIndex = Literal["save_login", "list_by_index", "invalidate_logins", "invalidate_all"]
_Bulk = Literal["delete_many", "create_many"]
_History = Literal["add_history", "list_history"]
Verb = Literal[_Contract, _UserIndex, _Bulk, _History]
"""The name of a method of a store."""

_USER_INDEX: Final[tuple[Verb, ...]] = get_args(_UserIndex)
_BULK: Final[tuple[Verb, ...]] = get_args(_Bulk)
_HISTORY: Final[tuple[Verb, ...]] = get_args(_History)
VERBS: Final[tuple[Verb, ...]] = get_args(Verb)


class ForwardingStore(ABC):
    """Hands every call of a store to ``forward``.

    It has ``SupportsUserIndex``, ``SupportsBulk``, ``SupportsHistory`` and the check of values of
    ``RestrictsValues`` if the wrapped store has them. Other capabilities are hidden, so no
    background purge runs.

    Args:
        store: the wrapped store.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        if isinstance(store, SupportsUserIndex):
            self._add_methods(*_USER_INDEX)
        if isinstance(store, SupportsBulk):
            self._add_methods(*_BULK)
        if isinstance(store, SupportsHistory):
            self._add_methods(*_HISTORY)

    @abstractmethod
    async def forward(self, verb: Verb, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Perform ``call``, which calls the method ``verb`` of the wrapped store."""

    async def load(self, session_id: bytes) -> Record | None:
        """Forward ``load``."""
        return await self.forward("load", lambda: self.store.load(session_id))

    async def create(self, record: Record) -> bool:
        """Forward ``create``."""
        return await self.forward("create", lambda: self.store.create(record))

    async def save(self, record: Record, expected_version: int) -> SaveResult:
        """Forward ``save``."""
        return await self.forward("save", lambda: self.store.save(record, expected_version))

    async def touch(self, record: Record) -> bool:
        """Forward ``touch``."""
        return await self.forward("touch", lambda: self.store.touch(record))

    async def delete(self, session_id: bytes) -> bool:
        """Forward ``delete``."""
        return await self.forward("delete", lambda: self.store.delete(session_id))

    async def purge(self, now: int, limit: int) -> Purged:
        """Forward ``purge``."""
        return await self.forward("purge", lambda: self.store.purge(now, limit))

    def value_check(self) -> ValueCheck | None:
        """Return the check of the wrapped store."""
        return value_check(self.store)

    def _add_methods(self, *verbs: Verb) -> None:
        # On the object, not in the class: the wrapped store may lack the capability.
        for verb in verbs:
            setattr(self, verb, partial(self._call, verb, getattr(self.store, verb)))

    async def _call(self, verb: Verb, method: Callable[..., Any], /, *args: Any, **kw: Any) -> Any:
        return await self.forward(verb, partial(method, *args, **kw))
