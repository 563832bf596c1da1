"""Schedulers: hold tasks or threads before each step, and let one at a time continue.

Tasks: an event loop waits in its selector only if no task can run; the selector here then lets the
next task continue. Threads: a thread waits for another one in ``ThreadFuture.wait``, which is
patched. A step during which the store works in another thread counts as running.
"""

from __future__ import annotations

import asyncio
import contextvars
import selectors
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Final, Protocol
from unittest import mock

from sojourn._core.concurrency import ThreadFuture, run

#: Seconds after which a step that does not end is a failure.
_WAIT_TIMEOUT: Final = 20.0


class Schedule(Protocol):
    """Chooses which participant continues."""

    def choose(self, ready: Sequence[tuple[int, str]]) -> int:
        """Return the number of one of the held participants.

        Args:
            ready: number and next step of each held participant.
        """
        ...


class Scheduler(Protocol):
    """Runs participants step by step."""

    def step(self, name: str) -> AbstractAsyncContextManager[None]:
        """Hold the caller until it is chosen, then run the block."""
        ...

    async def run(self, participants: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
        """Run all participants to the end; return their results or exceptions."""
        ...


# Tasks

#: The participant that a task belongs to.
_participant: Final = contextvars.ContextVar[int | None]("participant", default=None)


class _IdleSelector(selectors.DefaultSelector):
    """Calls ``on_idle`` if no task can run and the loop would wait."""

    on_idle: Callable[[], bool] | None = None

    def select(self, timeout: float | None = None) -> Any:
        if timeout != 0 and self.on_idle is not None and self.on_idle():
            timeout = 0
        return super().select(timeout)


class _IdleLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.idle_selector = _IdleSelector()
        super().__init__(self.idle_selector)


def idle_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop for a ``TaskScheduler``."""
    return _IdleLoop()


class TaskScheduler:
    """Schedules tasks of the running event loop, which ``idle_loop`` has made."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._held: dict[int, tuple[str, asyncio.Future[None]]] = {}
        self._working = 0

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[None]:
        """Hold the caller until it is chosen, then run the block."""
        number = _participant.get()
        if number is None:
            yield
            return
        assert number not in self._held, "a participant is in two steps at once"
        go: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held[number] = (name, go)
        await go
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1

    async def run(self, participants: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
        """Run all participants to the end; return their results or exceptions."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, _IdleLoop)
        tasks = []
        for number, participant in enumerate(participants):
            context = contextvars.copy_context()
            context.run(_participant.set, number)
            tasks.append(loop.create_task(participant, context=context))
        loop.idle_selector.on_idle = self._release
        try:
            async with asyncio.timeout(_WAIT_TIMEOUT):
                return await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            loop.idle_selector.on_idle = None

    def _release(self) -> bool:
        """Let one participant continue unless a step is running; return whether one did."""
        if self._working or not self._held:
            return False
        ready = [(number, self._held[number][0]) for number in sorted(self._held)]
        _, go = self._held.pop(self._schedule.choose(ready))
        go.set_result(None)
        return True


# Threads


class ThreadScheduler:
    """Schedules threads without an event loop."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._change = threading.Condition()
        self._numbers: dict[int, int] = {}
        self._running = 0
        self._held: dict[int, tuple[str, threading.Event]] = {}
        self._blocked: dict[ThreadFuture[Any], bool] = {}

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[None]:
        """Hold the caller until it is chosen, then run the block."""
        number = self._numbers.get(threading.get_ident())
        if number is None:
            yield
            return
        go = threading.Event()
        with self._change:
            self._held[number] = (name, go)
            self._running -= 1
            self._change.notify_all()
        assert go.wait(_WAIT_TIMEOUT), "this thread was not released"
        with self._inside_store():
            yield

    @contextmanager
    def _inside_store(self) -> Iterator[None]:
        """Count the thread as running while the store waits."""
        ident = threading.get_ident()
        number = self._numbers.pop(ident)
        try:
            yield
        finally:
            self._numbers[ident] = number

    async def run(self, participants: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
        """Run all participants to the end; return their results or exceptions."""
        results: list[Any] = [None] * len(participants)
        self._running = len(participants)

        def work(number: int, participant: Coroutine[Any, Any, Any]) -> None:
            self._numbers[threading.get_ident()] = number
            try:
                results[number] = run(participant)
            except BaseException as error:  # noqa: BLE001 - returned by run
                results[number] = error
            with self._change:
                self._running -= 1
                self._change.notify_all()

        threads = [
            threading.Thread(target=work, args=pair, daemon=True)
            for pair in enumerate(participants)
        ]
        with self._watch_futures():
            for thread in threads:
                thread.start()
            while self._release():
                pass
            for thread in threads:
                thread.join(_WAIT_TIMEOUT)
                assert not thread.is_alive(), "the participants are in a deadlock"
        return results

    def _release(self) -> bool:
        """Let one thread continue as soon as none runs; return whether there was one."""
        with self._change:
            settled = self._change.wait_for(lambda: not self._running, _WAIT_TIMEOUT)
            assert settled, "a thread does not reach its next step"
            if not self._held:
                return False
            ready = [(number, self._held[number][0]) for number in sorted(self._held)]
            _, go = self._held.pop(self._schedule.choose(ready))
            self._running += 1
            go.set()
            return True

    @contextmanager
    def _watch_futures(self) -> Iterator[None]:
        """Count a thread as not running while it waits for another participant."""
        wait, wake = ThreadFuture.wait, ThreadFuture.wake

        async def watched_wait(future: ThreadFuture[Any], timeout: float | None) -> Any:
            if threading.get_ident() not in self._numbers:
                return await wait(future, timeout)
            with self._change:
                if future not in self._blocked:  # otherwise it has been woken
                    self._blocked[future] = True
                    self._running -= 1
                    self._change.notify_all()
            try:
                return await wait(future, timeout)
            except TimeoutError:
                watched_wake(future)
                raise

        def watched_wake(future: ThreadFuture[Any]) -> None:
            with self._change:
                if self._blocked.get(future):
                    self._running += 1
                self._blocked[future] = False
            wake(future)

        with mock.patch.multiple(ThreadFuture, wait=watched_wait, wake=watched_wake):
            yield
