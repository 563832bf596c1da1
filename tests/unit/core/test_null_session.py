"""The session of a request that goes on although the store failed: nothing of it lasts.

Read next: ``tests/unit/web/test_store_failure.py``, where requests go on with one.
"""

import pytest

from sojourn._core.null_session import NullSession
from sojourn._core.working_copy import CookieChange
from sojourn.errors import StoreUnavailable
from tests.unit.core.engine_harness import World, end_of_request

pytestmark = pytest.mark.anyio


def stranded(world):
    return NullSession(world.engine, None, StoreUnavailable("down"))


async def test_what_is_written_lasts_for_the_request():
    """A15: no record, no cookie."""
    world = World()
    session = stranded(world)
    assert dict(session) == {}
    session["a"] = 1
    assert session["a"] == 1
    await end_of_request(session)
    assert world.store.calls == []
    assert session._cookie is CookieChange.NONE


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
async def test_what_has_to_reach_the_store_fails_as_the_store_did(act):
    """A15: nobody is told that they are logged in or out."""
    session = stranded(World())
    with pytest.raises(StoreUnavailable, match="goes on without its session"):
        act(session)
    assert session._denied


@pytest.mark.parametrize(
    "act",
    [
        lambda session: session.acommit(),
        lambda session: session.arefresh(),
        lambda session: session.aclaim("a"),
        lambda session: session.ause_grant("a"),
    ],
)
async def test_what_has_to_wait_for_the_store_fails_too(act):
    """A15."""
    with pytest.raises(StoreUnavailable) as caught:
        await act(stranded(World()))
    assert str(caught.value.__cause__) == "down"


async def test_a_route_that_insists_on_its_session_does_not_go_on():
    session = stranded(World())
    session._insist(wanted=False)
    with pytest.raises(StoreUnavailable):
        session._insist(wanted=True)
    with pytest.raises(StoreUnavailable):
        session._insist(wanted=False)
