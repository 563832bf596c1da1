"""MemoryStore: records in this process, bounded and swept; gone when it ends.

What lives here: the store behind ``memory://``, for tests, development and single-process programs
whose sessions may be lost at a restart. What must not: anything that other stores need.

All calls finish without suspending, so it serves event loops, WSGI threads and both at once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sojourn.core.record import Record
from sojourn.core.store import GONE, SAVED, Conflict, Purged, SaveResult
from sojourn.errors import ConfigurationError
from sojourn.stores.url import StoreURL

#: About 100 MB of sessions of 1 kB (security.md B-54: never unbounded).
DEFAULT_LIMIT: Final = 100_000


class MemoryStore:
    """Keeps records in order, least recently written or touched first.

    Args:
        limit: how many records to keep; beyond that the least recently used one is dropped.
    """

    purge_interval: Final = 10.0

    def __init__(self, *, limit: int = DEFAULT_LIMIT) -> None:
        if limit < 1:
            raise ConfigurationError(f"memory:// expects a limit of 1 or more, found {limit}")
        self._limit = limit
        # Not a dict: taking the first of one whose front was deleted walks over the holes.
        self._records: OrderedDict[bytes, Record] = OrderedDict()
        self._lock = threading.Lock()
        self._walk: Iterator[bytes] = iter(())

    def __repr__(self) -> str:
        """Show how full it is."""
        return f"MemoryStore({len(self._records)} of {self._limit} records)"

    def secret_path(self) -> Path | None:
        """Return None: the sessions end with the process, and so may the secret."""
        return None

    async def load(self, session_id: bytes) -> Record | None:
        """Return the record, None if there is none."""
        return self._records.get(session_id)

    async def create(self, record: Record) -> bool:
        """Insert a record; False if its ID is taken."""
        with self._lock:
            if record.id in self._records:
                return False
            if len(self._records) >= self._limit:
                self._records.popitem(last=False)
            self._records[record.id] = record
            return True

    async def save(self, record: Record, expected_version: int) -> SaveResult:
        """Replace the record whose version is the expected one."""
        records = self._records
        with self._lock:
            stored = records.get(record.id)
            if stored is None:
                return GONE
            if stored.version != expected_version:
                return Conflict(stored)
            records[record.id] = record.seen(stored.seen_at)
            records.move_to_end(record.id)
            return SAVED

    async def touch(self, record: Record) -> bool:
        """Move ``seen_at`` forward, never backward."""
        with self._lock:
            stored = self._records.get(record.id)
            if stored is None:
                return False
            self._records[record.id] = stored.seen(record.seen_at)
            self._records.move_to_end(record.id)
            return True

    async def delete(self, session_id: bytes) -> bool:
        """Remove a record; tell whether there was one."""
        with self._lock:
            return self._records.pop(session_id, None) is not None

    async def purge(self, now: int, limit: int) -> Purged:
        """Remove up to ``limit`` expired records, continuing where the last call stopped."""
        removed = 0
        for _ in range(10 * limit):
            session_id = next(self._walk, None)
            if session_id is None:
                self._walk = iter(list(self._records))
                return Purged(removed, finished=True)
            with self._lock:
                record = self._records.get(session_id)
                if record is not None and record.expires_at <= now:
                    del self._records[session_id]
                    removed += 1
            if removed == limit:
                break
        return Purged(removed, finished=False)

    async def count(self, now: int) -> int:
        """Return the number of records not expired at ``now``."""
        return sum(1 for record in list(self._records.values()) if record.expires_at > now)


def open_memory(url: StoreURL) -> MemoryStore:
    """Open ``memory://`` or ``memory://?limit=1000``."""
    if url.parts.netloc or url.parts.path not in ("", "/"):
        raise ConfigurationError(
            f"{url.text}: memory:// has no host and no path; write 'memory://' or "
            "'memory://?limit=1000'"
        )
    limit = url.options(limit=int).get("limit", DEFAULT_LIMIT)
    return MemoryStore(limit=int(limit))
