"""Checks of the clocks: this machine's against the store's, and steps of this machine's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from sojourn._core.clock import wall_clock
from sojourn.cli.doctor_checks.context import CheckContext
from sojourn.cli.doctor_checks.findings import Finding, error, warning
from sojourn.store import SupportsServerTime

WRONG: Final = error(
    "clock-wrong",
    "a clock within half an hour of the store's: sojourn works with an hour (law A22), while the "
    "expiry of cookies, TLS and tokens of identity providers fail earlier",
    "synchronize the clock of this machine, or of the server, with NTP: `timedatectl set-ntp true`",
)
OFFSET: Final = warning(
    "clock-offset",
    "a clock within 5 seconds of the store's",
    "synchronize the clock of this machine, or of the server, with NTP: `timedatectl set-ntp true`",
)
STEPPED: Final = error(
    "clock-stepped",
    "a clock that runs evenly: this store has no clock of its own, so a step ends sessions early "
    "or extends them",
    "synchronize with a daemon that slews the clock (chrony, systemd-timesyncd), and let the "
    "machine have one source of time; sessions seen in the future recover when it has passed",
)

PROBLEMS: Final = (WRONG, OFFSET, STEPPED)

#: Milliseconds.
_OFFSET: Final = 5_000
_WRONG: Final = 30 * 60 * 1_000

#: Nanoseconds by which wall clock and monotonic clock may diverge during the examination.
_MAX_STEP: Final = 500_000_000


def check_clock(context: CheckContext) -> Iterator[Finding]:
    """Compare the clocks of this machine and of the store."""
    store = context.store
    if not isinstance(store, SupportsServerTime):
        return
    before = wall_clock()
    found = context.run(store.server_time())
    after = wall_clock()
    difference = max(before - found, found - after, 0)
    if difference < _OFFSET:
        return
    direction = "ahead of" if after > found else "behind"
    problem = WRONG if difference >= _WRONG else OFFSET
    yield problem.finding(
        f"the clock of this machine is {_format_duration(difference)} {direction} the store's"
    )


def check_steps(context: CheckContext) -> Iterator[Finding]:
    """Look for steps of the clock: during the examination, and in the times of sessions."""
    if isinstance(context.store, SupportsServerTime):
        return
    wall, monotonic = context.started_at
    step = (time.time_ns() - wall) - (time.monotonic_ns() - monotonic)
    if abs(step) > _MAX_STEP:
        yield STEPPED.finding(f"the clock jumped by {step / 1e9:+.1f} s during the examination")
    if context.sample is None:
        return
    ahead = max((record.seen_at for record in context.sample.records), default=0) - wall_clock()
    if ahead > _OFFSET:
        yield STEPPED.finding(f"a session was seen {_format_duration(ahead)} in the future")


def _format_duration(milliseconds: int) -> str:
    seconds = milliseconds / 1000
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.1f} seconds"  # noqa: PLR2004 - for reading
