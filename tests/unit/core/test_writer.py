"""Writer: compare-and-set in turn, with a bounded number of attempts and one call per conflict."""

import asyncio

import msgspec
import pytest

from sojourn._core.writer import MAX_ATTEMPTS
from sojourn._crypto.rotation import VerifierChain
from sojourn.errors import SessionConflict, SessionGone, SessionTooLarge, StoreUnavailable
from sojourn.events import Conflicted, Expired, Rejected, StoreFailed, Written
from sojourn.record import NO_VERIFIER, TRANSIT_VERSION, UnreadableRecord
from tests.support.working_copies import copy_of
from tests.unit.core.engine_harness import World, end_of_request, ticket_of

pytestmark = pytest.mark.anyio


async def stored_session(**data):
    world = World()
    ticket = await world.create(**data)
    world.store.calls.clear()
    return world, ticket


async def test_each_conflict_costs_one_store_call():
    """S18."""
    world, ticket = await stored_session(n=0)
    session = await world.load(ticket)
    session.increment("n")
    for n in (5, 6):
        await world.concurrent_write(ticket, n=n)
    world.store.calls.clear()
    await session.acommit()
    assert world.store.calls == ["save", "save"]
    assert await world.data(ticket) == {"n": 7}
    assert world.emitted(Conflicted)[-1].attempts == 1
    assert world.engine.context.dispatcher.counts[Conflicted] == 1


async def test_each_conflict_of_a_commit_is_counted():
    world, ticket = await stored_session(n=0)
    session = await world.load(ticket)
    session.increment("n")

    async def write():
        record = await world.record(ticket)
        newer = msgspec.structs.replace(record, version=record.version + 1)
        await world.memory.save(newer, record.version)

    for _ in range(2):
        world.store.meanwhile("save", write)
    await session.acommit()
    assert world.emitted(Conflicted) == [Conflicted(session.id, 2)]
    assert world.engine.context.dispatcher.counts[Conflicted] == 2


async def test_contention_in_one_process_costs_no_store_call():
    """A waiting commit starts from the record that the previous commit wrote."""
    world, ticket = await stored_session(n=0)
    sessions = [await world.load(ticket) for _ in range(20)]
    for session in sessions:
        session.increment("n")
    world.store.calls.clear()
    world.store.slow("save", seconds=0.0001)
    await asyncio.gather(*(session.acommit() for session in sessions))
    assert world.store.calls == ["save"] * 20
    assert await world.data(ticket) == {"n": 20}
    assert world.emitted(Conflicted) == []


async def test_concurrent_commits_of_several_processes_lose_no_update():
    """S10, A6."""
    world, ticket = await stored_session(n=0)

    async def one(number):
        session = await world.load(ticket, other_process=True)
        session.increment("n")
        session[f"key{number}"] = number
        await asyncio.sleep(0)
        await session.acommit()

    world.store.slow("save", "load", seconds=0.0001)
    await asyncio.gather(*map(one, range(20)))
    world.store.heal()
    assert await world.data(ticket) == {"n": 20} | {f"key{n}": n for n in range(20)}


async def test_after_a_bounded_number_of_conflicts_a_commit_raises_and_keeps_its_changes():
    world, ticket = await stored_session(n=0)
    session = await world.load(ticket)
    session.increment("n")

    async def faster():
        await world.concurrent_write(ticket, other=world.clock.now)

    original = world.memory.save

    async def save(record, expected):
        if "n" in record.contents().data and copy_of(session).record.version < record.version:
            stored = await world.memory.load(record.id)
            await original(
                msgspec.structs.replace(stored, version=stored.version + 1), stored.version
            )
        return await original(record, expected)

    world.memory.save = save
    with pytest.raises(SessionConflict) as caught:
        await session.acommit()
    assert caught.value.attempts == MAX_ATTEMPTS
    assert caught.value.session_id == session.id
    world.memory.save = original
    assert session["n"] == 1
    await session.acommit()
    assert (await world.data(ticket))["n"] == 1


async def test_a_conflict_with_an_unreadable_record_ends_the_session():
    """S9."""
    world, ticket = await stored_session(n=0)
    session = await world.load(ticket)
    session["n"] = 1
    record = await world.record(ticket)
    await world.memory.save(msgspec.structs.replace(record, version=2, body=b"\xc1"), 1)
    with pytest.raises(SessionGone):
        await session.acommit()
    assert "unreadable" in world.emitted(Rejected)[0].reason


