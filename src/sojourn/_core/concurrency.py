"""The one place that knows how to wait: the same coroutines with and without an event loop.

What lives here: ``run`` (drive a coroutine without a loop), ``offload`` (blocking code),
``ThreadFuture`` (a result that another thread will bring) and ``KeyedLock`` (one at a time, in order of
arrival). What must not: sessions and stores.

The engine and the stores are ``async def``. ASGI awaits them. WSGI, the command line and threads
``run`` them: ``coroutine.send(None)`` takes a coroutine to its end if nothing in it suspends, and
where no loop runs in the thread, each function here blocks instead of suspending. So both worlds
share every line, tracebacks are ordinary, and a store over an asyncio client, which would suspend,
is found out at its first step.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Generic, ParamSpec, TypeVar

from sojourn.errors import ConfigurationError

#: What is left to one whose event loop was closed while it waited for its turn.
_PASSED_OVER: Final = object()

T = TypeVar("T")
P = ParamSpec("P")


def run(coroutine: Coroutine[Any, Any, T], *, instead: str = "its a-twin") -> T:
    """Drive a coroutine to its end in this thread, which must not run an event loop.

    Args:
        coroutine: of the engine or a store.
        instead: what to use under an event loop, for the error.

    Raises:
        ConfigurationError: an event loop runs in this thread, or the coroutine waits for one.
    """
    if running_loop() is not None:
        _discard(coroutine)
        raise ConfigurationError(
            "a blocking call was made where an event loop runs, which would stop every other "
            f"request; await {instead} instead"
        )
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


def _discard(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Close a coroutine that was not started, and those that are its arguments.

    Python would warn that they were never awaited.
    """
    for argument in inspect.getcoroutinelocals(coroutine).values():
        if inspect.iscoroutine(argument):
            _discard(argument)
    coroutine.close()


#: Returns the loop that runs in this thread, or None; the public twin raises, at three times the
#: cost.
running_loop: Final[Callable[[], asyncio.AbstractEventLoop | None]] = asyncio._get_running_loop


async def offload(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call blocking code: at once without a loop, in a worker thread under one."""
    if running_loop() is None:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)


async def pause(seconds: float) -> None:
    """Wait a moment."""
    if running_loop() is None:
        time.sleep(seconds)  # noqa: ASYNC251 - no loop runs here that could be blocked
    else:
        await asyncio.sleep(seconds)


class ThreadFuture(Generic[T]):
    """A result that another thread brings.

    Make it in the thread (and under the loop) that will wait, let ``settle`` complete it from any
    thread, and ``await wait(...)`` for it.
    """

    __slots__ = ("_error", "_signal", "loop", "result")

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = running_loop()
        self.result: T | None = None
        self._error: BaseException | None = None
        self._signal: threading.Event | asyncio.Future[None] = (
            threading.Event() if self.loop is None else self.loop.create_future()
        )

    def put(self, result: T) -> None:
        """Set the result; ``settle`` then wakes whoever waits."""
        self.result = result

    def fail(self, error: BaseException) -> None:
        """Set an error instead of a result."""
        self._error = error

    def wake(self) -> None:
        """Wake the waiter; call it in the loop's thread where there is a loop."""
        if isinstance(self._signal, threading.Event):
            self._signal.set()
        elif not self._signal.done():
            self._signal.set_result(None)

    async def wait(self, timeout: float | None) -> T:
        """Return the result.

        Args:
            timeout: seconds; None to wait as long as it takes.

        Raises:
            TimeoutError: it did not come in time.
        """
        if isinstance(self._signal, threading.Event):
            if not self._signal.wait(timeout):
                raise TimeoutError
        elif timeout is None:
            await self._signal
        else:
            await self._wait_in_loop(self._signal, timeout)
        if self._error is not None:
            raise self._error
        return self.result  # type: ignore[return-value] # put before it is woken

    async def _wait_in_loop(self, future: asyncio.Future[None], timeout: float) -> None:
        # Half the cost of asyncio.timeout, which also has to interrupt what is not a bare future.
        timer = future.get_loop().call_later(timeout, _expire, future)
        try:
            await future
        finally:
            timer.cancel()


def _expire(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())


def settle(handoffs: Iterable[ThreadFuture[Any]]) -> bool:
    """Wake everyone who waits for these, with one call into each event loop.

    Returns:
        False if an event loop was closed while its requests waited, so that nobody was left there.
    """
    by_loop: dict[asyncio.AbstractEventLoop, list[ThreadFuture[Any]]] = {}
    for handoff in handoffs:
        if handoff.loop is None:
            handoff.wake()
        else:
            by_loop.setdefault(handoff.loop, []).append(handoff)
    complete = True
    for loop, waiting in by_loop.items():
        try:
            loop.call_soon_threadsafe(_wake_all, waiting)
        except RuntimeError:
            complete = False
    return complete


def _wake_all(handoffs: list[ThreadFuture[Any]]) -> None:
    for handoff in handoffs:
        handoff.wake()


class KeyedLock:
    """Lets one at a time work on each name, in order of arrival, across tasks and threads.

    A name costs nothing while nobody works on it. The last one leaves a note (any value) to the
    next in line, which spares it a look at the store; the note goes when the line is empty.
    """

    __slots__ = ("_lines", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # A line is made for the first who must wait; None while one works and nobody waits.
        self._lines: dict[bytes, deque[ThreadFuture[Any]] | None] = {}

    def take(self, name: bytes) -> bool:
        """Take the turn on ``name`` if nobody has it; tell whether that was so."""
        self._lock.acquire()  # half the price of `with`, and every write pays it
        try:
            if name in self._lines:
                return False
            self._lines[name] = None
            return True
        finally:
            self._lock.release()

    def is_held(self, name: bytes) -> bool:
        """Return whether the turn on ``name`` is taken at this moment."""
        return name in self._lines

    async def begin(self, name: bytes, *, timeout: float | None = None) -> Any:
        """Wait for the turn on ``name``; return the note of who was before, None if nobody was.

        Raises:
            TimeoutError: the turn did not come within ``timeout`` seconds.
        """
        with self._lock:
            if name not in self._lines:
                self._lines[name] = None
                return None
            line = self._lines[name]
            if line is None:
                self._lines[name] = line = deque()
            mine: ThreadFuture[Any] = ThreadFuture()
            line.append(mine)
        try:
            return await mine.wait(timeout)
        except BaseException:
            with self._lock:
                waiting = mine in line
                if waiting:
                    line.remove(mine)
            if not waiting and mine.result is not _PASSED_OVER:
                self.end(name)  # the turn came at the very moment we gave up: pass it on
            raise

    def end(self, name: bytes, note: Any = None) -> None:
        """Give the turn to the next in line, passing over those whose event loop was closed."""
        while True:
            self._lock.acquire()
            try:
                line = self._lines[name]
                if not line:
                    del self._lines[name]
                    return
                following = line.popleft()
            finally:
                self._lock.release()
            following.put(note)
            if following.loop is running_loop():
                following.wake()
                return
            if settle((following,)):
                return
            following.put(_PASSED_OVER)
