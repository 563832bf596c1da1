"""A commit is bounded by store_timeout with its queue, its replays and its retries (S12)."""

import asyncio
import threading
import time

import pytest
from msgspec.structs import replace

from sojourn._core.concurrency import Deadline, run, shielded
from sojourn.errors import StoreUnavailable
from sojourn.events import StoreFailed
from tests.unit.core.engine_harness import World


async def tick():
    for _ in range(3):
        await asyncio.sleep(0)


class TestDeadline:
    @pytest.mark.anyio
    async def test_a_call_in_time(self):
        async def call():
            await asyncio.sleep(0)
            return 7

        assert await Deadline(5).bound(call()) == 7

    @pytest.mark.anyio
    async def test_a_call_that_takes_too_long(self):
        with pytest.raises(StoreUnavailable, match=r"within 0\.01 seconds \(store_timeout\)"):
            await Deadline(0.01).bound(asyncio.sleep(5))

    @pytest.mark.anyio
    async def test_a_cancellation_by_the_caller_in_time(self):
        task = asyncio.create_task(Deadline(5).bound(asyncio.sleep(5)))
        await tick()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    @pytest.mark.anyio
    async def test_a_timeout_of_the_call_itself(self):
        async def call():
            await asyncio.sleep(0)
            raise TimeoutError("of the call")

        with pytest.raises(TimeoutError, match="of the call"):
            await Deadline(5).bound(call())

    def test_no_call_after_the_end(self):
        async def call():
            raise AssertionError("it was started")

        with pytest.raises(StoreUnavailable):
            run(Deadline(0).bound(call()))

    def test_without_an_event_loop(self):
        async def call():
            return 7

        assert run(Deadline(5).bound(call())) == 7
        assert run(shielded(call())) == 7


class TestQueue:
    @pytest.mark.anyio
    async def test_a_failure_is_passed_down_the_queue(self):
        """S12: eight commits of one session do not wait for the store one after the other."""
        world = World()
        ticket = await world.begin(n=0)
        sessions = [await world.visit(ticket) for _ in range(8)]
        for session in sessions:
            session.increment("n")

        async def commit(session):
            try:
                await world.engine.commit(session)
            except StoreUnavailable as error:
                return error
            return None

        async def fail_later():
            await asyncio.sleep(0.05)
            raise StoreUnavailable("the server does not answer")

        world.store.meanwhile("save", fail_later)
        world.store.calls.clear()
        errors = await asyncio.gather(*(commit(session) for session in sessions))
        assert [str(error) for error in errors] == ["the server does not answer"] * 8
        assert world.store.calls == ["save"]
        assert len(world.emitted(StoreFailed)) >= 1
        for session in sessions:  # the changes are kept
            await world.engine.commit(session)
        assert await world.data(ticket) == {"n": 8}

    @pytest.mark.anyio
    async def test_a_wait_for_slow_commits_ends(self):
        """S12."""
        world = World(store_timeout=0.05)
        ticket = await world.begin(n=0)
        session = await world.visit(ticket)
        session.increment("n")
        locks = world.engine.writer.locks
        await locks.acquire(ticket.session_id)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="other requests of the session"):
            await world.engine.commit(session)
        assert time.monotonic() - began < 1
        locks.release(ticket.session_id)
        await world.engine.commit(session)
        assert await world.data(ticket) == {"n": 1}

    @pytest.mark.anyio
    async def test_a_wait_for_a_creation_ends(self):
        world = World(store_timeout=0.05)
        session = await world.engine.load(None)
        session["n"] = 1
        locks = world.engine.writer.locks
        await locks.acquire(session._copy.session_id())
        with pytest.raises(StoreUnavailable):
            await world.engine.commit(session)
        locks.release(session._copy.session_id())
        await world.engine.commit(session)
        assert len(world.memory._records) == 1

    @pytest.mark.anyio
    @pytest.mark.parametrize("known", [False, True])
    async def test_a_load_of_several_calls_ends(self, known):
        """S12: the reason of a revocation, or the end of an expired session, takes too long."""
        world = World(store_timeout=0.1)
        ticket = await world.begin(n=0)
        if known:
            world.clock.advance("2 days")
            world.store.hang("delete")
        else:
            await world.memory.delete(ticket.session_id)
            world.store.slow("load", seconds=0.01, times=1)
            world.store.hang("load")
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await world.visit(ticket)
        assert time.monotonic() - began < 1
        world.store.heal()

    @pytest.mark.anyio
    async def test_replays_end(self):
        """S12: each save meets a newer record, and the store is slow."""
        world = World(store_timeout=0.2)
        ticket = await world.begin(n=0)
        session = await world.visit(ticket)
        session.increment("n")

        async def other():
            await asyncio.sleep(0.03)
            record = await world.memory.load(ticket.session_id)
            await world.memory.save(replace(record, version=record.version + 1), record.version)

        for _ in range(100):
            world.store.meanwhile("save", other)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await world.engine.commit(session)
        assert time.monotonic() - began < 1

    def test_threads(self):
        """S12: without an event loop a commit waits for the lock no longer than store_timeout."""
        world = World(store_timeout=0.3)
        ticket = run(world.begin(n=0))
        sessions = [run(world.visit(ticket)) for _ in range(4)]
        for session in sessions:
            session.increment("n")
        world.store.hang("save", times=1)
        errors = []

        def commit(session):
            try:
                run(world.engine.commit(session))
            except StoreUnavailable as error:
                errors.append(error)

        threads = [threading.Thread(target=commit, args=(session,)) for session in sessions]
        for thread in threads:
            thread.start()
        for _ in range(100):
            if len(errors) == 3:
                break
            time.sleep(0.02)
        assert len(errors) == 3
        world.store.heal()
        for thread in threads:
            thread.join()
        for session in sessions:
            run(world.engine.commit(session))
        assert run(world.data(ticket)) == {"n": 4}
