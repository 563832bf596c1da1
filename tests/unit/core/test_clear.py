"""``session.clear()``: empties the session, and logs out a user who is logged in."""

import pytest

from sojourn.errors import ResponseStarted, StoreUnavailable
from sojourn.events import Authenticated, Created, Revoked
from sojourn.session import null_session
from tests.support.working_copies import copy_of
from tests.unit.core.engine_harness import World, end_of_request, ticket_of

pytestmark = pytest.mark.anyio


async def logged_in(**options):
    world = World(**options)
    session = await world.load(await world.create(a=1, cart={"apple": 1}))
    session.login("ada")
    session.flash("old")
    await end_of_request(session)
    return world, ticket_of(session)


class TestLoggedIn:
    async def test_clear_ends_the_session(self):
        """A24, A7: the ticket is invalid, and later writes of parallel requests are dropped."""
        world, ticket = await logged_in()
        session, late = await world.load(ticket), await world.load(ticket)
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

    async def test_data_written_after_a_clear_is_in_a_new_session(self):
        """A24: Flask's tutorial clears the session before it logs in."""
        world, ticket = await logged_in()
        session = await world.load(ticket)
        session.clear()
        session["user_id"] = 5
        session.flash("welcome")
        assert session.csrf_token
        session.state.count = 1
        session.login("bob")
        await end_of_request(session)
        assert await world.record(ticket) is None
        again = await world.load(ticket_of(session))
        assert again == {"user_id": 5, "count": 1}
        assert (again.user, again.flashes()) == ("bob", [("welcome", "message")])
        assert len(world.emitted(Created)) == 2

    async def test_clear_drops_a_login_that_is_not_committed(self):
        """A24."""
        world = World()
        for ticket in (None, await world.create(a=1)):
            session = await world.load(ticket)
            session.login("ada")
            session.clear()
            assert session.user is None
            await end_of_request(session)
            assert session.new
        assert world.emitted(Authenticated) == []

    async def test_clear_ends_the_session_even_if_the_request_fails(self):
        """A10, A24."""
        world, ticket = await logged_in()
        session = await world.load(ticket)
        session.clear()
        session["lost"] = 1
        await end_of_request(session, failed=True)
        assert await world.record(ticket) is None
        assert copy_of(session).record is None

    async def test_clear_with_keep_login_keeps_the_user(self):
        """A24: recorded as an operation, so it also deletes keys of parallel requests."""
        world, ticket = await logged_in()
        session = await world.load(ticket)
        await world.concurrent_write(ticket, other=1)
        session.clear(keep_login=True)
        session["b"] = 2
        await end_of_request(session)
        again = await world.load(ticket)
        assert (again, again.user, again.flashes()) == ({"b": 2}, "ada", [])

    async def test_clear_inside_exclusive_ends_the_session(self):
        world, ticket = await logged_in()
        session = await world.load(ticket)
        async with session.exclusive():
            session.clear()
            session["b"] = 2
        await end_of_request(session)
        assert await world.record(ticket) is None
        assert await world.load(ticket_of(session)) == {"b": 2}

    async def test_after_the_response_started_a_clear_creates_no_session(self):
        """A11: the cookie of another session cannot be sent."""
        world, ticket = await logged_in()
        session = await world.load(ticket)
        copy_of(session).response_started = True
        session.clear()
        with pytest.raises(ResponseStarted):
            session["b"] = 2
        await end_of_request(session)
        assert await world.record(ticket) is None


async def test_without_a_login_a_clear_keeps_the_record_and_the_ticket():
    """A24, A4."""
    world = World()
    ticket = await world.create(a=1)
    session = await world.load(ticket)
    session.clear()
    session["b"] = 2
    await end_of_request(session)
    assert await world.load(ticket) == {"b": 2}


async def test_clear_of_a_null_session_raises_the_store_error():
    """A15, A24: the stored session may have a login that the clear would not end."""
    world = World()
    copy = copy_of(await world.load(None))
    copy.store_error = StoreUnavailable("planned")
    session = null_session(world.engine, copy)
    session["a"] = 1
    with pytest.raises(StoreUnavailable):
        session.clear()
    assert session == {"a": 1}
    session.clear(keep_login=True)
    assert session == {}
