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

from sojourn.errors import ConfigurationError
from sojourn.record import Record
from sojourn.store import (
    GONE,
    LIMIT_REACHED,
    MAX_LOGIN_DURATION,
    REVOKED,
    SAVED,
    Conflict,
    LimitPolicy,
    LoginSaved,
    Purged,
    SaveLoginResult,
    SaveResult,
    SessionLimit,
)
from sojourn.stores.urls import StoreURL

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
        self._names: dict[bytes, tuple[str, ...]] = {}
        self._listed: dict[str, set[bytes]] = {}
        self._marks: dict[str, int] = {}
        self._all_before = 0
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
        record = self._records.get(session_id)
        return None if record is None or record.created_at < self._all_before else record

    async def create(self, record: Record) -> bool:
        """Insert a record; False if its ID is taken."""
        with self._lock:
            if record.id in self._records:
                return False
            self._insert(record)
            return True

    async def save(self, record: Record, expected_version: int) -> SaveResult:
        """Replace the record whose version is the expected one."""
        records = self._records
        self._lock.acquire()  # half the price of `with`, and every write pays it
        try:
            stored = records.get(record.id)
            if stored is None or stored.created_at < self._all_before:
                return GONE
            if stored.version != expected_version:
                return Conflict(stored)
            records[record.id] = (
                record if record.seen_at >= stored.seen_at else record.with_seen_at(stored.seen_at)
            )
            records.move_to_end(record.id)
            return SAVED
        finally:
            self._lock.release()

    async def touch(self, record: Record) -> bool:
        """Move ``seen_at`` forward, never backward."""
        with self._lock:
            stored = self._get(record.id)
            if stored is None:
                return False
            self._replace(stored.with_seen_at(record.seen_at))
            return True

    async def delete(self, session_id: bytes) -> bool:
        """Remove a record; tell whether there was one."""
        with self._lock:
            return self._get(session_id) is not None and self._remove(session_id)

    async def purge(self, now: int, limit: int) -> Purged:
        """Remove up to ``limit`` expired records, continuing where the last call stopped."""
        removed = 0
        for _ in range(10 * limit):
            session_id = next(self._walk, None)
            if session_id is None:
                self._walk = iter(list(self._records))
                self._forget_marks(now)
                return Purged(removed, finished=True)
            with self._lock:
                record = self._records.get(session_id)
                if record is not None and (record.expires_at <= now or self._is_void(record)):
                    self._remove(session_id)
                    removed += 1
            if removed == limit:
                break
        return Purged(removed, finished=False)

    async def count(self, now: int) -> int:
        """Return the number of records not expired at ``now``, marks left out."""
        records = list(self._records.values())
        return sum(1 for r in records if r.version and r.expires_at > now and not self._is_void(r))

    # By name

    async def save_login(
        self, record: Record, expected_version: int, *, limit: SessionLimit | None, now: int
    ) -> SaveLoginResult:
        """Save a record that has a user from now on, and list it under its names."""
        names = record.index_names()
        with self._lock:
            if any(record.authenticated_at < self._marks.get(name, 0) for name in names):
                return REVOKED
            stored = self._get(record.id)
            if stored is None and (expected_version or record.id in self._records):
                return GONE
            if stored is not None and stored.version != expected_version:
                return Conflict(stored)
            surplus = self._surplus(record.id, names, limit, now)
            if surplus and limit is not None and limit.policy is LimitPolicy.REFUSE:
                return LIMIT_REACHED
            for session_id in surplus:
                self._remove(session_id)
            if stored is None:
                self._insert(record)
            else:
                self._unlist(record.id)
                self._replace(record.with_seen_at(stored.seen_at))
            self._list(record.id, names)
            return LoginSaved(surplus)

    async def list_by_index(self, name: str) -> list[Record]:
        """Return the records listed under a name, newest login first."""
        with self._lock:
            found = self._under(name)
        return sorted(found, key=_login, reverse=True)

    async def invalidate_logins(self, name: str, before: int) -> None:
        """Let no login that began before an instant be bound to a name any more."""
        with self._lock:
            self._marks[name] = max(self._marks.get(name, 0), before)

    async def invalidate_all(self, before: int) -> None:
        """Make every record that was created before an instant absent."""
        with self._lock:
            self._all_before = max(self._all_before, before)

    # With the lock held, but for _get, which is a single step

    def _get(self, session_id: bytes) -> Record | None:
        record = self._records.get(session_id)
        return None if record is None or self._is_void(record) else record

    def _is_void(self, record: Record) -> bool:
        return record.created_at < self._all_before

    def _insert(self, record: Record) -> None:
        if len(self._records) >= self._limit:
            self._remove(next(iter(self._records)))
        self._records[record.id] = record

    def _replace(self, record: Record) -> None:
        self._records[record.id] = record
        self._records.move_to_end(record.id)

    def _remove(self, session_id: bytes) -> bool:
        del self._records[session_id]
        self._unlist(session_id)
        return True

    def _list(self, session_id: bytes, names: tuple[str, ...]) -> None:
        if names:
            self._names[session_id] = names
        for name in names:
            self._listed.setdefault(name, set()).add(session_id)

    def _unlist(self, session_id: bytes) -> None:
        for name in self._names.pop(session_id, ()):
            listed = self._listed[name]
            listed.discard(session_id)
            if not listed:
                del self._listed[name]

    def _under(self, name: str) -> list[Record]:
        records = [self._records[session_id] for session_id in self._listed.get(name, ())]
        return [record for record in records if not self._is_void(record)]

    def _surplus(
        self, session_id: bytes, names: tuple[str, ...], limit: SessionLimit | None, now: int
    ) -> tuple[bytes, ...]:
        """Return the sessions of the same user that are too many beside this one."""
        if limit is None or not names:
            return ()
        listed = self._under(names[0])
        others = [r for r in listed if r.id != session_id and r.expires_at > now]
        others.sort(key=_activity if limit.policy is LimitPolicy.EVICT_IDLEST else _login)
        return tuple(other.id for other in others[: max(0, len(others) + 1 - limit.max_sessions)])

    def _forget_marks(self, now: int) -> None:
        with self._lock:
            old = [name for name, at in self._marks.items() if at <= now - MAX_LOGIN_DURATION]
            for name in old:
                del self._marks[name]


def _login(record: Record) -> tuple[int, bytes]:
    return record.authenticated_at, record.id


def _activity(record: Record) -> tuple[int, bytes]:
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
