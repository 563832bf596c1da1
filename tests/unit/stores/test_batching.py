"""Batching over a function: calls that share a batch, deadlines, cancellation."""

import asyncio
import threading
import time

import pytest

from sojourn._core.concurrency import run
from sojourn.errors import ConfigurationError, StoreError, StoreUnavailable
from sojourn.stores import batching
from sojourn.stores.batching import (
    MAX_BATCH,
    AsyncBatcher,
    Batchers,
    ThreadBatcher,
)

PATIENCE = 10.0


class Server:
    """Records each batch; replies to a number with its double, once ``open`` is set."""

    def __init__(self):
        self.batches = []
        self.deadlines = []
        self.open = asyncio.Event()
        self.open.set()
        self.error = None

    async def send(self, requests, deadline):
        self.batches.append(list(requests))
        self.deadlines.append(deadline)
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return [ValueError(n) if n < 0 else 2 * n for n in requests]


def under_loop(test):
    def wrapped():
        async def whole():
            server = Server()
            await test(server, AsyncBatcher(asyncio.get_running_loop(), server.send, timeout=1.0))

        asyncio.run(whole())

    wrapped.__name__, wrapped.__doc__ = test.__name__, test.__doc__
    return wrapped


@under_loop
async def test_calls_of_one_tick_are_one_batch(server, batcher):
    """S18: in the order of submission."""
    assert await asyncio.gather(*(batcher.submit(n) for n in range(50))) == [
        2 * n for n in range(50)
    ]
    assert server.batches == [list(range(50))]


@under_loop
async def test_calls_made_during_a_batch_form_the_next_batch(server, batcher):
    """S18: one batch is in flight; the next one contains all waiting calls."""
    server.open.clear()
    first = asyncio.ensure_future(batcher.submit(1))
    while not server.batches:  # noqa: ASYNC110 - ticks are what this is about
        await asyncio.sleep(0)
    others = [asyncio.ensure_future(batcher.submit(n)) for n in (2, 3, 4)]
    await asyncio.sleep(0)
    assert server.batches == [[1]]
    server.open.set()
    assert await asyncio.gather(first, *others) == [2, 4, 6, 8]
    assert server.batches == [[1], [2, 3, 4]]


@pytest.mark.parametrize("writes", [True, False])
def test_next_calls_of_the_callers_join_the_batch_after_one_with_writes(writes):
    """S18: after a batch of loads alone, the waiting calls are sent without a delay."""

    async def whole():
        server = Server()
        batcher = AsyncBatcher(
            asyncio.get_running_loop(), server.send, timeout=1.0, has_writes=lambda _: writes
        )
        server.open.clear()

        async def load_and_save():
            return await batcher.submit(await batcher.submit(1))

        first = asyncio.ensure_future(load_and_save())
        while not server.batches:  # noqa: ASYNC110 - ticks are what this is about
            await asyncio.sleep(0)
        other = asyncio.ensure_future(batcher.submit(5))
        await asyncio.sleep(0)
        server.open.set()
        assert await asyncio.gather(first, other) == [4, 10]
        return server.batches

    assert asyncio.run(whole()) == ([[1], [5, 2]] if writes else [[1], [5], [2]])


@under_loop
async def test_the_size_of_a_batch_is_limited(server, batcher):
    answers = await asyncio.gather(*(batcher.submit(n) for n in range(2 * MAX_BATCH + 1)))
    assert answers == [2 * n for n in range(2 * MAX_BATCH + 1)]
    assert [len(batch) for batch in server.batches] == [MAX_BATCH, MAX_BATCH, 1]


@under_loop
async def test_the_error_of_one_call_is_raised_by_that_call_only(server, batcher):
    """S13."""
    answers = await asyncio.gather(*map(batcher.submit, (1, -1, 2)), return_exceptions=True)
    assert (answers[0], answers[2]) == (2, 4)
    assert isinstance(answers[1], ValueError)


