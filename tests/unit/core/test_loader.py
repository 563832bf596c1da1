"""Loader: reports about tickets, and the request data that an empty session keeps."""

import msgspec
import pytest

from sojourn._core.policy import IN_FLIGHT_PERIOD
from sojourn.errors import StoreUnavailable
from sojourn.events import Expired, Read, Rejected, Reused, StoreFailed
from sojourn.record import FOREVER, NO_VERIFIER, TRANSIT_VERSION, UnreadableRecord
from tests.support.working_copies import copy_of
from tests.unit.core.engine_harness import Browser, World, end_of_request, ticket_of

pytestmark = pytest.mark.anyio

CLIENT = Browser(browser="B", address="1")


class Connections:
    """Records sessions whose connections were closed because they expired."""

    def __init__(self):
        self.expired = []

    def session_expired(self, session_id, limit):
        self.expired.append((session_id, limit))

    def sessions_ended(self, session_ids, reason):
        pass

    def verifier_rotated(self, session_id):
        pass


async def rotated(world):
    """Return the previous and the current ticket of a session after a rotation."""
    before = await world.create(CLIENT, a=1)
    session = await world.load(before, CLIENT)
    session.rotate()
    await end_of_request(session)
    return before, ticket_of(session)


async def no_ticket(world):
    return None


async def unknown(world):
    ticket = await world.create(CLIENT, a=1)
    await world.memory.delete(ticket.session_id)
    return ticket


async def unreadable(world):
    ticket = await world.create(CLIENT, a=1)
    world.store.fail("load", error=UnreadableRecord("newer"), times=1)
    return ticket


async def forged_verifier(world):
    ticket = await world.create(CLIENT, a=1)
    return type(ticket)(ticket.session_id, bytes(16))


async def expired(world):
    ticket = await world.create(CLIENT, a=1)
    world.clock.advance("1 hour")
    return ticket


async def expired_previous(world):
    ticket, _ = await rotated(world)
    world.clock.advance("1 hour")
    return ticket


async def reused(world):
    ticket, current = await rotated(world)
    await end_of_request(await world.load(current, CLIENT))
    world.clock.now += IN_FLIGHT_PERIOD
    return ticket


@pytest.mark.parametrize(
    "prepare",
    [no_ticket, unknown, unreadable, forged_verifier, expired, expired_previous, reused],
)
async def test_an_empty_session_keeps_the_client_of_its_request(prepare):
    """A8: a session created in this request has its labels, and no verifier."""
    world = World()
    copy = copy_of(await world.load(await prepare(world), CLIENT))
    assert (copy.record, copy.verifier, copy.labels()) == (None, b"", CLIENT.labels())


@pytest.mark.parametrize(
    ("prepare", "reason"), [(unknown, "unknown"), (forged_verifier, "replaced")]
)
async def test_an_invalid_ticket_is_reported_with_its_session_id(prepare, reason):
    """A8."""
    world = World()
    ticket = await prepare(world)
    await world.load(ticket)
    assert world.emitted(Rejected) == [Rejected(ticket.session_id.hex(), reason)]


@pytest.mark.parametrize("prepare", [expired, expired_previous])
async def test_an_expired_session_is_reported_and_its_connections_are_closed(prepare):
    """A17, W6."""
    world = World()
    world.options["connections"] = connections = Connections()
    world.engine = world.another_process()
    ticket = await prepare(world)
    assert (await world.load(ticket)).ended_reason == "expired (idle)"
    assert connections.expired == [(ticket.session_id, "idle")]
    assert world.emitted(Expired) == [Expired(ticket.session_id.hex(), "idle")]


async def test_a_previous_ticket_keeps_the_client_and_the_load_is_reported():
    """A9."""
    world = World()
    before, _ = await rotated(world)
    reads = len(world.emitted(Read))
    copy = copy_of(await world.load(before, CLIENT))
    assert copy.client is CLIENT
    assert len(world.emitted(Read)) == reads + 1


async def test_a_previous_ticket_of_another_browser_is_rejected():
    """A9: its labels are checked as those of the current ticket."""
    world = World(check_labels=("browser",))
    before, current = await rotated(world)
    other = Browser(browser="C", address="1")
    for ticket in (before, current):
        world.events.clear()
        copy = copy_of(await world.load(ticket, other))
        assert (copy.record, copy.client) == (None, other)
        assert world.emitted(Rejected) == [Rejected(ticket.session_id.hex(), "labels")]
    assert world.emitted(Reused) == []