async def test_a_store_that_cannot_read_its_record_ends_the_session():
    world, ticket = await stored_session(n=0)
    session = await world.load(ticket)
    session["n"] = 1
    world.store.fail("save", error=UnreadableRecord("newer format"))
    await end_of_request(session)
    assert copy_of(session).revoked
    assert "newer format" in world.emitted(Rejected)[0].reason


async def test_a_conflict_with_an_expired_record_ends_the_session():
    """A17: an unconfirmed record has a shorter idle timeout."""
    world, ticket = await stored_session(n=0)
    session = await world.load(ticket)
    session["n"] = 1
    record = await world.record(ticket)
    short = msgspec.structs.replace(record, version=2, idle_timeout=1_000)
    await world.memory.save(short, 1)
    world.clock.advance("2 seconds")
    with pytest.raises(SessionGone):
        await session.acommit()
    assert await world.record(ticket) == short or world.emitted(Expired)


@pytest.mark.parametrize("limit", ["idle", "absolute"])
async def test_a_commit_at_the_millisecond_of_the_deadline_writes_nothing(limit):
    """A17."""
    world = World(timeout="30 minutes", absolute_timeout="40 minutes")
    ticket = await world.create(n=0)
    if limit == "absolute":
        world.clock.advance("25 minutes")
        await world.concurrent_write(ticket, other=1)
    session = await world.load(ticket)
    session["n"] = 1
    world.clock.now = (await world.record(ticket)).expires_at
    with pytest.raises(SessionGone):
        await session.acommit()
    assert world.emitted(Expired) == [Expired(ticket.session_id.hex(), limit)]


async def test_a_commit_that_waited_for_a_refused_one_writes_its_changes():
    """B-54: the refused commit has no record for the next one in the queue."""
    world = World(max_bytes=300)
    ticket = await world.create(n=0)
    first, refused, last = [await world.load(ticket) for _ in range(3)]
    first.increment("n")
    refused["large"] = "x" * 400
    last.increment("n")
    world.store.slow("save", seconds=0, times=1)
    commits = (session.acommit() for session in (first, refused, last))
    results = await asyncio.gather(*commits, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), SessionTooLarge, type(None)]
    assert await world.data(ticket) == {"n": 2}


async def test_a_commit_during_a_refresh_continues_on_the_record_that_it_wrote():
    """S18: the refresh, of another task of the handler, replaces the record of the copy."""
    world, ticket = await stored_session(n=0)
    session = await world.load(ticket)

    async def refresh():
        record = await world.record(ticket)
        await world.memory.touch(record.with_seen_at(record.seen_at + 1))
        await session.arefresh()

    session["n"] = 1
    world.store.meanwhile("save", refresh)
    await session.acommit()
    session["n"] = 2
    world.store.calls.clear()
    await session.acommit()
    assert world.store.calls == ["save"]
    assert await world.data(ticket) == {"n": 2}


async def move(world, ticket):
    """Replace the record by one of a session that is being moved to another store."""
    record = await world.record(ticket)
    moving = msgspec.structs.replace(record, version=TRANSIT_VERSION, verifier=NO_VERIFIER)
    await world.memory.delete(record.id)
    await world.memory.create(moving)
    return moving


async def test_a_commit_to_a_session_that_is_being_moved_raises():
    """A15, A6: its changes would be lost with the old record."""
    world, ticket = await stored_session(n=0)
    session = await world.load(ticket)
    session["n"] = 1
    moving = await move(world, ticket)
    with pytest.raises(StoreUnavailable, match="another store"):
        await session.acommit()
    assert await world.record(ticket) == moving


async def test_a_commit_after_the_timeout_to_a_session_that_is_being_moved_raises():
    """A15, A17: it loads the record to check whether it was extended."""
    world, ticket = await stored_session(n=0)
    session = await world.load(ticket)
    session["n"] = 1
    moving = await move(world, ticket)
    world.clock.advance("400 days")
    with pytest.raises(StoreUnavailable, match="another store"):
        await session.acommit()
    assert await world.record(ticket) == moving


async def test_a_refresh_of_a_session_that_is_being_moved_raises():
    """A15."""
    world, ticket = await stored_session(n=0)
    session = await world.load(ticket)
    await move(world, ticket)
    with pytest.raises(StoreUnavailable, match="another store"):
        await session.arefresh()
    assert session["n"] == 0


