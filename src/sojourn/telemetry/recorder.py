"""Recorder: where measurements go, to Prometheus or to OpenTelemetry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from sojourn.events import (
    Authenticated,
    Conflicted,
    Created,
    Event,
    Expired,
    Rejected,
    Reused,
    Revoked,
    Rotated,
    StoreFailed,
)

#: The events that are counted. Reads and writes are store calls, which are measured; a listener
#: for them would cost every request an event object.
COUNTED: Final[tuple[type[Event], ...]] = (
    Authenticated,
    Conflicted,
    Created,
    Expired,
    Rejected,
    Reused,
    Revoked,
    Rotated,
    StoreFailed,
)

#: Upper bounds of histograms of seconds: from a store in memory to one that times out.
SECONDS: Final = (
    *(0.000_01, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)

#: Upper bounds of the histogram of calls in one batch; a batch has at most 256.
SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


class Recorder(Protocol):
    """Takes the measurements of one installation. Methods return without waiting."""

    @property
    def target(self) -> object:
        """The registry or the provider; an installation records to each of them once."""
        ...

    def call_observer(
        self, operation: str, result: str, error: str | None
    ) -> Callable[[float], object]:
        """Return a function that records a store call; it is called with its duration in seconds.

        Called once for each combination, so that the ordinary call costs no look-up.

        Args:
            operation: the name of the store's method.
            result: of ``labels.RESULTS``.
            error: the name of the class of what the call raised; None if it returned.
        """
        ...

    def batch(self, size: int, seconds: float, *, failed: bool) -> None:
        """Record a batch; see ``BatchObserver``."""
        ...

    def event(self, event: Event) -> None:
        """Count an event of one of the classes ``COUNTED``."""
        ...

    def connections(self, change: int) -> None:
        """Add to the number of open connections."""
        ...

    def broadcast_gap(self) -> None:
        """Count that messages of other processes may have been missed."""
        ...

    def purged(self, removed: int | None) -> None:
        """Record that a purge of the whole store ended now.

        Args:
            removed: the number of records; None when telemetry begins, before the first purge.
        """
        ...

    def live_sessions(self, number: int) -> None:
        """Record the number of live sessions of the store."""
        ...

    def close(self) -> None:
        """Take back what must not be exported any more, such as the open connections."""
        ...
