"""Limits that a session's data sets, such as Django's ``set_expiry``; touch and remove."""

import msgspec
import pytest

from sojourn.errors import SessionGone
from tests.support.working_copies import copy_of
from tests.unit.core.engine_harness import World, end_of_request, ticket_of

pytestmark = pytest.mark.anyio


async def stored_session():
    """Return a world with a session, and its ticket."""
    world = World()
    return world, await world.create(None, a=1)


def one_minute(record, contents):
    """Return a record with an idle timeout of one minute if its data says so."""
    return msgspec.structs.replace(record, idle_timeout=60_000) if "a" in contents.data else record


async def test_limits_apply_to_each_kind_of_write():
    """A17: an insert, an immediate commit, a login."""
    world = World()
    world.engine.writer.limit_record = one_minute
    session = await world.load(None)
    session["a"] = 1
    await end_of_request(session)
    assert copy_of(session).record.idle_timeout == 60_000
    session = await world.load(ticket_of(session))
    session["b"] = 2
    assert world.engine.commit_immediately(copy_of(session))
    assert copy_of(session).record.idle_timeout == 60_000
    session.login("ada")
    await end_of_request(session)
    assert copy_of(session).record.idle_timeout == 60_000
    world.clock.advance("61 seconds")
    assert (await world.load(ticket_of(session))).new


async def test_touch_extends_the_session_before_a_touch_is_due():
    """S6: and returns False if the session has ended."""
    world, ticket = await stored_session()
    session = await world.load(ticket)
    before = session.seen_at
    world.clock.advance("1 second")
    await world.engine.touch(copy_of(session))
    assert session.seen_at > before
    await world.engine.revoker.revoke(ticket.session_id, "revoked")
    with pytest.raises(SessionGone):
        await world.engine.touch(copy_of(session))


async def test_remove_deletes_a_destroyed_session():
    """A7: data written afterwards creates no session."""
    world, ticket = await stored_session()
    session = await world.load(ticket)
    session.destroy()
    session["b"] = 1
    await world.engine.remove(copy_of(session))
    assert (await world.load(ticket)).new
    assert session.new
