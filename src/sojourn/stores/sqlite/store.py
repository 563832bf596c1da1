"""SQLiteStore: records in one file, shared by all processes of a machine. The default store."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar, TypeVarTuple
from urllib.parse import unquote

from sojourn.errors import ConfigurationError, StoreError, StoreUnavailable
from sojourn.record import ID_BYTES, Record, UnreadableRecord
from sojourn.store import (
    MAX_LOGIN_DURATION,
    BatchObserver,
    Count,
    CutoffPage,
    HistoryEntry,
    HistoryPage,
    ListPage,
    MessageHandler,
    MessageKind,
    Purged,
    SaveLoginResult,
    SaveResult,
    SessionLimit,
    invalid_cursor,
    parse_id_cursor,
)
from sojourn.stores.broadcast_messages import encode_message
from sojourn.stores.history import decode_entries, make_cursor, parse_cursor
from sojourn.stores.sqlite.checkpointer import Checkpointer
from sojourn.stores.sqlite.database import DatabaseFile, is_full
from sojourn.stores.sqlite.fork import fork_hooks
from sojourn.stores.sqlite.group_commit import GroupCommitter, PendingWrite
from sojourn.stores.sqlite.readers import ReaderPool
from sojourn.stores.sqlite.statements import Statements, decode_row, decode_rows
from sojourn.stores.sqlite.watcher import Watcher, WatcherSubscription
from sojourn.stores.urls import StoreURL

T = TypeVar("T")
Args = TypeVarTuple("Args")

#: Records or entries that one transaction of ``purge`` deletes: a fraction of a millisecond.
_MAX_PURGE_BATCH: Final = 100

#: Records or entries above which a bulk write runs in the background thread: about a millisecond.
_MAX_BULK_IN_LOOP: Final = 100

#: Records that ``count`` examines: about 0.2 seconds if the system has them in memory.
_MAX_COUNTED: Final = 2_000_000

#: Records from whose IDs the total is estimated, with an error of one percent.
_COUNT_SAMPLE: Final = 10_000

#: The number of possible IDs.
_ID_RANGE: Final = 256**ID_BYTES

#: Seconds that ``close`` waits for a thread to finish its work.
_CLOSE_TIMEOUT: Final = 5.0

_EXAMPLE_URLS: Final = "'sqlite:///relative/path.db' or 'sqlite:////absolute/path.db'"


class SQLiteStore:
    """Stores records in a table of an SQLite file.

    Reads run in the calling thread; writes are committed in groups. All calls serve event loops,
    WSGI threads and both at once. Acknowledged writes survive the death of the process; a power
    failure may lose the latest ones (``synchronous=NORMAL``).

    Args:
        path: the file; created together with its folder if it is missing.
        realm: the installation's namespace.
        timeout: seconds that a call may take.

    Raises:
        ConfigurationError: the file cannot be used, or belongs to another program.
        StoreUnavailable: another process holds it for longer than the timeout.
    """

    #: Each purge examines every record, so it is rare; expired records are invisible meanwhile.
    purge_interval: Final = 300.0

    #: Saves of one event-loop tick share a transaction.
    group_commit: Final = True

    def __init__(
        self, path: str | os.PathLike[str], *, realm: str = "default", timeout: float = 2.0
    ) -> None:
        self._statements = Statements(realm)
        self._statements_without_events = Statements(realm, add_events=False)
        self._file = DatabaseFile(Path(os.path.abspath(path)), timeout)  # noqa: PTH100 - resolve() follows links
        self._timeout = timeout
        self._closed = False
        self._watcher: Watcher
        self._purged_until = b""
        self._purges_history = False  # a purge has entries of the history left
        self._file.prepare(self._statements.schema)
        self._batch_observers: tuple[BatchObserver, ...] = ()
        self._start()
        fork_hooks.register(self)

    def __repr__(self) -> str:
        """Show the path and the table."""
        return f"SQLiteStore({str(self._file.path)!r}, table {self._statements.schema.sessions!r})"

    @property
    def path(self) -> Path:
        """The database file."""
        return self._file.path

    def secret_path(self) -> Path | None:
        """Return the path of the secret file, beside the database."""
        return self._file.path.with_name(self._file.path.name + ".secret")

    # Reads

    async def load(self, session_id: bytes) -> Record | None:
        """Return the record, None if there is none."""
        row = await self._readers.fetch_one(self._statements.load, (session_id,))
        return None if row is None else decode_row(session_id, row)

    def peek(self, session_id: bytes) -> Record | None:
        """Return what ``load`` would return; None also if only ``load`` can decide."""
        row = self._readers.try_fetch_one(self._statements.load, (session_id,))
        try:
            return None if row is None else decode_row(session_id, row)
        except UnreadableRecord:
            return None

    async def count(self, now: int) -> int:
        """Return the number of live sessions; see ``SupportsCount``.

        IDs are random, so the total is estimated from the first ones. Of more than two million
        records, those in a part of the range of IDs are counted.
        """
        [(examined, until)] = await self._readers.fetch_all(
            self._statements.next_id_range, (b"", _COUNT_SAMPLE)
        )
        end = _ID_RANGE
        if examined == _COUNT_SAMPLE:
            records = examined * _ID_RANGE // (int.from_bytes(until) + 1)
            end = min(end, _MAX_COUNTED * _ID_RANGE // records)
        [(live,)] = await self._readers.fetch_all(
            self._statements.count, ((end - 1).to_bytes(ID_BYTES), now)
        )
        is_exact = end == _ID_RANGE
        return Count(live if is_exact else round(live * _ID_RANGE / end), is_exact=is_exact)

    async def list_by_index(self, name: str) -> list[Record]:
        """Return the records indexed under a name, newest login first."""
        column, _, value = name.partition(":")
        query = self._statements.list_by_index.get(column)
        return [] if query is None else decode_rows(await self._readers.fetch_all(query, (value,)))

    # SupportsListing

    async def list_page(self, cursor: str, limit: int) -> ListPage:
        """Return a page of records in the order of their IDs."""
        after = parse_id_cursor(cursor)
        [(examined, until)] = await self._readers.fetch_all(
            self._statements.next_id_range, (after, limit)
        )
        if not examined:
            return ListPage([], 0, "")
        rows = await self._readers.fetch_all(self._statements.list_page, (after, until))
        records = decode_rows(rows)
        return ListPage(records, len(rows) - len(records), until.hex() if examined == limit else "")

    async def list_cutoffs(self, cursor: str, limit: int) -> CutoffPage:
        """Return a page of cutoffs in the order of their names.

        The cursor is a colon and the last name, which may be empty.
        """
        if cursor and not cursor.startswith(":"):
            raise invalid_cursor(cursor)
        query = self._statements.list_cutoffs
        rows = await self._readers.fetch_all(query, (cursor[1:], not cursor, limit))
        cutoffs = [(name, int.from_bytes(before)) for name, before in rows]
        return CutoffPage(cutoffs, 0, f":{cutoffs[-1][0]}" if len(cutoffs) == limit else "")

    # SupportsHistory

    async def add_history(self, entries: Sequence[HistoryEntry], lifetime: int) -> None:
        """Add entries in one transaction: all, or none if an error occurs."""
        background = len(entries) > _MAX_BULK_IN_LOOP
        await self._write(self._statements.history.add, entries, lifetime, background=background)

    async def list_history(self, cursor: str, limit: int) -> HistoryPage:
        """Return the page that follows a cursor, in the order of ``ended_at`` and addition."""
        query = self._statements.history.list_page
        rows = await self._readers.fetch_all(query, (*parse_cursor(cursor), limit))
        entries, unreadable = decode_entries(data for _, _, data in rows)
        next_cursor = make_cursor(*rows[-1][:2]) if len(rows) == limit else ""
        return HistoryPage(entries, unreadable, next_cursor)

    # Writes

    async def create(self, record: Record) -> bool:
        """Insert a record; return False if its ID is taken."""
        return await self._write(self._statements.create, record)

    async def create_many(self, records: Sequence[Record]) -> list[bool]:
        """Insert records in one transaction: all, or none if an error occurs."""
        background = len(records) > _MAX_BULK_IN_LOOP
        return await self._write(self._statements.create_many, records, background=background)

    async def save(self, record: Record, expected_version: int) -> SaveResult:
        """Replace the record whose version is ``expected_version``."""
        return await self._write(self._statements.save, record, expected_version)

    def swap(self, record: Record, expected_version: int) -> bool:
        """Save in a transaction of its own; return False if ``save`` has to be called."""
        return self._committer.try_execute(self._statements.swap, record, expected_version)

    async def touch(self, record: Record) -> bool:
        """Move ``seen_at`` forward, never backward."""
        return await self._write(self._statements.touch, record)

    async def delete(self, session_id: bytes) -> bool:
        """Delete a record; return whether there was one."""
        return await self._write_revocation(lambda each: each.delete, session_id)

    async def delete_many(self, session_ids: Sequence[bytes]) -> list[bool]:
        """Delete records in one transaction: all, or none if an error occurs."""
        background = len(session_ids) > _MAX_BULK_IN_LOOP
        return await self._write_revocation(
            lambda each: each.delete_many, session_ids, background=background
        )

    async def save_login(
        self, record: Record, expected_version: int, *, limit: SessionLimit | None, now: int
    ) -> SaveLoginResult:
        """Save a record whose user has just logged in and index it."""
        return await self._write_revocation(
            lambda each: each.save_login, record, expected_version, limit, now
        )

    async def invalidate_logins(self, name: str, before: int) -> None:
        """Reject logins under ``name`` whose ``authenticated_at`` is earlier than ``before``."""
        await self._write(self._statements.invalidate_logins, name, before)

    async def invalidate_all(self, before: int) -> None:
        """Treat every record created before an instant as absent."""
        await self._write_revocation(lambda each: each.invalidate_all, before)

    async def register_keys(self, fingerprints: Sequence[bytes]) -> bool:
        """Add fingerprints of keys; see ``SupportsKeyFingerprints``."""
        return await self._write(self._statements.register_keys, fingerprints)

    async def purge(self, now: int, limit: int) -> Purged:
        """Delete up to ``limit`` expired records, continuing where the last call stopped.

        Finds them by reading, without an index and without blocking writers; then deletes them in
        small transactions that check the expiry again.
        """
        if self._purges_history:
            return Purged(0, finished=await self._purge_history(now, limit))
        after = self._purged_until
        [(examined, until)] = await self._readers.fetch_all(
            self._statements.next_id_range, (after, 10 * limit)
        )
        expired = await self._readers.fetch_all(
            self._statements.list_expired, (after, until, now, limit)
        )
        removed = 0
        for start in range(0, len(expired), _MAX_PURGE_BATCH):
            last: bytes = expired[start : start + _MAX_PURGE_BATCH][-1][0]
            batch = (after, last, now, _MAX_PURGE_BATCH)
            removed += await self._write(self._statements.delete_expired, *batch, background=True)
            self._purged_until = after = last
        if len(expired) == limit:
            return Purged(removed, finished=False)
        if examined == 10 * limit:
            self._purged_until = until
            return Purged(removed, finished=False)
        self._purged_until = b""
        await self._purge_cutoffs(now, limit)
        await self._purge_events(limit)
        return Purged(removed, finished=await self._purge_history(now, limit))

    async def _purge_cutoffs(self, now: int, limit: int) -> None:
        if now > MAX_LOGIN_DURATION:
            oldest = (now - MAX_LOGIN_DURATION, limit)
            while (
                await self._write(self._statements.delete_cutoffs, *oldest, background=True)
                == limit
            ):
                pass

    async def _purge_events(self, limit: int) -> None:
        trim, now = self._statements.events.trim, time.time_ns() // 1_000_000
        while await self._write(trim, now, limit, background=True) == limit:
            pass

    async def _purge_history(self, now: int, limit: int) -> bool:
        """Delete up to ``limit`` entries whose lifetime is over; return whether these were all."""
        delete = self._statements.history.delete_expired
        self._purges_history = False  # after an error the next call begins with the records
        for start in range(0, limit, _MAX_PURGE_BATCH):
            most = min(_MAX_PURGE_BATCH, limit - start)
            if await self._write(delete, now, most, background=True) < most:
                return True
        self._purges_history = True
        return False

    # Broadcast

    async def publish(
        self, kind: MessageKind, *session_ids: bytes, version: int = 0, reason: str = ""
    ) -> None:
        """Add a message for each session to the events, in one transaction."""
        messages = [
            encode_message(kind, session_id, version=version, reason=reason)
            for session_id in session_ids
        ]
        await self._write(self._statements.events.add, messages)

    def subscribe(
        self, on_message: MessageHandler, on_gap: Callable[[], object]
    ) -> WatcherSubscription:
        """Start a subscription; the first one starts the watcher's thread."""
        if self._closed:
            raise StoreError(f"{self!r} was closed; create a new one")
        with self._watcher_lock:
            subscription = self._watcher.subscribe(on_message, on_gap)
            if subscription is None:  # its last subscription was closed, and its thread ends
                self._watcher = Watcher(self._file, self._statements)
                subscription = self._watcher.subscribe(on_message, on_gap)
            watcher = self._watcher
        assert subscription is not None  # noqa: S101 - a new watcher accepts the first one
        watcher.start()
        return subscription

    async def _write_revocation(
        self,
        method: Callable[[Statements], Callable[[sqlite3.Connection, *Args], T]],
        *args: *Args,
        background: bool = False,
    ) -> T:
        """Execute a write that ends sessions; if there is no space for its events, without them.

        Args:
            method: returns a method of the given ``Statements``.
            args: see ``_write``.
            background: see ``_write``.
        """
        try:
            return await self._write(method(self._statements), *args, background=background)
        except StoreUnavailable as error:
            if not is_full(error.__cause__):
                raise
        return await self._write(
            method(self._statements_without_events), *args, background=background
        )

    async def _write(
        self,
        operation: Callable[[sqlite3.Connection, *Args], T],
        *args: *Args,
        background: bool = False,
    ) -> T:
        """Execute a write and return its result.

        Args:
            operation: a method of ``Statements``.
            args: its arguments after the connection.
            background: execute in the background thread, because it takes long.
        """
        if self._closed:
            raise StoreError(f"{self!r} was closed; create a new one")
        write = PendingWrite(operation, *args)
        timeout: float | None = self._timeout
        if background:
            self._committer.enqueue(write)
        else:
            if write.loop is not None:
                write.timeout, timeout = timeout, None
            self._committer.submit(write)
        try:
            return await write.wait(timeout)
        except TimeoutError as error:
            write.cancelled = True
            raise StoreUnavailable(
                f"{self._file.path} could not be written within {self._timeout:g} s: another "
                "process holds it, or the disk is too slow. Try again later"
            ) from error
        except BaseException:
            write.cancelled = True
            raise

    # SupportsBatchObservers

    def add_batch_observer(self, observer: BatchObserver) -> None:
        """Report each transaction of several writes; see ``SupportsBatchObservers``."""
        self._batch_observers = (*self._batch_observers, observer)
        self._committer.observers = self._batch_observers

    def remove_batch_observer(self, observer: BatchObserver) -> None:
        """Stop reporting batches."""
        left = tuple(each for each in self._batch_observers if each != observer)
        self._committer.observers = self._batch_observers = left

    # Life cycle

    def _start(self) -> None:
        self._readers = ReaderPool(self._file)
        self._checkpointer = Checkpointer(self._file)
        self._committer = GroupCommitter(self._file, self._checkpointer)
        self._committer.observers = self._batch_observers
        self._watcher_lock = threading.Lock()
        self._watcher = Watcher(self._file, self._statements)
        self._finalizer = weakref.finalize(self, _stop, self._committer, self._checkpointer)
        self._finalizer.atexit = False  # the exit hook calls close(), which waits for the threads

    def close(self) -> None:
        """Commit the queued writes, run a last checkpoint, and close the file."""
        if self._closed:
            return
        self._closed = True
        fork_hooks.unregister(self)
        self._finalizer.detach()
        for worker in (self._watcher, self._committer, self._checkpointer):
            worker.stop()
            worker.join(_CLOSE_TIMEOUT)
        self._readers.close()

    def before_fork(self) -> None:
        """Close every connection and block calls until the fork is over."""
        self._readers.pause()
        self._committer.pause()
        self._checkpointer.pause()
        self._watcher_lock.acquire()
        self._watcher.pause()

    def after_fork_in_parent(self) -> None:
        """Unblock calls."""
        self._watcher.resume()
        self._watcher_lock.release()
        self._checkpointer.resume()
        self._committer.resume()
        self._readers.resume()

    def after_fork_in_child(self) -> None:
        """Replace the readers and workers, whose threads and locks exist only in the parent."""
        self._finalizer.detach()
        self._committer.close_lock_files()
        self._checkpointer.close_lock_files()
        self._start()


def _stop(committer: GroupCommitter, checkpointer: Checkpointer) -> None:
    committer.stop()
    checkpointer.stop()


def open_sqlite(url: StoreURL) -> SQLiteStore:
    """Open ``sqlite:///relative/path`` or ``sqlite:////absolute/path``."""
    parts = url.parts
    path = unquote(parts.path.removeprefix("/"))
    url.options()
    if parts.netloc:
        raise ConfigurationError(
            f"{url.text}: sqlite:// has no host; write three slashes before a path: {_EXAMPLE_URLS}"
        )
    if not path or path.endswith("/"):
        raise ConfigurationError(f"{url.text} names no file; write {_EXAMPLE_URLS}")
    if parts.fragment or "\0" in path:
        raise ConfigurationError(f"{url.text}: write '#' in a file's name as '%23'")
    if path.startswith(":memory:"):
        raise ConfigurationError(f"{url.text}: for sessions in memory write 'memory://'")
    return SQLiteStore(path, realm=url.realm, timeout=url.timeout)
