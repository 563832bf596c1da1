"""One at a time in one session, in one process and in several, and never longer than its lease."""

import asyncio
import threading

import pytest

from sojourn._core.concurrency import run
from sojourn._core.reserved_keys import LEASE
from sojourn.errors import (
    ConfigurationError,
    ExclusiveTimeout,
    SessionConflict,
    SessionGone,
    SessionTooLarge,
    StoreUnavailable,
)
from sojourn.events import StoreFailed
from tests.support.interruptions import interrupted
from tests.unit.core.engine_harness import World, end_of_request, ticket_of

pytestmark = pytest.mark.anyio


async def started(**data):
    world = World(**data)
    ticket = await world.begin(n=0)
    return world, ticket


async def leased(world, ticket):
    record = await world.record(ticket)
    return LEASE in record.contents().data


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_no_two_are_inside_at_once(elsewhere):
    """In one process and, through the store, in several."""
    world, ticket = await started()
    inside = most = 0

    async def one(number):
        nonlocal inside, most
        session = await world.visit(ticket, elsewhere=elsewhere)
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


def test_no_two_are_inside_at_once_without_a_loop():
    world, ticket = run(started())

    def one():
        session = run(world.visit(ticket))
        with session.exclusive():
            session["n"] = session["n"] + 1

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run(world.data(ticket)) == {"n": 8}


async def test_what_others_wrote_is_taken_in_and_what_is_done_is_committed_at_the_end():
    world, ticket = await started()
    session = await world.visit(ticket)
    await world.write(ticket, n=5)
    async with session.exclusive():
        assert session["n"] == 5
        assert list(session) == ["n"]
        session["n"] = 6
        assert await leased(world, ticket)
    assert await world.data(ticket) == {"n": 6}


async def test_a_commit_inside_keeps_the_lease():
    world, ticket = await started()
    session = await world.visit(ticket)
    async with session.exclusive():
        session["n"] = 1
        await session.acommit()
        assert await leased(world, ticket)
        session["n"] = 2
    assert await world.data(ticket) == {"n": 2}


@pytest.mark.parametrize("commit", [False, True])
async def test_emptying_inside_keeps_the_lease(commit):
    world, ticket = await started()
    session = await world.visit(ticket)
    async with session.exclusive():
        session.clear()
        session["m"] = 1
        if commit:
            await session.acommit()
            assert await leased(world, ticket)
    assert await world.data(ticket) == {"m": 1}


async def test_emptying_elsewhere_keeps_the_lease():
    world, ticket = await started()
    session, other = await world.visit(ticket), await world.visit(ticket, elsewhere=True)
    async with session.exclusive():
        other.clear()
        await end_of_request(other)
        assert await leased(world, ticket)
        session["m"] = 1
    assert await world.data(ticket) == {"m": 1}


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_the_wait_is_bounded(elsewhere):
    """B-55. Also by a clock that stands still."""
    world, ticket = await started()
    session = await world.visit(ticket)
    other = await world.visit(ticket, elsewhere=elsewhere)
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


async def test_the_wait_is_bounded_by_the_clock_of_the_store():
    """B-55: at its end exactly, however little this machine measured."""
    world, ticket = await started()
    holder, waiting = await world.visit(ticket), await world.visit(ticket, elsewhere=True)
    async with holder.exclusive():
        task = asyncio.create_task(waiting.exclusive(wait="9 seconds").__aenter__())
        await asyncio.sleep(0)
        world.clock.advance("9 seconds")
        with pytest.raises(ExclusiveTimeout):
            await asyncio.wait_for(task, 5)


async def test_nested_use_is_a_timeout_and_no_deadlock():
    world, ticket = await started()
    session = await world.visit(ticket)
    async with session.exclusive():
        with pytest.raises(ExclusiveTimeout):
            async with session.exclusive(wait="0.01 s"):
                pass
    async with session.exclusive():
        pass


async def test_a_holder_that_died_is_waited_for_no_longer_than_its_lease():
    world, ticket = await started()
    dead = await world.visit(ticket, elsewhere=True)
    await dead.exclusive(lease="30 seconds").__aenter__()
    world.clock.advance("29 seconds")
    with pytest.raises(ExclusiveTimeout):
        async with (await world.visit(ticket)).exclusive(wait="1 ms") as _:
            pass
    world.clock.advance("1 second")
    session = await world.visit(ticket)
    async with session.exclusive():
        session["n"] = 1
    assert await world.data(ticket) == {"n": 1}


