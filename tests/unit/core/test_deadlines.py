"""Deadlines: store_timeout bounds a commit with its queue, replays and retries (S12)."""

import asyncio
import threading
import time

import pytest
from msgspec.structs import replace

from sojourn._core.concurrency import Deadline, run, shielded
from sojourn.errors import StoreUnavailable
from sojourn.events import StoreFailed
from tests.support.working_copies import copy_of
from tests.unit.core.engine_harness import World


async def tick():
    for _ in range(3):
        await asyncio.sleep(0)


class TestDeadline:
    @pytest.mark.anyio
    async def test_a_call_that_is_fast_enough_returns(self):
        async def call():
            await asyncio.sleep(0)
            return 7

        assert await Deadline(5).bound(call()) == 7

    @pytest.mark.anyio
    async def test_a_call_that_takes_too_long_raises_store_unavailable(self):
        with pytest.raises(StoreUnavailable, match=r"within 0\.01 seconds \(store_timeout\)"):
            await Deadline(0.01).bound(asyncio.sleep(5))

    @pytest.mark.anyio
    async def test_a_cancellation_by_the_caller_is_raised(self):
        task = asyncio.create_task(Deadline(5).bound(asyncio.sleep(5)))
        await tick()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    @pytest.mark.anyio
    async def test_a_timeout_error_of_the_call_itself_is_raised(self):
        async def call():
            await asyncio.sleep(0)
            raise TimeoutError("of the call")

        with pytest.raises(TimeoutError, match="of the call"):
            await Deadline(5).bound(call())

    def test_no_call_is_started_after_the_deadline(self):
        async def call():
            raise AssertionError("it was started")

        with pytest.raises(StoreUnavailable):
            run(Deadline(0).bound(call()))

    def test_without_an_event_loop_the_call_returns(self):
        async def call():
            return 7

        assert run(Deadline(5).bound(call())) == 7
        assert run(shielded(call())) == 7


class TestQueue:
    @pytest.mark.anyio
    async def test_a_failure_is_raised_by_every_commit_in_the_queue(self):
        """S12: eight commits of one session do not each wait for the store."""
        world = World()
        ticket = await world.create(n=0)
        sessions = [await world.load(ticket) for _ in range(8)]
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
    async def test_a_commit_that_waits_for_slow_commits_times_out(self):
        """S12."""
        world = World(store_timeout=0.05)
        ticket = await world.create(n=0)
        session = await world.load(ticket)
        session.increment("n")
        locks = world.engine.writer.locks
        await locks.acquire(ticket.session_id)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="other requests of the session"):
            await world.engine.commit(session)
        assert [event.operation for event in world.emitted(StoreFailed)] == ["save"]
        assert time.monotonic() - began < 1
        locks.release(ticket.session_id)
        await world.engine.commit(session)
        assert await world.data(ticket) == {"n": 1}

    @pytest.mark.anyio
    async def test_a_commit_that_waits_for_a_create_times_out(self):
        world = World(store_timeout=0.05)
        session = await world.engine.load(None)
        session["n"] = 1
        locks = world.engine.writer.locks
        await locks.acquire(copy_of(session).session_id())
        with pytest.raises(StoreUnavailable):
            await world.engine.commit(session)
        locks.release(copy_of(session).session_id())
        await world.engine.commit(session)
        assert len(world.memory._records) == 1

    @pytest.mark.anyio
    @pytest.mark.parametrize("known", [False, True])
    async def test_a_load_of_several_calls_times_out(self, known):
        """S12: loading the tombstone, or deleting an expired session, takes too long."""
        world = World(store_timeout=0.1)
        ticket = await world.create(n=0)
        if known:
            world.clock.advance("2 days")
            world.store.hang("delete")
        else:
            await world.memory.delete(ticket.session_id)
            world.store.slow("load", seconds=0.01, times=1)
            world.store.hang("load")
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await world.load(ticket)
        assert time.monotonic() - began < 1
        world.store.heal()

    @pytest.mark.anyio
    async def test_a_commit_with_many_replays_times_out(self):
        """S12: each save meets a newer record, and the store is slow."""
        world = World(store_timeout=0.2)
        ticket = await world.create(n=0)
        session = await world.load(ticket)
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

    @pytest.mark.anyio
    async def test_a_commit_that_loads_an_expired_record_again_times_out(self):
        """S12: another request may have extended the session."""
        world = World(store_timeout=0.1)
        ticket = await world.create(n=0)
        session = await world.load(ticket)
        session.increment("n")
        world.clock.advance("2 days")
        world.store.hang("load")
        with pytest.raises(StoreUnavailable, match=r"0\.1 seconds"):
            await asyncio.wait_for(world.engine.commit(session), 2)
        world.store.heal()

    @pytest.mark.anyio
    async def test_a_save_after_an_earlier_commit_times_out(self):
        """S12: the store bounds only a commit that has not waited."""
        world = World(store_timeout=0.1)
        ticket = await world.create(n=0)
        first, second = await world.load(ticket), await world.load(ticket)
        first.increment("n")
        second.increment("n")
        released = asyncio.Event()
        world.store.meanwhile("save", released.wait)
        world.store.hang("save")
        committing = [asyncio.create_task(world.engine.commit(each)) for each in (first, second)]
        await tick()
        released.set()
        with pytest.raises(StoreUnavailable, match=r"0\.1 seconds"):
            await asyncio.wait_for(committing[1], 2)
        await committing[0]
        world.store.heal()
        assert await world.data(ticket) == {"n": 1}

    @pytest.mark.anyio
    async def test_a_login_of_an_existing_session_times_out(self):
        """S12: it makes several store calls, so the store does not bound it."""
        world = World(store_timeout=0.05)
        session = await world.load(await world.create(n=0))
        session.login("ada")
        world.store.hang("save_login")
        with pytest.raises(StoreUnavailable, match=r"0\.05 seconds"):
            await asyncio.wait_for(world.engine.commit(session), 2)
        world.store.heal()

    def test_a_commit_in_a_thread_times_out(self):
        """S12: without an event loop it waits for the lock no longer than store_timeout."""
        world = World(store_timeout=0.3)
        ticket = run(world.create(n=0))
        sessions = [run(world.load(ticket)) for _ in range(4)]
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
