"""ServerClock: the estimate of the server's time, when it is measured, and failed measurements."""

import pytest

from sojourn._core.clock import ServerClock
from sojourn._core.concurrency import monotonic, sleep
from sojourn.errors import StoreUnavailable
from sojourn.events import StoreFailed
from tests.support.server_time import HOUR, ClockedStore, Machine
from tests.unit.core.engine_harness import World, end_of_request, ticket_of

pytestmark = pytest.mark.anyio

SKEWS = [-HOUR, -3_000, 0, 60_000, HOUR]


class Link:
    """A server and a machine with a network between them.

    The server reads its clock ``there`` milliseconds after the request was sent; the reply arrives
    ``back`` milliseconds later.
    """

    def __init__(self, skew=HOUR):
        self.store = ClockedStore()
        self.time = self.store.clock
        self.machine = Machine(self.time, skew)
        self.there = self.back = 0
        self.clock = self.new_clock()

    def new_clock(self):
        return ServerClock(self, wall=self.machine.time, monotonic=self.machine.monotonic)

    async def server_time(self):
        self.time.now += self.there
        at = await self.store.server_time()
        self.time.now += self.back
        return at

    def error(self):
        """Return by how many milliseconds the estimate is later than the server's clock."""
        return self.clock() - self.time()


@pytest.mark.parametrize("skew", SKEWS)
async def test_readings_equal_the_servers_clock_after_a_measurement(skew):
    """A22: before it they equal the machine's clock."""
    link = Link(skew)
    assert link.error() == skew
    assert not link.clock.synchronized
    await link.clock.synchronize()
    assert link.clock.synchronized
    assert link.error() == 0
    assert link.clock() - link.clock.offset() == link.machine.monotonic() // 1_000_000


async def test_the_offset_is_measured_at_most_once_a_minute():
    """A22."""
    link = Link()
    for _ in range(3):
        await link.clock.synchronize()
    assert link.store.measurements == 1
    link.time.advance("59999 ms")
    assert not link.clock.due()
    link.time.advance("1 ms")
    assert link.clock.due()
    await link.clock.synchronize()
    assert link.store.measurements == 2


async def test_a_reading_is_that_of_a_call_until_a_measurement_is_due():
    """A22."""
    link = Link()
    assert link.clock.reading() is None
    link.there, link.back = 10, 10
    await link.clock.synchronize()
    for milliseconds in (0, 59_999):
        link.time.now += milliseconds
        assert link.clock.reading() == link.clock()
    link.time.now += 1
    assert link.clock.reading() is None


@pytest.mark.parametrize("step", [-999, 999])
async def test_a_small_step_of_the_wall_clock_does_not_matter(step):
    """A22."""
    link = Link()
    await link.clock.synchronize()
    link.machine.skew += step
    assert not link.clock.due()
    assert link.clock.reading() == link.clock() == link.time()


async def test_an_estimate_is_not_later_than_the_servers_clock():
    """A22, S16: a login that began before a cutoff is not dated after it."""
    link = Link()
    link.there, link.back = 10, 10
    await link.clock.synchronize()
    assert link.error() == -10
    link.time.advance("1 minute")
    assert link.error() == -10 - 8  # the machine's clock may be fast by 122 ppm


async def test_a_better_measurement_improves_the_estimate_and_a_worse_one_does_not():
    link = Link()
    link.back = 50
    await link.clock.read_server()
    link.back = 1
    await link.clock.read_server()
    assert link.error() == -1
    link.there, link.back = 500, 500
    await link.clock.read_server()
    assert -2 <= link.error() <= -1


async def test_the_first_contact_measures_up_to_three_times():
    """A22: a starting process delays its replies."""
    link = Link()
    link.back = 21
    await link.clock.synchronize()
    assert link.store.measurements == 3
    link.clock = link.new_clock()
    backs = iter([21, 20, 0])

    async def server_time():
        at = link.time()
        link.time.now += next(backs)
        return at

    link.server_time = server_time
    await link.clock.synchronize()
    assert next(backs) == 0
    assert link.error() == -20


