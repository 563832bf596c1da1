"""FaultyStore: a store that fails, hangs or dawdles when a test says so, and notes every call.

What lives here: faults between the engine and any store. What must not: faults of a real server;
a store's author breaks that (``StoreSuite.outage``). Which calls there are says ``passing.py``.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from sojourn._core.concurrency import ThreadFuture, pause, settle
from sojourn.errors import StoreUnavailable
from sojourn.store import Store
from sojourn.testing.passing import VERBS, Passing, Verb

T = TypeVar("T")


@dataclass(slots=True)
class _Fault:
    """What happens to the next calls of one verb."""

    kind: Literal["before", "after", "hang", "slow", "meanwhile"]
    times: int
    error: BaseException | None = None
    seconds: float = 0.0
    meanwhile: Callable[[], Coroutine[Any, Any, object]] | None = None


class FaultyStore(Passing):
    """Passes calls on to a store, and carries out the faults that were planned.

    Faults of one verb happen in the order they were planned, each for the given number of calls.

    Args:
        store: answers wherever no fault was planned.

    Attributes:
        store: the wrapped one.
        calls: the verbs called so far, oldest first; a test may clear it, or put notes of its own
            between them.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.calls: list[str] = []
        self._lock = threading.Lock()
        self._plans: dict[str, deque[_Fault]] = {verb: deque() for verb in VERBS}
        self._hanging: list[ThreadFuture[None]] = []

    def __repr__(self) -> str:
        """Show what is wrapped."""
        return f"FaultyStore({self.store!r})"

    # Planning

    def fail(
        self,
        *verbs: Verb,
        after: bool = False,
        times: int = 1_000_000,
        error: BaseException | None = None,
    ) -> None:
        """Let the next calls raise.

        Args:
            verbs: which; all of them if none is named.
            after: the effect happens first: the answer is lost, as when a connection breaks.
            times: how many calls of each verb.
            error: what is raised; a ``StoreUnavailable`` if nothing is given.
        """
        for verb in verbs or VERBS:
            self._plan(verb, _Fault("after" if after else "before", times, error))

    def hang(self, *verbs: Verb, times: int = 1_000_000) -> None:
        """Let the next calls wait until ``heal``, or until whoever called is cancelled."""
        for verb in verbs or VERBS:
            self._plan(verb, _Fault("hang", times))

    def slow(self, *verbs: Verb, seconds: float, times: int = 1_000_000) -> None:
        """Let the next calls take longer."""
        for verb in verbs or VERBS:
            self._plan(verb, _Fault("slow", times, seconds=seconds))

    def meanwhile(self, verb: Verb, function: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Let something else happen just before the next call of a verb reaches the store."""
        self._plan(verb, _Fault("meanwhile", 1, meanwhile=function))

    def heal(self) -> None:
        """Forget every plan and let go of what hangs."""
        with self._lock:
            for plan in self._plans.values():
                plan.clear()
            hanging, self._hanging = self._hanging, []
        settle(hanging)

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

    async def passed(self, verb: Verb, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Make a call of the store behind, unless a fault is planned for it."""
        fault = self._next(verb)
        if fault is None:
            return await call()
        if fault.kind == "slow":
            await pause(fault.seconds)
        elif fault.kind == "hang":
            waiting: ThreadFuture[None] = ThreadFuture()
            with self._lock:
                self._hanging.append(waiting)
            await waiting.wait(None)
        elif fault.meanwhile is not None:
            await fault.meanwhile()
        else:
            if fault.kind == "after":
                await call()
            raise fault.error or StoreUnavailable("the test said so")
        return await call()
