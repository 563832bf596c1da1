"""Revoking a user: a constant number of store calls, and one report for each session."""

import pytest

from sojourn._core.clock import ServerClock
from sojourn._core.concurrency import sleep
from sojourn._core.connection_control import NoConnections
from sojourn.errors import RevocationIncomplete, StoreUnavailable
from sojourn.events import Revoked, StoreFailed
from sojourn.store import IncompleteList
from sojourn.testing import FaultyStore
from tests.support.small_stores import PlainStore
from tests.unit.core.engine_harness import World, end_of_request, ticket_of

pytestmark = pytest.mark.anyio

BULK = ("delete_many", "create_many")


class RecordedConnections(NoConnections):
    """Records the sessions whose connections were closed."""

    def __init__(self):
        self.ended = []

    def sessions_ended(self, session_ids, reason):
        self.ended.append((list(session_ids), reason))


class SingleStore(FaultyStore):
    """A store with a user index and without ``SupportsBulk``."""

    def __init__(self, store):
        super().__init__(store)
        for name in BULK:
            delattr(self, name)


def make_world(*, bulk=True):
    world = World()
    if not bulk:
        world.store = SingleStore(world.memory)
    world.connections = world.options["connections"] = RecordedConnections()
    world.engine = world.another_process()
    return world


async def log_in(world, number, user="ada"):
    """Log a user in the given number of times; return the tickets, oldest login first."""
    tickets = []
    for _ in range(number):
        session = await world.load(None)
        session["a"] = 1
        session.login(user)
        await end_of_request(session)
        tickets.append(ticket_of(session))
        world.clock.advance("1 second")
    world.store.calls.clear()
    world.events.clear()
    return tickets


def revoke(world, *, keep=None, actor=None):
    return world.engine.revoker.revoke_indexed("user:ada", "disabled", keep=keep, actor=actor)


def ids(tickets):
    return {ticket.session_id for ticket in tickets}


@pytest.mark.parametrize("number", [2, 3, 50])
async def test_revoking_several_sessions_makes_four_store_calls(number):
    """S16: the cutoff comes first, so that no login in progress is missed."""
    world = make_world()
    tickets = await log_in(world, number)
    assert await revoke(world) == number
    assert world.store.calls == ["invalidate_logins", "list_by_index", "delete_many", "create_many"]
    for ticket in tickets:
        assert await world.record(ticket) is None
        assert (await world.load(ticket)).ended_reason == "disabled"


async def test_revoking_one_session_makes_four_store_calls():
    world = make_world()
    [ticket] = await log_in(world, 1)
    assert await revoke(world) == 1
    assert world.store.calls == ["invalidate_logins", "list_by_index", "delete_many", "create"]
    assert (await world.load(ticket)).ended_reason == "disabled"


async def test_the_visitor_receives_the_reason_for_a_day():
    """Also if no purge has removed the tombstone since."""
    world = make_world()
    [ticket] = await log_in(world, 1)
    await revoke(world)
    world.clock.advance("23 hours 59 minutes")
    assert (await world.load(ticket)).ended_reason == "disabled"
    world.clock.advance("1 minute")
    assert (await world.load(ticket)).ended_reason is None


@pytest.mark.parametrize("bulk", [True, False])
async def test_revoking_a_user_without_sessions_deletes_nothing(bulk):
    world = make_world(bulk=bulk)
    assert await revoke(world) == 0
    assert world.store.calls == ["invalidate_logins", "list_by_index"]
    assert (world.events, world.connections.ended) == ([], [])


@pytest.mark.parametrize("bulk", [True, False])
async def test_each_session_is_reported_once(bulk):
    world = make_world(bulk=bulk)
    tickets = await log_in(world, 5)
    others = await log_in(world, 2, "bob")
    assert await revoke(world, actor="admin") == 5
    now = world.clock.now
    reported = world.emitted(Revoked)
    assert {event.session_id for event in reported} == {each.hex() for each in ids(tickets)}
    assert reported == [Revoked(event.session_id, "disabled", "admin", now) for event in reported]
    assert len(reported) == world.engine.context.dispatcher.counts[Revoked] == 5
    [(ended, reason)] = world.connections.ended
    assert (sorted(ended), reason) == (sorted(ids(tickets)), "disabled")
    for ticket in others:
        assert (await world.load(ticket)).user == "bob"


