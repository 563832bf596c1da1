"""DatabaseFile: creates, checks and opens the database file."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import stat
import time
from pathlib import Path
from typing import Final

from sojourn._folder import create_private_folder
from sojourn.errors import ConfigurationError, StoreError, StoreUnavailable
from sojourn.stores.sqlite.schema import SCHEMA_VERSION, Schema
from sojourn.stores.sqlite.write_lock import WriteLock

logger: logging.Logger = logging.getLogger("sojourn")

#: "Sjrn": ``PRAGMA application_id`` of every database file that sojourn creates.
APPLICATION_ID: Final = 0x536A726E

#: Bytes. With whole rows in the tree (WITHOUT ROWID), 8 KiB made a read 6.3 µs instead of 9.2 at
#: 10,000 sessions of 400 bytes, and its p99 at a million 15 µs instead of 87 (4 KiB).
_PAGE_BYTES: Final = 8192

#: KiB per connection. There may be many threads, and the operating system caches the file as well.
_CACHE_KIB: Final = 1024

#: The write-ahead log is truncated to this size when it restarts.
_MAX_LOG_BYTES: Final = 32 * 1024 * 1024

_COMPANION_SUFFIXES: Final = ("-wal", "-shm", "-lock")

#: Seconds between two comparisons of device and inode. One takes a microsecond or two.
_CHECK_INTERVAL: Final = 0.1

#: Result codes of a file that cannot be used now: damaged, or not a database at all.
_DAMAGED_CODES: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class DatabaseFile:
    """One SQLite file that only sojourn writes.

    Two rules of POSIX matter here. A process that closes any descriptor of a file loses its locks
    on it, so once the database exists only SQLite opens it (permissions are checked by name). Locks
    are not inherited by a child process, so no connection is carried over a fork (``fork.py``).

    A file may be deleted, renamed or replaced while processes have it open. They would go on with
    the old one and new processes with another, so before a transaction device and inode are
    compared.

    Args:
        path: absolute.
        timeout: seconds to wait for other processes.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self.path: Final = path
        self.timeout: Final = timeout
        self._uri: Final = f"{path.as_uri()}?mode=rw"
        self._identity: tuple[int, int] | None = None  # device and inode
        self._check_at = 0.0
        self._is_foreign = False

    def prepare(self, schema: Schema) -> None:
        """Create the file or check that it belongs to sojourn; create or migrate its tables.

        Raises:
            ConfigurationError: the file cannot be created, or belongs to another program.
            StoreUnavailable: other processes hold it for longer than the timeout.
        """
        try:
            self._create()
            write_lock = self.write_lock()
            write_lock.acquire(self.timeout)  # if it times out, SQLite's own lock decides
            with contextlib.closing(self.connect(busy_timeout=self.timeout)) as connection:
                self._check_ownership(connection)
                self._migrate(connection, schema)
            write_lock.close()
            self._restrict_permissions()
            self._identity = _identify(self.path)
        except OSError as error:
            raise ConfigurationError(
                f"the database {self.path} cannot be used: {error.strerror or error}. Make its "
                "folder writable, or name another file: store='sqlite:///path/to/sessions.db'"
            ) from error
        except sqlite3.Error as error:
            if is_busy(error):
                raise StoreUnavailable(
                    f"the database {self.path} was locked by another process for {self.timeout:g} s"
                ) from error
            if is_full(error):
                raise StoreUnavailable(
                    f"the database {self.path} cannot be written: {error}. Free space on its disk"
                ) from error
            raise ConfigurationError(
                f"the database {self.path} cannot be used: {error}. Expected a file that sojourn "
                "created; name another one: store='sqlite:///path/to/sessions.db'"
            ) from error

    def connect(self, *, busy_timeout: float) -> sqlite3.Connection:
        """Open a connection; the file must exist.

        A file that was deleted is an error: SQLite would otherwise create an empty one that the
        other processes do not use.

        Args:
            busy_timeout: seconds that SQLite itself waits for a lock.
        """
        connection = sqlite3.connect(
            self._uri, uri=True, timeout=busy_timeout, isolation_level=None, check_same_thread=False
        )
        pragmas = (
            # A crash of the process loses nothing; a power failure may lose the latest commits.
            "synchronous = NORMAL",
            # The Checkpointer does it, so that no write waits for it.
            "wal_autocheckpoint = 0",
            f"journal_size_limit = {_MAX_LOG_BYTES}",
            f"cache_size = -{_CACHE_KIB}",
        )
        # Foreign text in place of a record must not make a list of records fail (law S9).
        connection.text_factory = _decode_text
        try:
            for pragma in pragmas:
                connection.execute(f"PRAGMA {pragma}").close()
            if self._identity is not None:
                self._compare_identity()
        except BaseException:
            connection.close()
            raise
        return connection

    def check_identity(self) -> None:
        """Check that the path still names the file that this process opened.

        Checks the file at most every ``_CHECK_INTERVAL`` while it is the same one.

        Raises:
            StoreUnavailable: the file was deleted, renamed or replaced. When it is back, calls
                succeed again. Another file is not adopted: the secret beside it may be another one.
        """
        if time.monotonic() >= self._check_at:
            self._compare_identity()

    def _compare_identity(self) -> None:
        try:
            found = _identify(self.path)
            problem = None if found == self._identity else "was replaced by another file"
        except FileNotFoundError:
            problem = "was deleted or renamed"
        except OSError as error:
            problem = f"cannot be found: {error.strerror}"
        if problem is not None:
            message = (
                f"the database {self.path} {problem} while it was in use; put it back, or restart "
                "all processes to use what is there now"
            )
            if not self._is_foreign:  # once, not for each call
                self._is_foreign = True
                logger.error("%s. Until then all calls fail with StoreUnavailable", message)
            raise StoreUnavailable(message)
        if self._is_foreign:
            self._is_foreign = False
            logger.warning("the database %s is back and used again", self.path)
        self._check_at = time.monotonic() + _CHECK_INTERVAL

    def write_lock(self) -> WriteLock:
        """Return a new handle of the lock that all writers of this file share."""
        return WriteLock(self._companion("-lock"))

    def commit_unchanged(self, connection: sqlite3.Connection) -> None:
        """Commit a page without changing it: after a complete checkpoint this restarts the log."""
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}").close()

    def _create(self) -> None:
        """Create folder and file with access for their owner only; refuse links (B-50)."""
        create_private_folder(self.path.parent)
        for path in (self.path, *map(self._companion, _COMPANION_SUFFIXES)):
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISREG(path.lstat().st_mode):
                    raise ConfigurationError(
                        f"{path} must be a regular file, not a folder or a symbolic link; name "
                        "the file itself: store='sqlite:///path/to/file'"
                    )
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))

    def _check_ownership(self, connection: sqlite3.Connection) -> None:
        application_id, version, tables = (
            connection.execute(query).fetchone()[0]
            for query in (
                "PRAGMA application_id",
                "PRAGMA user_version",
                "SELECT count(*) FROM sqlite_master",
            )
        )
        if application_id != APPLICATION_ID and (application_id or version or tables):
            raise ConfigurationError(
                f"{self.path} is the database of another program; sessions need a file of their "
                "own: store='sqlite:///path/to/sessions.db'"
            )
        if version > SCHEMA_VERSION:
            raise ConfigurationError(
                f"{self.path} was written by a newer sojourn: expected schema {SCHEMA_VERSION} or "
                f"older, found {version}. Upgrade sojourn, or name another file"
            )

    def _migrate(self, connection: sqlite3.Connection, schema: Schema) -> None:
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")  # no effect on an existing file
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise ConfigurationError(
                f"{self.path} is on a file system that does not support SQLite's write-ahead log "
                f"(journal mode is {mode!r}); name a file on a local disk"
            )
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in schema.migrations(connection):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise

    def _restrict_permissions(self) -> None:
        """Remove the access that an older umask or a copy may have given to other users."""
        for path in (self.path, *map(self._companion, _COMPANION_SUFFIXES)):
            with contextlib.suppress(FileNotFoundError):
                if stat.S_IMODE(path.lstat().st_mode) & 0o077:
                    path.chmod(0o600)

    def _companion(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)


def is_busy(error: Exception) -> bool:
    """Return whether the operation failed only because another connection holds a lock."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF == sqlite3.SQLITE_BUSY


def is_full(error: BaseException | None) -> bool:
    """Return whether there was no space: a full disk, an exceeded quota or file size limit."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    # SQLite reports EDQUOT and EFBIG as a failed write.
    return code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_WRITE


def to_store_error(error: Exception) -> StoreError:
    """Return the ``StoreError`` for an error of SQLite or of the file system."""
    if isinstance(error, StoreError):
        return type(error)(*error.args)  # each caller raises an exception of its own
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if code & 0xFF in _DAMAGED_CODES:
        result: StoreError = StoreUnavailable(
            f"SQLite: {error}; the file is damaged. Restore it from a backup, or delete it and "
            "restart all processes (all sessions end)"
        )
    elif isinstance(error, sqlite3.OperationalError | OSError):
        result = StoreUnavailable(f"SQLite: {error}; nothing was written. Try again later")
    else:
        result = StoreError(f"SQLite: {error}; nothing was written")
    result.__cause__ = error
    return result


def _decode_text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _identify(path: Path) -> tuple[int, int]:
    """Return device and inode."""
    status = path.lstat()
    return status.st_dev, status.st_ino
