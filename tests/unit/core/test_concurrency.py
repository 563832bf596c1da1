"""Waiting with and without an event loop, the order of waiters, and closed loops."""

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from sojourn._core import concurrency
from sojourn._core.concurrency import (
    Deadline,
    KeyedLock,
    ThreadFuture,
    complete,
    offload,
    run,
    running_loop,
    shielded,
    sleep,
    wake_all,
)
from sojourn.errors import ConfigurationError

pytestmark = pytest.mark.anyio


async def answer(value):
    return value


async def suspended():
    await asyncio.sleep(0)


class TestRun:
    def test_relock_and_raises_as_the_coroutine_does(self):
        async def broken():
            raise KeyError("x")

        assert run(answer(5)) == 5
        with pytest.raises(KeyError):
            run(broken())

    async def test_refuses_where_a_loop_runs_and_names_the_twin(self):
        with pytest.raises(ConfigurationError, match=r"await session\.acommit\(\) instead"):
            run(answer(1), instead="session.acommit()")

    def test_refuses_a_coroutine_that_waits_for_a_loop(self):
        """An asyncio client under WSGI is found out at its first step, and its cleaning up runs."""
        cleaned = []

        async def waits():
            try:
                await suspended()
            finally:
                cleaned.append(1)

        with pytest.raises(ConfigurationError, match="its client is an asyncio one"):
            run(waits())
        assert cleaned == [1]

    def test_no_loop_here(self):
        assert running_loop() is None
        run(sleep(0))

    def test_offload_calls_at_once_without_a_loop(self):
        assert run(offload(threading.get_ident)) == threading.get_ident()

    async def test_offload_calls_in_a_thread_under_a_loop(self):
        assert running_loop() is asyncio.get_running_loop()
        assert await offload(threading.get_ident) != threading.get_ident()
        await sleep(0)

    async def test_offload_passes_every_argument(self):
        assert await offload(sorted, [1, 2], reverse=True) == [2, 1]

    def test_offload_passes_every_argument_without_a_loop(self):
        assert run(offload(sorted, [1, 2], reverse=True)) == [2, 1]