@pytest.mark.parametrize("bulk", [True, False])
async def test_the_session_given_as_keep_is_kept(bulk):
    """ASVS 7.4.3: a change of the password ends the other sessions."""
    world = make_world(bulk=bulk)
    *others, kept = await log_in(world, 4)
    assert await revoke(world, keep=kept.session_id) == 3
    assert (await world.load(kept)).user == "ada"
    assert {event.session_id for event in world.emitted(Revoked)} == {x.hex() for x in ids(others)}
    assert await revoke(world, keep=kept.session_id) == 0


async def test_a_session_that_was_deleted_meanwhile_is_not_reported():
    world = make_world()
    tickets = await log_in(world, 3)

    async def delete_one():
        assert await world.memory.delete(tickets[1].session_id)

    world.store.meanwhile("delete_many", delete_one)
    assert await revoke(world) == 2
    expected = {tickets[0].session_id.hex(), tickets[2].session_id.hex()}
    assert {event.session_id for event in world.emitted(Revoked)} == expected
    assert (await world.load(tickets[1])).ended_reason is None


async def test_if_all_sessions_were_deleted_meanwhile_none_is_reported():
    world = make_world()
    tickets = await log_in(world, 2)

    async def delete_all():
        await world.memory.delete_many(list(ids(tickets)))

    world.store.meanwhile("delete_many", delete_all)
    assert await revoke(world) == 0
    assert "create_many" not in world.store.calls
    assert (world.events, world.connections.ended) == ([], [])


async def test_a_store_without_bulk_is_called_for_each_session():
    world = make_world(bulk=False)
    tickets = await log_in(world, 3)
    assert await revoke(world) == 3
    assert world.store.calls == [
        "invalidate_logins",
        "list_by_index",
        *["delete"] * 3,
        *["create"] * 3,
    ]
    for ticket in tickets:
        assert (await world.load(ticket)).ended_reason == "disabled"


@pytest.mark.parametrize("verb", ["list_by_index", "delete_many"])
async def test_a_failing_store_is_reported_and_raised(verb):
    """S12: no session was revoked, and the error says so."""
    world = make_world()
    tickets = await log_in(world, 3)
    world.store.fail(verb, times=1)
    with pytest.raises(RevocationIncomplete, match="0 sessions were revoked") as caught:
        await revoke(world)
    error = caught.value
    assert isinstance(error, StoreUnavailable)
    assert (error.revoked, error.cutoff_set) == ((), True)
    if verb == "list_by_index":
        assert error.remaining is None
    else:
        assert set(error.remaining) == {each.hex() for each in ids(tickets)}
    assert [event.operation for event in world.emitted(StoreFailed)] == ["revoke"]
    assert world.connections.ended == []
    assert await revoke(world) == 3


@pytest.mark.parametrize("bulk", [True, False])
async def test_a_rejected_cutoff_does_not_prevent_the_revocation(bulk):
    """S12, S16: a full store deletes; then the cutoff is retried and later logins are listed."""
    world = make_world(bulk=bulk)
    tickets = await log_in(world, 3)
    world.store.fail("invalidate_logins", times=1)

    async def log_in_meanwhile():
        tickets.extend(await log_in(world, 1))

    world.store.meanwhile("invalidate_logins", log_in_meanwhile)
    assert await revoke(world) == 4
    for ticket in tickets:
        assert await world.record(ticket) is None
    assert [event.operation for event in world.emitted(StoreFailed)] == []  # cleared by log_in
    assert len(world.emitted(Revoked)) == 4


async def test_a_retried_cutoff_keeps_the_session_given_as_keep():
    """S12, S16: also in the second list."""
    world = make_world()
    [kept] = await log_in(world, 1)
    tickets = await log_in(world, 2)
    cutoffs = []
    invalidate = world.store.invalidate_logins

    async def refuse_once(name, before):
        cutoffs.append((name, before))
        if len(cutoffs) == 1:
            raise StoreUnavailable("full")
        await invalidate(name, before)

    world.store.invalidate_logins = refuse_once
    assert await revoke(world, keep=kept.session_id) == 2
    assert cutoffs[0] == cutoffs[1]
    assert await world.record(kept) is not None
    for ticket in tickets:
        assert await world.record(ticket) is None
    [failed] = world.emitted(StoreFailed)
    assert (failed.operation, failed.session_id) == ("revoke", "")
    assert "full" in failed.error


