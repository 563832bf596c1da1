"""RecordCache: what the core needs of a near cache, which decides by clocks what it may serve."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from sojourn.record import Record


class Reservation(NamedTuple):
    """The permission to cache what a load returns, until the session is discarded.

    Attributes:
        session_id: 16 bytes.
        monotonic: the start of the load, seconds of the monotonic clock.
        wall: the same instant by the wall clock, seconds since 1970 UTC.
    """

    session_id: bytes
    monotonic: float
    wall: float


class RecordCache(Protocol):
    """Caches records for a stated time (laws N1, N2). Methods do not wait and are thread-safe."""

    def get(self, session_id: bytes) -> Record | None:
        """Return a record that may be served; None if it has to be loaded from the store."""
        ...

    def reserve(self, session_id: bytes) -> Reservation:
        """Register the start of a load; ``put`` must follow."""
        ...

    def put(self, reservation: Reservation, record: Record | None) -> None:
        """Cache what a load returned, unless its session was discarded during the load.

        Args:
            reservation: from the start of the load.
            record: None if there is none, or if the load failed.
        """
        ...

    def discard(self, session_id: bytes) -> None:
        """Remove a session, and do not cache what a load in progress returns."""
        ...

    def clear(self) -> None:
        """Discard every session."""
        ...
