"""The database file: who may read it, whether it is ours, and whose turn it is to write.

What lives here: making and checking the file, opening connections to it, and ``Turn``. What must
not: sessions, and threads (``sqlite_writer.py``).

Two rules of POSIX decide much here. A process that closes *any* handle of a file loses its locks
on it, so the database is never opened but by SQLite once it exists (its mode is looked up by
name). And locks are inherited by no child, so no connection is carried over a fork
(``sqlite_process.py``).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Final

from sojourn.errors import ConfigurationError, StoreUnavailable
from sojourn.stores.sqlite.schema import VERSION, Schema

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows: SQLite's own waiting has to do
    fcntl = None

#: "Sjrn", in the header of every database of ours (``PRAGMA application_id``).
_APPLICATION: Final = 0x536A726E

#: Bytes. With whole rows in the tree (WITHOUT ROWID), 8 KiB made a read 6.3 µs instead of 9.2 at
#: 10,000 sessions of 400 bytes, and its p99 at a million 15 µs instead of 87 (4 KiB).
_PAGE_BYTES: Final = 8192

#: KiB for each connection; the system's own cache holds the rest, and there may be many threads.
_CACHE_KIB: Final = 1024

#: The write-ahead log is cut to this when it starts anew, in bytes.
_LOG_BYTES: Final = 32 * 1024 * 1024

#: Seconds between two looks at the turn, where the wait must end.
_BREATH: Final = 0.005

_SIBLINGS: Final = ("-wal", "-shm", "-lock")


class DatabaseFile:
    """One SQLite file that belongs to us alone.

    Args:
        path: absolute.
        timeout: seconds to wait for others.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self.path: Final = path
        self.timeout: Final = timeout
        self._uri: Final = f"{path.as_uri()}?mode=rw"

    def prepare(self, schema: Schema) -> None:
        """Make the file, or check that it is ours, and let it have the tables.

        Raises:
            ConfigurationError: it cannot be made, or it is somebody else's.
            StoreUnavailable: others hold it for longer than the timeout.
        """
        try:
            self._make()
            turn = Turn(self)
            turn.wait(self.timeout)
            with contextlib.closing(self.connect(timeout=self.timeout)) as connection:
                self._check(connection)
                self._set_up(connection, schema)
            turn.close()
            self._keep_private()
        except OSError as error:
            raise ConfigurationError(
                f"the database {self.path} cannot be used: {error.strerror or error}. Make its "
                "folder writable, or name another file: store='sqlite:///path/to/sessions.db'"
            ) from error
        except sqlite3.Error as error:
            if is_busy(error):
                raise StoreUnavailable(
                    f"the database {self.path} was held by somebody else for {self.timeout:g} s"
                ) from error
            raise ConfigurationError(
                f"the database {self.path} cannot be used: {error}. Expected a file that sojourn "
                "made; name another one: store='sqlite:///path/to/sessions.db'"
            ) from error

    def connect(self, *, timeout: float) -> sqlite3.Connection:
        """Open the file, which must exist: one that vanished must not come back empty and alone.

        Args:
            timeout: seconds that SQLite itself waits for a lock.
        """
        connection = sqlite3.connect(
            self._uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False
        )
        pragmas = (
            # A crash of the application loses nothing; one of the machine, the last moments.
            "synchronous = NORMAL",
            # The keeper does it, beside the writes (sqlite_keeper.py).
            "wal_autocheckpoint = 0",
            f"journal_size_limit = {_LOG_BYTES}",
            f"cache_size = -{_CACHE_KIB}",
        )
        try:
            for pragma in pragmas:
                connection.execute(f"PRAGMA {pragma}").close()
        except BaseException:
            connection.close()
            raise
        return connection

    def write_nothing(self, connection: sqlite3.Connection) -> None:
        """Commit a page that stays as it is: after a whole checkpoint this begins the log anew."""
        connection.execute(f"PRAGMA application_id = {_APPLICATION}").close()

    def _make(self) -> None:
        """Create folder and file for their owner only; refuse links (security.md B-50)."""
        missing = [folder for folder in self.path.parents if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=0o700, exist_ok=True)
        for path in (self.path, *self._siblings()):
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISREG(path.lstat().st_mode):
                    raise ConfigurationError(
                        f"{path} is no regular file (a symbolic link, perhaps), and session data "
                        "is only kept in one; name the file itself: store='sqlite:///path/to/file'"
                    )
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))

    def _check(self, connection: sqlite3.Connection) -> None:
        application, schema, tables = (
            connection.execute(question).fetchone()[0]
            for question in (
                "PRAGMA application_id",
                "PRAGMA user_version",
                "SELECT count(*) FROM sqlite_master",
            )
        )
        if application != _APPLICATION and (application or schema or tables):
            raise ConfigurationError(
                f"{self.path} is the database of another program; sessions need a file of their "
                "own: store='sqlite:///path/to/sessions.db'"
            )
        if schema > VERSION:
            raise ConfigurationError(
                f"{self.path} was written by a newer sojourn: expected schema {VERSION} or older, "
                f"found {schema}. Upgrade sojourn, or name another file"
            )

    def _set_up(self, connection: sqlite3.Connection, schema: Schema) -> None:
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")  # counts only while it is empty
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise ConfigurationError(
                f"{self.path} is on a file system that SQLite's write-ahead log does not work on "
                f"(it stays in mode {mode!r}); name a file on a local disk"
            )
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in schema.missing(connection):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise

    def _keep_private(self) -> None:
        """Take from others what an older umask or a copy may have given them."""
        for path in (self.path, *self._siblings()):
            with contextlib.suppress(FileNotFoundError):
                if stat.S_IMODE(path.lstat().st_mode) & 0o077:
                    path.chmod(0o600)

    def _siblings(self) -> list[Path]:
        return [self.path.with_name(self.path.name + suffix) for suffix in _SIBLINGS]


