"""``session.exclusive``: one holder at a time in all processes, bounded by a lease."""

import asyncio
import threading

import pytest

from sojourn._core.concurrency import run
from sojourn._core.reserved_keys import LEASE
from sojourn.errors import (
    ConfigurationError,
    ExclusiveTimeout,
    NotSerializable,
    SessionConflict,
    SessionGone,
    SessionTooLarge,
    StoreUnavailable,
)
from sojourn.events import StoreFailed
from tests.support.interruptions import interrupted
from tests.unit.core.engine_harness import World, end_of_request, ticket_of

pytestmark = pytest.mark.anyio


async def stored_session(**data):
    world = World(**data)
    ticket = await world.create(n=0)
    return world, ticket


async def leased(world, ticket):
    record = await world.record(ticket)
    return LEASE in record.contents().data


@pytest.mark.parametrize("other_process", [False, True])
async def test_only_one_block_runs_at_a_time(other_process):
    """In one process and, through the store, in several."""
    world, ticket = await stored_session()
    inside = most = 0

    async def one(number):
        nonlocal inside, most
        session = await world.load(ticket, other_process=other_process)
        async with session.exclusive(wait="50 seconds"):
            inside += 1
            most = max(most, inside)
            read = session["n"]
            await asyncio.sleep(0)
            session["n"] = read + 1  # would lose updates without the lease
            inside -= 1

    await asyncio.gather(*map(one, range(8)))
    assert most == 1
    assert await world.data(ticket) == {"n": 8}


async def test_a_block_does_not_begin_with_a_value_that_cannot_be_stored():
    """A21: no lease remains that would block others until its end."""
    world, ticket = await stored_session()
    session = await world.load(ticket)
    session["values"] = []
    session["values"].append(object())
    with pytest.raises(NotSerializable):
        async with session.exclusive():
            pytest.fail("the block has begun")
    assert not await leased(world, ticket)
    other = await world.load(ticket)
    async with other.exclusive(wait="1 second"):
        other["n"] = 1
    assert await world.data(ticket) == {"n": 1}


async def test_a_block_that_fails_with_a_value_that_cannot_be_stored_raises_its_own_error():
    """A10: its data changes are dropped, and the lease is removed."""
    world, ticket = await stored_session()
    session = await world.load(ticket)
    session["values"] = []

    async def failing_block():
        async with session.exclusive():
            session["values"].append(object())
            session["absent"]

    with pytest.raises(KeyError, match="absent"):
        await failing_block()
    assert not await leased(world, ticket)


def test_only_one_block_runs_at_a_time_without_an_event_loop():
    world, ticket = run(stored_session())

    def one():
        session = run(world.load(ticket))
        with session.exclusive():
            session["n"] = session["n"] + 1

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run(world.data(ticket)) == {"n": 8}


async def test_a_block_starts_with_the_newest_data_and_commits_at_its_end():
    world, ticket = await stored_session()
    session = await world.load(ticket)
    await world.concurrent_write(ticket, n=5)
    async with session.exclusive():
        assert session["n"] == 5
        assert list(session) == ["n"]
        session["n"] = 6
        assert await leased(world, ticket)
    assert await world.data(ticket) == {"n": 6}


async def test_a_commit_inside_the_block_keeps_the_lease():
    world, ticket = await stored_session()
    session = await world.load(ticket)
    async with session.exclusive():
        session["n"] = 1
        await session.acommit()
        assert await leased(world, ticket)
        session["n"] = 2
    assert await world.data(ticket) == {"n": 2}


@pytest.mark.parametrize("commit", [False, True])
async def test_a_clear_inside_the_block_keeps_the_lease(commit):
    world, ticket = await stored_session()
    session = await world.load(ticket)
    async with session.exclusive():
        session.clear()
        session["m"] = 1
        if commit:
            await session.acommit()
            assert await leased(world, ticket)
    assert await world.data(ticket) == {"m": 1}


