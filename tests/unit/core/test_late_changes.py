"""Changes after the end of a request are logged if they were never saved (law A11)."""

import gc

import pytest

from tests.support.working_copies import copy_of
from tests.unit.core.engine_harness import Browser, World, end_of_request

pytestmark = pytest.mark.anyio

LOST = (
    "was changed after its request had ended, and the changes were not saved; end a task or thread "
    "that outlives its request with 'await session.acommit()' or session.commit()"
)


async def session_after_the_request(world, ticket=None, *, ended=True):
    """Return a session whose request has ended or is sending its body."""
    session = await world.load(ticket or await world.create(a=1), Browser())
    await end_of_request(session)
    if ended:
        copy_of(session).client = None
    return session


def reported(caplog, session_id):
    """Return the number of logged losses of the session.

    Sessions of other tests may be freed while this test runs: they are not counted.
    """
    gc.collect()  # the copy and its report refer to each other
    return caplog.text.count(f"session {session_id} {LOST}")


async def test_a_change_that_is_not_saved_is_logged_once(caplog):
    session = await session_after_the_request(World())
    session_id = session.id
    session["a"] = 2
    session["b"] = 3
    assert reported(caplog, session_id) == 0
    del session
    assert reported(caplog, session_id) == 1


async def test_a_value_that_cannot_be_serialized_is_logged(caplog):
    world = World()
    session = await session_after_the_request(world, await world.create(a=[]))
    session_id = session.id
    session["b"] = 1
    session["a"].append(object())
    del session
    assert reported(caplog, session_id) == 1


async def test_a_change_that_is_saved_is_not_logged(caplog):
    world = World()
    ticket = await world.create(a=1)
    session = await session_after_the_request(world, ticket)
    session_id = session.id
    session["a"] = 2
    await session.acommit()
    del session
    assert reported(caplog, session_id) == 0
    assert await world.data(ticket) == {"a": 2}


async def test_a_destroyed_session_that_was_not_deleted_is_logged(caplog):
    session = await session_after_the_request(World())
    session_id = session.id
    session.destroy()
    del session
    assert reported(caplog, session_id) == 1


async def test_an_empty_session_that_is_destroyed_is_not_logged():
    world = World()
    session = await world.load(None, Browser())
    await end_of_request(session)
    copy_of(session).client = None
    session.destroy()
    assert copy_of(session).late_changes is None


@pytest.mark.parametrize("change", ["change", "destroy"])
async def test_a_change_during_the_request_is_not_logged(caplog, change):
    session = await session_after_the_request(World(), ended=False)
    session_id = session.id
    if change == "change":
        session["a"] = 2
    else:
        session.destroy()
    del session
    assert reported(caplog, session_id) == 0


async def test_a_session_destroyed_before_the_response_is_not_logged(caplog):
    world = World()
    session = await world.load(await world.create(a=1), Browser())
    session_id = session.id
    session.destroy()
    del session
    assert reported(caplog, session_id) == 0


async def test_a_session_destroyed_after_a_failed_request_is_logged(caplog):
    """A10: an outer middleware, which cannot commit, answers the error."""
    world = World()
    session = await world.load(await world.create(a=1), Browser())
    session_id = session.id
    copy_of(session).client = None
    session.destroy()
    del session
    assert reported(caplog, session_id) == 1