class Turn:
    """The turn to write: ``with turn:``; one at a time, in order of arrival, in all processes.

    SQLite's own waiting polls, asleep for up to 100 ms, so under load somebody always waits for
    long. The kernel's queue for an advisory lock wakes the next at once, and a holder that dies
    gives it back. SQLite still locks by itself: this is for fairness, never for safety. With four
    processes at half load the 99th percentile of a write was 1.4 to 2.2 ms, with looking again
    every 2 ms instead 2.7 to 2.9; with SQLite's waiting single writes took up to 330 ms.
    """

    __slots__ = ("_handle", "_path")

    def __init__(self, file: DatabaseFile) -> None:
        self._path = file.path.with_name(file.path.name + "-lock")
        self._handle = -1

    def __enter__(self) -> None:
        """Wait for it."""
        if fcntl is not None:
            self._open()
            fcntl.flock(self._handle, fcntl.LOCK_EX)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give it to the next in line."""
        self.give_back()

    def take_if_free(self) -> bool:
        """Take it if nobody has it; tell whether it is ours."""
        if fcntl is None:
            return True
        try:
            self._open()
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # somebody has it; or it fails, which whoever waits for it will say
            return False
        return True

    def give_back(self) -> None:
        """Give it to the next in line."""
        if fcntl is not None:
            fcntl.flock(self._handle, fcntl.LOCK_UN)

    def wait(self, timeout: float) -> None:
        """Take the turn, or go on without it after some seconds: SQLite locks all the same."""
        deadline = time.monotonic() + timeout
        while not self.take_if_free() and time.monotonic() < deadline:
            time.sleep(_BREATH)

    def _open(self) -> None:
        if self._handle < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._handle = os.open(self._path, flags, 0o600)

    def close(self) -> None:
        """Give it back, if it is ours, and let go of the file."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def __del__(self) -> None:
        """Let go of the file."""
        self.close()


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether the database was merely held by somebody else."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF == sqlite3.SQLITE_BUSY