async def test_a_clear_by_another_request_keeps_the_lease():
    world, ticket = await stored_session()
    session, other = await world.load(ticket), await world.load(ticket, other_process=True)
    async with session.exclusive():
        other.clear()
        await end_of_request(other)
        assert await leased(world, ticket)
        session["m"] = 1
    assert await world.data(ticket) == {"m": 1}


@pytest.mark.parametrize("other_process", [False, True])
async def test_a_wait_longer_than_its_limit_raises(other_process):
    """B-55: also if the clock of the store stands still."""
    world, ticket = await stored_session()
    session = await world.load(ticket)
    other = await world.load(ticket, other_process=other_process)
    async with session.exclusive():

        async def late():
            async with other.exclusive(wait="0.05 s"):
                pytest.fail("another holder is inside")

        waiting = asyncio.create_task(late())
        with pytest.raises(ExclusiveTimeout) as caught:
            await waiting
        assert caught.value.waited == 0.05
        assert caught.value.session_id == ticket.session_id.hex()
        assert isinstance(caught.value, TimeoutError)
    other["n"] = 9
    await end_of_request(other)
    assert await world.data(ticket) == {"n": 9}


async def test_a_wait_ends_by_the_clock_of_the_store():
    """B-55: exactly at its limit, even if the monotonic clock of this machine is behind."""
    world, ticket = await stored_session()
    holder, waiting = await world.load(ticket), await world.load(ticket, other_process=True)
    async with holder.exclusive():
        task = asyncio.create_task(waiting.exclusive(wait="9 seconds").__aenter__())
        await asyncio.sleep(0)
        world.clock.advance("9 seconds")
        with pytest.raises(ExclusiveTimeout):
            await asyncio.wait_for(task, 5)


async def test_a_nested_block_times_out_instead_of_deadlocking():
    world, ticket = await stored_session()
    session = await world.load(ticket)
    async with session.exclusive():
        with pytest.raises(ExclusiveTimeout):
            async with session.exclusive(wait="0.01 s"):
                pass
    async with session.exclusive():
        pass


async def test_the_lease_of_a_dead_holder_expires():
    world, ticket = await stored_session()
    dead = await world.load(ticket, other_process=True)
    await dead.exclusive(lease="30 seconds").__aenter__()
    world.clock.advance("29 seconds")
    with pytest.raises(ExclusiveTimeout):
        async with (await world.load(ticket)).exclusive(wait="1 ms") as _:
            pass
    world.clock.advance("1 second")
    session = await world.load(ticket)
    async with session.exclusive():
        session["n"] = 1
    assert await world.data(ticket) == {"n": 1}


async def test_a_block_that_outlasts_its_lease_raises_a_conflict_and_keeps_its_changes():
    world, ticket = await stored_session()
    slow = await world.load(ticket, other_process=True)
    block = slow.exclusive(lease="1 second")
    await block.__aenter__()
    world.clock.advance("2 seconds")
    async with (await world.load(ticket)).exclusive():
        slow["slow"] = 1
        with pytest.raises(SessionConflict, match="outlasted its lease of 1000 ms") as caught:
            await block.__aexit__(None, None, None)
        assert (caught.value.session_id, caught.value.attempts) == (ticket.session_id.hex(), 0)
        assert await leased(world, ticket), "the lease of the current owner is kept"
    assert await world.data(ticket) == {"n": 0, "slow": 1}


async def test_a_block_that_outlasts_its_lease_without_another_holder_raises_nothing():
    world, ticket = await stored_session()
    session = await world.load(ticket)
    async with session.exclusive(lease="1 second"):
        world.clock.advance("2 seconds")


async def test_an_exception_inside_the_block_commits_nothing_and_releases_the_lease():
    world, ticket = await stored_session()
    session = await world.load(ticket)
    with pytest.raises(KeyError):  # noqa: PT012 - the block raises
        async with session.exclusive():
            session["n"] = 1
            raise KeyError
    assert not await leased(world, ticket)
    assert await world.data(ticket) == {"n": 0}
    async with (await world.load(ticket)).exclusive(wait="1 ms"):
        pass


