"""Several rotations in sequence, and idle timeouts between them: laws A7 and A9, NIST SESS-05."""

import pytest

from sojourn._core.policy import IN_FLIGHT_PERIOD
from sojourn.sessions import Sessions
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, Visitor
from sojourn.testing.visitor import session_of

SECRET = b"rotations-7Jm2Qw9vXc4Rk1-Zt"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def open_sessions(clock, store):
    """Return a function that creates installations over one store."""
    return lambda **options: Sessions(store=store, secret=SECRET, clock=clock, **options)


async def log_in(visitor, **options):
    async with visitor.visit() as session:
        session.login("ada", **options)


async def rotate(visitor):
    async with visitor.visit() as session:
        session.rotate()


@pytest.mark.anyio
@pytest.mark.parametrize("apart", [False, True], ids=["one installation", "apart"])
async def test_late_confirmation_of_a_ticket_does_not_confirm_its_successor(
    open_sessions, clock, apart
):
    """A9: the response with the newest ticket is lost, so its predecessor must stay valid.

    The request that confirms the predecessor loads before the second rotation. The rotation
    happens after another request has confirmed it, and after the time for requests in flight.
    """
    sessions = open_sessions()
    visitor = Visitor(sessions)
    await log_in(visitor)
    await rotate(visitor)
    slow = await visitor.begin()
    async with visitor.visit():
        pass
    clock.advance(IN_FLIGHT_PERIOD / 1000)
    lost = visitor.at(open_sessions() if apart else sessions)
    await rotate(lost)
    assert lost.cookie != visitor.cookie
    await visitor.at(sessions).end(slow)
    clock.advance("29 minutes")
    assert (await visitor.load()).user == "ada"


@pytest.mark.anyio
@pytest.mark.parametrize("act", ["write", "rotate", "logout"])
async def test_a_new_ticket_is_not_sent_after_its_session_has_ended(open_sessions, act):
    """A7: a request with the previous ticket normally receives the new one."""
    visitor = Visitor(open_sessions())
    await log_in(visitor)
    late = visitor.at(visitor.sessions)
    await rotate(visitor)
    before = late.cookie
    visit = await late.begin()
    session = session_of(visit)
    async with visitor.visit() as own:
        own.logout()
    if act == "write":
        session["n"] = 1
    elif act == "rotate":
        session.rotate()
        session["n"] = 1
    else:
        session.logout()
    await late.end(visit)
    assert late.cookie == before


@pytest.mark.anyio
@pytest.mark.parametrize("act", ["nothing", "write", "rotate", "automatic rotation"])
async def test_an_idle_timeout_is_recorded_by_the_next_request(open_sessions, clock, act):
    """NIST SESS-05: a remembered user is unauthenticated until the next login."""
    interval = "10 minutes" if act == "automatic rotation" else None
    visitor = Visitor(
        open_sessions(timeout="10 minutes", remember_timeout="5 days", rotate_interval=interval)
    )
    await log_in(visitor, remember=True)
    clock.advance("11 minutes")
    async with visitor.visit() as session:
        assert session.remembered
        if act == "write":
            session["n"] = 1
        elif act == "rotate":
            session.rotate()
    clock.advance("1 minute")
    assert (await visitor.load()).remembered
    await log_in(visitor, remember=True)
    assert not (await visitor.load()).remembered


@pytest.mark.anyio
@pytest.mark.parametrize("write", [False, True], ids=["touch", "write"])
async def test_an_idle_timeout_is_recorded_by_an_open_connection(open_sessions, clock, write):
    """NIST SESS-05: the session of a socket was loaded before the timeout."""
    visitor = Visitor(open_sessions(timeout="10 minutes", remember_timeout="5 days"))
    await log_in(visitor, remember=True)
    visit = await visitor.begin()
    session = session_of(visit)
    clock.advance("11 minutes")
    await session.arefresh()
    if write:
        session["n"] = 1
    await visitor.end(visit)
    clock.advance("1 minute")
    assert (await visitor.load()).remembered
