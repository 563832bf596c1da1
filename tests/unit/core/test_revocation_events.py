"""Revocation: events, tombstones, closed connections and failures."""

import asyncio
import hashlib

import pytest

from sojourn.errors import ConfigurationError, StoreUnavailable
from sojourn.events import Rejected, Revoked, StoreFailed
from sojourn.record import NO_VERIFIER
from sojourn.testing import FaultyStore
from tests.support.small_stores import CapableStore, PlainStore
from tests.unit.core.engine_harness import World, end_of_request, ticket_of

pytestmark = pytest.mark.anyio

DAY = 86_400_000


class Connections:
    """Records the connections that were to be closed."""

    def __init__(self):
        self.closed = []

    def sessions_ended(self, session_ids, reason):
        self.closed.append((list(session_ids), reason))

    def all_sessions_ended(self, before, reason):
        self.closed.append((before, reason))

    def user_logged_in(self, session_id):
        pass


class SingleCallStore(CapableStore):
    """A store with a user index and without bulk calls."""

    delete_many = create_many = None


def make_world(store=None):
    world = World()
    world.closed = (connections := Connections()).closed
    world.options["connections"] = connections
    if store is not None:
        world.store = FaultyStore(store)
    world.engine = world.another_process()
    return world


async def log_in(world, user="ada"):
    session = await world.load(None)
    session["a"] = 1
    session.login(user)
    await end_of_request(session)
    return ticket_of(session)


def revoke_user(world, user="ada", *, keep=None, reason="stolen", actor="admin"):
    return world.engine.revoker.revoke_indexed(f"user:{user}", reason, keep=keep, actor=actor)


async def test_a_revoked_session_is_reported_and_its_connections_are_closed():
    """W4, B-41."""
    world = make_world()
    ticket = await world.create(a=1)
    assert await world.engine.revoker.revoke(ticket.session_id, "stolen", actor="admin")
    assert await world.record(ticket) is None
    assert world.closed == [([ticket.session_id], "stolen")]
    assert world.emitted(Revoked) == [
        Revoked(ticket.session_id.hex(), "stolen", "admin", world.clock.now)
    ]
    assert not await world.engine.revoker.revoke(ticket.session_id, "again")
    assert len(world.emitted(Revoked)) == len(world.closed) == 1


async def test_a_tombstone_explains_the_end_for_a_day():
    """B-41: its verifier matches no ticket; it is a record of the documented format."""
    world = make_world()
    ticket = await world.create(a=1)
    await world.engine.revoker.revoke(ticket.session_id, "stolen")
    name = hashlib.sha256(b"sojourn mark" + ticket.session_id).digest()[:16]
    tombstone = await world.memory.load(name)
    now = world.clock.now
    assert (tombstone.version, tombstone.verifier) == (0, NO_VERIFIER)
    assert (tombstone.created_at, tombstone.seen_at) == (now, now)
    assert (tombstone.idle_timeout, tombstone.absolute_at) == (DAY, now + DAY)
    assert tombstone.expires_at == now + DAY
    assert (await world.load(ticket)).ended_reason == "stolen"
    assert world.emitted(Rejected)[-1] == Rejected(ticket.session_id.hex(), "revoked")
    await world.memory.delete(name)
    assert (await world.load(ticket)).ended_reason is None
    assert world.emitted(Rejected)[-1] == Rejected(ticket.session_id.hex(), "unknown")


@pytest.mark.parametrize("reason", ["destroyed", "logout"])
async def test_a_session_destroyed_by_its_visitor_has_no_tombstone(reason):
    """B-53."""
    world = make_world()
    ticket = await world.create(a=1)
    await world.engine.revoker.revoke(ticket.session_id, reason)
    assert world.memory.records() == []


@pytest.mark.parametrize("store", [None, SingleCallStore], ids=["bulk", "single calls"])
@pytest.mark.parametrize("count", [1, 2, 3])
async def test_every_session_of_a_user_except_the_kept_one_is_revoked(store, count):
    """S16, W4: with bulk calls and with single ones."""
    world = make_world(store and store())
    ended = [await log_in(world) for _ in range(count)]
    kept, other = await log_in(world), await log_in(world, "bob")
    assert await revoke_user(world, keep=kept.session_id) == count
    session_ids = {ticket.session_id for ticket in ended}
    ((closed, reason),) = world.closed
    assert (set(closed), len(closed), reason) == (session_ids, count, "stolen")
    assert {(e.session_id, e.reason, e.actor) for e in world.emitted(Revoked)} == {
        (session_id.hex(), "stolen", "admin") for session_id in session_ids
    }
    for ticket in ended:
        assert (await world.load(ticket)).ended_reason == "stolen"
    for ticket in (kept, other):
        assert dict(await world.load(ticket)) == {"a": 1}


