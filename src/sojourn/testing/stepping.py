"""Stepping: hold tasks or threads before each step, and let one go at a time.

What lives here: finding out that everybody is held, waiting for another, or done, and releasing the
one that the schedule chose. What must not: which one that is (``interleave.py``).

Tasks: an event loop asks its selector to wait only when it has nothing else to do; ours then lets
the next task go. Threads: whoever waits for another thread does so in ``ThreadFuture.wait``, which is
watched meanwhile. A step in which the store works in another thread counts as running.
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

#: Seconds after which a step that does not come to its end is a failure.
_PATIENCE: Final = 20.0


class Chooser(Protocol):
    """Says who goes on."""

    def choose(self, ready: Sequence[tuple[int, str]]) -> int:
        """Return the number of one of the held participants, given with the step they are at."""
        ...


class Stepper(Protocol):
    """Runs participants step by step."""

    def step(self, name: str) -> AbstractAsyncContextManager[None]:
        """Hold the caller until it is chosen, then let it do what is inside the block."""
        ...

    async def run(self, participants: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
        """Run everybody to the end; return results, errors among them."""
        ...


# Tasks

#: Which participant a task is, or works for.
_participant: Final = contextvars.ContextVar[int | None]("participant", default=None)


class _IdleSelector(selectors.DefaultSelector):
    """Calls ``on_idle`` whenever the loop has nothing to run and would wait."""

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
    """Return a new event loop that a ``TaskStepper`` can work under."""
    return _IdleLoop()


class TaskStepper:
    """Steps tasks of the running event loop, made by ``idle_loop``."""

    def __init__(self, chooser: Chooser) -> None:
        self._chooser = chooser
        self._held: dict[int, tuple[str, asyncio.Future[None]]] = {}
        self._working = 0

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[None]:
        """Hold the caller until it is chosen, then let it do what is inside the block."""
        number = _participant.get()
        if number is None:
            yield
            return
        assert number not in self._held, "a participant takes two steps at once"
        go: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held[number] = (name, go)
        await go
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1

    async def run(self, participants: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
        """Run everybody to the end; return results, errors among them."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, _IdleLoop)
        tasks = []
        for number, participant in enumerate(participants):
            context = contextvars.copy_context()
            context.run(_participant.set, number)
            tasks.append(loop.create_task(participant, context=context))
        loop.idle_selector.on_idle = self._release
        try:
            async with asyncio.timeout(_PATIENCE):
                return await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            loop.idle_selector.on_idle = None

    def _release(self) -> bool:
        """Let one go, if nobody is in the middle of a step; tell whether somebody could."""
        if self._working or not self._held:
            return False
        ready = [(number, self._held[number][0]) for number in sorted(self._held)]
        _, go = self._held.pop(self._chooser.choose(ready))
        go.set_result(None)
        return True


# Threads


class ThreadStepper:
    """Steps threads in which no event loop runs."""

    def __init__(self, chooser: Chooser) -> None:
        self._chooser = chooser
        self._change = threading.Condition()
        self._numbers: dict[int, int] = {}
        self._running = 0
        self._held: dict[int, tuple[str, threading.Event]] = {}
        self._blocked: dict[ThreadFuture[Any], bool] = {}

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[None]:
        """Hold the caller until it is chosen, then let it do what is inside the block."""
        number = self._numbers.get(threading.get_ident())
        if number is None:
            yield
            return
        go = threading.Event()
        with self._change:
            self._held[number] = (name, go)
            self._running -= 1
            self._change.notify_all()
        assert go.wait(_PATIENCE), "nobody let this thread go on"
        with self._inside_store():
            yield

    @contextmanager
    def _inside_store(self) -> Iterator[None]:
        """What a store waits for is its own affair: the thread counts as running."""
        ident = threading.get_ident()
        number = self._numbers.pop(ident)
        try:
            yield
        finally:
            self._numbers[ident] = number

    async def run(self, participants: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
        """Run everybody to the end; return results, errors among them."""
        results: list[Any] = [None] * len(participants)
        self._running = len(participants)

        def work(number: int, participant: Coroutine[Any, Any, Any]) -> None:
            self._numbers[threading.get_ident()] = number
            try:
                results[number] = run(participant)
            except BaseException as error:  # noqa: BLE001 - handed to whoever called run
                results[number] = error
            with self._change:
                self._running -= 1
                self._change.notify_all()

        threads = [
            threading.Thread(target=work, args=pair, daemon=True)
            for pair in enumerate(participants)
        ]
        with self._watching_handoffs():
            for thread in threads:
                thread.start()
            while self._release():
                pass
            for thread in threads:
                thread.join(_PATIENCE)
                assert not thread.is_alive(), "the participants wait for each other for ever"
        return results

    def _release(self) -> bool:
        """Let one go as soon as nobody runs; tell whether there was one."""
        with self._change:
            settled = self._change.wait_for(lambda: not self._running, _PATIENCE)
            assert settled, "a thread does not come to its next step"
            if not self._held:
                return False
            ready = [(number, self._held[number][0]) for number in sorted(self._held)]
            _, go = self._held.pop(self._chooser.choose(ready))
            self._running += 1
            go.set()
            return True

    @contextmanager
    def _watching_handoffs(self) -> Iterator[None]:
        """Count a participant as not running while it waits for another one."""
        wait, wake = ThreadFuture.wait, ThreadFuture.wake

        async def watched_wait(handoff: ThreadFuture[Any], timeout: float | None) -> Any:
            if threading.get_ident() not in self._numbers:
                return await wait(handoff, timeout)
            with self._change:
                if handoff not in self._blocked:  # otherwise it was woken already
                    self._blocked[handoff] = True
                    self._running -= 1
                    self._change.notify_all()
            try:
                return await wait(handoff, timeout)
            except TimeoutError:
                watched_wake(handoff)
                raise

        def watched_wake(handoff: ThreadFuture[Any]) -> None:
            with self._change:
                if self._blocked.get(handoff):
                    self._running += 1
                self._blocked[handoff] = False
            wake(handoff)

        with mock.patch.multiple(ThreadFuture, wait=watched_wait, wake=watched_wake):
            yield
