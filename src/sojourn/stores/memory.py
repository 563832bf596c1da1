"""MemoryStore: a bounded number of records in this process, lost when it ends.

For tests, development and single-process programs. No call suspends, so the store serves event
loops, WSGI threads and both at once.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from heapq import nsmallest
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from sojourn._core.concurrency import replace_locks_after_fork
from sojourn.errors import ConfigurationError
from sojourn.record import TRANSIT_VERSION, Record
from sojourn.store import (
    GONE,
    LIMIT_REACHED,
    MAX_LOGIN_DURATION,
    REVOKED,
    SAVED,
    Conflict,
    CutoffPage,
    HistoryEntry,
    HistoryPage,
    LimitPolicy,
    ListPage,
    LoginSaved,
    Purged,
    SaveLoginResult,
    SaveResult,
    SessionLimit,
    parse_id_cursor,
)
from sojourn.stores.history import decode_entries, encode_entry, make_cursor, parse_cursor
from sojourn.stores.urls import StoreURL

#: Records; about 100 MB of sessions of 1 kB (B-54: never unbounded).
DEFAULT_LIMIT: Final = 100_000


class _StoredEntry(NamedTuple):
    """An entry of the history; ordered by its first two fields."""

    ended_at: int
    number: int
    expires_at: int
    data: bytes


class MemoryStore:
    """Stores records in order of use: least recently written or touched first.

    Args:
        limit: the most records; a further one replaces the least recently used. Also the most
            entries of the history; a further one replaces the oldest.
    """

    purge_interval: Final = 10.0

    def __init__(self, *, limit: int = DEFAULT_LIMIT) -> None:
        if limit < 1:
            raise ConfigurationError(f"memory:// expects a limit of 1 or more, found {limit}")
        self._limit = limit
        # A plain dict is slow here: finding the first item skips every entry deleted before it.
        self._records: OrderedDict[bytes, Record] = OrderedDict()
        self._index_names: dict[bytes, tuple[str, ...]] = {}
        self._index: dict[str, set[bytes]] = {}
        self._login_cutoffs: dict[str, int] = {}
        self._not_before = 0
        self._fingerprints: set[bytes] = set()
        self._history: list[_StoredEntry] = []  # oldest first
        self._history_number = 0
        self._lock = threading.Lock()
        self._unpurged: Iterator[bytes] = iter(())
        replace_locks_after_fork(self)

    def after_fork(self) -> None:
        """Replace the lock, which a thread of the parent process may have held."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Show the number of records."""
        return f"MemoryStore({len(self._records)} of {self._limit} records)"

    def secret_path(self) -> Path | None:
        """Return None: neither the sessions nor the secret outlive the process."""
        return None

    async def load(self, session_id: bytes) -> Record | None:
        """Return the record, None if there is none."""
        return self.peek(session_id)

    def peek(self, session_id: bytes) -> Record | None:
        """Return what ``load`` returns."""
        record = self._records.get(session_id)
        return None if record is None or record.created_at < self._not_before else record

    async def create(self, record: Record) -> bool:
        """Insert a record; return False if its ID is taken."""
        with self._lock:
            return self._create(record)

    async def create_many(self, records: Sequence[Record]) -> list[bool]:
        """Insert records as ``create`` does, in one step."""
        with self._lock:
            return [self._create(record) for record in records]

    async def save(self, record: Record, expected_version: int) -> SaveResult:
        """Replace the record whose version is ``expected_version``."""
        if self.swap(record, expected_version):
            return SAVED
        with self._lock:
            stored = self.peek(record.id)
            if stored is None:
                return GONE
            if stored.version != expected_version:
                return Conflict(stored)
            self._replace(record.with_seen_at(stored.seen_at))
            return SAVED

    def swap(self, record: Record, expected_version: int) -> bool:
        """Save if the version is the expected one; return False and change nothing otherwise."""
        records = self._records
        self._lock.acquire()  # half the time of `with`, and every write needs it
        try:
            stored = records.get(record.id)
            if (
                stored is None
                or stored.version != expected_version
                or stored.created_at < self._not_before
            ):
                return False
            if record.seen_at < stored.seen_at:
                record = record.with_seen_at(stored.seen_at)
            records[record.id] = record
            records.move_to_end(record.id)
            return True
        finally:
            self._lock.release()

    async def touch(self, record: Record) -> bool:
        """Move ``seen_at`` forward, never backward."""
        with self._lock:
            stored = self.peek(record.id)
            if stored is None:
                return False
            self._replace(stored.with_seen_at(record.seen_at))
            return True

    async def delete(self, session_id: bytes) -> bool:
        """Delete a record; return whether there was one."""
        with self._lock:
            return self._delete(session_id)

    async def delete_many(self, session_ids: Sequence[bytes]) -> list[bool]:
        """Delete records as ``delete`` does, in one step."""
        with self._lock:
            return [self._delete(session_id) for session_id in session_ids]

    async def purge(self, now: int, limit: int) -> Purged:
        """Remove up to ``limit`` expired records, continuing where the last call stopped."""
        removed = 0
        for _ in range(10 * limit):
            session_id = next(self._unpurged, None)
            if session_id is None:
                if not self._purge_history(now, limit):
                    return Purged(removed, finished=False)
                self._unpurged = iter(list(self._records))
                self._purge_cutoffs(now)
                return Purged(removed, finished=True)
            with self._lock:
                record = self._records.get(session_id)
                if record is not None and (record.expires_at <= now or self._is_invalid(record)):
                    self._remove(session_id)
                    removed += 1
            if removed == limit:
                break
        return Purged(removed, finished=False)

    async def count(self, now: int) -> int:
        """Return the number of live sessions; see ``SupportsCount``."""
        return sum(
            1 for r in self.records() if 0 < r.version < TRANSIT_VERSION and r.expires_at > now
        )

    def records(self) -> list[Record]:
        """Return all records, expired ones and tombstones included; for tests and inspection."""
        return [r for r in list(self._records.values()) if not self._is_invalid(r)]

    # SupportsListing

    async def list_page(self, cursor: str, limit: int) -> ListPage:
        """Return a page of records in the order of their IDs; sorts a part of all IDs for it."""
        after = parse_id_cursor(cursor)
        with self._lock:
            ids = nsmallest(limit, (each for each in self._records if each > after or not cursor))
            records = [self._records[session_id] for session_id in ids]
        valid = [record for record in records if not self._is_invalid(record)]
        return ListPage(valid, 0, ids[-1].hex() if len(ids) == limit else "")

    async def list_cutoffs(self, cursor: str, limit: int) -> CutoffPage:
        """Return all cutoffs in one page."""
        del cursor, limit
        with self._lock:
            cutoffs = [*self._login_cutoffs.items()]
        if self._not_before:
            cutoffs.append(("", self._not_before))
        return CutoffPage(cutoffs, 0, "")

    # SupportsHistory

    async def add_history(self, entries: Sequence[HistoryEntry], lifetime: int) -> None:
        """Add entries; encoded, because an entry may hold objects of the application."""
        with self._lock:
            for entry in entries:
                self._history_number += 1
                expires_at = entry.ended_at + lifetime
                data = encode_entry(entry)
                stored = _StoredEntry(entry.ended_at, self._history_number, expires_at, data)
                insort(self._history, stored)
            del self._history[: -self._limit]

    async def list_history(self, cursor: str, limit: int) -> HistoryPage:
        """Return the page that follows a cursor, newest first."""
        with self._lock:
            end = bisect_left(self._history, parse_cursor(cursor))
            start = max(end - limit, 0)
            page = self._history[start:end]
        entries, unreadable = decode_entries(stored.data for stored in reversed(page))
        next_cursor = make_cursor(page[0].ended_at, page[0].number) if start else ""
        return HistoryPage(entries, unreadable, next_cursor)

    # User index

    async def save_login(
        self, record: Record, expected_version: int, *, limit: SessionLimit | None, now: int
    ) -> SaveLoginResult:
        """Save a record whose user has just logged in and index it."""
        names = record.index_names()
        with self._lock:
            if any(record.authenticated_at < self._login_cutoffs.get(name, 0) for name in names):
                return REVOKED
            stored = self.peek(record.id)
            if stored is None and (expected_version or record.id in self._records):
                return GONE
            if stored is not None and stored.version != expected_version:
                return Conflict(stored)
            excess = self._excess_sessions(record.id, names, limit, now)
            if excess and limit is not None and limit.policy is LimitPolicy.REFUSE:
                return LIMIT_REACHED
            for session_id in excess:
                self._remove(session_id)
            if stored is None:
                self._insert(record)
            else:
                self._remove_from_index(record.id)
                self._replace(record.with_seen_at(stored.seen_at))
            self._add_to_index(record.id, names)
            return LoginSaved(excess)

    async def list_by_index(self, name: str) -> list[Record]:
        """Return the records indexed under a name, newest login first."""
        with self._lock:
            records = self._indexed(name)
        return sorted(records, key=_login_order, reverse=True)

    async def invalidate_logins(self, name: str, before: int) -> None:
        """Reject logins under ``name`` whose ``authenticated_at`` is earlier than ``before``."""
        with self._lock:
            self._login_cutoffs[name] = max(self._login_cutoffs.get(name, 0), before)

    async def invalidate_all(self, before: int) -> None:
        """Treat every record created before an instant as absent."""
        with self._lock:
            self._not_before = max(self._not_before, before)

    async def register_keys(self, fingerprints: Sequence[bytes]) -> bool:
        """Add fingerprints of keys; see ``SupportsKeyFingerprints``."""
        with self._lock:
            if self._fingerprints and self._fingerprints.isdisjoint(fingerprints):
                return False
            self._fingerprints.update(fingerprints)
            return True

    # The methods below require the lock

    def _is_invalid(self, record: Record) -> bool:
        return record.created_at < self._not_before

    def _create(self, record: Record) -> bool:
        if record.id in self._records:
            return False
        self._insert(record)
        return True

    def _insert(self, record: Record) -> None:
        if len(self._records) >= self._limit:
            self._remove(next(iter(self._records)))
        self._records[record.id] = record

    def _replace(self, record: Record) -> None:
        self._records[record.id] = record
        self._records.move_to_end(record.id)

    def _delete(self, session_id: bytes) -> bool:
        if self.peek(session_id) is None:
            return False
        self._remove(session_id)
        return True

    def _remove(self, session_id: bytes) -> None:
        del self._records[session_id]
        self._remove_from_index(session_id)

    def _add_to_index(self, session_id: bytes, names: tuple[str, ...]) -> None:
        if names:
            self._index_names[session_id] = names
        for name in names:
            self._index.setdefault(name, set()).add(session_id)

    def _remove_from_index(self, session_id: bytes) -> None:
        for name in self._index_names.pop(session_id, ()):
            session_ids = self._index[name]
            session_ids.discard(session_id)
            if not session_ids:
                del self._index[name]

    def _indexed(self, name: str) -> list[Record]:
        records = [self._records[session_id] for session_id in self._index.get(name, ())]
        return [record for record in records if not self._is_invalid(record)]

    def _excess_sessions(
        self, session_id: bytes, names: tuple[str, ...], limit: SessionLimit | None, now: int
    ) -> tuple[bytes, ...]:
        """Return the user's other sessions that exceed the limit together with this one."""
        if limit is None or not names:
            return ()
        if len(self._index.get(names[0], ())) < limit.max_sessions:
            return ()
        others = [r for r in self._indexed(names[0]) if r.id != session_id and r.expires_at > now]
        evict_idlest = limit.policy is LimitPolicy.EVICT_IDLEST
        order = _idle_order if evict_idlest else _login_order
        excess = max(0, len(others) + 1 - limit.max_sessions)
        return tuple(other.id for other in nsmallest(excess, others, key=order))

    def _purge_cutoffs(self, now: int) -> None:
        with self._lock:
            oldest = now - MAX_LOGIN_DURATION
            for name in [name for name, at in self._login_cutoffs.items() if at <= oldest]:
                del self._login_cutoffs[name]

    def _purge_history(self, now: int, limit: int) -> bool:
        """Remove up to ``limit`` entries whose lifetime is over; return whether these were all."""
        with self._lock:
            expired = (at for at, stored in enumerate(self._history) if stored.expires_at <= now)
            found = list(islice(expired, limit))
            end = found[-1] + 1 if found else 0
            self._history[:end] = [each for each in self._history[:end] if each.expires_at > now]
        return len(found) < limit


def _login_order(record: Record) -> tuple[int, bytes]:
    return record.authenticated_at, record.id


def _idle_order(record: Record) -> tuple[int, bytes]:
    return record.seen_at, record.id


def open_memory(url: StoreURL) -> MemoryStore:
    """Open ``memory://`` or ``memory://?limit=1000``."""
    if url.parts.netloc or url.parts.path not in ("", "/"):
        raise ConfigurationError(
            f"{url.text}: memory:// has no host and no path; write 'memory://' or "
            "'memory://?limit=1000'"
        )
    limit = url.options(limit=int).get("limit", DEFAULT_LIMIT)
    return MemoryStore(limit=int(limit))
