"""Limits that a session's own data sets, as Django's ``set_expiry``; touch and remove."""

import msgspec
import pytest

from sojourn.errors import SessionGone
from tests.unit.core.engine_harness import World, end_of_request, ticket_of

pytestmark = pytest.mark.anyio


async def started():
    """Return a world with a session, and its ticket."""
    world = World()
    return world, await world.begin(None, a=1)


def one_minute(record, contents):
    """Return a record with an idle timeout of a minute if its data says so."""
    return msgspec.structs.replace(record, idle_timeout=60_000) if "a" in contents.data else record


async def test_limits_apply_to_each_kind_of_write():
    """A17: an insert, a change that is written without a coroutine, a login."""
    world = World()
    world.engine.writer.limit_record = one_minute
    session = await world.visit(None)
    session["a"] = 1
    await end_of_request(session)
    assert session._copy.record.idle_timeout == 60_000
    session = await world.visit(ticket_of(session))
    session["b"] = 2
    assert world.engine.commit_immediately(session._copy)
    assert session._copy.record.idle_timeout == 60_000
    session.login("ada")
    await end_of_request(session)
    assert session._copy.record.idle_timeout == 60_000
    world.clock.advance("61 seconds")
    assert (await world.visit(ticket_of(session))).new


async def test_touch_records_activity_that_is_not_due():
    """S6: and reports that the session has ended."""
    world, ticket = await started()
    session = await world.visit(ticket)
    before = session.seen_at
    world.clock.advance("1 second")
    await world.engine.touch(session._copy)
    assert session.seen_at > before
    await world.engine.revoker.revoke(ticket.session_id, "revoked")
    with pytest.raises(SessionGone):
        await world.engine.touch(session._copy)


async def test_remove_deletes_only_what_was_destroyed():
    """A7: nothing new is created."""
    world, ticket = await started()
    session = await world.visit(ticket)
    session.destroy()
    session["b"] = 1
    await world.engine.remove(session._copy)
    assert (await world.visit(ticket)).new
    assert session.new
