"""Clocks: the time on which decisions are based, from the store's server or from this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from sojourn.store import SupportsServerTime

#: The last millisecond of the year 9999, the end of ``datetime``'s range.
MAX_DATETIME: Final = 253_402_300_799_999

#: Nanoseconds in a millisecond.
_NANOSECONDS: Final = 1_000_000

#: Nanoseconds between two measurements.
_INTERVAL: Final = 60_000 * _NANOSECONDS

#: Nanoseconds until the next measurement after one that failed or was inaccurate.
_RETRY_INTERVAL: Final = 5_000 * _NANOSECONDS

#: Nanoseconds. A measurement with a longer round trip is inaccurate.
_MAX_ROUND_TRIP: Final = 20 * _NANOSECONDS

#: Attempts to measure accurately at the first contact, when a process has much else to do.
_MAX_FIRST_ATTEMPTS: Final = 3

#: A reading assumes that the machine's clock is fast by one part in 2**13, 122 ppm: quartz clocks
#: drift by less than 100 ppm.
_DRIFT_SHIFT: Final = 13

#: Seconds by which wall clock and monotonic clock may diverge between two measurements. They
#: diverge when the machine was suspended, because the monotonic clock stands still then.
_MAX_DIVERGENCE: Final = 1.0


def wall_clock() -> int:
    """Return this machine's time, milliseconds since 1970 UTC."""
    return time.time_ns() // _NANOSECONDS


def to_datetime(milliseconds: int) -> datetime:
    """Return an instant in UTC; the end of the year 9999 for a later one.

    Args:
        milliseconds: since 1970 UTC, as stored: up to 64 bits.
    """
    return datetime.fromtimestamp(min(milliseconds, MAX_DATETIME) / 1000, UTC)


class ServerClock:
    """The clock of the store's server, estimated without a call (law A22).

    A reading is the machine's monotonic time plus a measured offset, so it depends neither on the
    machine's wall clock nor on steps of it. A measurement returns the server's time at some instant
    between request and reply. The estimate assumes the instant of the reply, and the fastest drift
    since then. So a reading is never later than the server's clock, and a login that began before a
    cutoff is never dated after it. It is earlier by less than a round trip and 8 ms.

    Before the first measurement a reading is the machine's wall time.

    Args:
        store: has the clock.
        wall: returns seconds since 1970 UTC; floating point, because it decides nothing exactly.
        monotonic: returns nanoseconds since any instant.

    Attributes:
        synchronized: the offset was measured.
    """

    __slots__ = (
        "_accurate",
        "_highest",
        "_lowest",
        "_measured_at",
        "_monotonic",
        "_next_at",
        "_offset",
        "_store",
        "_wall",
        "synchronized",
    )

    def __init__(
        self,
        store: SupportsServerTime,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._store = store
        self._wall = wall
        self._monotonic = monotonic
        self._measured_at = self._next_at = monotonic()
        self._offset = round(wall() * 1_000_000) * 1_000 - self._measured_at
        self._set_limits(self._difference(self._measured_at))
        self._accurate = False
        self.synchronized: bool = False

    def __call__(self) -> int:
        """Return the server's time, milliseconds since 1970 UTC."""
        monotonic = self._monotonic  # to call the attribute directly costs more
        now = monotonic()
        # `_offset_at`, inlined: every request calls this method.
        offset = self._offset - (now - self._measured_at >> _DRIFT_SHIFT)
        return (now + offset) // _NANOSECONDS

    def reading(self) -> int | None:
        """Return the server's time as a call does; None if ``synchronize`` would measure now."""
        monotonic, wall = self._monotonic, self._wall
        now = monotonic()
        # `due` and `_offset_at`, inlined: every request with a ticket calls this method.
        if now >= self._next_at or not self._lowest < wall() - now * 1e-9 < self._highest:
            return None
        offset = self._offset - (now - self._measured_at >> _DRIFT_SHIFT)
        return (now + offset) // _NANOSECONDS

    def offset(self) -> int:
        """Return the present difference to the machine's monotonic clock, milliseconds."""
        return self._offset_at(self._monotonic()) // _NANOSECONDS

    def _offset_at(self, now: int) -> int:
        return self._offset - (now - self._measured_at >> _DRIFT_SHIFT)

    def due(self) -> bool:
        """Return whether ``synchronize`` would measure the offset now."""
        now = self._monotonic()
        difference = self._difference(now)
        return now >= self._next_at or not self._lowest < difference < self._highest

    def _difference(self, now: int) -> float:
        """Return the seconds between the origins of the monotonic clock and the wall clock."""
        return self._wall() - now * 1e-9

    def _set_limits(self, difference: float) -> None:
        """Set the limits of the difference until the next measurement."""
        self._lowest = difference - _MAX_DIVERGENCE
        self._highest = difference + _MAX_DIVERGENCE

    async def synchronize(self) -> None:
        """Measure the offset if that is due.

        Raises:
            StoreError: the server did not answer; the present offset is kept.
        """
        if not self.due():
            return
        attempts = 1 if self.synchronized else _MAX_FIRST_ATTEMPTS
        await self.read_server()
        while attempts > 1 and not self._accurate:
            attempts -= 1
            await self.read_server()

    async def read_server(self) -> int:
        """Query the time of the server, and measure the offset by it.

        Returns:
            The server's time during the call, milliseconds since 1970 UTC.

        Raises:
            StoreError: the server did not answer; the present offset is kept.
        """
        sent = self._monotonic()
        difference = self._difference(sent)
        if self.synchronized:  # one caller measures; the others use the present offset
            self._next_at = sent + _RETRY_INTERVAL
        server_time = await self._store.server_time()
        received = self._monotonic()
        earliest = server_time * _NANOSECONDS - received
        latest = (server_time + 1) * _NANOSECONDS - sent
        self._accurate = accurate = received - sent <= _MAX_ROUND_TRIP
        offset = self._offset_at(received)
        if not self.synchronized or (offset > latest and accurate):
            offset = earliest
        else:
            offset = min(max(offset, earliest), latest)
        self._offset, self._measured_at, self.synchronized = offset, received, True
        self._set_limits(difference)
        self._next_at = received + (_INTERVAL if accurate else _RETRY_INTERVAL)
        return server_time