def test_an_exception_inside_the_block_commits_nothing_without_an_event_loop():
    world, ticket = run(stored_session())
    session = run(world.load(ticket))
    with pytest.raises(KeyError), session.exclusive():  # noqa: PT012 - the block raises
        session["n"] = 1
        raise KeyError
    assert not run(leased(world, ticket))
    assert run(world.data(ticket)) == {"n": 0}


async def test_a_commit_that_is_refused_at_the_end_releases_the_lease():
    world, ticket = await stored_session(max_bytes=400)
    session = await world.load(ticket)
    with pytest.raises(SessionTooLarge):
        async with session.exclusive():
            session["n"] = "x" * 500
    assert not await leased(world, ticket)
    async with (await world.load(ticket)).exclusive(wait="1 ms"):
        pass


async def test_a_store_that_fails_at_the_end_releases_the_lock_of_this_process():
    world, ticket = await stored_session()
    session = await world.load(ticket)
    with pytest.raises(StoreUnavailable):  # noqa: PT012 - the block raises
        async with session.exclusive():
            session["n"] = 1
            world.store.fail("save")
    world.store.heal()
    world.clock.advance("30 seconds")
    async with (await world.load(ticket)).exclusive(wait="1 ms") as _:
        pass


@pytest.mark.parametrize("after", [False, True])
async def test_a_store_that_fails_to_acquire_leaves_no_lease(after):
    """Even if the lease was written and only the reply was lost."""
    world, ticket = await stored_session()
    session = await world.load(ticket)
    world.store.fail("save", times=1, after=after)
    with pytest.raises(StoreUnavailable):
        async with session.exclusive():
            pytest.fail("not reached")
    assert not await leased(world, ticket)
    async with (await world.load(ticket)).exclusive(wait="1 ms"):
        pass


async def test_a_store_that_stays_unavailable_during_acquisition_raises_its_first_error():
    """A21: the lease whose reply was lost cannot be removed; it expires."""
    world, ticket = await stored_session()
    session = await world.load(ticket)
    world.store.fail("save", after=True)
    with pytest.raises(StoreUnavailable):
        async with session.exclusive(lease="1 second"):
            pytest.fail("not reached")
    world.store.heal()
    world.clock.advance("1 second")
    async with (await world.load(ticket)).exclusive(wait="1 ms"):
        pass


async def test_a_cancelled_wait_for_a_commit_of_this_process_leaves_no_lease():
    world, ticket = await stored_session()
    session, other = await world.load(ticket), await world.load(ticket)
    other["n"] = 1
    world.store.hang("save", times=1)
    commit = asyncio.create_task(other.acommit())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(session.exclusive().__aenter__())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    world.store.heal()
    await commit
    assert not await leased(world, ticket)
    async with session.exclusive(wait="1 ms"):
        assert session["n"] == 1


async def test_a_failing_load_leaves_no_waiter_behind():
    world, ticket = await stored_session()
    session = await world.load(ticket)
    world.store.fail("load", times=1)
    with pytest.raises(StoreUnavailable):
        async with session.exclusive():
            pytest.fail("not reached")
    async with session.exclusive(wait="1 ms"):
        pass


async def test_destroy_inside_the_block_deletes_the_record_with_the_lease():
    world, ticket = await stored_session()
    session = await world.load(ticket)
    async with session.exclusive():
        session.destroy()
    assert await world.record(ticket) is None


async def test_destroy_inside_a_failing_block_is_committed():
    """A10: data written after the destroy is not."""
    world, ticket = await stored_session()
    session = await world.load(ticket)
    with pytest.raises(KeyError):  # noqa: PT012 - the block raises
        async with session.exclusive():
            session.destroy()
            session["m"] = 1
            raise KeyError
    assert await world.memory.count(world.clock.now) == 0


async def test_a_session_revoked_inside_the_block_raises_at_the_end():
    """A7."""
    world, ticket = await stored_session()
    session = await world.load(ticket)
    with pytest.raises(SessionGone):  # noqa: PT012 - the block raises
        async with session.exclusive():
            session["n"] = 1
            await world.engine.revoker.revoke(ticket.session_id, "revoked")
    assert await world.record(ticket) is None


