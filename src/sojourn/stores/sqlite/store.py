"""SQLiteStore: records in one file of this machine, for all of its processes; the default.

What lives here: the store behind ``sqlite:///path``. What must not: SQL (``sqlite_table.py``), the
file (``sqlite.database.py``), and the threads that write and tidy (``sqlite_writer.py``,
``sqlite_keeper.py``).

Reads are made at once in the thread that asks; writes are committed many at a time. All calls
serve event loops, WSGI threads and both at once. What was acknowledged survives the death of the
process; of the machine, all but the last moments (``synchronous=NORMAL``).
"""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar, TypeVarTuple
from urllib.parse import unquote

from sojourn.errors import ConfigurationError, StoreError, StoreUnavailable
from sojourn.record import Record
from sojourn.store import MAX_LOGIN_DURATION, Purged, SaveLoginResult, SaveResult, SessionLimit
from sojourn.stores.sqlite.checkpointer import Keeper
from sojourn.stores.sqlite.database import DatabaseFile
from sojourn.stores.sqlite.fork import process
from sojourn.stores.sqlite.group_commit import Write, Writer
from sojourn.stores.sqlite.readers import Readers
from sojourn.stores.sqlite.statements import Table, read, read_all
from sojourn.stores.urls import StoreURL

T = TypeVar("T")
Args = TypeVarTuple("Args")

#: Records that one transaction of ``purge`` removes: a fraction of a millisecond.
_PURGE_STEP: Final = 100

#: Seconds that ``close`` waits for a thread to finish its work.
_PARTING: Final = 5.0

_EXAMPLE: Final = "'sqlite:///relative/path.db' or 'sqlite:////absolute/path.db'"