@pytest.mark.parametrize("bulk", [True, False])
async def test_a_revocation_without_a_cutoff_raises_and_names_the_revoked_sessions(bulk):
    """S12, S16: the sessions and their connections have ended."""
    world = make_world(bulk=bulk)
    tickets = await log_in(world, 3)
    world.store.fail("invalidate_logins")
    with pytest.raises(RevocationIncomplete, match=r"3 sessions.*progress may succeed") as caught:
        await revoke(world)
    assert set(caught.value.revoked) == {each.hex() for each in ids(tickets)}
    assert (caught.value.remaining, caught.value.cutoff_set) == ((), False)
    assert isinstance(caught.value.__cause__, StoreUnavailable)
    [(ended, _)] = world.connections.ended
    assert set(ended) == ids(tickets)
    for ticket in tickets:
        assert (await world.load(ticket)).ended_reason == "disabled"


async def test_a_store_that_does_not_answer_is_called_once():
    """S12: the deadline also bounds the retries of a failed cutoff."""
    world = make_world()
    await log_in(world, 1)

    async def invalidate_logins(name, before):
        await sleep(world.config.store_timeout + 0.01)
        raise StoreUnavailable("no answer in time")

    world.store.invalidate_logins = invalidate_logins
    with pytest.raises(RevocationIncomplete) as caught:
        await revoke(world)
    assert (caught.value.revoked, caught.value.remaining) == ((), None)
    assert not caught.value.cutoff_set
    assert world.store.calls == []
    assert [event.operation for event in world.emitted(StoreFailed)] == ["revoke"]


async def test_a_failed_second_list_is_reported_as_unknown_rest():
    """S12: the list would show logins that came before the retried cutoff."""
    world = make_world()
    await log_in(world, 2)
    world.store.fail("invalidate_logins", times=1)

    async def fail_the_list():
        world.store.fail("list_by_index", times=1)

    world.store.meanwhile("invalidate_logins", fail_the_list)
    with pytest.raises(RevocationIncomplete) as caught:
        await revoke(world)
    assert len(caught.value.revoked) == 2
    assert (caught.value.remaining, caught.value.cutoff_set) == (None, True)


@pytest.mark.parametrize("deletes", [True, False])
async def test_an_incomplete_list_is_revoked_and_reported_as_unknown_rest(deletes):
    """S16: a store that consists of several stores, such as during a migration."""
    world = make_world()
    tickets = await log_in(world, 2)
    list_by_index = world.store.list_by_index

    async def list_one(name):
        if not deletes:
            world.store.fail("delete_many")
        raise IncompleteList("the other store failed", (await list_by_index(name))[:1])

    world.store.list_by_index = list_one
    with pytest.raises(RevocationIncomplete) as caught:
        await revoke(world)
    expected = (tickets[-1].session_id.hex(),) if deletes else ()
    assert (caught.value.revoked, caught.value.remaining) == (expected, None)
    assert caught.value.cutoff_set


@pytest.mark.parametrize("listed_again", [True, False])
async def test_sessions_that_could_not_be_deleted_are_named(listed_again):
    """S12: the store fails in the middle; the list shows which sessions have ended."""
    world = make_world(bulk=False)
    await log_in(world, 3)

    async def fail_from_now():
        world.store.fail("delete", times=1)
        if not listed_again:
            world.store.fail("list_by_index", times=1)

    world.store.meanwhile("delete", fail_from_now)
    with pytest.raises(RevocationIncomplete) as caught:
        await revoke(world)
    if listed_again:
        assert len(caught.value.revoked) == 1
        assert len(caught.value.remaining) == 2
    else:
        assert (caught.value.revoked, len(caught.value.remaining)) == ((), 3)
    assert caught.value.cutoff_set


async def test_a_store_that_cannot_revoke_all_raises():
    """S12."""
    world = make_world()
    [ticket] = await log_in(world, 1)
    world.store.fail("invalidate_all", times=1)
    with pytest.raises(RevocationIncomplete, match="unknown number of sessions") as caught:
        await world.engine.revoker.revoke_all("leak", actor=None)
    assert (caught.value.revoked, caught.value.remaining) == ((), None)
    assert [event.operation for event in world.emitted(StoreFailed)] == ["revoke"]
    assert (await world.load(ticket)).user == "ada"
    await world.engine.revoker.revoke_all("leak", actor=None)
    assert (await world.load(ticket)).user is None