async def test_the_labels_of_an_unreadable_session_never_match():
    """S9."""
    world = World(check_labels=("browser",))
    ticket = await world.create(CLIENT, a=1)
    record = await world.record(ticket)
    await world.memory.save(msgspec.structs.replace(record, version=2, body=b"\xc1"), 1)
    assert copy_of(await world.load(ticket, CLIENT)).record is None


async def test_the_first_use_of_a_new_ticket_is_recorded_once():
    """A9: at any time; later uses do not extend the grace period."""
    world = World()
    _, current = await rotated(world)
    world.clock.advance("29 minutes")
    first, second = await world.load(current), await world.load(current)
    assert copy_of(first).header_dirty
    await end_of_request(first)
    until = world.clock.now + IN_FLIGHT_PERIOD
    assert (await world.record(current)).previous_valid_until == until
    world.clock.advance("1 second")
    await end_of_request(second)
    assert (await world.record(current)).previous_valid_until == until
    third = await world.load(current)
    assert not copy_of(third).header_dirty


async def test_a_previous_ticket_receives_the_current_one_until_the_next_rotation_may_happen():
    """A7, A9: later, a delayed response could replace a newer cookie."""
    world = World()
    before, current = await rotated(world)
    world.clock.advance("20 minutes")
    unseen = await world.load(before)
    assert copy_of(unseen).send_cookie_until == world.clock.now + IN_FLIGHT_PERIOD
    await end_of_request(await world.load(current))
    until = world.clock.now + IN_FLIGHT_PERIOD
    world.clock.advance("1 second")
    seen = await world.load(before)
    assert copy_of(seen).send_cookie_until == until
    seen.login("ada")
    await end_of_request(seen)
    assert copy_of(seen).send_cookie_until == FOREVER
    unseen.logout()
    assert copy_of(unseen).send_cookie_until == FOREVER
    await end_of_request(unseen)  # otherwise the change is reported in a later test


async def test_a_failing_store_is_reported_with_the_operation():
    """A15: also if only the load of the tombstone or a refresh fails."""
    world = World()
    ticket = await world.create(CLIENT, a=1)
    session = await world.load(ticket)
    world.store.fail("load")
    with pytest.raises(StoreUnavailable):
        await world.engine.refresh(session)
    world.store.heal()
    await world.memory.delete(ticket.session_id)
    original, calls = world.memory.load, []

    async def load(session_id):
        calls.append(session_id)
        if len(calls) == 2:
            raise StoreUnavailable("no tombstone")
        return await original(session_id)

    world.memory.load = load
    with pytest.raises(StoreUnavailable):
        await world.load(ticket)
    assert [(event.session_id, event.operation) for event in world.emitted(StoreFailed)] == [
        (ticket.session_id.hex(), "load")
    ] * 2


async def test_an_unreadable_record_found_by_a_refresh_is_reported():
    """S9."""
    world = World()
    ticket = await world.create(CLIENT, a=1)
    world.store.fail("load", error=UnreadableRecord("newer"), times=1)
    assert await world.engine.fetch(ticket.session_id) is None
    assert world.emitted(Rejected) == [Rejected(ticket.session_id.hex(), "unreadable: newer")]


async def test_loads_are_counted_without_a_listener():
    """Immediate loads and coroutines count alike."""
    world = World(listen=False)
    ticket = await world.create(CLIENT, a=1)
    await end_of_request(await world.load(ticket))
    counts = world.engine.context.dispatcher.counts
    before = counts[Read]
    for number in (1, 2):
        assert world.engine.load_immediately(ticket, None) is not None
        assert counts[Read] == before + number


async def test_a_session_that_is_being_moved_raises_instead_of_being_empty():
    """A15: for a process that uses one of the two stores; the error names the remedy."""
    world = World()
    ticket = await world.create(CLIENT, a=1)
    moving = msgspec.structs.replace(
        await world.record(ticket), version=TRANSIT_VERSION, verifier=NO_VERIFIER
    )
    await world.memory.delete(ticket.session_id)
    await world.memory.create(moving)
    text = (
        rf"session {moving.session_id} is moved to or from another store, and this process uses "
        r"one of the two alone\. Expected store=migrating\(old, new\) in every process until all "
        r"sessions are moved; see docs/migration\.md$"
    )
    with pytest.raises(StoreUnavailable, match=text) as caught:
        await world.load(ticket, CLIENT)
    failure = StoreFailed(moving.session_id, "load", str(caught.value))
    assert world.emitted(StoreFailed) == [failure]
    with pytest.raises(StoreUnavailable, match=text):  # of an open session
        await world.engine.fetch(ticket.session_id)
    assert world.emitted(StoreFailed) == [failure] * 2