@under_loop
async def test_a_call_cancelled_before_the_batch_is_not_sent(server, batcher):
    """S13."""
    tasks = [asyncio.ensure_future(batcher.submit(n)) for n in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    assert await asyncio.gather(tasks[0], tasks[2]) == [0, 4]
    assert server.batches == [[0, 2]]


@under_loop
async def test_a_call_cancelled_during_the_batch_takes_effect(server, batcher):
    """S13: the next batch is sent."""
    server.open.clear()
    tasks = [asyncio.ensure_future(batcher.submit(n)) for n in range(3)]
    while not server.batches:  # noqa: ASYNC110 - ticks are what this is about
        await asyncio.sleep(0)
    tasks[0].cancel()
    server.open.set()
    assert await asyncio.gather(tasks[1], tasks[2]) == [2, 4]
    assert await batcher.submit(7) == 14


@under_loop
async def test_a_failed_batch_fails_only_its_own_calls(server, batcher):
    """S12, S13: each has its own error; the next batch is sent."""
    server.error = StoreUnavailable("gone")
    answers = await asyncio.gather(*map(batcher.submit, (1, 2)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 2
    assert answers[0] is not answers[1]
    server.error = None
    assert await batcher.submit(3) == 6


@under_loop
async def test_the_deadline_starts_at_the_submission(server, batcher):
    """S12: a call that waited behind a slow batch has less time left."""
    server.open.clear()
    times = [time.monotonic()]
    first = asyncio.ensure_future(batcher.submit(1))
    times.append(time.monotonic())
    while not server.batches:  # noqa: ASYNC110 - ticks are what this is about
        await asyncio.sleep(0)
    times.append(time.monotonic())
    second = asyncio.ensure_future(batcher.submit(2))
    times.append(time.monotonic())
    await asyncio.sleep(0.1)  # the first batch takes that long
    server.open.set()
    await asyncio.gather(first, second)
    assert times[0] + 1.0 <= server.deadlines[0] <= times[1] + 1.0
    assert times[2] + 1.0 <= server.deadlines[1] <= times[3] + 1.0


@under_loop
async def test_the_deadline_of_calls_in_later_batches_starts_at_the_submission(server, batcher):
    """S12: whatever the number and duration of the batches before."""
    server.open.clear()
    started = time.monotonic()
    calls = [asyncio.ensure_future(batcher.submit(n)) for n in range(2 * MAX_BATCH + 1)]
    submitted = time.monotonic()
    while not server.batches:  # noqa: ASYNC110 - ticks are what this is about
        await asyncio.sleep(0)
    calls.append(asyncio.ensure_future(batcher.submit(-1)))
    await asyncio.sleep(0.1)  # the first batch takes that long
    server.open.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert [len(batch) for batch in server.batches] == [MAX_BATCH, MAX_BATCH, 2]
    assert all(started + 1.0 <= deadline <= submitted + 1.0 for deadline in server.deadlines)


def test_closing_the_loop_cancels_waiting_calls():
    """S13."""
    server = Server()

    async def whole():
        server.open.clear()
        batcher = AsyncBatcher(asyncio.get_running_loop(), server.send, timeout=1.0)
        return [asyncio.ensure_future(batcher.submit(n)) for n in range(2)], await asyncio.sleep(
            0.01
        )

    tasks, _ = asyncio.run(whole())
    assert all(task.cancelled() for task in tasks)


# Threads


class BlockingServer:
    """Records and answers batches of threads."""

    def __init__(self):
        self.batches = []
        self.open = threading.Event()
        self.open.set()
        self.error = None
        self.batcher = ThreadBatcher(self.send, timeout=PATIENCE)

    async def send(self, requests, deadline):
        self.batches.append(list(requests))
        assert self.open.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        return [ValueError(n) if n < 0 else 2 * n for n in requests]

    def submit(self, number):
        return run(self.batcher.submit(number))


class SubmittingThread(threading.Thread):
    """A thread that submits one request."""

    def __init__(self, server, number):
        super().__init__(daemon=True)
        self.server, self.number, self.answer = server, number, None
        self.start()

    def run(self):
        try:
            self.answer = self.server.submit(self.number)
        except BaseException as error:  # noqa: BLE001 - checked by the test
            self.answer = error

    def result(self):
        self.join(PATIENCE)
        assert not self.is_alive(), "a thread waits for ever"
        return self.answer


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)  # polls other threads, which have no event


def queue_behind(server, numbers):
    """Have one thread in flight and others queued behind it."""
    server.open.clear()
    threads = [SubmittingThread(server, numbers[0])]
    wait_for(lambda: server.batches)
    for count, number in enumerate(numbers[1:], 1):
        threads.append(SubmittingThread(server, number))
        wait_for(lambda count=count: server.batcher.queue_length == count)
    return threads


def test_a_single_thread_sends_at_once():
    server = BlockingServer()
    assert [server.submit(n) for n in (1, 2)] == [2, 4]
    assert server.batches == [[1], [2]]


def test_waiting_threads_share_a_batch():
    """S18: the first of them sends for all."""
    server = BlockingServer()
    threads = queue_behind(server, list(range(16)))
    server.open.set()
    assert [thread.result() for thread in threads] == [2 * n for n in range(16)]
    assert server.batches == [[0], list(range(1, 16))]


def test_the_error_of_one_thread_is_raised_in_that_thread_only():
    """S13."""
    server = BlockingServer()
    threads = queue_behind(server, [0, 1, -1, 2])
    server.open.set()
    answers = [thread.result() for thread in threads]
    assert answers[:2] + answers[3:] == [0, 2, 4]
    assert isinstance(answers[2], ValueError)


def test_a_failed_batch_of_threads_is_followed_by_the_next():
    """S12, S13."""
    server = BlockingServer()
    threads = queue_behind(server, [0, 1, 2])
    server.error = StoreUnavailable("gone")
    server.open.set()
    answers = [thread.result() for thread in threads]
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
    assert len({id(answer) for answer in answers}) == 3
    server.error = None
    assert server.submit(5) == 10


def test_an_interrupted_leader_leaves_no_thread_waiting():
    """S13: a signal interrupts one thread; the others get an error, and the queue continues."""
    server = BlockingServer()
    threads = queue_behind(server, [0, 1, 2])
    server.error = KeyboardInterrupt()
    server.open.set()
    answers = [thread.result() for thread in threads]
    assert isinstance(answers[0], KeyboardInterrupt)
    assert sum(isinstance(answer, KeyboardInterrupt) for answer in answers[1:]) == 1
    assert sum(isinstance(answer, StoreUnavailable) for answer in answers[1:]) == 1
    server.error = None
    assert server.submit(5) == 10


def test_a_follower_of_a_leader_that_never_returns_times_out():
    """S12: after twice the timeout, and it leaves the queue."""
    server = BlockingServer()
    server.batcher.timeout = 0.05
    threads = queue_behind(server, [0, 1])
    assert isinstance(threads[1].result(), StoreUnavailable)
    server.open.set()
    assert threads[0].result() == 0
    assert server.batches == [[0]]
    assert server.submit(3) == 6


def test_threads_of_a_batch_are_woken_in_a_chain(monkeypatch):
    """S18: the leader wakes one thread, and each thread the next one."""
    wakers = []

    class Call(batching._PendingCall):
        __slots__ = ()

        def wake_following(self):
            if self.following is not None:
                wakers.append((threading.get_ident(), self.requests, self.following.requests))
            super().wake_following()

    monkeypatch.setattr(batching, "_PendingCall", Call)
    server = BlockingServer()
    threads = queue_behind(server, [0, 1, 2, 3, 4])
    server.open.set()
    assert [thread.result() for thread in threads] == [0, 2, 4, 6, 8]
    assert [pair for _, *pair in wakers] == [[(1,), (2,)], [(2,), (3,)], [(3,), (4,)]]
    assert len({thread for thread, *_ in wakers}) == 3


def test_a_thread_that_timed_out_during_its_batch_is_skipped():
    """S12, S13: the thread before it wakes the thread after it."""
    server = BlockingServer()
    held = threading.Event()
    send = server.send

    async def hold_second_batch(requests, deadline):
        outcomes = await send(requests, deadline)
        if len(requests) > 1:
            assert held.wait(PATIENCE)
        return outcomes

    server.batcher = ThreadBatcher(hold_second_batch, timeout=PATIENCE)
    threads = queue_behind(server, [0, 1, 2, 3])
    impatient = server.batcher._queue[1]
    server.open.set()
    wait_for(lambda: len(server.batches) == 2)
    assert server.batcher._withdraw(impatient)
    held.set()
    assert [threads[n].result() for n in (0, 1, 3)] == [0, 2, 6]
    assert server.submit(5) == 10
    impatient.wakeup.release()
    assert threads[2].result() == 4


def test_an_interrupted_follower_wakes_the_next_one(monkeypatch):
    """S13: the signal comes after the batch, before the thread returns."""

    class Call(batching._PendingCall):
        __slots__ = ()

        def __init__(self, requests, submitted_at):
            super().__init__(requests, submitted_at)
            if requests == (2,):
                self.wakeup = InterruptedLock(self.wakeup)

    monkeypatch.setattr(batching, "_PendingCall", Call)
    server = BlockingServer()
    threads = queue_behind(server, [0, 1, 2, 3])
    server.open.set()
    answers = [thread.result() for thread in threads]
    assert isinstance(answers[2], KeyboardInterrupt)
    assert [answers[n] for n in (0, 1, 3)] == [0, 2, 6]
    assert server.submit(5) == 10


class InterruptedLock:
    """A lock whose owner is interrupted when it has acquired it."""

    def __init__(self, lock):
        self._lock = lock
        self.release = lock.release

    def acquire(self, timeout):
        self._lock.acquire(timeout=timeout)
        raise KeyboardInterrupt


# Several requests of one caller


@under_loop
async def test_several_requests_of_one_call_share_a_batch(server, batcher):
    """S18: their outcomes are in order; the first error is raised."""
    assert await batcher.submit_all([1, 2, 3]) == [2, 4, 6]
    with pytest.raises(ValueError, match="-1"):
        await batcher.submit_all([1, -1, 2])
    assert await batcher.submit_all([]) == []
    assert server.batches == [[1, 2, 3], [1, -1, 2]]


def test_several_requests_of_one_thread_share_a_batch():
    """S18."""
    server = BlockingServer()
    assert run(server.batcher.submit_all([1, 2, 3])) == [2, 4, 6]
    with pytest.raises(ValueError, match="-1"):
        run(server.batcher.submit_all([1, -1, 2]))
    assert run(server.batcher.submit_all([])) == []
    assert server.batches == [[1, 2, 3], [1, -1, 2]]


def test_many_requests_of_one_thread_are_split():
    """The size of a batch is limited, also with requests of other threads."""
    server = BlockingServer()
    answers = run(server.batcher.submit_all(list(range(2 * MAX_BATCH + 5))))
    assert answers == [2 * n for n in range(2 * MAX_BATCH + 5)]
    assert [len(batch) for batch in server.batches] == [MAX_BATCH, MAX_BATCH, 5]
    server.batches.clear()
    threads = queue_behind(server, [0, 1])
    many = Submitting(server, list(range(MAX_BATCH)))
    wait_for(lambda: server.batcher.queue_length == 2)
    server.open.set()
    assert [thread.result() for thread in threads] == [0, 2]
    assert many.result() == [2 * n for n in range(MAX_BATCH)]
    assert [len(batch) for batch in server.batches] == [1, 1, MAX_BATCH]


class Submitting(threading.Thread):
    """A thread that submits several requests."""

    def __init__(self, server, numbers):
        super().__init__(daemon=True)
        self.server, self.numbers, self.answers = server, numbers, None
        self.start()

    def run(self):
        self.answers = run(self.server.batcher.submit_all(self.numbers))

    def result(self):
        self.join(PATIENCE)
        assert not self.is_alive(), "a thread waits for ever"
        return self.answers


# One batcher for each loop


class Executor:
    """A ``BatchExecutor`` that doubles numbers."""

    def __init__(self):
        self.timeout = 1.0
        self.batches = []
        self.is_closed = False

    async def execute(self, requests, deadline):
        self.batches.append(list(requests))
        return [2 * n for n in requests]

    def close(self):
        self.is_closed = True


class Opened(list):
    """Opens executors and records them."""

    def open(self):
        self.append(Executor())
        return self[-1]


def make_batchers(*, blocking=True):
    opened = Opened()
    open_blocking = opened.open if blocking else None
    return opened, Batchers(opened.open, open_blocking, advice="use the other", timeout=1.0)


def test_each_loop_has_an_executor_and_all_threads_share_one():
    opened, batchers = make_batchers()

    async def twice():
        return await batchers.submit_all([1, 2]), await batchers.submit(3)

    assert asyncio.run(twice()) == ([2, 4], 6)
    assert run(twice()) == ([2, 4], 6)
    assert run(twice()) == ([2, 4], 6)
    assert len(opened) == 2
    assert asyncio.run(twice()) == ([2, 4], 6)
    assert [executor.is_closed for executor in opened] == [True, False, False], (
        "its loop was closed"
    )
    batchers.close()
    batchers.close()
    assert all(executor.is_closed for executor in opened)
    with pytest.raises(StoreError, match="was closed"):
        run(twice())


def test_a_changed_timeout_is_passed_to_existing_executors():
    opened, batchers = make_batchers()
    run(batchers.submit_all([1]))
    batchers.set_timeout(7.0)
    assert opened[0].timeout == 7.0
    batchers.close()


def test_without_a_blocking_executor_an_event_loop_is_required():
    _, batchers = make_batchers(blocking=False)
    with pytest.raises(ConfigurationError, match="none runs in this thread: use the other"):
        run(batchers.submit_all([1]))


def test_a_forked_child_opens_its_own_executors():
    """The connections of the parent stay open and are not used."""
    opened, batchers = make_batchers()
    run(batchers.submit_all([1]))
    batchers.abandon()  # as after a fork
    run(batchers.submit_all([2]))
    assert [executor.batches for executor in opened] == [[[1]], [[2]]]
    assert not opened[0].is_closed
    batchers.close()
    assert [executor.is_closed for executor in opened] == [False, True]