async def test_sessions_are_revoked_even_if_their_tombstones_cannot_be_stored():
    world = make_world()
    tickets = await log_in(world, 3)
    world.store.fail("create_many", times=1)
    assert await revoke(world) == 3
    assert [event.operation for event in world.emitted(StoreFailed)] == ["add_tombstone"]
    for ticket in tickets:
        assert (await world.load(ticket)).ended_reason is None


@pytest.mark.parametrize("skew", [-3_600_000, 3_600_000])
@pytest.mark.parametrize("verb", ["invalidate_all", "invalidate_logins"])
async def test_a_cutoff_is_an_instant_of_the_servers_clock(verb, skew):
    """A22: the clock of this machine is wrong, and no session is missed or revoked by mistake."""
    world = make_world()
    found = []
    at = world.clock.now + skew

    class Server:
        async def server_time(self):
            return at

    async def record_cutoff(*arguments):
        found.append(arguments[-1])

    setattr(world.store, verb, record_cutoff)
    world.options["server_clock"] = ServerClock(Server(), wall=lambda: world.clock() / 1000)
    revoker = world.another_process().revoker
    if verb == "invalidate_all":
        await revoker.revoke_all("leak", actor=None)
        await revoker.revoke_all("leak", actor=None)
    else:
        await revoker.revoke_indexed("user:ada", "leak", keep=None, actor=None)
        await revoker.revoke_indexed("user:ada", "leak", keep=None, actor=None)
    assert found == [at + 1, at + 2]  # each later than the one before


@pytest.mark.parametrize("verb", ["revoke_all", "revoke_indexed"])
async def test_a_server_clock_that_cannot_be_read_prevents_the_revocation(verb):
    """S12, A22: a cutoff by the machine's clock would be wrong."""
    world = make_world()
    await log_in(world, 1)

    class Server:
        async def server_time(self):
            raise StoreUnavailable("planned")

    world.options["server_clock"] = ServerClock(Server(), wall=lambda: world.clock() / 1000)
    revoker = world.another_process().revoker
    if verb == "revoke_all":
        call = revoker.revoke_all("leak", actor=None)
    else:
        call = revoker.revoke_indexed("user:ada", "leak", keep=None, actor=None)
    with pytest.raises(RevocationIncomplete) as caught:
        await call
    assert (caught.value.revoked, caught.value.remaining) == ((), None)
    assert not caught.value.cutoff_set
    assert world.store.calls == []


class TestAcceptsLogin:
    """ASVS 7.4.2: a login of an earlier instant, by a remember cookie, after a revocation."""

    async def test_a_login_after_every_revocation_is_accepted(self):
        world = make_world()
        await log_in(world, 1)
        await world.engine.revoker.revoke_indexed("user:ada", "stolen", keep=None, actor=None)
        later = world.clock.advance("1 second")
        assert await world.engine.revoker.accepts_login("ada", later)

    async def test_a_login_from_before_the_user_was_revoked_is_refused(self):
        world = make_world()
        await log_in(world, 1)
        before = world.clock()
        world.clock.advance("1 second")
        await world.engine.revoker.revoke_indexed("user:ada", "stolen", keep=None, actor=None)
        assert not await world.engine.revoker.accepts_login("ada", before)
        assert await world.engine.revoker.accepts_login("eve", before)

    async def test_a_login_from_before_all_were_revoked_is_refused(self):
        world = make_world()
        before = world.clock()
        world.clock.advance("1 second")
        await world.engine.revoker.revoke_all("leak", actor=None)
        assert not await world.engine.revoker.accepts_login("ada", before)

    async def test_the_check_creates_no_record(self):
        world = make_world()
        assert await world.engine.revoker.accepts_login("ada", world.clock())
        assert world.store.calls == ["save_login", "create", "delete"]
        assert await world.memory.count(world.clock()) == 0

    async def test_a_store_without_a_user_index_accepts_every_login(self):
        world = World()
        world.store = PlainStore()
        world.engine = world.another_process()
        assert await world.engine.revoker.accepts_login("ada", 1)
