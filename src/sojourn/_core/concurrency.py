"""Run the same coroutines with and without an event loop: futures, locks and blocking calls.

Without a loop in the thread, the functions of this module block instead of suspending, so
``coroutine.send(None)`` completes a coroutine that awaits nothing else.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Generic, ParamSpec, Protocol, TypeVar

from sojourn.errors import ConfigurationError, StoreUnavailable

#: The result of a waiter whose event loop was closed; it does not own the lock.
_LOOP_CLOSED: Final = object()

T = TypeVar("T")
P = ParamSpec("P")


def run(coroutine: Coroutine[Any, Any, T], *, instead: str = "its a-twin") -> T:
    """Run a coroutine to completion in this thread, which must not run an event loop.

    Args:
        coroutine: of the engine or a store.
        instead: what to use under an event loop, for the error message.

    Raises:
        ConfigurationError: this thread runs an event loop, or the coroutine waits for one.
    """
    if running_loop() is not None:
        coroutine.close()
        raise ConfigurationError(
            "a blocking call was made where an event loop runs, which would stop every other "
            f"request; await {instead} instead"
        )
    return complete(coroutine)


def complete(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to completion in a thread that is known to run no event loop.

    Raises:
        ConfigurationError: the coroutine waits for one.
    """
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise ConfigurationError(
        "this store waits for an event loop (its client is an asyncio one), and none runs in this "
        "thread; give Sessions a store with a blocking client or plain functions for WSGI, "
        "threads and the command line"
    )


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, or None.

    Without a loop this costs 0.25 µs more than asyncio's private function; under one, the same.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def offload(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a blocking function: directly without a loop, in a worker thread under one."""
    if running_loop() is None:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)


#: Strong references to running tasks; an event loop keeps weak ones only.
_background: Final[set[asyncio.Task[Any]]] = set()


async def shielded(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine, which runs to its end although the caller may be cancelled.

    Without an event loop there is no cancellation, and the coroutine is awaited as it is.
    """
    loop = running_loop()
    if loop is None:
        return await coroutine
    task = loop.create_task(coroutine)
    _background.add(task)
    task.add_done_callback(_background.discard)
    return await asyncio.shield(task)


#: Seconds since any instant. A verb reads its start; most verbs need no ``Deadline``.
monotonic: Final = time.monotonic


class Deadline:
    """Bounds a verb that makes several store calls; each call is bounded by the store as well.

    Args:
        seconds: for the whole verb.
        started: when it started, by ``monotonic``; None for the current time.

    Attributes:
        seconds: as given.
    """

    __slots__ = ("_end", "seconds")

    def __init__(self, seconds: float, started: float | None = None) -> None:
        self.seconds: float = seconds
        self._end = (time.monotonic() if started is None else started) + seconds

    def remaining(self) -> float:
        """Return the seconds that are left, zero or more."""
        return max(self._end - time.monotonic(), 0.0)

    def check(self) -> None:
        """Check that there is time left.

        Raises:
            StoreUnavailable: there is none.
        """
        if not self.remaining():
            raise self.exceeded()

    def share(self, calls: int) -> Deadline:
        """Return the deadline of the first of some calls that get equal parts of the rest."""
        part = Deadline(self.remaining() / calls)
        part.seconds = self.seconds
        return part

    async def bound(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await a coroutine within the remaining time.

        Without an event loop a call cannot be interrupted: it is not started after the end, and the
        store bounds it.

        Raises:
            StoreUnavailable: the time is up.
        """
        remaining = self.remaining()
        if remaining == 0:
            coroutine.close()
            raise self.exceeded()
        loop = running_loop()
        task = None if loop is None else asyncio.current_task(loop)
        if loop is None or task is None:
            return await coroutine
        # As ``asyncio.timeout`` does. Under Python 3.11 and coverage's trace function, that raises
        # CancelledError instead of TimeoutError.
        expired = False
        cancelling = task.cancelling()

        def expire() -> None:
            nonlocal expired
            expired = True
            task.cancel()

        timer = loop.call_later(remaining, expire)
        try:
            return await coroutine
        except asyncio.CancelledError as error:
            if expired and task.uncancel() <= cancelling:
                raise self.exceeded() from error
            raise
        finally:
            timer.cancel()

    def exceeded(self) -> StoreUnavailable:
        """Return the error of a verb that took too long."""
        return StoreUnavailable(
            f"the session store did not finish within {self.seconds:g} seconds (store_timeout), "
            "the time spent waiting for other requests of the session included"
        )


async def sleep(seconds: float) -> None:
    """Sleep, with or without an event loop."""
    if running_loop() is None:
        time.sleep(seconds)  # noqa: ASYNC251 - no loop runs here that could be blocked
    else:
        await asyncio.sleep(seconds)


class ThreadFuture(Generic[T]):
    """A result that another thread may set.

    Create it in the thread, and under the loop, that waits. Any thread may set the result and call
    ``wake_all``.
    """

    __slots__ = ("_exception", "_signal", "_timer", "loop", "result")

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = running_loop()
        self.result: T | None = None
        self._exception: BaseException | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._signal: threading.Event | asyncio.Future[None] = (
            threading.Event() if self.loop is None else self.loop.create_future()
        )

    def set_result(self, result: T) -> None:
        """Set the result, without waking the waiter."""
        self.result = result

    def set_exception(self, exception: BaseException) -> None:
        """Set an exception, without waking the waiter."""
        self._exception = exception

    def wake(self) -> None:
        """Wake the waiter. If it has a loop, this must be called in the loop's thread."""
        if isinstance(self._signal, threading.Event):
            self._signal.set()
        elif not self._signal.done():
            self._signal.set_result(None)

    def start_timer(self, timeout: float) -> None:
        """Limit a wait without a timeout, from now on; called in the thread of the loop.

        Args:
            timeout: seconds until ``wait`` raises ``TimeoutError``.
        """
        signal = self._signal
        assert isinstance(signal, asyncio.Future)  # noqa: S101 - the waiter has a loop
        # Half the cost of asyncio.timeout, which can also interrupt other awaitables.
        self._timer = signal.get_loop().call_later(timeout, _expire, signal)

    async def wait(self, timeout: float | None) -> T:
        """Wait for the result.

        Args:
            timeout: seconds; None for no limit.

        Raises:
            TimeoutError: the timeout has passed.
        """
        signal = self._signal
        if isinstance(signal, threading.Event):
            if not signal.wait(timeout):
                raise TimeoutError
        else:
            if timeout is not None:
                self.start_timer(timeout)
            try:
                await signal
            finally:
                if self._timer is not None:
                    self._timer.cancel()
        if self._exception is not None:
            raise self._exception
        return self.result  # type: ignore[return-value] # set before the waiter is woken


def _expire(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())


def wake_all(futures: Iterable[ThreadFuture[Any]]) -> bool:
    """Wake the waiters of several futures, with one call into each event loop.

    Returns:
        False if the event loop of a waiter is closed; the other waiters are woken.
    """
    by_loop: dict[asyncio.AbstractEventLoop, list[ThreadFuture[Any]]] = {}
    for future in futures:
        if future.loop is None:
            future.wake()
        else:
            by_loop.setdefault(future.loop, []).append(future)
    complete = True
    for loop, waiting in by_loop.items():
        try:
            loop.call_soon_threadsafe(_wake_each, waiting)
        except RuntimeError:
            complete = False
    return complete


def _wake_each(futures: list[ThreadFuture[Any]]) -> None:
    for future in futures:
        future.wake()


class HasLocks(Protocol):
    """An object whose locks a forked process must not inherit."""

    def after_fork(self) -> None:
        """Replace the locks, which threads of the parent may have held; nothing releases them."""
        ...


_lock_holders: Final[weakref.WeakSet[HasLocks]] = weakref.WeakSet()


def replace_locks_after_fork(holder: HasLocks) -> None:
    """Call ``holder.after_fork`` in each process that is forked from this one."""
    _lock_holders.add(holder)


def _after_fork() -> None:  # pragma: no cover - runs in child processes, without coverage
    for holder in list(_lock_holders):
        holder.after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)


