"""Stores and installations for tests of clocks that differ (law A22)."""

from contextlib import contextmanager
from unittest.mock import patch

from sojourn._core import clock as clock_module
from sojourn._core.concurrency import sleep
from sojourn.errors import StoreUnavailable
from sojourn.sessions import Sessions
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock
from sojourn.testing.forwarding import ForwardingStore

HOUR = 3_600_000


class ClockedStore(ForwardingStore):
    """A memory store with a clock of its own, as a server has.

    Attributes:
        clock: of the server.
        measurements: number of calls of ``server_time``.
        failing: ``server_time`` raises ``StoreUnavailable``.
        delay: seconds between the request and the reading of the clock.
    """

    def __init__(self, store=None, clock=None):
        super().__init__(store or MemoryStore())
        self.clock = clock or FakeClock()
        self.measurements = 0
        self.failing = False
        self.delay = 0.0

    async def forward(self, verb, call):
        return await call()

    async def server_time(self):
        self.measurements += 1
        if self.failing:
            raise StoreUnavailable("a test has planned this failure")
        if self.delay:
            await sleep(self.delay)
        return self.clock()


class Machine:
    """The clocks of an application machine: its wall clock is wrong by ``skew`` milliseconds.

    Both run at the speed of the server's clock.
    """

    def __init__(self, server, skew):
        self.server = server
        self.skew = skew
        self.booted_at = server() - 1_000_000

    def wall(self):
        return self.server() + self.skew

    def time(self):
        return self.wall() / 1000

    def monotonic(self):
        return (self.server() - self.booted_at) * 1_000_000


@contextmanager
def machine_clocks(wall, monotonic=None):
    """Give other clocks to the installations that are created in the block."""
    original = clock_module.ServerClock

    def with_clocks(store):
        clocks = {} if monotonic is None else {"monotonic": monotonic}
        return original(store, wall=lambda: wall() / 1000, **clocks)

    with (
        patch("sojourn.sessions.ServerClock", with_clocks),
        patch("sojourn.sessions.wall_clock", wall),
    ):
        yield


def sessions_on(machine, store, **options):
    """Return an installation on a machine, over a store with a clock."""
    with machine_clocks(machine.wall, machine.monotonic):
        return Sessions(store=store, secret=b"clocks-that-differ-8Kq2Zr5Wm1Xc", **options)