async def test_a_block_that_outlasts_its_lease_gets_an_error_and_keeps_its_changes():
    world, ticket = await started()
    slow = await world.visit(ticket, elsewhere=True)
    block = slow.exclusive(lease="1 second")
    await block.__aenter__()
    world.clock.advance("2 seconds")
    async with (await world.visit(ticket)).exclusive():
        slow["slow"] = 1
        with pytest.raises(SessionConflict, match="outlasted its lease of 1000 ms") as caught:
            await block.__aexit__(None, None, None)
        assert (caught.value.session_id, caught.value.attempts) == (ticket.session_id.hex(), 0)
        assert await leased(world, ticket), "the lease of the current owner is kept"
    assert await world.data(ticket) == {"n": 0, "slow": 1}


async def test_a_block_that_outlasts_its_lease_alone_is_no_conflict():
    world, ticket = await started()
    session = await world.visit(ticket)
    async with session.exclusive(lease="1 second"):
        world.clock.advance("2 seconds")


async def test_an_exception_inside_commits_nothing_and_frees_the_turn():
    world, ticket = await started()
    session = await world.visit(ticket)
    with pytest.raises(KeyError):  # noqa: PT012 - the block raises
        async with session.exclusive():
            session["n"] = 1
            raise KeyError
    assert not await leased(world, ticket)
    assert await world.data(ticket) == {"n": 0}
    async with (await world.visit(ticket)).exclusive(wait="1 ms"):
        pass


def test_an_exception_inside_commits_nothing_without_a_loop():
    world, ticket = run(started())
    session = run(world.visit(ticket))
    with pytest.raises(KeyError), session.exclusive():  # noqa: PT012 - the block raises
        session["n"] = 1
        raise KeyError
    assert not run(leased(world, ticket))
    assert run(world.data(ticket)) == {"n": 0}


async def test_a_commit_that_fails_at_the_end_frees_the_turn():
    world, ticket = await started(max_bytes=400)
    session = await world.visit(ticket)
    with pytest.raises(SessionTooLarge):
        async with session.exclusive():
            session["n"] = "x" * 500
    assert not await leased(world, ticket)
    async with (await world.visit(ticket)).exclusive(wait="1 ms"):
        pass


async def test_a_store_that_fails_at_the_end_frees_the_turn_in_this_process():
    world, ticket = await started()
    session = await world.visit(ticket)
    with pytest.raises(StoreUnavailable):  # noqa: PT012 - the block raises
        async with session.exclusive():
            session["n"] = 1
            world.store.fail("save")
    world.store.heal()
    world.clock.advance("30 seconds")
    async with (await world.visit(ticket)).exclusive(wait="1 ms") as _:
        pass


@pytest.mark.parametrize("after", [False, True])
async def test_a_store_that_fails_at_the_beginning_leaves_no_lease(after):
    """Also where the lease was written and only the answer was lost."""
    world, ticket = await started()
    session = await world.visit(ticket)
    world.store.fail("save", times=1, after=after)
    with pytest.raises(StoreUnavailable):
        async with session.exclusive():
            pytest.fail("not reached")
    assert not await leased(world, ticket)
    async with (await world.visit(ticket)).exclusive(wait="1 ms"):
        pass


async def test_a_store_that_stays_down_at_the_beginning_raises_its_first_error():
    """A21: the lease of the lost answer cannot be removed, and ends by itself."""
    world, ticket = await started()
    session = await world.visit(ticket)
    world.store.fail("save", after=True)
    with pytest.raises(StoreUnavailable):
        async with session.exclusive(lease="1 second"):
            pytest.fail("not reached")
    world.store.heal()
    world.clock.advance("1 second")
    async with (await world.visit(ticket)).exclusive(wait="1 ms"):
        pass


async def test_cancelled_while_it_waits_for_a_commit_leaves_nothing():
    world, ticket = await started()
    session, other = await world.visit(ticket), await world.visit(ticket)
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


async def test_a_failing_load_leaves_no_queue_entry():
    world, ticket = await started()
    session = await world.visit(ticket)
    world.store.fail("load", times=1)
    with pytest.raises(StoreUnavailable):
        async with session.exclusive():
            pytest.fail("not reached")
    async with session.exclusive(wait="1 ms"):
        pass