async def test_a_commit_to_a_session_that_is_being_moved_has_a_known_outcome():
    """A21: the conflict shows that its save did nothing, however many commits follow."""
    world, ticket = await stored_session(n=0)
    original = await world.record(ticket)
    session = await world.load(ticket)
    session["n"] = 1
    await move(world, ticket)
    with pytest.raises(StoreUnavailable, match="another store"):
        await session.acommit()
    await world.memory.delete(original.id)
    await world.memory.create(msgspec.structs.replace(original, version=7))
    await session.acommit()
    assert await world.data(ticket) == {"n": 1}


async def test_a_conflict_is_replayed_on_data_that_the_ticket_encrypts():
    """A6."""
    world = World(encrypt="ticket")
    ticket = await world.create(n=0)
    session = await world.load(ticket)
    session.increment("n")
    await world.concurrent_write(ticket, n=5)
    await session.acommit()
    assert (await world.load(ticket))["n"] == 6


async def test_both_tickets_of_a_rotation_decrypt_the_data():
    """A9: also the previous one, when the new one cannot be derived from it."""
    world = World(encrypt="ticket")
    before = await world.create(n=0)
    session = await world.load(before)
    session["n"] = 1
    session.rotate()
    await end_of_request(session)
    world.replace_rotation(VerifierChain([b"another secret of the same world"], realm="default"))
    for ticket in (before, ticket_of(session)):
        assert (await world.load(ticket))["n"] == 1


async def test_a_commit_after_a_login_keeps_the_idle_timeout_of_a_user():
    """A17."""
    world = World(timeout="1 hour", anonymous_timeout="10 minutes")
    session = await world.load(None)
    session.login("ada")
    await end_of_request(session)
    session = await world.load(ticket_of(session))
    session["n"] = 1
    await end_of_request(session)
    record = await world.record(ticket_of(session))
    assert (record.version, record.idle_timeout) == (2, 3_600_000)


async def test_a_save_that_fails_is_reported_by_its_operation():
    world, ticket = await stored_session(n=0)
    session = await world.load(ticket)
    session["n"] = 1
    world.store.fail("save", times=1)
    with pytest.raises(StoreUnavailable) as caught:
        await session.acommit()
    expected = StoreFailed(ticket.session_id.hex(), "save", str(caught.value))
    assert world.emitted(StoreFailed) == [expected]


async def test_seen_at_never_decreases():
    """S6."""
    world, ticket = await stored_session(n=0)
    session = await world.load(ticket)
    session["n"] = 1
    world.clock.now -= 5_000
    await session.acommit()
    assert copy_of(session).record.seen_at == world.clock.now + 5_000
    assert (await world.record(ticket)).seen_at == copy_of(session).record.seen_at


async def test_the_error_names_the_three_largest_keys():
    world = World(max_bytes=200)
    session = await world.load(None)
    for size in (10, 60, 30, 90, 20):
        session[f"k{size}"] = "x" * size
    with pytest.raises(SessionTooLarge) as caught:
        await session.acommit()
    assert [key for key, _ in caught.value.largest] == ["k90", "k60", "k30"]
    assert caught.value.size > caught.value.limit == 200


async def test_the_error_about_a_large_key_is_short():
    world = World(max_bytes=200)
    session = await world.load(None)
    session["small"], session["k" * 1_000] = "x" * 10, 1
    with pytest.raises(SessionTooLarge) as caught:
        await session.acommit()
    assert [(key[0], size) for key, size in caught.value.largest] == [("k", 1_001), ("s", 16)]
    assert len(str(caught.value)) < 400


async def test_a_body_of_max_bytes_is_saved_and_a_larger_one_is_not():
    """B-54."""
    world, ticket = await stored_session(text="x" * 100)
    size = len((await world.record(ticket)).body)
    world = World(max_bytes=size)
    session = await world.load(await world.create(text=""))
    session["text"] = "x" * 101
    with pytest.raises(SessionTooLarge) as caught:
        await session.acommit()
    assert (caught.value.size, caught.value.limit) == (size + 1, size)
    session["text"] = "x" * 100
    await session.acommit()
    assert len(copy_of(session).record.body) == size
    assert len((await world.record(await world.create(text="x" * 100))).body) == size


async def test_written_has_the_new_version():
    world, ticket = await stored_session(n=0)
    await world.concurrent_write(ticket, n=1)
    assert world.emitted(Written) == [Written(ticket.session_id.hex(), 2)]