async def test_a_session_revoked_and_refreshed_inside_the_block_raises_at_the_next_block():
    world, ticket = await stored_session()
    session = await world.load(ticket)
    async with session.exclusive():
        await world.engine.revoker.revoke(ticket.session_id, "revoked")
        assert not await world.engine.refresh(session)
    with pytest.raises(SessionGone):
        async with session.exclusive():
            pytest.fail("not reached")


async def test_a_session_that_is_not_stored_needs_no_lease():
    world = World()
    session = await world.load(None)
    async with session.exclusive():
        session["a"] = 1
        assert world.store.calls == []
    assert await world.data(ticket_of(session)) == {"a": 1}


async def test_a_failing_block_of_a_new_session_stores_nothing():
    world = World()
    session = await world.load(None)
    with pytest.raises(KeyError):  # noqa: PT012 - the block raises
        async with session.exclusive():
            session["a"] = 1
            raise KeyError
    assert world.store.calls == []


async def test_invalid_durations_are_refused_before_the_block_is_entered():
    world, ticket = await stored_session()
    session = await world.load(ticket)
    for option in ("wait", "lease"):
        with pytest.raises(ConfigurationError, match=rf"exclusive\({option}=\) expects"):
            session.exclusive(**{option: 0})


@pytest.mark.parametrize("delay", range(4))
async def test_a_cancelled_block_leaves_neither_lease_nor_lock(delay):
    """A21: cancelled at each suspension, also between acquiring the lease and returning."""
    world, ticket = await stored_session()
    world.store.slow("load", "save", seconds=0)
    entered = 0

    async def block(session):
        nonlocal entered
        async with session.exclusive():
            entered += 1
            await asyncio.sleep(0)

    for suspension in range(1, 40):
        outcome = await interrupted(
            block(await world.load(ticket)), suspension, "cancel", delay=delay
        )
        for _ in range(30):
            await asyncio.sleep(0)
        assert not await leased(world, ticket)
        assert not world.engine.writer.locks._waiters
        if not outcome.reached:
            break
    assert suspension > 3
    assert 0 < entered < suspension


async def test_a_cancelled_wait_never_acquires_the_lease():
    """A21: not even the attempt that was in progress."""
    world, ticket = await stored_session()
    holder, waiting = await world.load(ticket), await world.load(ticket, other_process=True)
    async with holder.exclusive():
        task = asyncio.create_task(waiting.exclusive(wait="9 seconds").__aenter__())
        await asyncio.sleep(0.03)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.sleep(0.05)
    assert not await leased(world, ticket)
    assert not waiting._engine.writer.locks._waiters


async def test_a_failure_to_release_the_lease_of_a_cancelled_block_is_reported():
    world, ticket = await stored_session()
    session = await world.load(ticket)
    lease = session.exclusive()

    async def cancel():
        asyncio.get_running_loop().call_soon(task.cancel)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        world.store.fail("load", "save")

    world.store.meanwhile("save", cancel)
    task = asyncio.create_task(lease.__aenter__())
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(30):
        await asyncio.sleep(0)
    reported = [event for event in world.emitted(StoreFailed) if event.operation == "release_lease"]
    assert [event.session_id for event in reported] == [ticket.session_id.hex()]
    assert reported[0].error == "a test has planned this failure"
    assert not world.engine.writer.locks._waiters


async def test_a_release_whose_reply_was_lost_is_not_a_conflict():
    """A21: the retry finds no lease, because the first attempt has removed it."""
    world, ticket = await stored_session()
    session = await world.load(ticket)
    async with session.exclusive():
        world.store.fail("save", times=1, after=True)
    assert not await leased(world, ticket)


async def test_a_session_deleted_before_the_lease_is_written_raises():
    world, ticket = await stored_session()
    session = await world.load(ticket)
    world.store.meanwhile("save", lambda: world.memory.delete(ticket.session_id))
    with pytest.raises(SessionGone):
        await session.exclusive().__aenter__()
    assert not world.engine.writer.locks._waiters