async def test_destroying_inside_takes_the_lease_along():
    world, ticket = await started()
    session = await world.visit(ticket)
    async with session.exclusive():
        session.destroy()
    assert await world.record(ticket) is None


async def test_destroying_inside_counts_although_the_block_fails():
    """A10: and what was written afterwards does not."""
    world, ticket = await started()
    session = await world.visit(ticket)
    with pytest.raises(KeyError):  # noqa: PT012 - the block raises
        async with session.exclusive():
            session.destroy()
            session["m"] = 1
            raise KeyError
    assert await world.memory.count(world.clock.now) == 0


async def test_ended_by_others_while_inside():
    """A7."""
    world, ticket = await started()
    session = await world.visit(ticket)
    with pytest.raises(SessionGone):  # noqa: PT012 - the block raises
        async with session.exclusive():
            session["n"] = 1
            await world.engine.revoker.revoke(ticket.session_id, "revoked")
    assert await world.record(ticket) is None


async def test_ended_by_others_and_noticed_inside():
    world, ticket = await started()
    session = await world.visit(ticket)
    async with session.exclusive():
        await world.engine.revoker.revoke(ticket.session_id, "revoked")
        assert not await world.engine.refresh(session)
    with pytest.raises(SessionGone):
        async with session.exclusive():
            pytest.fail("not reached")


async def test_a_session_that_is_not_stored_yet_is_its_visitors_alone():
    world = World()
    session = await world.visit(None)
    async with session.exclusive():
        session["a"] = 1
        assert world.store.calls == []
    assert await world.data(ticket_of(session)) == {"a": 1}


async def test_a_failing_block_of_a_new_session_stores_nothing():
    world = World()
    session = await world.visit(None)
    with pytest.raises(KeyError):  # noqa: PT012 - the block raises
        async with session.exclusive():
            session["a"] = 1
            raise KeyError
    assert world.store.calls == []


async def test_durations_are_checked_at_once():
    world, ticket = await started()
    session = await world.visit(ticket)
    for option in ("wait", "lease"):
        with pytest.raises(ConfigurationError, match=rf"exclusive\({option}=\) expects"):
            session.exclusive(**{option: 0})


@pytest.mark.parametrize("delay", range(4))
async def test_a_cancelled_block_holds_neither_lease_nor_lock(delay):
    """A21: interrupted at each suspension, also between the acquisition and its report."""
    world, ticket = await started()
    world.store.slow("load", "save", seconds=0)
    entered = 0

    async def block(session):
        nonlocal entered
        async with session.exclusive():
            entered += 1
            await asyncio.sleep(0)

    for suspension in range(1, 40):
        outcome = await interrupted(
            block(await world.visit(ticket)), suspension, "cancel", delay=delay
        )
        for _ in range(30):
            await asyncio.sleep(0)
        assert not await leased(world, ticket)
        assert not world.engine.writer.locks._waiters
        if not outcome.reached:
            break
    assert suspension > 3
    assert 0 < entered < suspension


async def test_a_cancelled_wait_for_the_lease_ends():
    """A21: the attempt that is under way does not acquire the lease later."""
    world, ticket = await started()
    holder, waiting = await world.visit(ticket), await world.visit(ticket, elsewhere=True)
    async with holder.exclusive():
        task = asyncio.create_task(waiting.exclusive(wait="9 seconds").__aenter__())
        await asyncio.sleep(0.03)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.sleep(0.05)
    assert not await leased(world, ticket)
    assert not waiting._engine.writer.locks._waiters


async def test_a_failure_of_the_store_while_a_cancelled_block_is_undone_is_reported():
    world, ticket = await started()
    session = await world.visit(ticket)
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


async def test_a_lost_answer_of_the_release_is_no_conflict():
    """A21: the second attempt finds no lease, because the first one has removed it."""
    world, ticket = await started()
    session = await world.visit(ticket)
    async with session.exclusive():
        world.store.fail("save", times=1, after=True)
    assert not await leased(world, ticket)


async def test_a_session_that_ends_before_the_lease_is_written():
    world, ticket = await started()
    session = await world.visit(ticket)
    world.store.meanwhile("save", lambda: world.memory.delete(ticket.session_id))
    with pytest.raises(SessionGone):
        await session.exclusive().__aenter__()
    assert not world.engine.writer.locks._waiters
