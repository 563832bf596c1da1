"""FaultyStore: a store that fails, hangs or is slow when a test plans it, and records its calls."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from sojourn._core.concurrency import ThreadFuture, sleep, wake_all
from sojourn.errors import StoreUnavailable
from sojourn.record import Record
from sojourn.store import Store, SupportsImmediate
from sojourn.testing.forwarding import VERBS, ForwardingStore, Verb

T = TypeVar("T")


@dataclass(slots=True)
class _Fault:
    """What happens to the next calls of one verb."""

    kind: Literal["before", "after", "hang", "slow", "meanwhile"]
    times: int
    error: BaseException | None = None
    seconds: float = 0.0
    after: bool = False
    meanwhile: Callable[[], Coroutine[Any, Any, object]] | None = None


class FaultyStore(ForwardingStore):
    """Forwards calls to a store and injects the planned faults.

    Faults of one verb happen in the order they were planned, each for the given number of calls.
    If the wrapped store has ``SupportsImmediate``, this one has it too, unless a subclass overrides
    ``load`` or ``save``. ``peek`` and ``swap`` are recorded as "load" and "save", and decline while
    a fault of that verb is planned.

    Args:
        store: the wrapped store.

    Attributes:
        store: the wrapped store.
        calls: the verbs called so far, oldest first; tests may clear it or append entries.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.calls: list[str] = []
        self._lock = threading.Lock()
        self._plans: dict[str, deque[_Fault]] = {verb: deque() for verb in VERBS}
        self._hanging: list[ThreadFuture[None]] = []
        kind = type(self)
        overridden = kind.load is not ForwardingStore.load or kind.save is not ForwardingStore.save
        if isinstance(store, SupportsImmediate) and not overridden:
            self._add_immediate(store)

    def __repr__(self) -> str:
        """Show the wrapped store."""
        return f"FaultyStore({self.store!r})"

    # Planning

    def fail(
        self,
        *verbs: Verb,
        after: bool = False,
        times: int = 1_000_000,
        error: BaseException | None = None,
    ) -> None:
        """Raise an exception in the next calls.

        Args:
            verbs: the methods that fail; all if none is given.
            after: raise after the effect, as when a connection breaks before the response.
            times: how many calls of each verb fail.
            error: the exception; a ``StoreUnavailable`` by default.
        """
        for verb in verbs or VERBS:
            self._plan(verb, _Fault("after" if after else "before", times, error))

    def hang(self, *verbs: Verb, after: bool = False, times: int = 1_000_000) -> None:
        """Block the next calls until ``heal``, or until the caller is cancelled.

        Args:
            verbs: the methods that hang; all if none is given.
            after: hang after the effect, as when a response is late.
            times: how many calls of each verb hang.
        """
        for verb in verbs or VERBS:
            self._plan(verb, _Fault("hang", times, after=after))

    def slow(self, *verbs: Verb, seconds: float, times: int = 1_000_000) -> None:
        """Delay the next calls."""
        for verb in verbs or VERBS:
            self._plan(verb, _Fault("slow", times, seconds=seconds))

    def meanwhile(self, verb: Verb, function: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Await a function just before the next call of a verb reaches the store."""
        self._plan(verb, _Fault("meanwhile", 1, meanwhile=function))

    def heal(self) -> None:
        """Cancel all planned faults and release blocked calls."""
        with self._lock:
            for plan in self._plans.values():
                plan.clear()
            hanging, self._hanging = self._hanging, []
        wake_all(hanging)

    def _plan(self, verb: Verb, fault: _Fault) -> None:
        with self._lock:
            self._plans[verb].append(fault)

    def _next(self, verb: Verb) -> _Fault | None:
        with self._lock:
            self.calls.append(verb)
            plan = self._plans[verb]
            if not plan:
                return None
            fault = plan[0]
            fault.times -= 1
            if fault.times == 0:
                plan.popleft()
            return fault

    async def forward(self, verb: Verb, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Perform a call, with the fault that is planned for it."""
        fault = self._next(verb)
        if fault is None:
            return await call()
        if fault.kind == "slow":
            await sleep(fault.seconds)
        elif fault.kind == "hang":
            result = await call() if fault.after else None
            waiting: ThreadFuture[None] = ThreadFuture()
            with self._lock:
                self._hanging.append(waiting)
            await waiting.wait(None)
            if fault.after:
                return cast("T", result)
        elif fault.meanwhile is not None:
            await fault.meanwhile()
        else:
            if fault.kind == "after":
                await call()
            raise fault.error or StoreUnavailable("a test has planned this failure")
        return await call()

    def _add_immediate(self, store: SupportsImmediate) -> None:
        def peek(session_id: bytes) -> Record | None:
            record = None if self._plans["load"] else store.peek(session_id)
            if record is not None:
                self.calls.append("load")
            return record

        def swap(record: Record, expected_version: int) -> bool:
            swapped = not self._plans["save"] and store.swap(record, expected_version)
            if swapped:
                self.calls.append("save")
            return swapped

        wrapper: Any = self
        wrapper.peek, wrapper.swap = peek, swap