class TestShielded:
    async def test_a_coroutine_whose_caller_was_cancelled_is_not_collected(self):
        """A21: an event loop has only weak references to its tasks."""
        waiting, ended = [], []

        async def work():
            future = asyncio.get_running_loop().create_future()
            waiting.append(weakref.ref(future))
            await future
            ended.append(1)

        caller = asyncio.create_task(shielded(work()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait([caller])
        assert caller.cancelled()
        del caller
        gc.collect()
        future = waiting[0]()
        assert future is not None
        future.set_result(None)
        await asyncio.sleep(0)
        assert ended == [1]
        await asyncio.sleep(0)
        assert not concurrency._background

    async def test_returns_and_raises_what_the_coroutine_does(self):
        async def broken():
            raise KeyError("x")

        assert await shielded(answer(5)) == 5
        with pytest.raises(KeyError):
            await shielded(broken())

    def test_awaits_directly_without_a_loop(self):
        assert run(shielded(answer(5))) == 5


class TestDeadline:
    async def test_a_callback_of_the_loop_is_not_interrupted(self):
        """It has no task that could be cancelled; the store bounds its calls."""
        results = []
        asyncio.get_running_loop().call_soon(
            lambda: results.append(complete(Deadline(1).bound(answer(5))))
        )
        await asyncio.sleep(0)
        assert results == [5]


class TestThreadFuture:
    async def test_brings_a_result_from_another_thread(self):
        future = ThreadFuture()

        def work():
            future.set_result(5)
            assert wake_all((future,))

        threading.Thread(target=work).start()
        assert await future.wait(5) == 5

    async def test_brings_an_error(self):
        future = ThreadFuture()
        future.set_exception(KeyError("x"))
        future.wake()
        with pytest.raises(KeyError):
            await future.wait(None)

    def test_brings_a_result_without_a_loop(self):
        future = ThreadFuture()
        threading.Thread(target=lambda: (future.set_result(5), wake_all((future,)))).start()
        assert run(future.wait(5)) == 5

    async def test_waits_no_longer_than_it_may(self):
        with pytest.raises(TimeoutError):
            await ThreadFuture().wait(0.001)

    def test_waits_no_longer_than_it_may_without_a_loop(self):
        with pytest.raises(TimeoutError):
            run(ThreadFuture().wait(0.001))

    async def test_waking_twice_or_too_late_has_no_effect(self):
        future = ThreadFuture()
        future.set_result(1)
        for _ in range(3):
            wake_all((future,))
        await asyncio.sleep(0)
        assert await future.wait(1) == 1
        wake_all((future,))
        await asyncio.sleep(0)

    async def test_a_result_and_its_time_limit_may_come_at_once(self):
        """The limit is then no error, and no unretrieved exception is logged."""
        future = ThreadFuture()
        future.set_result(5)
        asyncio.get_running_loop().call_later(0, future.wake)
        assert await future.wait(0) == 5

    def test_one_call_into_each_loop_and_a_closed_one_is_skipped(self):
        async def make():
            return ThreadFuture()

        here = ThreadFuture()
        loops = [asyncio.new_event_loop() for _ in range(2)]
        open_, closed = (loop.run_until_complete(make()) for loop in loops)
        loops[1].close()
        assert not wake_all((closed, here, open_))
        assert loops[0].run_until_complete(asyncio.wait_for(open_.wait(1), 1)) is None
        assert run(here.wait(1)) is None
        loops[0].close()


class TestKeyedLock:
    async def test_a_free_name_costs_no_wait_and_leaves_nothing(self):
        lock = KeyedLock()
        assert await lock.acquire(b"a") is None
        assert await lock.acquire(b"b") is None
        lock.release(b"a", "handover")
        lock.release(b"b")
        assert lock._waiters == {}
        assert await lock.acquire(b"a") is None, "the value is dropped without a waiter"

    async def test_in_order_of_arrival_with_the_value_of_the_previous_owner(self):
        lock, order = KeyedLock(), []

        async def one(number):
            handover = await lock.acquire(b"a")
            order.append((number, handover))
            await asyncio.sleep(0)
            lock.release(b"a", number)

        await asyncio.gather(*map(one, range(5)))
        assert order == [(0, None), (1, 0), (2, 1), (3, 2), (4, 3)]
        assert lock._waiters == {}

    async def test_one_at_a_time_across_tasks_and_threads(self):
        lock, inside, most, count = KeyedLock(), 0, 0, 0

        async def work():
            nonlocal inside, most, count
            for _ in range(20):
                await lock.acquire(b"a", timeout=30)
                inside += 1
                most = max(most, inside)
                count += 1
                await sleep(0)
                inside -= 1
                lock.release(b"a")

        with ThreadPoolExecutor(4) as pool:
            threads = [pool.submit(lambda: run(work())) for _ in range(4)]
            loops = [pool.submit(asyncio.run, work())]
            await asyncio.gather(*(work() for _ in range(4)))
            await asyncio.gather(*map(asyncio.wrap_future, threads + loops))
        assert (most, count) == (1, 180)
        assert lock._waiters == {}

    async def test_a_wait_may_be_bounded(self):
        lock = KeyedLock()
        await lock.acquire(b"a")
        with pytest.raises(TimeoutError):
            await lock.acquire(b"a", timeout=0.001)
        assert not lock._waiters[b"a"]
        lock.release(b"a")
        assert lock._waiters == {}

    async def test_a_wait_that_ends_leaves_the_lock_with_its_owner(self):
        """B-55: it does not hand the lock to the waiter before it."""
        lock = KeyedLock()
        assert not lock.is_locked(b"a")
        await lock.acquire(b"a")
        assert lock.is_locked(b"a")
        first = asyncio.create_task(lock.acquire(b"a"))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await lock.acquire(b"a", timeout=0.001)
        await asyncio.sleep(0)
        assert not first.done()
        lock.release(b"a", "handover")
        assert await first == "handover"

    @pytest.mark.parametrize("steps", range(4))
    async def test_a_waiter_cancelled_at_any_moment_blocks_no_other(self, steps):
        """Before and while it waits, when the lock was just handed over, and when it owns it."""
        lock, got = KeyedLock(), []
        await lock.acquire(b"a")

        async def one(name):
            await lock.acquire(b"a")
            try:
                got.append(name)
                await asyncio.sleep(0)
            finally:
                lock.release(b"a", name)

        victim = asyncio.create_task(one("victim"))
        if steps:
            await asyncio.sleep(0)
        behind = asyncio.create_task(one("behind"))
        await asyncio.sleep(0)
        if steps >= 2:
            lock.release(b"a", "first")
        if steps >= 3:
            await asyncio.sleep(0)
        victim.cancel()
        if steps < 2:
            await asyncio.sleep(0)
            lock.release(b"a", "first")
        await asyncio.wait_for(behind, 5)
        await asyncio.wait([victim])
        assert victim.cancelled()
        assert got[-1] == "behind"
        assert lock._waiters == {}

    def test_a_waiter_whose_loop_was_closed_is_skipped(self):
        """Otherwise the lock would never be free again."""
        lock = KeyedLock()
        run(lock.acquire(b"a"))
        loop = asyncio.new_event_loop()
        dead = loop.create_task(lock.acquire(b"a"))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        behind = []
        thread = threading.Thread(target=lambda: behind.append(run(lock.acquire(b"a", timeout=10))))
        thread.start()
        while len(lock._waiters[b"a"]) < 2:  # until both wait
            pass
        lock.release(b"a", "handover")
        thread.join(10)
        assert behind == ["handover"]
        lock.release(b"a")
        run(lock.acquire(b"a"))
        dead._log_destroy_pending = False
        dead.get_coro().close()  # as the garbage collector does, some time
        assert list(lock._waiters) == [b"a"], "a skipped waiter does not own the lock"
