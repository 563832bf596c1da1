"""Loads that the near cache answers, and records that it discards (laws N1 and N2)."""

import msgspec
import pytest

from sojourn._core.record_cache import Reservation
from sojourn.errors import StoreError, StoreUnavailable
from sojourn.events import Read
from sojourn.record import FOREVER
from sojourn.session import create_session
from tests.unit.core.engine_harness import Browser, World, end_of_request, ticket_of

pytestmark = pytest.mark.anyio

CLIENT = Browser(browser="B", address="1")


class Cache:
    """A cache without a time limit."""

    def __init__(self):
        self.records = {}
        self.reserved = []
        self.discarded = []

    def get(self, session_id):
        return self.records.get(session_id)

    def reserve(self, session_id):
        self.reserved.append(Reservation(session_id, 1.0, 2.0))
        return self.reserved[-1]

    def put(self, reservation, record):
        assert reservation is self.reserved[-1]
        self.records[reservation.session_id] = record

    def discard(self, session_id):
        self.discarded.append(session_id)
        self.records.pop(session_id, None)

    def clear(self):
        self.records.clear()


def cached_world(**options):
    world = World(**options)
    world.options["near_cache"] = world.cache = Cache()
    world.engine = world.another_process()
    return world


async def cached(world):
    """Return the ticket of a session whose record is in memory."""
    ticket = await world.create(CLIENT, a=1)
    await world.load(ticket, CLIENT)
    assert world.cache.records == {ticket.session_id: await world.record(ticket)}
    world.store.calls.clear()
    world.events.clear()
    return ticket


async def test_a_cached_record_is_returned_without_a_store_call():
    """N1."""
    world = cached_world()
    ticket = await cached(world)
    copy = world.engine.load_from_memory(ticket, CLIENT)
    assert (copy.record, copy.verifier, copy.client) == (
        await world.record(ticket),
        ticket.verifier,
        CLIENT,
    )
    assert copy.decode().get("a") == 1
    assert [event.session_id for event in world.emitted(Read)] == [ticket.session_id.hex()]
    assert world.store.calls == []


async def test_a_load_calls_the_store_and_updates_the_cached_record():
    """N1."""
    world = cached_world()
    ticket = await cached(world)
    await world.concurrent_write(ticket, a=2)
    assert (await world.load(ticket, CLIENT))["a"] == 2
    assert world.cache.records[ticket.session_id] == await world.record(ticket)


async def test_a_refresh_updates_the_cached_record():
    """N1: a request that follows is not served an older record than this one."""
    world = cached_world()
    ticket = await cached(world)
    session = create_session(world.engine.load_from_memory(ticket, CLIENT), world.engine.engine)
    cached_record = await world.record(ticket)
    await world.concurrent_write(ticket, a=2)
    world.cache.records[ticket.session_id] = cached_record
    assert await world.engine.refresh(session)
    assert world.engine.load_from_memory(ticket, CLIENT).decode().get("a") == 2


async def test_a_refresh_that_finds_no_session_removes_it_from_the_cache():
    """N1, A7."""
    world = cached_world()
    ticket = await cached(world)
    session = create_session(world.engine.load_from_memory(ticket, CLIENT), world.engine.engine)
    await world.memory.delete(ticket.session_id)
    assert not await world.engine.refresh(session)
    assert world.engine.load_from_memory(ticket, CLIENT) is None


async def test_without_a_cache_a_load_from_memory_returns_none():
    world = World()
    ticket = await world.create(CLIENT, a=1)
    await world.load(ticket, CLIENT)
    assert world.engine.load_from_memory(ticket, CLIENT) is None


async def test_a_session_that_is_not_cached_is_not_loaded_from_memory():
    world = cached_world()
    ticket = await world.create(CLIENT, a=1)
    world.cache.records.clear()
    await world.load(None)
    assert world.engine.load_from_memory(ticket, CLIENT) is None


@pytest.mark.parametrize("fails", [False, True])
async def test_a_reservation_ends_even_without_a_record(fails):
    world = cached_world()
    ticket = await cached(world)
    if fails:
        world.store.fail("load", times=1)
        with pytest.raises(StoreUnavailable):
            await world.load(ticket, CLIENT)
    else:
        await world.memory.delete(ticket.session_id)
        assert len(await world.load(ticket, CLIENT)) == 0
    assert world.cache.records == {ticket.session_id: None}
    assert world.engine.load_from_memory(ticket, CLIENT) is None


