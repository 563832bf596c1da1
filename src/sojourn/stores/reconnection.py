"""Time limits of reconnections to a server that failed."""

from __future__ import annotations

import time
from typing import Final

#: How many times as long as the last connection a new one to a failed server may take.
RECONNECTION_FACTOR: Final = 2

#: Seconds of an outage after which one call connects with its whole deadline.
_WHOLE_DEADLINE_INTERVAL: Final = 30.0


class ReconnectionLimit:
    """How long the calls of an open circuit breaker try to connect: a part of their deadline.

    A distant server takes longer than that part, so the limit is at least a multiple of the time
    that the last connection took. The network may have become slower meanwhile, as after a failover
    to another region, so one call in 30 seconds uses its whole deadline.

    Args:
        part: of the timeout.
        least: seconds.
    """

    __slots__ = ("_least", "_part", "_taken", "_whole_at")

    def __init__(self, part: float, least: float) -> None:
        self._part = part
        self._least = least
        self._taken: float | None = None  # seconds of the last connection; None before the first
        self._whole_at: float | None = None  # None while there is no outage

    @property
    def was_connected(self) -> bool:
        """Whether there was a connection; the first one may take the whole deadline."""
        return self._taken is not None

    def deadline(self, deadline: float, timeout: float) -> float:
        """Return until when a call may connect, by ``time.monotonic``.

        Args:
            deadline: of the call.
            timeout: seconds of a call.
        """
        if self._taken is None:
            return deadline
        now = time.monotonic()
        if self._whole_at is None:
            self._whole_at = now + _WHOLE_DEADLINE_INTERVAL
        elif now >= self._whole_at:
            self._whole_at = now + _WHOLE_DEADLINE_INTERVAL
            return deadline
        seconds = max(self._least, self._part * timeout, RECONNECTION_FACTOR * self._taken)
        return min(deadline, now + seconds)

    def connected(self, seconds: float) -> None:
        """End the outage.

        Args:
            seconds: that the connection took; short if there was one already.
        """
        self._taken = max(seconds, (self._taken or 0.0) / 2)
        self._whole_at = None
