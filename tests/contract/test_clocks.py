"""Application machines with clock skew, over stores with a server clock (law A22).

The clocks of the machines are wrong, that of the store is right. Time is a fake clock over stores
in this process, and real over Valkey.
"""

import asyncio
import time

import pytest

from sojourn.errors import ExclusiveTimeout, LimitReached
from sojourn.stores.memory import MemoryStore
from sojourn.stores.sqlite import SQLiteStore
from sojourn.stores.urls import open_store
from sojourn.testing import Visitor
from sojourn.testing.visitor import session_of
from tests.integration.valkey import Valkey, running
from tests.support.server_time import HOUR, ClockedStore, Machine, sessions_on

pytestmark = pytest.mark.anyio

#: Milliseconds by which the clocks of two machines are wrong.
SKEWS = [(0, -3_000), (0, 60_000), (-HOUR, 0), (HOUR, 0), (HOUR, -HOUR), (-HOUR, HOUR)]


class Setup:
    """Two machines and one store.

    Attributes:
        store: as both machines see it.
        pause: waits for the given seconds of the store's time.
    """

    def __init__(self, store, now, pause):
        self.store = store
        self.now = now
        self.pause = pause
        self.installations = []

    def machines(self, skews, **options):
        """Return an installation on each machine."""
        self.installations = [
            sessions_on(Machine(self.now, skew), self.store, **options) for skew in skews
        ]
        return self.installations

    async def close(self):
        for sessions in self.installations:
            await asyncio.to_thread(sessions.close)  # publishes pending messages
        await asyncio.sleep(0.1)  # the loop closes the sockets of the store in a later tick


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(Valkey(tmp_path_factory.mktemp("valkey"))) as server:
        yield server


def in_process(store):
    clocked = ClockedStore(store)

    async def pause(seconds):
        clocked.clock.advance(seconds)

    return Setup(clocked, clocked.clock, pause)


@pytest.fixture
def memory():
    return in_process(MemoryStore())


@pytest.fixture(params=["memory", "sqlite", "valkey"])
async def place(request, tmp_path, server):
    if request.param == "memory":
        yield in_process(MemoryStore())
    elif request.param == "sqlite":
        store = SQLiteStore(tmp_path / "sessions.db")
        yield in_process(store)
        store.close()
    else:
        realm = f"clocks-{time.monotonic_ns()}"
        store = open_store(server.url, realm=realm, timeout=5.0)
        place = Setup(store, real_now, asyncio.sleep)
        yield place
        await place.close()


def real_now():
    return time.time_ns() // 1_000_000


async def log_in(visitor, user="ada"):
    async with visitor.visit() as session:
        session.login(user)


@pytest.mark.parametrize("skews", SKEWS)
async def test_no_session_of_another_machine_survives_revoke_all(place, skews):
    """A22, ASVS 7.4.5: without the server's clock, a skew of 3 seconds would suffice."""
    ours, theirs = place.machines(skews)
    earlier = [Visitor(sessions) for sessions in (ours, theirs)]
    for visitor in earlier:
        await log_in(visitor)
    await place.pause(0.005)
    await ours.arevoke_all()
    await place.pause(0.05)
    for visitor in earlier:
        assert (await visitor.load()).user is None
    for sessions in (ours, theirs):  # a later login succeeds at once on each machine
        later = Visitor(sessions)
        await log_in(later)
        for anywhere in (ours, theirs):
            assert (await later.at(anywhere).load()).user == "ada"


@pytest.mark.parametrize("skews", SKEWS)
async def test_no_login_of_another_machine_survives_revoke_user(place, skews):
    """A22, S16: also one that is in progress; the next one succeeds at once."""
    ours, theirs = place.machines(skews)
    earlier, in_progress = Visitor(theirs), Visitor(theirs)
    await log_in(earlier)
    visit = await in_progress.begin()
    session_of(visit).login("ada")
    await place.pause(0.005)
    assert await ours.arevoke_user("ada") == 1
    await in_progress.end(visit)
    await place.pause(0.05)
    for visitor in (earlier, in_progress):
        assert (await visitor.load()).user is None
    for sessions in (ours, theirs):
        later = Visitor(sessions)
        await log_in(later)
        assert (await later.at(ours).load()).user == "ada"
    assert len(await theirs.alist_user("ada")) == 2


@pytest.mark.parametrize("skews", SKEWS)
async def test_exclusive_admits_one_machine_at_a_time(place, skews):
    """A22: a lease of 30 seconds does not expire early for a clock that is a minute ahead."""
    ours, theirs = place.machines(skews)
    visitor = Visitor(ours)
    await log_in(visitor)
    first, second = await visitor.begin(), await visitor.at(theirs).begin()
    async with session_of(first).exclusive():
        with pytest.raises(ExclusiveTimeout):
            async with session_of(second).exclusive(wait=0.05):
                raise AssertionError("two are inside")
    async with session_of(second).exclusive(wait=5):
        pass


