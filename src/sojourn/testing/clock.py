"""FakeClock: time that stands still until a test moves it.

What lives here: the clock for ``Sessions(clock=...)``. What must not: waiting; whoever tests a
timeout of half an hour advances the clock by half an hour.
"""

from __future__ import annotations

from typing import Final

from sojourn._core.policy import Duration, milliseconds

#: 2026-01-01 00:00 UTC in milliseconds since 1970: late enough for any format, easy to recognise.
START: Final = 1_767_225_600_000


class FakeClock:
    """Milliseconds since 1970 UTC, moved by hand; the ``clock=`` option of an installation.

    Args:
        start: what it shows first.
    """

    __slots__ = ("now",)

    def __init__(self, start: int = START) -> None:
        self.now: int = start

    def __call__(self) -> int:
        """Return what the clock shows."""
        return self.now

    def __repr__(self) -> str:
        """Show what the clock shows."""
        return f"FakeClock({self.now})"

    def advance(self, duration: Duration) -> int:
        """Move forward by '5 minutes', a ``timedelta`` or a number of seconds; return the time.

        Raises:
            ConfigurationError: no duration, or not above zero: time does not go back.
        """
        self.now += milliseconds(duration, option="advance()")
        return self.now
