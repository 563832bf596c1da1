"""NullSession: the session of a request that is served although the store failed."""

import pytest

from sojourn._core.working_copy import CookieChange, WorkingCopy
from sojourn.errors import StoreUnavailable
from sojourn.session import null_session
from tests.support.working_copies import copy_of
from tests.unit.core.engine_harness import World, end_of_request

pytestmark = pytest.mark.anyio


def failed_session(world):
    engine = world.engine.engine
    copy = WorkingCopy(engine.context)
    copy.store_error = StoreUnavailable("down")
    return null_session(engine, copy)


async def test_changes_are_kept_for_the_request_only():
    """A15: no record is written and no cookie is sent."""
    world = World()
    session = failed_session(world)
    assert dict(session) == {}
    session["a"] = 1
    assert session["a"] == 1
    await end_of_request(session)
    assert world.store.calls == []
    assert copy_of(session).cookie_change is CookieChange.NONE


@pytest.mark.parametrize(
    "act",
    [
        lambda session: session.login("ada"),
        lambda session: session.rotate(),
        lambda session: session.logout(),
        lambda session: session.destroy(),
        lambda session: session.exclusive(),
    ],
)
async def test_methods_that_need_the_store_raise_its_error(act):
    """A15: no login or logout seems to succeed."""
    session = failed_session(World())
    with pytest.raises(StoreUnavailable, match="continues without its session"):
        act(session)
    assert copy_of(session).store_error_raised


@pytest.mark.parametrize(
    "act",
    [
        lambda session: session.acommit(),
        lambda session: session.arefresh(),
        lambda session: session.aclaim("a"),
        lambda session: session.ause_grant("a"),
    ],
)
async def test_async_methods_that_need_the_store_raise_its_error(act):
    """A15."""
    with pytest.raises(StoreUnavailable) as caught:
        await act(failed_session(World()))
    assert str(caught.value.__cause__) == "down"
