"""Waiting with and without an event loop, the order of lock waiters, and closed loops."""

import asyncio
import gc
import os
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
    def test_run_returns_and_raises_as_the_coroutine_does(self):
        async def broken():
            raise KeyError("x")

        assert run(answer(5)) == 5
        with pytest.raises(KeyError):
            run(broken())

    async def test_run_under_an_event_loop_raises_and_names_the_async_twin(self):
        with pytest.raises(ConfigurationError, match=r"await session\.acommit\(\) instead"):
            run(answer(1), instead="session.acommit()")

    def test_run_refuses_a_coroutine_that_suspends(self):
        """Detects an asyncio client under WSGI; its ``finally`` block is executed."""
        cleaned = []

        async def waits():
            try:
                await suspended()
            finally:
                cleaned.append(1)

        with pytest.raises(ConfigurationError, match="its client is an asyncio one"):
            run(waits())
        assert cleaned == [1]

    def test_without_an_event_loop_running_loop_is_none_and_sleep_blocks(self):
        assert running_loop() is None
        run(sleep(0))

    def test_offload_calls_in_the_same_thread_without_an_event_loop(self):
        assert run(offload(threading.get_ident)) == threading.get_ident()

    async def test_offload_calls_in_a_thread_under_an_event_loop(self):
        assert running_loop() is asyncio.get_running_loop()
        assert await offload(threading.get_ident) != threading.get_ident()
        await sleep(0)

    async def test_offload_passes_every_argument(self):
        assert await offload(sorted, [1, 2], reverse=True) == [2, 1]

    def test_offload_passes_every_argument_without_an_event_loop(self):
        assert run(offload(sorted, [1, 2], reverse=True)) == [2, 1]


class TestShielded:
    async def test_a_coroutine_whose_caller_was_cancelled_is_completed(self):
        """A21: an event loop has only weak references to its tasks, so another one is kept."""
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

    async def test_shielded_returns_and_raises_as_the_coroutine_does(self):
        async def broken():
            raise KeyError("x")

        assert await shielded(answer(5)) == 5
        with pytest.raises(KeyError):
            await shielded(broken())

    def test_shielded_awaits_directly_without_an_event_loop(self):
        assert run(shielded(answer(5))) == 5


class TestDeadline:
    async def test_a_coroutine_run_in_a_callback_is_not_interrupted(self):
        """There is no task that could be cancelled; the store bounds its calls."""
        results = []
        asyncio.get_running_loop().call_soon(
            lambda: results.append(complete(Deadline(1).bound(answer(5))))
        )
        await asyncio.sleep(0)
        assert results == [5]

    def test_calls_share_the_rest_of_a_deadline(self):
        part = Deadline(8).share(4)
        assert 1 < part.remaining() <= 2
        assert "8 seconds" in str(part.exceeded())


class TestThreadFuture:
    async def test_wait_returns_a_result_from_another_thread(self):
        future = ThreadFuture()

        def work():
            future.set_result(5)
            assert wake_all((future,))

        threading.Thread(target=work).start()
        assert await future.wait(5) == 5

    async def test_wait_raises_the_exception(self):
        future = ThreadFuture()
        future.set_exception(KeyError("x"))
        future.wake()
        with pytest.raises(KeyError):
            await future.wait(None)

    def test_wait_returns_a_result_without_an_event_loop(self):
        future = ThreadFuture()
        threading.Thread(target=lambda: (future.set_result(5), wake_all((future,)))).start()
        assert run(future.wait(5)) == 5

    async def test_wait_times_out(self):
        with pytest.raises(TimeoutError):
            await ThreadFuture().wait(0.001)

    def test_wait_times_out_without_an_event_loop(self):
        with pytest.raises(TimeoutError):
            run(ThreadFuture().wait(0.001))

    async def test_waking_twice_or_after_the_wait_has_no_effect(self):
        future = ThreadFuture()
        future.set_result(1)
        for _ in range(3):
            wake_all((future,))
        await asyncio.sleep(0)
        assert await future.wait(1) == 1
        wake_all((future,))
        await asyncio.sleep(0)

    async def test_a_result_at_the_timeout_is_returned(self):
        """No unretrieved exception is logged."""
        future = ThreadFuture()
        future.set_result(5)
        asyncio.get_running_loop().call_later(0, future.wake)
        assert await future.wait(0) == 5

    def test_wake_all_skips_futures_of_closed_loops(self):
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
    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.parametrize("held", ["name", "mutex"])
    def test_a_forked_process_inherits_no_lock_of_another_thread(self, held):
        """S12: nothing would release it there, so every commit of the session would fail."""
        lock = KeyedLock()
        if held == "name":
            assert lock.try_acquire(b"x")
        else:
            lock.mutex.acquire()
        child = os.fork()
        if child == 0:
            free = lock.mutex.acquire(timeout=0)
            if free:
                lock.mutex.release()
            os._exit(0 if free and lock.try_acquire(b"x") else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert lock.is_locked(b"x") is (held == "name")

    async def test_a_free_lock_is_acquired_without_waiting_and_leaves_no_entry(self):
        lock = KeyedLock()
        assert await lock.acquire(b"a") is None
        assert await lock.acquire(b"b") is None
        lock.release(b"a", "handover")
        lock.release(b"b")
        assert lock._waiters == {}
        assert await lock.acquire(b"a") is None, "the value is dropped without a waiter"

    async def test_waiters_acquire_in_order_and_receive_the_handover_value(self):
        lock, order = KeyedLock(), []

        async def one(number):
            handover = await lock.acquire(b"a")
            order.append((number, handover))
            await asyncio.sleep(0)
            lock.release(b"a", number)

        await asyncio.gather(*map(one, range(5)))
        assert order == [(0, None), (1, 0), (2, 1), (3, 2), (4, 3)]
        assert lock._waiters == {}

    async def test_one_owner_at_a_time_across_tasks_and_threads(self):
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

    async def test_a_wait_longer_than_its_timeout_raises(self):
        lock = KeyedLock()
        await lock.acquire(b"a")
        with pytest.raises(TimeoutError):
            await lock.acquire(b"a", timeout=0.001)
        assert not lock._waiters[b"a"]
        lock.release(b"a")
        assert lock._waiters == {}

    async def test_a_wait_that_timed_out_leaves_the_lock_with_its_owner(self):
        """B-55: it does not release the lock to an earlier waiter."""
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
    async def test_a_cancelled_waiter_blocks_no_other_waiter(self, steps):
        """Cancelled before and while it waits, at the handover, and as owner."""
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

    def test_a_waiter_of_a_closed_loop_is_skipped(self):
        """Otherwise the lock would stay locked for ever."""
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
        dead.get_coro().close()  # as the garbage collector does later
        assert list(lock._waiters) == [b"a"], "a skipped waiter does not own the lock"