@pytest.mark.parametrize("store", [None, SingleCallStore], ids=["bulk", "single calls"])
async def test_a_session_that_ended_meanwhile_is_not_counted(store):
    """S7, S16."""
    world = make_world(store and store())
    first, second = await log_in(world), await log_in(world)
    original = world.store.list_by_index

    async def list_by_index(name):
        records = await original(name)
        await world.store.store.delete(first.session_id)
        return records

    world.store.list_by_index = list_by_index
    assert await revoke_user(world) == 1
    assert world.closed == [([second.session_id], "stolen")]


async def test_a_user_without_sessions_is_not_reported():
    world = make_world()
    assert await revoke_user(world) == 0
    assert (world.closed, world.events, world.memory.records()) == ([], [], [])


async def test_logins_in_progress_are_refused_and_later_ones_accepted():
    """S16: a login in the same millisecond is later than the cutoff."""
    world = make_world()
    slow = await world.load(None)
    slow.login("ada")
    await revoke_user(world)
    await end_of_request(slow)
    assert world.memory.records() == []
    ticket = await log_in(world)
    assert (await world.record(ticket)).authenticated_at == world.clock.now + 1
    assert (await world.load(ticket)).user == "ada"


async def test_revoke_all_writes_one_cutoff():
    """S15, W4: a session that starts in the same millisecond is later than the cutoff."""
    world = make_world()
    tickets = [await world.create(a=1), await log_in(world)]
    world.store.calls.clear()
    await world.engine.revoker.revoke_all("incident", actor="admin")
    assert world.store.calls == ["invalidate_all"]
    before = world.clock.now + 1
    assert world.closed == [(before, "incident")]
    assert world.emitted(Revoked) == [Revoked("", "incident", "admin", before)]
    for ticket in tickets:
        assert dict(await world.load(ticket)) == {}
    ticket = await world.create(a=1)
    assert (await world.record(ticket)).created_at == before


@pytest.mark.parametrize(
    ("verb", "operation", "named"),
    [
        ("delete", "delete", True),
        ("list_by_index", "revoke", False),
        ("delete_many", "revoke", False),
        ("invalidate_all", "revoke", False),
    ],
)
async def test_a_failing_delete_is_reported_and_raised(verb, operation, named):
    """A15: whether the session was deleted is unknown."""
    world = make_world()
    ticket = await log_in(world)
    world.store.fail(verb)
    revoker = world.engine.revoker
    call = {"delete": lambda: revoker.revoke(ticket.session_id, "x")}.get(
        verb,
        (lambda: revoker.revoke_all("x", actor=None))
        if verb == "invalidate_all"
        else (lambda: revoke_user(world)),
    )
    with pytest.raises(StoreUnavailable) as caught:
        await call()
    cause = caught.value.__cause__ or caught.value
    assert world.emitted(StoreFailed) == [
        StoreFailed(ticket.session_id.hex() if named else "", operation, str(cause))
    ]
    assert world.closed == world.emitted(Revoked) == []


@pytest.mark.parametrize("count", [1, 2])
async def test_sessions_are_revoked_although_their_tombstones_cannot_be_written(count):
    """A7."""
    world = make_world()
    tickets = [await log_in(world) for _ in range(count)]
    world.store.fail("create", "create_many")
    assert await revoke_user(world) == count
    assert [await world.record(ticket) for ticket in tickets] == [None] * count
    (failed,) = world.emitted(StoreFailed)
    assert failed.operation == "add_tombstone"
    assert failed.session_id in {ticket.session_id.hex() for ticket in tickets}
    assert "None" not in failed.error


def test_a_store_without_a_user_index_refuses_to_revoke_a_user():
    world = make_world(PlainStore())
    with pytest.raises(ConfigurationError, match="has no index of users; use a store with one"):
        asyncio.run(revoke_user(world))
