"""Interrupts a coroutine at its n-th suspension: by a cancellation, a timeout or an anyio scope."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, NamedTuple

import anyio

from sojourn.errors import StoreUnavailable
from sojourn.stores.memory import MemoryStore

#: The kinds of interruption.
KINDS: Final = ("cancel", "cancel twice", "timeout", "anyio scope")


class Outcome(NamedTuple):
    """How an interrupted coroutine ended.

    Attributes:
        reached: it suspended often enough to be interrupted.
        result: its result; None if it raised.
        error: its exception; None if it returned.
        lost: a request or a reply of the store was lost.
    """

    reached: bool
    result: Any
    error: BaseException | None
    lost: bool = False


@types.coroutine
def _counted(
    coroutine: Coroutine[Any, Any, Any], suspension: int, interrupt: Callable[[], object]
) -> Generator[Any, Any, Any]:
    """Run a coroutine, and call ``interrupt`` when it suspends for the given time."""
    count = 0
    error: BaseException | None = None
    while True:
        try:
            awaited = coroutine.send(None) if error is None else coroutine.throw(error)
        except StopIteration as end:
            return end.value
        count += 1
        if count == suspension:
            interrupt()
        try:
            yield awaited
            error = None
        except BaseException as raised:  # noqa: BLE001 - it is passed to the coroutine
            error = raised


async def interrupted(
    coroutine: Coroutine[Any, Any, Any], suspension: int, kind: str, *, delay: int = 0
) -> Outcome:
    """Run a coroutine in a task and interrupt it.

    Args:
        coroutine: to be run.
        suspension: at which it is interrupted, from 1.
        kind: see ``KINDS``.
        delay: event-loop iterations between the suspension and the interruption.
    """
    loop = asyncio.get_running_loop()
    reached = ended = False
    act: Callable[[], object]

    def interrupt() -> None:
        nonlocal reached
        reached = True
        later(delay)

    def later(left: int) -> None:
        loop.call_soon(later, left - 1) if left else loop.call_soon(act)

    async def run() -> Any:
        nonlocal act, ended
        task = asyncio.current_task()
        assert task is not None
        if kind == "timeout":
            async with asyncio.timeout(None) as timeout:
                act = lambda: ended or timeout.reschedule(loop.time())  # noqa: E731
                try:
                    return await _counted(coroutine, suspension, interrupt)
                finally:
                    ended = True
        if kind == "anyio scope":
            with anyio.CancelScope() as scope:
                act = scope.cancel
                return await _counted(coroutine, suspension, interrupt)
            raise asyncio.CancelledError
        if kind == "cancel twice":
            act = lambda: (task.cancel(), loop.call_soon(task.cancel))  # noqa: E731
        else:
            act = task.cancel
        return await _counted(coroutine, suspension, interrupt)

    task = asyncio.create_task(run())
    await asyncio.wait({task})
    if task.cancelled():
        return Outcome(reached, None, asyncio.CancelledError())
    error = task.exception()
    return Outcome(reached, None if error else task.result(), error)


async def background_tasks_ended(timeout: float = 5.0) -> bool:
    """Wait until the current task is the only one of the loop; return whether it is."""
    for _ in range(round(timeout / 0.005)):
        if asyncio.all_tasks() == {asyncio.current_task()}:
            return True
        await asyncio.sleep(0.005)
    return False


#: The methods that ``SuspendingStore`` wraps.
STORE_CALLS: Final = (
    *("load", "create", "save", "touch", "delete", "delete_many", "create_many"),
    *("save_login", "list_by_index", "invalidate_logins", "invalidate_all"),
)


class SuspendingStore:
    """A ``MemoryStore`` whose calls suspend before and after their effect.

    Args:
        detached: the effect happens in a task of its own, as in a batch that a server executes,
            although the caller was cancelled.

    Attributes:
        lose: the number of a call, from 1, that raises ``StoreUnavailable``; 0 for none.
        lose_answer: that call has its effect; otherwise the request is lost.
        calls: the number of calls since ``lose`` was set.
    """

    def __init__(self, *, detached: bool = False) -> None:
        self.inner = MemoryStore()
        self.lose = 0
        self.lose_answer = False
        self.calls = 0
        self._detached = detached
        for name in STORE_CALLS:
            setattr(self, name, self._suspending(getattr(self.inner, name)))

    def set_loss(self, call: int, *, answer: bool) -> None:
        """Lose the request or the answer of a call from now on."""
        self.lose, self.lose_answer, self.calls = call, answer, 0

    def _suspending(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def slow(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            lost = self.calls == self.lose
            await asyncio.sleep(0)
            if lost and not self.lose_answer:
                raise StoreUnavailable("the request was lost")
            result = await call(*args, **kwargs)
            await asyncio.sleep(0)
            if lost:
                raise StoreUnavailable("the answer was lost")
            return result

        async def detached(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.shield(asyncio.create_task(slow(*args, **kwargs)))

        return detached if self._detached else slow

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def purge(self, now: int, limit: int) -> Any:
        return await self.inner.purge(now, limit)
