"""``session.clear()``: empties the session, and logs out where a user is logged in."""

import pytest

from sojourn.errors import ResponseStarted, StoreUnavailable
from sojourn.events import Authenticated, Created, Revoked
from sojourn.session import null_session
from tests.unit.core.engine_harness import World, end_of_request, ticket_of

pytestmark = pytest.mark.anyio


async def logged_in(**options):
    world = World(**options)
    session = await world.visit(await world.begin(a=1, cart={"apple": 1}))
    session.login("ada")
    session.flash("old")
    await end_of_request(session)
    return world, ticket_of(session)


class TestWithALogin:
    async def test_ends_the_session(self):
        """A24, A7: the ticket is invalid, and late writes of others are dropped."""
        world, ticket = await logged_in()
        session, late = await world.visit(ticket), await world.visit(ticket)
        cart, state, old_id = session["cart"], session.state, session.id
        token = session.csrf_token
        session.clear()
        assert session == {}
        assert (session.user, session.new, session.flashes()) == (None, True, [])
        assert session.labels == {}
        assert session.id != old_id
        assert not session.check_csrf(token)
        with pytest.raises(AttributeError):
            state.a  # noqa: B018 - raises
        cart["pear"] = 1
        await end_of_request(session)
        assert session.new
        late["late"] = True
        await end_of_request(late)
        assert await world.record(ticket) is None
        assert [event.reason for event in world.emitted(Revoked)] == ["destroyed"]

    async def test_what_is_written_afterwards_is_in_a_new_session(self):
        """A24: Flask's tutorial logs in so."""
        world, ticket = await logged_in()
        session = await world.visit(ticket)
        session.clear()
        session["user_id"] = 5
        session.flash("welcome")
        assert session.csrf_token
        session.state.count = 1
        session.login("bob")
        await end_of_request(session)
        assert await world.record(ticket) is None
        again = await world.visit(ticket_of(session))
        assert again == {"user_id": 5, "count": 1}
        assert (again.user, again.flashes()) == ("bob", [("welcome", "message")])
        assert len(world.emitted(Created)) == 2

    async def test_a_login_that_is_not_committed_is_dropped(self):
        """A24."""
        world = World()
        for ticket in (None, await world.begin(a=1)):
            session = await world.visit(ticket)
            session.login("ada")
            session.clear()
            assert session.user is None
            await end_of_request(session)
            assert session.new
        assert world.emitted(Authenticated) == []

    async def test_is_carried_out_if_the_request_fails(self):
        """A10, A24."""
        world, ticket = await logged_in()
        session = await world.visit(ticket)
        session.clear()
        session["lost"] = 1
        await end_of_request(session, failed=True)
        assert await world.record(ticket) is None
        assert session._copy.record is None

    async def test_can_keep_the_login(self):
        """A24: as an operation, so that keys which others add meanwhile are deleted, too."""
        world, ticket = await logged_in()
        session = await world.visit(ticket)
        await world.write(ticket, other=1)
        session.clear(keep_login=True)
        session["b"] = 2
        await end_of_request(session)
        again = await world.visit(ticket)
        assert (again, again.user, again.flashes()) == ({"b": 2}, "ada", [])

    async def test_ends_the_session_inside_of_exclusive(self):
        world, ticket = await logged_in()
        session = await world.visit(ticket)
        async with session.exclusive():
            session.clear()
            session["b"] = 2
        await end_of_request(session)
        assert await world.record(ticket) is None
        assert await world.visit(ticket_of(session)) == {"b": 2}

    async def test_after_the_response_started_no_session_is_created(self):
        """A11: the cookie of another session cannot be sent."""
        world, ticket = await logged_in()
        session = await world.visit(ticket)
        session._copy.response_started = True
        session.clear()
        with pytest.raises(ResponseStarted):
            session["b"] = 2
        await end_of_request(session)
        assert await world.record(ticket) is None


async def test_without_a_login_the_record_and_the_ticket_stay():
    """A24, A4."""
    world = World()
    ticket = await world.begin(a=1)
    session = await world.visit(ticket)
    session.clear()
    session["b"] = 2
    await end_of_request(session)
    assert await world.visit(ticket) == {"b": 2}


async def test_without_the_store_nothing_seems_to_log_out():
    """A15, A24: the session of the request is empty, and the visitor's own may have a login."""
    world = World()
    copy = (await world.visit(None))._copy
    copy.store_error = StoreUnavailable("planned")
    session = null_session(world.engine, copy)
    session["a"] = 1
    with pytest.raises(StoreUnavailable):
        session.clear()
    assert session == {"a": 1}
    session.clear(keep_login=True)
    assert session == {}