async def test_a_later_contact_measures_once():
    """A22: the offset of the previous measurement is known."""
    link = Link()
    await link.clock.synchronize()
    link.back = 21
    link.time.advance("1 minute")
    await link.clock.synchronize()
    assert link.store.measurements == 2


async def test_a_long_round_trip_is_measured_again_soon():
    link = Link()
    link.back = 21
    await link.clock.synchronize()
    link.back = 0
    link.time.advance("4999 ms")
    assert not link.clock.due()
    link.time.advance("1 ms")
    await link.clock.synchronize()
    assert link.error() == 0
    link.time.advance("5 s")
    assert not link.clock.due()


@pytest.mark.parametrize("step", [-HOUR, HOUR])
async def test_the_next_measurement_detects_a_step_of_the_servers_clock(step):
    """A22: the clocks of the machine do not show it."""
    link = Link()
    await link.clock.synchronize()

    class Moved:
        async def server_time(self):
            return link.time() + step

    link.clock._store = Moved()
    await link.clock.read_server()
    assert link.error() == step


async def test_an_inaccurate_measurement_of_a_step_back_corrects_the_estimate_by_its_lower_bound():
    link = Link()
    await link.clock.synchronize()

    class Moved:
        async def server_time(self):
            at = link.time() - HOUR
            link.time.now += 200
            return at

    link.clock._store = Moved()
    await link.clock.read_server()
    assert link.error() == 1 - HOUR


@pytest.mark.parametrize("step", [-1_000, 1_000, HOUR])
async def test_a_machine_that_was_suspended_measures_again(step):
    """A22: the monotonic clock was suspended; the wall clock shows the difference."""
    link = Link()
    await link.clock.synchronize()
    link.machine.skew += step
    assert link.clock.due()
    assert link.clock.reading() is None
    await link.clock.synchronize()
    assert not link.clock.due()
    assert link.store.measurements == 2


async def test_a_failed_measurement_keeps_the_offset_and_is_not_repeated_at_once():
    """A22: one caller measures, the others use the present offset."""
    link = Link()
    await link.clock.synchronize()
    link.time.advance("1 minute")
    link.store.failing = True
    with pytest.raises(StoreUnavailable):
        await link.clock.synchronize()
    assert -8 <= link.error() <= 0
    await link.clock.synchronize()
    assert link.store.measurements == 2
    link.time.advance("5 seconds")
    assert link.clock.due()


# Within an engine


class ServerWorld(World):
    """A world whose store has a clock, while the clock of the machine is wrong."""

    def __init__(self, skew=HOUR, **options):
        super().__init__(**options)
        self.store = ClockedStore(self.memory, self.clock)
        self.machine = Machine(self.clock, skew)
        self.engine = self.another_process()

    def another_process(self):
        if isinstance(self.store, ClockedStore):
            server_clock = ServerClock(
                self.store, wall=self.machine.time, monotonic=self.machine.monotonic
            )
            self.options |= {"server_clock": server_clock, "clock": server_clock}
        return super().another_process()

    def forget(self):
        """Continue as a process that has not contacted the store yet."""
        self.engine = self.another_process()


async def test_a_load_measures_before_it_decides_about_expiry():
    """A17, A22: once for many requests."""
    world = ServerWorld()
    ticket = await world.create(a=1)
    assert world.store.measurements == 1
    world.forget()
    for _ in range(3):
        assert (await world.load(ticket))["a"] == 1
    assert world.store.measurements == 2
    world.clock.advance("1 minute")
    session = await world.load(ticket)
    world.clock.advance("1 minute")
    await session.arefresh()
    assert world.store.measurements == 4


@pytest.mark.parametrize("skew", [-HOUR, HOUR])
async def test_instants_from_before_the_first_contact_are_corrected(skew):
    """A22: such as a login in the first request of a process."""
    world = ServerWorld(skew)
    session = await world.load(None)
    session["a"] = 1
    session.grant("earlier", "5 minutes")
    session.login("ada")
    session.grant("export", "5 minutes")
    world.clock.advance("1 second")
    await end_of_request(session)
    record = await world.record(ticket_of(session))
    assert record.authenticated_at == world.clock.now - 1_000
    assert record.absolute_at == world.clock.now - 1_000 + 12 * HOUR
    world.clock.advance("298 seconds")
    assert await session.ause_grant("export")
    later = await world.load(ticket_of(session))
    later.grant("again", "5 minutes")
    await end_of_request(later)
    world.clock.advance("301 seconds")
    assert not await later.ause_grant("again")


