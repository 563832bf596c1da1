"""Stores without a server clock: effects of a wrong or stepped machine clock (law A22).

SQLite and memory are used by the processes of one machine, which share its wall clock. A callback
store may be used by several machines: docs/production/scaling.md requires clocks within one second.
"""

import pytest

from sojourn.errors import ExclusiveTimeout
from sojourn.stores.callback import CallbackStore
from sojourn.stores.memory import MemoryStore
from sojourn.stores.sqlite import SQLiteStore
from sojourn.testing import FakeClock, Visitor
from sojourn.testing.visitor import session_of
from tests.support.server_time import HOUR, Machine, sessions_on

pytestmark = pytest.mark.anyio

TOLERATED_SKEW = 1_000


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    if request.param == "memory":
        yield MemoryStore()
    else:
        store = SQLiteStore(tmp_path / "sessions.db")
        yield store
        store.close()


@pytest.fixture
def machine(clock):
    return Machine(clock, 0)


@pytest.fixture
def processes(machine, store):
    """Two processes on one machine."""
    return [sessions_on(machine, store, timeout="30 minutes") for _ in range(2)]


async def log_in(visitor, user="ada"):
    async with visitor.visit() as session:
        session.login(user)


async def user_of(visitor, sessions):
    async with visitor.at(sessions).visit() as session:
        return session.user


@pytest.mark.parametrize("step", [-HOUR, -1_000, 1_000, HOUR])
async def test_a_revoked_session_stays_revoked_after_a_step(clock, machine, processes, step):
    """A7, A22."""
    ours, theirs = processes
    revoked, everyone = Visitor(ours), Visitor(ours)
    await log_in(revoked)
    clock.advance("1 second")
    assert await theirs.arevoke_user("ada") == 1
    await log_in(everyone, "bob")
    clock.advance("1 second")
    await theirs.arevoke_all()
    machine.skew += step
    for visitor in (revoked, everyone):
        for sessions in processes:
            assert await user_of(visitor, sessions) is None


@pytest.mark.parametrize("step", [1_000, 29 * 60_000])
async def test_a_step_forward_counts_as_inactivity(clock, machine, processes, step):
    """A22: sessions stay valid if it is shorter than the rest of their idle timeout."""
    ours, theirs = processes
    visitor = Visitor(ours)
    await log_in(visitor)
    machine.skew += step
    assert await user_of(visitor, theirs) == "ada"
    machine.skew += HOUR
    assert await user_of(visitor, theirs) is None
    later = Visitor(theirs)
    await log_in(later)
    assert await user_of(later, ours) == "ada"


@pytest.mark.parametrize("step", [-1_000, -HOUR])
async def test_a_step_back_extends_sessions_by_its_length(clock, machine, processes, step):
    """A17, A22: by no more than that."""
    ours, theirs = processes
    visitor = Visitor(ours)
    await log_in(visitor)
    machine.skew += step
    assert await user_of(visitor, theirs) == "ada"
    clock.now += 30 * 60_000 - step - 1
    assert (await visitor.at(theirs).load()).user == "ada"
    clock.now += 1
    assert await user_of(visitor, ours) is None


async def test_logins_after_a_step_back_are_accepted_by_the_revoking_process(
    clock, machine, processes
):
    """A22: other processes accept them when their clock has passed the cutoff."""
    ours, theirs = processes
    await ours.arevoke_all()
    machine.skew -= 60_000
    own = Visitor(ours)
    await log_in(own)
    assert await user_of(own, ours) == "ada"
    clock.advance("61 seconds")
    other = Visitor(theirs)
    await log_in(other)
    assert await user_of(other, ours) == "ada"


@pytest.mark.parametrize("step", [-HOUR, -1_000, 1_000, 29_000])
async def test_a_lease_excludes_others_during_a_step(clock, machine, processes, step):
    """A22: a step forward must be shorter than the rest of the lease, which is 30 seconds."""
    ours, theirs = processes
    visitor = Visitor(ours)
    await log_in(visitor)
    first, second = await visitor.begin(), await visitor.at(theirs).begin()
    async with session_of(first).exclusive():
        machine.skew += step
        with pytest.raises(ExclusiveTimeout):
            async with session_of(second).exclusive(wait=0.05):
                raise AssertionError("two are inside")
    async with session_of(second).exclusive(wait=1):
        pass


# Several machines


@pytest.fixture
def machines(clock):
    """Two machines with one service; their clocks differ by a second."""
    values = {}

    def write(session_id, value, _):
        if value is None:
            values.pop(session_id, None)
        else:
            values[session_id] = value

    return [
        sessions_on(
            Machine(clock, skew),
            CallbackStore(read=values.get, write=write),
            timeout="30 minutes",
        )
        for skew in (0, TOLERATED_SKEW)
    ]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["ahead second", "ahead first"])
async def test_stores_without_a_clock_tolerate_a_skew_of_one_second(clock, machines, order):
    """A9, A22: sessions, rotations and leases; timeouts differ by one second."""
    ours, theirs = (machines[index] for index in order)
    visitor = Visitor(ours)
    await log_in(visitor)
    for sessions in (theirs, ours, theirs):
        clock.advance("29 minutes")
        assert await user_of(visitor, sessions) == "ada"
    late = visitor.at(theirs)
    async with visitor.visit() as session:
        session.rotate()
    assert await user_of(visitor, ours) == "ada"
    clock.now += 2_000 - TOLERATED_SKEW - 1
    assert await user_of(late, theirs) == "ada"
    clock.advance("2 seconds")
    first, second = await visitor.begin(), await visitor.at(theirs).begin()
    async with session_of(first).exclusive():
        with pytest.raises(ExclusiveTimeout):
            async with session_of(second).exclusive(wait=0.05):
                raise AssertionError("two are inside")
    clock.advance("31 minutes")
    assert await user_of(visitor, theirs) is None