@pytest.mark.parametrize("skews", SKEWS)
async def test_lease_of_a_dead_process_expires_by_the_servers_clock(memory, skews):
    """A22: also for a machine that is an hour ahead or behind."""
    ours, theirs = memory.machines(skews)
    visitor = Visitor(ours)
    await log_in(visitor)
    dead = session_of(await visitor.begin()).exclusive(lease="30 seconds")
    await dead.__aenter__()
    await memory.pause(31)
    second = await visitor.at(theirs).begin()
    async with session_of(second).exclusive(wait=0.05):
        pass


@pytest.mark.parametrize("skews", SKEWS)
async def test_sessions_expire_by_the_servers_clock(memory, skews):
    """A17, A22: idle and absolute limits, activity on either machine, lists and counts."""
    machines = ours, theirs = memory.machines(skews, timeout="30 minutes")
    visitor = Visitor(ours)
    await log_in(visitor)
    for hour in range(23):  # 29 minutes each: 11 hours and 7 minutes
        await memory.pause(29 * 60)
        async with visitor.at(machines[hour % 2]).visit() as session:
            assert session.user == "ada"
        assert len(await machines[hour % 2].alist_user("ada")) == 1
    await memory.pause(29 * 60)
    async with visitor.visit() as session:
        assert session.user == "ada"
    await memory.pause(25 * 60)
    assert (await visitor.at(theirs).load()).ended_reason == "expired (absolute)"

    idle = Visitor(theirs)
    await log_in(idle)
    await memory.pause(31 * 60)
    assert await ours.alist_user("ada") == []
    assert (await idle.at(ours).load()).ended_reason == "expired (idle)"


@pytest.mark.parametrize("skews", SKEWS)
async def test_purge_uses_the_servers_clock(memory, skews):
    """A22: a clock ahead deletes no valid session, a clock behind keeps no expired one."""
    ours, theirs = memory.machines(skews, timeout="30 minutes")
    await log_in(Visitor(theirs))
    await memory.pause(29 * 60)
    assert await ours.apurge() == 0
    await memory.pause(2 * 60)
    assert await ours.apurge() == 1


@pytest.mark.parametrize("skews", SKEWS)
async def test_limits_count_by_the_servers_clock(memory, skews):
    """A22: valid sessions of another machine count, expired ones do not."""
    ours, theirs = memory.machines(skews, timeout="30 minutes", max_sessions=1, on_limit="refuse")
    await log_in(Visitor(theirs))
    await memory.pause(29 * 60)
    with pytest.raises(LimitReached):
        await log_in(Visitor(ours))
    await memory.pause(2 * 60)
    await log_in(Visitor(ours))


@pytest.mark.parametrize("skews", SKEWS)
async def test_rotations_and_grants_use_the_servers_clock(memory, skews):
    """A9, A22: the grace period ends at the same instant on each machine."""
    ours, theirs = memory.machines(skews)
    visitor = Visitor(ours)
    await log_in(visitor)
    late = visitor.at(theirs)
    async with visitor.visit() as session:
        session.grant("export", "5 minutes")
        session.rotate()
    await visitor.at(theirs).load()
    visit = await visitor.at(theirs).begin()
    assert session_of(visit).user == "ada"
    await visitor.end(visit)
    await memory.pause(1.9)
    assert (await late.load()).user == "ada"
    await memory.pause(290)
    again = await visitor.at(theirs).begin()
    assert await session_of(again).ause_grant("export")
    assert (await late.load()).ended_reason == "reused"


def test_machines_without_an_event_loop_use_the_servers_clock(memory):
    """A22: WSGI and threads."""
    ours, theirs = memory.machines((HOUR, -HOUR))
    with ours.open() as visit:
        visit.session.login("ada")
    theirs.revoke_all()
    memory.store.clock.advance("1 second")
    with theirs.open() as visit:
        visit.session.login("bob")
    assert [info.user for info in ours.list_user("bob")] == ["bob"]
    assert ours.list_user("ada") == []


@pytest.mark.parametrize("requests", [1, 50])
async def test_server_time_is_measured_once_a_minute(memory, requests):
    """A22, S18: for any number of requests."""
    (sessions,) = memory.machines((HOUR,))
    visitor = Visitor(sessions)
    await log_in(visitor)
    for _ in range(requests):
        await visitor.load()
    assert memory.store.measurements == 1
    await memory.pause(60)
    for _ in range(requests):
        await visitor.load()
    assert memory.store.measurements == 2