async def test_a_login_after_a_day_without_requests_measures_again():
    """A22."""
    world = ServerWorld()
    await world.create(a=1)
    world.clock.advance("1 day")
    session = await world.load(None)
    session.login("ada")
    await end_of_request(session)
    assert (await world.record(ticket_of(session))).authenticated_at == world.clock.now


async def test_a_grant_of_a_first_request_without_a_login_expires_in_time():
    """A22."""
    world = ServerWorld(HOUR)
    session = await world.load(None)
    session.grant("export", "5 minutes")
    await end_of_request(session)
    world.clock.advance("301 seconds")
    assert not await session.ause_grant("export")


async def test_a_failed_first_measurement_raises_store_unavailable():
    """A15, A22: the machine's clock is no substitute; after a first measurement its offset is."""
    world = ServerWorld()
    ticket = await world.create(a=1)
    world.forget()
    world.store.failing = True
    with pytest.raises(StoreUnavailable):
        await world.load(ticket)
    session = await world.load(None)
    session["a"] = 1
    with pytest.raises(StoreUnavailable):
        await end_of_request(session)
    assert [event.operation for event in world.emitted(StoreFailed)] == ["server_time"] * 2
    world.store.failing = False
    await end_of_request(session)
    world.store.failing = True
    world.clock.advance("1 minute")
    assert (await world.load(ticket))["a"] == 1
    assert len(world.emitted(StoreFailed)) == 3


@pytest.mark.parametrize("verb", ["load", "fetch"])
async def test_the_deadline_of_a_load_includes_its_measurement(verb):
    """A15, A22."""
    world = ServerWorld(store_timeout=0.05)
    ticket = await world.create(a=1)
    world.forget()

    async def server_time():
        await sleep(30)  # the test would take as long

    world.store.server_time = server_time
    started = monotonic()
    call = world.load(ticket) if verb == "load" else world.engine.fetch(ticket.session_id)
    with pytest.raises(StoreUnavailable):
        await call
    assert monotonic() - started < 5
    failed = world.emitted(StoreFailed)[0]
    assert (failed.operation, failed.session_id) == ("server_time", ticket.session_id.hex())
    assert "0.05" in failed.error


@pytest.fixture
async def stopped_clock():
    """A world with one session, whose clock must be measured and does not answer."""
    world = ServerWorld(store_timeout=0.05)
    world.ticket = await world.create(a=1)
    world.clock.advance("1 minute")

    async def server_time():
        await sleep(30)  # the test would take as long

    world.store.server_time = server_time
    return world


@pytest.mark.parametrize("verb", ["revoke", "list"])
async def test_no_call_follows_a_measurement_that_took_all_the_time(stopped_clock, verb):
    """S12, A22: it would wait as long again for a server that does not answer."""
    world = stopped_clock
    world.store.delete = None  # raises if it is called
    if verb == "revoke":
        call = world.engine.revoker.revoke(world.ticket.session_id, "stolen")
    else:
        call = world.engine.context.begin()
    with pytest.raises(StoreUnavailable, match=r"0\.05 seconds"):
        await call


async def test_the_deadline_of_a_lookup_includes_its_measurement(stopped_clock):
    """S12, A22: the record was loaded, and the present offset decides."""
    started = monotonic()
    assert await stopped_clock.engine.lister.find(stopped_clock.ticket.session_id) is not None
    assert monotonic() - started < 5


async def test_a_revocation_by_id_dates_the_tombstone_by_the_servers_clock():
    """A22."""
    world = ServerWorld()
    ticket = await world.create(a=1)
    world.forget()
    assert await world.engine.revoker.revoke(ticket.session_id, "stolen")
    assert (await world.load(ticket)).ended_reason == "stolen"


async def test_a_store_with_a_clock_is_not_loaded_without_a_coroutine():
    """A22: only a coroutine can measure."""
    world = ServerWorld()
    ticket = await world.create(a=1)
    assert world.engine.load_immediately(ticket, None) is None