@pytest.mark.parametrize(
    ("changes", "served"),
    [
        ({}, True),
        ({"verifier": bytes(32)}, False),
        ({"confirmed": False}, False),
        ({"absolute_at": 1}, False),
        ({"seen_at": 1, "idle_timeout": 1}, False),
        ({"previous_valid_until": FOREVER}, False),
        ({"previous_valid_until": 1}, True),
    ],
    ids=str,
)
async def test_only_records_in_the_ordinary_state_are_loaded_from_memory(changes, served):
    """N1: for any other state the record of the store decides."""
    world = cached_world()
    ticket = await cached(world)
    record = msgspec.structs.replace(world.cache.records[ticket.session_id], **changes)
    world.cache.records[ticket.session_id] = record
    assert (world.engine.load_from_memory(ticket, CLIENT) is not None) is served
    assert len(world.emitted(Read)) == served


async def test_a_session_whose_rotation_is_due_is_not_loaded_from_memory():
    """N1, A9."""
    world = cached_world(rotate_interval="5 minutes")
    ticket = await cached(world)
    assert world.engine.load_from_memory(ticket, CLIENT) is not None
    world.clock.advance("6 minutes")
    assert world.engine.load_from_memory(ticket, CLIENT) is None


@pytest.mark.parametrize(
    ("client", "served"),
    [(CLIENT, True), (Browser(browser="B", address="2"), False), (None, False)],
)
async def test_the_labels_of_the_client_are_checked(client, served):
    """N1."""
    world = cached_world(check_labels=("address",))
    ticket = await cached(world)
    assert (world.engine.load_from_memory(ticket, client) is not None) is served


@pytest.mark.parametrize("change", ["data", "activity"])
async def test_a_written_session_is_discarded_from_the_cache(change):
    """N3."""
    world = cached_world()
    ticket = await cached(world)
    if change == "activity":
        world.clock.advance("10 minutes")
    session = await world.load(ticket, CLIENT)
    world.cache.discarded.clear()
    if change == "data":
        session["a"] = 2
    else:
        assert session["a"] == 1
    await end_of_request(session)
    assert world.cache.discarded == [ticket.session_id]


REVOCATIONS = ["logout", "revoke", "revoke_user", "revoke_all"]


async def revoke(world, session, how):
    revoker = world.engine.engine.revoker
    session_id = bytes.fromhex(session.id)
    if how == "logout":
        session.logout()
        await end_of_request(session)
    elif how == "revoke":
        await revoker.revoke(session_id, "stolen")
    elif how == "revoke_user":
        await revoker.revoke_indexed("user:ada", "stolen", keep=None, actor=None)
    else:
        await revoker.revoke_all("stolen", actor=None)


async def logged_in(world):
    """Return the ticket and the session of a user, whose record is in memory."""
    session = await world.load(await cached(world), CLIENT)
    session.login("ada")
    await end_of_request(session)
    ticket = ticket_of(session)
    session = await world.load(ticket, CLIENT)
    assert world.engine.load_from_memory(ticket, CLIENT) is not None
    return ticket, session


@pytest.mark.parametrize("how", [how for how in REVOCATIONS if how != "revoke_all"])
async def test_a_revocation_discards_a_session_that_another_process_has_ended(how):
    """N2: the message of the other process may be late or lost."""
    world = cached_world()
    ticket, session = await logged_in(world)
    await world.memory.delete(ticket.session_id)
    await revoke(world, session, how)
    assert world.engine.load_from_memory(ticket, CLIENT) is None


@pytest.mark.parametrize("how", REVOCATIONS)
async def test_a_revocation_that_fails_discards_what_it_may_have_ended(how):
    """N2."""
    world = cached_world()
    ticket, session = await logged_in(world)
    world.store.fail("delete", "delete_many", "invalidate_all", after=True)
    with pytest.raises(StoreError):
        await revoke(world, session, how)
    assert world.engine.load_from_memory(ticket, CLIENT) is None


async def test_a_change_of_a_cached_session_is_replayed_on_the_newest_record():
    """N4."""
    world = cached_world()
    ticket = await cached(world)
    cached_record = await world.record(ticket)
    await world.concurrent_write(ticket, b=2)
    world.cache.records[ticket.session_id] = cached_record
    session = create_session(world.engine.load_from_memory(ticket, CLIENT), world.engine.engine)
    assert session == {"a": 1}
    session["a"] = 3
    await end_of_request(session)
    assert await world.data(ticket) == {"a": 3, "b": 2}
