"""Loads and commits without a coroutine: they do what ``load`` and ``commit`` do, or decline."""

import pytest

from sojourn.events import Read, Written
from sojourn.session import Session
from tests.unit.core.engine_harness import Browser, World, end_of_request, ticket_of

pytestmark = pytest.mark.anyio

MINUTE = 60_000

LIMITS = pytest.mark.parametrize(
    ("idle", "absolute", "lifetime"), [(20, 60, 20), (15, 20, 5)], ids=["idle", "absolute"]
)


async def confirmed(world):
    """Return the ticket of a session whose cookie has come back."""
    ticket = await world.begin(a=1)
    await end_of_request(await world.visit(ticket))
    return ticket


async def used(idle, absolute):
    """Return a world and the ticket of a session that was used 15 minutes after its start."""
    world = World(
        anonymous_timeout=f"{idle} minutes", anonymous_absolute_timeout=f"{absolute} minutes"
    )
    ticket = await confirmed(world)
    for _ in range(3):
        world.clock.advance("5 minutes")
        await world.write(ticket, a=world.clock.now)
    return world, ticket


def visit(world, ticket):
    copy = world.engine.load_immediately(ticket, None)
    return None if copy is None else Session(copy, world.engine.engine)


def commit(world, session):
    return world.engine.commit_immediately(session._copy)


class TestLoading:
    async def test_a_load_is_one_call_and_one_event(self):
        """A3, S18."""
        world = World()
        ticket = await confirmed(world)
        reads = len(world.told(Read))
        world.store.calls.clear()
        client = Browser()
        copy = world.engine.load_immediately(ticket, client)
        assert dict(Session(copy, world.engine.engine)) == {"a": 1}
        assert copy.client is client
        assert ticket_of(Session(copy, world.engine.engine)) == ticket
        assert world.store.calls == ["load"]
        assert len(world.told(Read)) == reads + 1

    async def test_an_unknown_id_is_left_to_load(self):
        """A8."""
        world = World()
        ticket = await confirmed(world)
        await world.memory.delete(ticket.session_id)
        assert visit(world, ticket) is None

    @LIMITS
    async def test_an_expired_session_is_left_to_load(self, idle, absolute, lifetime):
        """A17: at the very millisecond."""
        world, ticket = await used(idle, absolute)
        world.clock.now += lifetime * MINUTE - 1
        assert visit(world, ticket) is not None
        world.clock.now += 1
        assert visit(world, ticket) is None

    async def test_a_ticket_replaced_by_a_login_is_left_to_load(self):
        """A9."""
        world = World()
        before = await confirmed(world)
        session = await world.visit(before)
        session.login("ada")
        await end_of_request(session)
        assert visit(world, before) is None
        assert visit(world, ticket_of(session)).user == "ada"

    async def test_a_rotated_session_is_left_to_load(self):
        """A9: neither ticket is ordinary as long as the previous one is valid, or was reused."""
        world = World()
        before = await confirmed(world)
        session = await world.visit(before)
        session.rotate()
        await end_of_request(session)
        for wait in ("1 s", "11 s"):
            world.clock.advance(wait)
            assert visit(world, before) is None
            assert visit(world, ticket_of(session)) is None

    @pytest.mark.parametrize(
        "options", [{"rotate_interval": "5 minutes"}, {"check_labels": ("browser",)}]
    )
    async def test_an_installation_that_checks_more_uses_load(self, options):
        world = World(**options)
        assert visit(world, await confirmed(world)) is None


class TestCommitting:
    async def test_a_change_is_one_save_and_one_event(self):
        """A4, S18."""
        world = World()
        ticket = await confirmed(world)
        session = visit(world, ticket)
        session["a"] = 2
        version = (await world.record(ticket)).version
        writes = len(world.told(Written))
        world.store.calls.clear()
        assert commit(world, session)
        assert world.store.calls == ["save"]
        assert await world.data(ticket) == {"a": 2}
        assert (await world.record(ticket)).version == version + 1
        assert len(world.told(Written)) == writes + 1
        session["b"] = 3
        assert commit(world, session), "the copy continues on what was written"
        assert await world.data(ticket) == {"a": 2, "b": 3}

    async def test_without_a_change_nothing_is_written(self):
        """A3."""
        world = World()
        session = visit(world, await confirmed(world))
        assert session["a"] == 1
        world.store.calls.clear()
        assert commit(world, session)
        assert world.store.calls == []

    async def test_a_touch_that_is_due_is_left_to_commit(self):
        """A3."""
        world = World(touch_interval="1 minute")
        session = visit(world, await confirmed(world))
        world.clock.now += MINUTE - 1
        assert commit(world, session)
        world.clock.now += 1
        assert not commit(world, session)

    async def test_a_conflict_is_left_to_commit(self):
        """A6: nothing of the other request is overwritten, nothing of this one is lost."""
        world = World()
        ticket = await confirmed(world)
        session = visit(world, ticket)
        session["mine"] = 1
        await world.write(ticket, theirs=2)
        assert not commit(world, session)
        assert await world.data(ticket) == {"a": 1, "theirs": 2}
        await end_of_request(session)
        assert await world.data(ticket) == {"a": 1, "mine": 1, "theirs": 2}

    async def test_a_deleted_session_is_not_brought_back(self):
        """A7."""
        world = World()
        ticket = await confirmed(world)
        session = visit(world, ticket)
        session["late"] = 1
        await world.memory.delete(ticket.session_id)
        assert not commit(world, session)
        assert await world.record(ticket) is None

    @LIMITS
    @pytest.mark.parametrize("early", [1, 0])
    async def test_a_session_that_expired_meanwhile_is_left_to_commit(
        self, idle, absolute, lifetime, early
    ):
        """A7, A17: at the very millisecond."""
        world, ticket = await used(idle, absolute)
        session = visit(world, ticket)
        session["late"] = 1
        world.clock.now += lifetime * MINUTE - early
        assert commit(world, session) is bool(early)

    async def test_a_session_that_is_too_large_is_left_to_commit(self):
        """B-55: it raises, and the changes stay."""
        world = World(max_bytes=400)
        ticket = await confirmed(world)
        session = visit(world, ticket)
        session["b"] = "x" * 500
        assert not commit(world, session)
        assert await world.data(ticket) == {"a": 1}
        session["b"] = "y"
        assert commit(world, session)
        assert await world.data(ticket) == {"a": 1, "b": "y"}

    @pytest.mark.parametrize(
        "act",
        [
            lambda session: session.login("ada"),
            lambda session: session.rotate(),
            lambda session: session.destroy(),
        ],
        ids=["login", "rotate", "destroy"],
    )
    async def test_more_than_a_change_of_data_is_left_to_commit(self, act):
        """A9."""
        world = World()
        ticket = await confirmed(world)
        session = visit(world, ticket)
        session["b"] = 1
        act(session)
        version = (await world.record(ticket)).version
        assert not commit(world, session)
        assert (await world.record(ticket)).version == version

    async def test_an_unconfirmed_session_is_left_to_commit(self):
        """The commit notes that its cookie has come back."""
        world = World(unconfirmed_timeout="10 minutes")
        ticket = await world.begin(a=1)
        assert not commit(world, visit(world, ticket))
