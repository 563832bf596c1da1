"""What several renewals, or a renewal and a silence, must not do to each other.

Read next: ``test_lives_interleaved.py`` for every order of two.
"""

import pytest

from sojourn._core.login import IN_FLIGHT_PERIOD
from sojourn.sessions import Sessions
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, Visitor
from sojourn.testing.visitor import session_of

SECRET = b"renewals-7Jm2Qw9vXc4Rk1-Zt"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def open_sessions(clock, store):
    """Return a function that makes installations over one store."""
    return lambda **options: Sessions(store=store, secret=SECRET, clock=clock, **options)


async def log_in(visitor, **options):
    async with visitor.visit() as session:
        session.login("ada", **options)


async def rotate(visitor):
    async with visitor.visit() as session:
        session.rotate()


@pytest.mark.anyio
@pytest.mark.parametrize("apart", [False, True], ids=["one installation", "apart"])
async def test_a_late_sight_of_one_ticket_is_no_sight_of_the_next(open_sessions, clock, apart):
    """A9: the answer with the newest one is lost; the one before it must stay good for the grace.

    The request that notes the sight of the one before was loaded before the second rotation, which
    waits until another request noted that sight, and for the stragglers.
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
    clock.advance(9.999)
    assert (await visitor.load()).user == "ada"


@pytest.mark.anyio
@pytest.mark.parametrize("act", ["write", "rotate", "logout"])
async def test_a_ticket_that_was_due_is_not_sent_once_its_session_has_ended(open_sessions, act):
    """A7: who comes with the former one gets the new one, unless somebody ends the session."""
    visitor = Visitor(open_sessions())
    await log_in(visitor)
    late = visitor.at(visitor.sessions)
    await rotate(visitor)
    before = late.cookie
    session = await late.load()
    async with visitor.visit() as own:
        own.logout()
    if act == "write":
        session["n"] = 1
    elif act == "rotate":
        session.rotate()
        session["n"] = 1
    else:
        session.logout()
    await late.commit(session)
    assert late.cookie == before


@pytest.mark.anyio
@pytest.mark.parametrize("act", ["nothing", "write", "rotate", "automatic rotation"])
async def test_a_silence_is_noted_whatever_the_next_request_does(open_sessions, clock, act):
    """NIST SESS-05: who is only remembered after a silence stays so until the next login."""
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
async def test_a_silence_is_noted_at_whatever_a_long_visit_does_next(open_sessions, clock, write):
    """NIST SESS-05: of a socket, which was loaded before it."""
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