class KeyedLock:
    """A fair lock for each name, shared by tasks and threads.

    An unlocked name uses no memory. The owner may hand a value over to the next waiter, which saves
    it a load from the store. The value is dropped if there is no waiter.

    Attributes:
        mutex: protects the table of the locked names; held for microseconds.
    """

    __slots__ = ("__weakref__", "_waiters", "mutex")

    def __init__(self) -> None:
        self.after_fork()
        replace_locks_after_fork(self)

    def after_fork(self) -> None:
        """Unlock every name: the threads that held or awaited one are not in the child process."""
        self.mutex: threading.Lock = threading.Lock()
        # The locked names. The queue is created for the first waiter; None until then.
        self._waiters: dict[bytes, deque[ThreadFuture[Any]] | None] = {}

    def try_acquire(self, name: bytes) -> bool:
        """Acquire the lock of ``name`` if it is free, and return whether it was."""
        self.mutex.acquire()  # half the cost of `with`; every write pays it
        try:
            if name in self._waiters:
                return False
            self._waiters[name] = None
            return True
        finally:
            self.mutex.release()

    def is_locked(self, name: bytes) -> bool:
        """Return whether the lock of ``name`` is held at this moment."""
        return name in self._waiters

    async def acquire(self, name: bytes, *, timeout: float | None = None) -> Any:
        """Wait for the lock of ``name``.

        Returns:
            The value that the previous owner handed over; None if the lock was free.

        Raises:
            TimeoutError: the lock was not released within ``timeout`` seconds.
        """
        with self.mutex:
            if name not in self._waiters:
                self._waiters[name] = None
                return None
            waiters = self._waiters[name]
            if waiters is None:
                self._waiters[name] = waiters = deque()
            future: ThreadFuture[Any] = ThreadFuture()
            waiters.append(future)
        try:
            return await future.wait(timeout)
        except BaseException:
            with self.mutex:
                waiting = future in waiters
                if waiting:
                    waiters.remove(future)
            if not waiting and future.result is not _LOOP_CLOSED:
                self.release(name)  # the lock was handed over while the wait ended otherwise
            raise

    def release(self, name: bytes, handover: Any = None) -> None:
        """Hand the lock to the next waiter; skip waiters whose event loop is closed.

        Args:
            name: must be locked.
            handover: what ``acquire`` returns to the next waiter.
        """
        while True:
            self.mutex.acquire()
            try:
                waiters = self._waiters[name]
                if not waiters:
                    del self._waiters[name]
                    return
                future = waiters.popleft()
            finally:
                self.mutex.release()
            future.set_result(handover)
            if future.loop is running_loop():
                future.wake()
                return
            if wake_all((future,)):
                return
            future.set_result(_LOOP_CLOSED)
