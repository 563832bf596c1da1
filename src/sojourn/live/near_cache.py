"""NearCache: recently loaded records in memory, for a stated time (laws N1 and N2).

It performs no I/O: ``NearCacheSubscriber`` applies the messages of other processes to it.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from sojourn._core.record_cache import Reservation
from sojourn.record import Record

#: Seconds between two probes of the subscription while records are requested.
CONFIRMATION_INTERVAL: Final = 1.0

#: Seconds for which a probe that has returned confirms the subscription: one of two may be late.
CONFIRMATION_LIFETIME: Final = 3.0

#: Bytes of an entry besides the body of its record: the objects of both, and their place in a dict.
_ENTRY_BYTES: Final = 1_000

#: Entries that are too old and are removed with each new one, so that their number shrinks.
_MAX_REMOVED: Final = 2


class _Entry(NamedTuple):
    """A record in memory.

    Attributes:
        monotonic, wall: when its load started, in seconds by both clocks.
        size: estimated bytes of memory.
    """

    record: Record
    monotonic: float
    wall: float
    size: int


class NearCache:
    """Stores records for ``max_age`` seconds from the start of the load that returned them.

    So a record that is served was the store's at some instant of the last ``max_age`` seconds,
    whatever happened to messages. Two clocks have to agree on the age: the monotonic clock is
    unaffected by steps of the wall clock, and the wall clock goes on while a machine is suspended.

    Records are bodies as stored, encrypted if they are encrypted there. Thread-safe.

    Args:
        max_age: seconds.
        max_bytes: estimated bytes of memory; beyond them the records that were loaded first are
            removed, which are also the first that are too old.
        monotonic, wall: as the attributes.

    Attributes:
        monotonic: the monotonic clock: returns seconds since any instant.
        wall: the wall clock: returns seconds since 1970 UTC.
        request_confirmation: called without waiting when the subscription has to be probed; None
            while there is no subscription, and then nothing is served.
        hits: records that were found.
        misses: records that were not, or not any more.
    """

    __slots__ = (
        "__weakref__",
        "_confirmed_at",
        "_entries",
        "_loading",
        "_lock",
        "_max_age",
        "_max_bytes",
        "_requested_at",
        "_size",
        "hits",
        "misses",
        "monotonic",
        "request_confirmation",
        "wall",
    )

    def __init__(
        self,
        max_age: float,
        max_bytes: int,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._max_age = max_age
        self._max_bytes = max_bytes
        self.monotonic: Callable[[], float] = monotonic
        self.wall: Callable[[], float] = wall
        self.request_confirmation: Callable[[], object] | None = None
        self.hits: int = 0
        self.misses: int = 0
        self.reset()

    def reset(self) -> None:
        """Start empty and unconfirmed: at first, and in a child after a fork."""
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._loading: dict[bytes, Reservation] = {}
        self._size = 0
        self._confirmed_at = self._requested_at = -math.inf

    def __len__(self) -> int:
        """Return the number of records, those that are too old included."""
        return len(self._entries)

    def loading(self) -> int:
        """Return the number of loads in progress."""
        return len(self._loading)

    @property
    def size(self) -> int:
        """The estimated bytes of memory."""
        return self._size

    # Reading

    def get(self, session_id: bytes) -> Record | None:
        """Return a record that may be served; None if the store has to be called (law N1)."""
        now = self.monotonic()
        if now - self._requested_at >= CONFIRMATION_INTERVAL:
            self._requested_at = now
            if self.request_confirmation is not None:
                self.request_confirmation()
        entry = self._entries.get(session_id)
        if entry is None or not self.is_confirmed() or not self.is_young(entry, now):
            self.misses += 1
            return None
        self.hits += 1
        return entry.record

    def is_young(self, entry: _Entry, now: float) -> bool:
        """Return whether both clocks say that an entry may be served."""
        return (
            0 <= now - entry.monotonic < self._max_age
            and 0 <= self.wall() - entry.wall < self._max_age
        )

    # Writing

    def reserve(self, session_id: bytes) -> Reservation:
        """Register the start of a load; ``put`` must follow."""
        reservation = Reservation(session_id, self.monotonic(), self.wall())
        self._loading[session_id] = reservation
        return reservation

    def put(self, reservation: Reservation, record: Record | None) -> None:
        """Store what a load returned, unless its session was discarded during the load.

        Args:
            reservation: from the start of the load.
            record: None if there is none, or if the load failed.
        """
        session_id = reservation.session_id
        with self._lock:
            # Of two loads at the same time, the one that started last is kept.
            if self._loading.get(session_id) is not reservation:
                return
            del self._loading[session_id]
            self._remove(session_id)
            if record is None:
                return
            size = len(record.body) + _ENTRY_BYTES
            self._entries[session_id] = _Entry(
                record, reservation.monotonic, reservation.wall, size
            )
            self._size += size
            self._remove_oldest()

    def _remove_oldest(self) -> None:
        """Remove some entries that are too old, and those above the limit of memory."""
        now = self.monotonic()
        removed = 0
        while self._entries:
            session_id, entry = next(iter(self._entries.items()))
            if self._size <= self._max_bytes:
                if removed == _MAX_REMOVED or self.is_young(entry, now):
                    return
                removed += 1
            self._remove(session_id)

    def _remove(self, session_id: bytes) -> None:
        entry = self._entries.pop(session_id, None)
        if entry is not None:
            self._size -= entry.size

    def discard(self, session_id: bytes) -> None:
        """Remove a session, and do not store what a load in progress returns."""
        with self._lock:
            self._loading.pop(session_id, None)
            self._remove(session_id)

    def clear(self) -> None:
        """Discard every session."""
        with self._lock:
            self._loading.clear()
            self._entries.clear()
            self._size = 0

    # The subscription

    def is_confirmed(self) -> bool:
        """Return whether records may be served now."""
        return self.monotonic() - self._confirmed_at < CONFIRMATION_LIFETIME

    def confirm(self, sent_at: float) -> None:
        """Record that a probe has returned, so every message published before it has arrived.

        Args:
            sent_at: when it was published, seconds of the monotonic clock.
        """
        self._confirmed_at = max(self._confirmed_at, sent_at)

    def expire_confirmation(self) -> None:
        """Serve nothing until the next probe has returned: messages may have been missed."""
        self._confirmed_at = -math.inf
        self.clear()
