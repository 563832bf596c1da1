"""Waiting with and without an event loop, the order of waiters, and closed loops."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sojourn._core.concurrency import (
    KeyedLock,
    ThreadFuture,
    offload,
    pause,
    run,
    running_loop,
    settle,
)
from sojourn.errors import ConfigurationError

pytestmark = pytest.mark.anyio


async def answer(value):
    return value


async def suspended():
    await asyncio.sleep(0)


class TestRun:
    def test_returns_and_raises_as_the_coroutine_does(self):
        async def broken():
            raise KeyError("x")

        assert run(answer(5)) == 5
        with pytest.raises(KeyError):
            run(broken())

    async def test_refuses_where_a_loop_runs_and_names_the_twin(self):
        with pytest.raises(ConfigurationError, match=r"await session\.acommit\(\) instead"):
            run(answer(1), instead="session.acommit()")

    @pytest.mark.filterwarnings("error")
    async def test_a_refused_coroutine_is_closed_with_its_arguments(self):
        """Python would warn that they were never awaited."""

        async def outer(inner, other):
            return await inner + other

        inner = answer(1)
        middle = outer(inner, 2)
        with pytest.raises(ConfigurationError):
            run(outer(middle, 3))
        for closed in (inner, middle):
            with pytest.raises(RuntimeError, match="already"):
                await closed

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
        run(pause(0))

    def test_offload_calls_at_once_without_a_loop(self):
        assert run(offload(threading.get_ident)) == threading.get_ident()

    async def test_offload_calls_in_a_thread_under_a_loop(self):
        assert running_loop() is asyncio.get_running_loop()
        assert await offload(threading.get_ident) != threading.get_ident()
        await pause(0)


class TestHandoff:
    async def test_brings_a_result_from_another_thread(self):
        handoff = ThreadFuture()

        def work():
            handoff.put(5)
            assert settle((handoff,))

        threading.Thread(target=work).start()
        assert await handoff.wait(5) == 5

    async def test_brings_an_error(self):
        handoff = ThreadFuture()
        handoff.fail(KeyError("x"))
        handoff.wake()
        with pytest.raises(KeyError):
            await handoff.wait(None)

    def test_brings_a_result_without_a_loop(self):
        handoff = ThreadFuture()
        threading.Thread(target=lambda: (handoff.put(5), settle((handoff,)))).start()
        assert run(handoff.wait(5)) == 5

    async def test_waits_no_longer_than_it_may(self):
        with pytest.raises(TimeoutError):
            await ThreadFuture().wait(0.001)

    def test_waits_no_longer_than_it_may_without_a_loop(self):
        with pytest.raises(TimeoutError):
            run(ThreadFuture().wait(0.001))

    async def test_settling_twice_or_too_late_does_no_harm(self):
        handoff = ThreadFuture()
        handoff.put(1)
        for _ in range(3):
            settle((handoff,))
        await asyncio.sleep(0)
        assert await handoff.wait(1) == 1
        settle((handoff,))
        await asyncio.sleep(0)

    async def test_a_result_and_its_time_limit_may_come_at_once(self):
        """The limit is then no error, nor one that nobody retrieves."""
        handoff = ThreadFuture()
        handoff.put(5)
        asyncio.get_running_loop().call_later(0, handoff.wake)
        assert await handoff.wait(0) == 5

    def test_one_call_into_each_loop_and_a_closed_one_is_passed_over(self):
        async def make():
            return ThreadFuture()

        here = ThreadFuture()
        loops = [asyncio.new_event_loop() for _ in range(2)]
        open_, closed = (loop.run_until_complete(make()) for loop in loops)
        loops[1].close()
        assert not settle((closed, here, open_))
        assert loops[0].run_until_complete(asyncio.wait_for(open_.wait(1), 1)) is None
        assert run(here.wait(1)) is None
        loops[0].close()


class TestTurns:
    async def test_a_free_name_costs_no_wait_and_leaves_nothing(self):
        turns = KeyedLock()
        assert await turns.begin(b"a") is None
        assert await turns.begin(b"b") is None
        turns.end(b"a", "note")
        turns.end(b"b")
        assert turns._lines == {}
        assert await turns.begin(b"a") is None, "the note goes when the line is empty"

    async def test_in_order_of_arrival_with_the_note_of_who_was_before(self):
        turns, order = KeyedLock(), []

        async def one(number):
            note = await turns.begin(b"a")
            order.append((number, note))
            await asyncio.sleep(0)
            turns.end(b"a", number)

        await asyncio.gather(*map(one, range(5)))
        assert order == [(0, None), (1, 0), (2, 1), (3, 2), (4, 3)]
        assert turns._lines == {}

    async def test_one_at_a_time_across_tasks_and_threads(self):
        turns, inside, most, count = KeyedLock(), 0, 0, 0

        async def work():
            nonlocal inside, most, count
            for _ in range(20):
                await turns.begin(b"a", timeout=30)
                inside += 1
                most = max(most, inside)
                count += 1
                await pause(0)
                inside -= 1
                turns.end(b"a")

        with ThreadPoolExecutor(4) as pool:
            threads = [pool.submit(lambda: run(work())) for _ in range(4)]
            loops = [pool.submit(asyncio.run, work())]
            await asyncio.gather(*(work() for _ in range(4)))
            await asyncio.gather(*map(asyncio.wrap_future, threads + loops))
        assert (most, count) == (1, 180)
        assert turns._lines == {}

    async def test_a_wait_may_be_bounded(self):
        turns = KeyedLock()
        await turns.begin(b"a")
        with pytest.raises(TimeoutError):
            await turns.begin(b"a", timeout=0.001)
        assert not turns._lines[b"a"]
        turns.end(b"a")
        assert turns._lines == {}

    @pytest.mark.parametrize("steps", range(4))
    async def test_a_waiter_cancelled_at_any_moment_stops_nobody(self, steps):
        """Before it waits, while it waits, when the turn was just given, when it was just taken."""
        turns, got = KeyedLock(), []
        await turns.begin(b"a")

        async def one(name):
            await turns.begin(b"a")
            try:
                got.append(name)
                await asyncio.sleep(0)
            finally:
                turns.end(b"a", name)

        victim = asyncio.create_task(one("victim"))
        if steps:
            await asyncio.sleep(0)
        behind = asyncio.create_task(one("behind"))
        await asyncio.sleep(0)
        if steps >= 2:
            turns.end(b"a", "first")
        if steps >= 3:
            await asyncio.sleep(0)
        victim.cancel()
        if steps < 2:
            await asyncio.sleep(0)
            turns.end(b"a", "first")
        await asyncio.wait_for(behind, 5)
        await asyncio.wait([victim])
        assert victim.cancelled()
        assert got[-1] == "behind"
        assert turns._lines == {}

    def test_a_waiter_whose_loop_was_closed_is_passed_over(self):
        """Nobody else of that session would ever get a turn again."""
        turns = KeyedLock()
        run(turns.begin(b"a"))
        loop = asyncio.new_event_loop()
        dead = loop.create_task(turns.begin(b"a"))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        behind = []
        thread = threading.Thread(target=lambda: behind.append(run(turns.begin(b"a", timeout=10))))
        thread.start()
        while len(turns._lines[b"a"]) < 2:  # until both stand in the line
            pass
        turns.end(b"a", "note")
        thread.join(10)
        assert behind == ["note"]
        turns.end(b"a")
        run(turns.begin(b"a"))
        dead._log_destroy_pending = False
        dead.get_coro().close()  # as the garbage collector does, some time
        assert list(turns._lines) == [b"a"], "whose turn was passed over has none to pass on"
