"""FakeClock: a clock that only moves when a test advances it."""

from __future__ import annotations

from typing import Final

from sojourn._core.durations import Duration, milliseconds

#: 2026-01-01 00:00 UTC in milliseconds since 1970.
START: Final = 1_767_225_600_000


class FakeClock:
    """Milliseconds since 1970 UTC for the ``clock=`` option of ``Sessions``.

    Args:
        start: the initial time in milliseconds since 1970 UTC.

    Attributes:
        now: the current time in milliseconds since 1970 UTC.
    """

    __slots__ = ("now",)

    def __init__(self, start: int = START) -> None:
        self.now: int = start

    def __call__(self) -> int:
        """Return the current time."""
        return self.now

    def __repr__(self) -> str:
        """Show the current time."""
        return f"FakeClock({self.now})"

    def advance(self, duration: Duration) -> int:
        """Move forward and return the new time.

        Args:
            duration: '5 minutes', a ``timedelta`` or a number of seconds.

        Raises:
            ConfigurationError: not a duration, or zero or less.
        """
        self.now += milliseconds(duration, option="advance()")
        return self.now
