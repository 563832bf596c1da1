"""Batching: concurrent calls travel to a server as one batch, for any store with a server.

A store gives ``Batchers`` factories of ``BatchExecutor`` objects (one connection each) and submits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import weakref
from asyncio import get_running_loop
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from sojourn._core.concurrency import complete, running_loop
from sojourn.errors import ConfigurationError, StoreError, StoreUnavailable
from sojourn.store import BatchObserver

Q = TypeVar("Q")
R = TypeVar("R")
Q_contra = TypeVar("Q_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

#: Executes requests before a deadline (``time.monotonic``). Returns one outcome for each request,
#: in order; an exception among them is raised to its caller, an exception raised instead of
#: returning to all callers.
Execute = Callable[[Sequence[Q], float], Coroutine[Any, Any, Sequence["R | Exception"]]]

#: Requests in one batch: a few milliseconds of the server's time, so that other clients need not
#: wait long.
MAX_BATCH: Final = 256


class BatchExecutor(Protocol[Q_contra, R_co]):
    """Executes batches over one connection; one batch at a time.

    Attributes:
        timeout: seconds that a call may take.
    """

    timeout: float

    async def execute(
        self, requests: Sequence[Q_contra], deadline: float
    ) -> Sequence[R_co | Exception]:
        """See ``Execute``. Never suspends in an executor made for threads."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class AsyncBatcher(Generic[Q, R]):
    """Joins the calls made in one tick of an event loop, or while a batch is in flight.

    Args:
        loop: the event loop of all callers.
        execute: called in a task of the loop, never concurrently.
        timeout: seconds between a call and its answer.
        has_writes: see ``Batchers``.

    Attributes:
        execute: may be replaced; the next batch uses it.
    """

    __slots__ = (
        "_futures",
        "_has_writes",
        "_requests",
        "_submitted_at",
        "_task",
        "execute",
        "loop",
        "timeout",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        execute: Execute[Q, R],
        *,
        timeout: float,
        has_writes: Callable[[Sequence[Q]], bool] | None = None,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self._has_writes = has_writes
        self.timeout: float = timeout
        self.execute: Execute[Q, R] = execute
        # Two lists instead of one of pairs: a pair is one more object for the garbage collector.
        self._requests: list[Q] = []
        self._futures: list[asyncio.Future[R]] = []
        # Submission time of every MAX_BATCH-th request. Batches are taken from the front, so each
        # entry belongs to the first request of a batch.
        self._submitted_at: list[float] = []
        self._task: asyncio.Task[None] | None = None

    def submit(self, request: Q) -> Awaitable[R]:
        """Return a future with the outcome of a request.

        Raises:
            StoreUnavailable: (when awaited) the deadline passed.
        """
        future: asyncio.Future[R] = self.loop.create_future()
        requests = self._requests
        if not len(requests) % MAX_BATCH:
            self._submitted_at.append(time.monotonic())
            if self._task is None:
                self.loop.call_soon(self._start)
        requests.append(request)
        self._futures.append(future)
        return future

    async def submit_all(self, requests: Sequence[Q]) -> list[R]:
        """Return the outcomes of requests; see ``ThreadBatcher.submit_all``."""
        return list(await asyncio.gather(*map(self.submit, requests)))

    def _start(self) -> None:
        if self._task is None and self._requests:
            self._task = self.loop.create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._requests:
                requests, self._requests = self._requests[:MAX_BATCH], self._requests[MAX_BATCH:]
                futures, self._futures = self._futures[:MAX_BATCH], self._futures[MAX_BATCH:]
                deadline = self._submitted_at.pop(0) + self.timeout
                await self._execute_batch(requests, futures, deadline)
                if self._requests and self._has_writes is not None and self._has_writes(requests):
                    await asyncio.sleep(0)  # the callers run first, and may submit their next call
        finally:
            self._task = None
            for future in self._futures:  # the event loop is shutting down
                future.cancel()
            self._requests, self._futures, self._submitted_at = [], [], []

    async def _execute_batch(
        self, requests: list[Q], futures: list[asyncio.Future[R]], deadline: float
    ) -> None:
        cancelled = [index for index, future in enumerate(futures) if future.done()]
        for index in reversed(cancelled):
            del requests[index], futures[index]
        if not requests:
            return
        try:
            outcomes = await self.execute(requests, deadline)
        except Exception as error:  # noqa: BLE001 - raised to every caller
            outcomes = [_copy_error(error) for _ in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        for future, outcome in zip(futures, outcomes, strict=True):
            try:
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)
            except asyncio.InvalidStateError:
                continue  # the caller was cancelled during the batch


class _PendingCall(Generic[Q, R]):
    """A queued thread with its requests and their outcomes.

    Attributes:
        submitted_at: by ``time.monotonic``.
        wakeup: released when the outcomes are set or the thread becomes the leader.
        is_leader: the thread must execute the next batch.
        is_withdrawn: the thread waits no more; set before there are outcomes.
        following: the call of the batch that this one wakes; None for none.
    """

    __slots__ = (
        "following",
        "is_leader",
        "is_withdrawn",
        "outcomes",
        "requests",
        "submitted_at",
        "wakeup",
    )

    def __init__(self, requests: Sequence[Q], submitted_at: float) -> None:
        self.requests: Sequence[Q] = requests
        self.submitted_at: float = submitted_at
        self.is_leader: bool = False
        self.is_withdrawn: bool = False
        self.outcomes: Sequence[R | Exception] | None = None
        self.following: _PendingCall[Q, R] | None = None
        self.wakeup: threading.Lock = threading.Lock()
        self.wakeup.acquire()

    def wake_following(self) -> None:
        """Wake the thread of the following call, once; it wakes the next one itself.

        A thread that wakes needs the GIL, which its waker holds. Woken all at once, each would
        sleep again at once: two context switches more for each call (a third of all under
        gunicorn with 16 threads).
        """
        following, self.following = self.following, None
        if following is not None:
            following.wakeup.release()


class ThreadBatcher(Generic[Q, R]):
    """Joins the calls of threads: a leader executes the batch of all queued threads.

    A thread that finds no leader becomes the leader at once, and the queue is empty then: its call
    is a batch of its own. So a single thread pays for one lock.

    Args:
        execute: called in the leader's thread; must not suspend.
        timeout: seconds between a call and its answer.

    Attributes:
        execute: may be replaced; the next batch uses it.
    """

    __slots__ = ("_has_leader", "_lock", "_queue", "execute", "timeout")

    def __init__(self, execute: Execute[Q, R], *, timeout: float) -> None:
        self.timeout: float = timeout
        self.execute: Execute[Q, R] = execute
        self._lock = threading.Lock()
        self._queue: list[_PendingCall[Q, R]] = []
        self._has_leader = False

    @property
    def queue_length(self) -> int:
        """Number of threads whose requests are not part of a batch yet."""
        return len(self._queue)

    async def submit(self, request: Q) -> R:
        """Return the outcome of a request; see ``AsyncBatcher.submit``. Blocks, never suspends."""
        (outcome,) = self._call((request,))
        if isinstance(outcome, Exception):
            raise _copy_error(outcome)
        return outcome

    async def submit_all(self, requests: Sequence[Q]) -> list[R]:
        """Return the outcomes of requests that travel in as few batches as possible.

        Raises:
            Exception: the first outcome that is one.
        """
        results: list[R] = []
        for start in range(0, len(requests), MAX_BATCH):
            for outcome in self._call(requests[start : start + MAX_BATCH]):
                if isinstance(outcome, Exception):
                    raise _copy_error(outcome)
                results.append(outcome)
        return results

    def _call(self, requests: Sequence[Q]) -> Sequence[R | Exception]:
        submitted_at = time.monotonic()
        call: _PendingCall[Q, R] | None = None
        with self._lock:
            if self._has_leader:
                call = _PendingCall(requests, submitted_at)
                self._queue.append(call)
            else:
                self._has_leader = True
        if call is None:
            outcomes, interruption = self._execute_batch(requests, submitted_at)
            with self._lock:
                self._appoint_leader()
            if interruption is not None:
                raise interruption
            return outcomes
        self._wait(call)
        if call.outcomes is None:
            self._execute_as_leader()
        assert call.outcomes is not None  # noqa: S101 - the leader's batch contains its own call
        return call.outcomes

    def _wait(self, call: _PendingCall[Q, R]) -> None:
        woken = is_withdrawn = False
        try:
            # The leader enforces the deadline of its batch; this timeout is for a leader, or a
            # preceding thread, that was killed.
            woken = call.wakeup.acquire(timeout=2 * self.timeout)
        finally:
            is_withdrawn = not woken and self._withdraw(call)
            call.wake_following()
        if is_withdrawn:
            raise StoreUnavailable(f"no answer within {2 * self.timeout:g} seconds")

    def _withdraw(self, call: _PendingCall[Q, R]) -> bool:
        """Leave the queue; return False if the call has outcomes."""
        with self._lock:
            if call.outcomes is not None:
                return False
            call.is_withdrawn = True
            if call in self._queue:
                self._queue.remove(call)
            if call.is_leader:
                self._appoint_leader()
            return True

    def _execute_as_leader(self) -> None:
        """Execute a batch of the first calls in the queue; the leader's own is the first."""
        requests: list[Q] = []
        with self._lock:
            taken = 0
            for call in self._queue:
                if taken and len(requests) + len(call.requests) > MAX_BATCH:
                    break
                requests += call.requests
                taken += 1
            batch, self._queue = self._queue[:taken], self._queue[taken:]
        outcomes, interruption = self._execute_batch(requests, batch[0].submitted_at)
        with self._lock:
            self._appoint_leader()
            start = 0
            previous = batch[0]
            for call in batch:
                call.outcomes = outcomes[start : (start := start + len(call.requests))]
                if call is not previous and not call.is_withdrawn:
                    previous.following = call
                    previous = call
        batch[0].wake_following()
        if interruption is not None:
            raise interruption

    def _execute_batch(
        self, requests: Sequence[Q], submitted_at: float
    ) -> tuple[Sequence[R | Exception], BaseException | None]:
        """Return the outcomes, and what interrupted the thread: raised when the calls completed."""
        try:
            return complete(self.execute(requests, submitted_at + self.timeout)), None
        except Exception as failure:  # noqa: BLE001 - raised to every caller
            return [failure] * len(requests), None
        except BaseException as error:  # noqa: BLE001 - raised by the caller
            ended = StoreUnavailable("the thread that executed the batch ended")
            return [ended] * len(requests), error

    def _appoint_leader(self) -> None:
        """Make the first queued thread the leader; the lock must be held."""
        if not self._queue:
            self._has_leader = False
            return
        leader = self._queue[0]
        leader.is_leader = True
        leader.wakeup.release()


class Batchers(Generic[Q, R]):
    """One batcher and executor for each event loop, and one for all threads without a loop.

    A batcher has one batch in flight, and the calls made meanwhile form the next one. So the cost
    of a call falls as the load rises: from 60-90 us of redis-py for a command awaited alone to 4 us
    as one of many. Cancelling a caller neither cancels its batch nor affects other callers; a
    request that is cancelled before its batch is sent is not sent (law S13).

    They are created at their first call, closed when their loop was closed, and abandoned in a
    child process after a fork, because their connections belong to the parent.

    Args:
        open_async: makes an executor for the running loop.
        open_blocking: makes an executor that never suspends; None if the store has none.
        advice: what to use instead, for the error without ``open_blocking``.
        timeout: seconds that a call may take.
        has_writes: returns whether a batch has a write. After such a batch, its callers run before
            the next one is sent: those whose record was loaded submit their save, which becomes
            part of it, and those whose record was saved end. Under a load of writes this takes 1
            to 3 percent less time, mostly of the garbage collector. None: no batch has one.
    """

    __slots__ = (
        "__weakref__",
        "_advice",
        "_by_loop",
        "_for_threads",
        "_has_writes",
        "_is_closed",
        "_lock",
        "_observers",
        "_open_async",
        "_open_blocking",
        "_timeout",
    )

    def __init__(
        self,
        open_async: Callable[[], BatchExecutor[Q, R]],
        open_blocking: Callable[[], BatchExecutor[Q, R]] | None,
        *,
        advice: str | None,
        timeout: float,
        has_writes: Callable[[Sequence[Q]], bool] | None = None,
    ) -> None:
        self._open_async = open_async
        self._has_writes = has_writes
        self._open_blocking = open_blocking
        self._advice = advice
        self._timeout = timeout
        self._is_closed = False
        self._observers: tuple[BatchObserver, ...] = ()
        _instances.add(self)
        self.abandon()

    def abandon(self) -> None:
        """Drop all batchers without closing their connections."""
        self._lock = threading.Lock()
        self._by_loop: dict[
            asyncio.AbstractEventLoop, tuple[AsyncBatcher[Q, R], BatchExecutor[Q, R]]
        ] = {}
        self._for_threads: tuple[ThreadBatcher[Q, R], BatchExecutor[Q, R]] | None = None

    def set_timeout(self, seconds: float) -> None:
        """Set the timeout of existing and future batchers."""
        self._timeout = seconds
        for batcher, executor in self._entries():
            batcher.timeout = executor.timeout = seconds

    def add_observer(self, observer: BatchObserver) -> None:
        """Report each batch from now on; see ``SupportsBatchObservers``."""
        self._set_observers((*self._observers, observer))

    def remove_observer(self, observer: BatchObserver) -> None:
        """Stop reporting to an observer."""
        self._set_observers(tuple(each for each in self._observers if each != observer))

    def _set_observers(self, observers: tuple[BatchObserver, ...]) -> None:
        with self._lock:
            self._observers = observers
            for batcher, executor in self._entries():
                batcher.execute = self._observed(executor)

    def _observed(self, executor: BatchExecutor[Q, R]) -> Execute[Q, R]:
        """Return the executor's method itself if no batch has to be reported."""
        observers = self._observers
        if not observers:
            return executor.execute

        async def execute(requests: Sequence[Q], deadline: float) -> Sequence[R | Exception]:
            started = time.perf_counter()
            failed = True
            try:
                outcomes = await executor.execute(requests, deadline)
                failed = False
            finally:
                seconds = time.perf_counter() - started
                for observer in observers:
                    observer(len(requests), seconds, failed=failed)
            return outcomes

        return execute

    def _entries(
        self,
    ) -> list[tuple[AsyncBatcher[Q, R] | ThreadBatcher[Q, R], BatchExecutor[Q, R]]]:
        """Return every batcher with its executor."""
        entries: list[tuple[AsyncBatcher[Q, R] | ThreadBatcher[Q, R], BatchExecutor[Q, R]]]
        entries = [*self._by_loop.values()]
        if self._for_threads is not None:
            entries.append(self._for_threads)
        return entries

    def submit(self, request: Q) -> Awaitable[R]:
        """Return an awaitable with the outcome of a request, for the calling loop or thread.

        Raises:
            ConfigurationError: no event loop runs, and the store requires one.
            StoreUnavailable: (when awaited) the deadline passed.
        """
        # `_current_batcher` and `running_loop`, inlined: on the path of every store call.
        try:
            loop: asyncio.AbstractEventLoop | None = get_running_loop()
        except RuntimeError:
            loop = None
        if loop is not None:
            entry = self._by_loop.get(loop)
            return (self._add_loop(loop) if entry is None else entry[0]).submit(request)
        for_threads = self._for_threads
        return (self._add_threads() if for_threads is None else for_threads[0]).submit(request)

    def submit_all(self, requests: Sequence[Q]) -> Awaitable[list[R]]:
        """Return an awaitable with the outcomes of requests that travel as one batch."""
        return self._current_batcher().submit_all(requests)

    def _current_batcher(self) -> AsyncBatcher[Q, R] | ThreadBatcher[Q, R]:
        loop = running_loop()
        if loop is None:
            for_threads = self._for_threads
            return for_threads[0] if for_threads is not None else self._add_threads()
        in_loop = self._by_loop.get(loop)
        return in_loop[0] if in_loop is not None else self._add_loop(loop)

    def _add_loop(self, loop: asyncio.AbstractEventLoop) -> AsyncBatcher[Q, R]:
        executor = self._open_async()
        with self._lock:
            self._check_open()
            execute = self._observed(executor)
            batcher: AsyncBatcher[Q, R] = AsyncBatcher(
                loop, execute, timeout=self._timeout, has_writes=self._has_writes
            )
            for other in [other for other in self._by_loop if other.is_closed()]:
                self._by_loop.pop(other)[1].close()
            self._by_loop[loop] = batcher, executor
        return batcher

    def _add_threads(self) -> ThreadBatcher[Q, R]:
        if self._open_blocking is None:
            raise ConfigurationError(
                f"this store waits for an event loop, and none runs in this thread: {self._advice}"
            )
        with self._lock:
            self._check_open()
            if self._for_threads is None:
                executor = self._open_blocking()
                self._for_threads = (
                    ThreadBatcher(self._observed(executor), timeout=self._timeout),
                    executor,
                )
            return self._for_threads[0]

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreError("the store was closed; make a new one, or close it later")

    def close(self) -> None:
        """Close all connections. Idempotent."""
        with self._lock:
            self._is_closed = True
            by_loop, for_threads = self._by_loop, self._for_threads
            self._by_loop, self._for_threads = {}, None
        for loop, (_, executor) in by_loop.items():
            if loop is not running_loop() and loop.is_running():  # in another thread
                with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                    loop.call_soon_threadsafe(executor.close)
            else:
                executor.close()
        if for_threads is not None:
            for_threads[1].close()


def _copy_error(error: Exception) -> Exception:
    """Return an error that one caller may raise and modify without affecting other callers."""
    if not isinstance(error, StoreUnavailable):
        return error
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy


_instances: weakref.WeakSet[Batchers[Any, Any]] = weakref.WeakSet()


def _after_fork() -> None:
    for batchers in list(_instances):
        batchers.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