class SQLiteStore:
    """Keeps records in a table of an SQLite file.

    Args:
        path: the file; made, with its folder, if it is absent.
        realm: the installation's namespace.
        timeout: seconds that a call may take.

    Raises:
        ConfigurationError: the file cannot be used, or is not ours.
        StoreUnavailable: somebody else holds it.
    """

    #: A walk looks at every record, so not too often; nobody sees an expired one meanwhile.
    purge_interval: Final = 300.0

    def __init__(
        self, path: str | os.PathLike[str], *, realm: str = "default", timeout: float = 2.0
    ) -> None:
        self._table = Table(realm)
        self._file = DatabaseFile(Path(os.path.abspath(path)), timeout)  # noqa: PTH100 - resolve() follows links
        self._timeout = timeout
        self._closed = False
        self._position = b""
        self._file.prepare(self._table.schema)
        self._begin()
        process.join(self)

    def __repr__(self) -> str:
        """Show where it is."""
        return f"SQLiteStore({str(self._file.path)!r}, table {self._table.name!r})"

    def secret_path(self) -> Path | None:
        """Return the file beside the database."""
        return self._file.path.with_name(self._file.path.name + ".secret")

    # Reading

    async def load(self, session_id: bytes) -> Record | None:
        """Return the record, None if there is none."""
        row = await self._readers.first(self._table.load, (session_id,))
        return None if row is None else read(session_id, row)

    async def count(self, now: int) -> int:
        """Return the number of records not expired at ``now``; looks at every record."""
        rows = await self._readers.rows(self._table.count, (now,))
        total: int = rows[0][0]
        return total

    async def list_by_index(self, name: str) -> list[Record]:
        """Return the records listed under a name, newest login first."""
        kind, _, value = name.partition(":")
        statement = self._table.find.get(kind)
        return [] if statement is None else read_all(await self._readers.rows(statement, (value,)))

    # Writing

    async def create(self, record: Record) -> bool:
        """Insert a record; False if its ID is taken."""
        return await self._write(self._table.create, record)

    async def save(self, record: Record, expected_version: int) -> SaveResult:
        """Replace the record whose version is the expected one."""
        return await self._write(self._table.save, record, expected_version)

    async def touch(self, record: Record) -> bool:
        """Move ``seen_at`` forward, never backward."""
        return await self._write(self._table.touch, record)

    async def delete(self, session_id: bytes) -> bool:
        """Remove a record; tell whether there was one."""
        return await self._write(self._table.delete, session_id)

    async def save_login(
        self, record: Record, expected_version: int, *, limit: SessionLimit | None, now: int
    ) -> SaveLoginResult:
        """Save a record that has a user from now on, and list it under its names."""
        return await self._write(self._table.save_login, record, expected_version, limit, now)

    async def invalidate_logins(self, name: str, before: int) -> None:
        """Let no login that began before an instant be bound to a name any more."""
        await self._write(self._table.invalidate_logins, name, before)

    async def invalidate_all(self, before: int) -> None:
        """Make every record that was created before an instant absent."""
        await self._write(self._table.invalidate_all, before)

    async def purge(self, now: int, limit: int) -> Purged:
        """Remove up to ``limit`` expired records, continuing where the last call stopped.

        Finds them by reading, without an index and beside all others, then removes them in small
        transactions that look again.
        """
        after = self._position
        [(looked_at, until)] = await self._readers.rows(self._table.stretch, (after, 10 * limit))
        if not looked_at:
            await self._end_walk(now, limit)
            return Purged(0, finished=True)
        found = await self._readers.rows(self._table.expired, (after, until, now, limit))
        removed = 0
        for start in range(0, len(found), _PURGE_STEP):
            last: bytes = found[start : start + _PURGE_STEP][-1][0]
            step = (after, last, now, _PURGE_STEP)
            removed += await self._write_later(self._table.forget, *step)
            self._position = after = last
        if len(found) == limit:
            return Purged(removed, finished=False)
        if looked_at == 10 * limit:
            self._position = until
            return Purged(removed, finished=False)
        await self._end_walk(now, limit)
        return Purged(removed, finished=True)

    async def _end_walk(self, now: int, limit: int) -> None:
        self._position = b""
        if now > MAX_LOGIN_DURATION:
            old = (now - MAX_LOGIN_DURATION, limit)
            while await self._write_later(self._table.forget_marks, *old) == limit:
                pass

    async def _write(self, operation: Callable[[sqlite3.Connection, *Args], T], *args: *Args) -> T:
        self._check_open()
        write = Write(operation, *args)
        self._writer.submit(write)
        return await self._outcome(write)

    async def _write_later(
        self, operation: Callable[[sqlite3.Connection, *Args], T], *args: *Args
    ) -> T:
        self._check_open()
        write = Write(operation, *args)
        self._writer.submit_later(write)
        return await self._outcome(write)

    async def _outcome(self, write: Write[T]) -> T:
        try:
            return await write.wait(self._timeout)
        except TimeoutError as error:
            write.withdrawn = True
            raise StoreUnavailable(
                f"{self._file.path} could not be written within {self._timeout:g} s: another "
                "process holds it, or the disk is too slow. Try again later"
            ) from error
        except BaseException:
            write.withdrawn = True
            raise

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"{self!r} was closed; make a new one, or close it later")

    # Living and ending

    def _begin(self) -> None:
        self._readers = Readers(self._file)
        self._keeper = Keeper(self._file)
        self._writer = Writer(self._file, self._keeper)
        self._end = weakref.finalize(self, _stop, self._writer, self._keeper)
        self._end.atexit = False  # then close() is called, which waits

    def close(self) -> None:
        """Write what is waiting, move it into the database, let go of the file."""
        if self._closed:
            return
        self._closed = True
        process.leave(self)
        self._end.detach()
        self._writer.stop()
        self._writer.join(_PARTING)
        self._keeper.stop()
        self._keeper.join(_PARTING)
        self._readers.close()

    def pause(self) -> None:
        """Close every connection before a fork, and open none until it is over."""
        self._readers.pause()
        for worker in (self._writer, self._keeper):
            worker.resting.acquire()
            worker.rest()

    def resume(self) -> None:
        """Go on after a fork, in the parent."""
        for worker in (self._keeper, self._writer):
            worker.resting.release()
        self._readers.resume()

    def restart(self) -> None:
        """Begin anew after a fork, in the child: its parent's threads are not here."""
        self._end.detach()
        self._writer.let_go()
        self._keeper.let_go()
        self._begin()


def _stop(writer: Writer, keeper: Keeper) -> None:
    writer.stop()
    keeper.stop()


def open_sqlite(url: StoreURL) -> SQLiteStore:
    """Open ``sqlite:///relative/path`` or ``sqlite:////absolute/path``."""
    parts = url.parts
    path = unquote(parts.path.removeprefix("/"))
    url.options()
    if parts.netloc:
        raise ConfigurationError(
            f"{url.text}: sqlite:// has no host; write three slashes before a path, {_EXAMPLE}"
        )
    if not path or path.endswith("/"):
        raise ConfigurationError(f"{url.text} names no file; write {_EXAMPLE}")
    if parts.fragment or "\0" in path:
        raise ConfigurationError(f"{url.text}: write '#' in a file's name as '%23'")
    if path.startswith(":memory:"):
        raise ConfigurationError(f"{url.text}: for sessions in memory write 'memory://'")
    return SQLiteStore(path, realm=url.realm, timeout=url.timeout)
