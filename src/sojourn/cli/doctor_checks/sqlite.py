"""Checks of a SQLite database: its folder, its file system, its files, its schema, its contents."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sojourn.cli.doctor_checks.context import CheckContext
from sojourn.cli.doctor_checks.findings import Finding, Problem, error, info, warning
from sojourn.store import LocalStore
from sojourn.stores.sqlite.database import APPLICATION_ID
from sojourn.stores.sqlite.schema import SCHEMA_VERSION, Schema

MISSING: Final = error(
    "sqlite-missing",
    "a database that the application has created",
    "correct the path or the folder in which the command runs, or start the application once",
)
FOLDER: Final = error(
    "sqlite-folder",
    "a folder in which this user can create files: SQLite writes its log beside the database",
    "make the folder writable for the user of the application, or name a database elsewhere: "
    "store='sqlite:////path/to/sessions.db'",
)
NETWORK: Final = error(
    "sqlite-network",
    "a file system of this machine: on a network file system locks fail and the file is damaged",
    "move the database to a local disk; for several machines use Valkey or PostgreSQL",
)
MODE: Final = error(
    "sqlite-mode",
    "database, log and lock files that only their owner can access, in a folder that only its "
    "owner can change",
    "run `chmod go-rwx` on each file and `chmod go-w` on the folder",
)
DISK: Final = error(
    "sqlite-disk",
    "at least 64 MB of free space for the write-ahead log and for new sessions",
    "free some space, or move the database to a larger disk",
)
IO: Final = error(
    "sqlite-io",
    "a disk that reads and writes without errors",
    "see the log of the kernel (`dmesg`) and the state of the disk; have a backup ready",
)
DAMAGED: Final = error(
    "sqlite-damaged",
    "a database that SQLite can read completely",
    "stop all processes and restore the file from a backup, or delete it with its -wal and -shm "
    "files (all sessions end); then look for the cause: a full or failing disk, a copy of an open "
    "database, a network file system",
)
FOREIGN: Final = error(
    "sqlite-foreign",
    "a database of sojourn",
    "name a file of its own for sessions: store='sqlite:///path/to/sessions.db'",
)
NEWER: Final = error(
    "sqlite-schema-newer",
    f"schema {SCHEMA_VERSION} or older, which this release can read",
    "upgrade sojourn here, too: a newer release has migrated the database",
)
OLDER: Final = warning(
    "sqlite-schema-older",
    f"schema {SCHEMA_VERSION}",
    "copy the database with `sqlite3 FILE '.backup COPY'`, then restart all processes with this "
    "release: the first one migrates it; processes of the former release cannot read it afterwards",
)
REALM: Final = error(
    "sqlite-realm",
    "a table of this realm",
    "correct --realm, or start the application of this realm once",
)
WAL: Final = error(
    "sqlite-wal",
    "the journal mode WAL, with which readers and writers do not block each other",
    "move the database to a local disk whose file system supports shared memory (not that of a "
    "virtual machine's shared folder)",
)
LOCKED: Final = error(
    "sqlite-locked",
    "a database that other processes lock for milliseconds only",
    "find the process with `fuser FILE`: a backup or an open sqlite3 shell may hold it",
)
INCOMPLETE: Final = info(
    "sqlite-not-verified",
    "a database that can be read completely in ten seconds",
    "run `sqlite3 FILE 'PRAGMA quick_check'` outside of busy hours",
)

PROBLEMS: Final = (
    *(MISSING, FOLDER, NETWORK, MODE, DISK, IO, DAMAGED, FOREIGN),
    *(NEWER, OLDER, REALM, WAL, LOCKED, INCOMPLETE),
)

#: Types of file systems over a network, as in ``/proc/self/mountinfo``.
_NETWORK_TYPES: Final = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "9p", "afs", "ceph", "lustre", "gfs2"),
        *("ocfs2", "beegfs", "virtiofs", "vboxsf", "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs"),
        *("fuse.gcsfuse", "fuse.rclone", "fuse.ceph", "fuse.vmhgfs-fuse", "davfs", "fuse.davfs"),
    }
)

_MOUNTS: Final = Path("/proc/self/mountinfo")

#: Bytes: twice the write-ahead log at its longest.
_MIN_FREE_BYTES: Final = 64 * 1024 * 1024

#: Seconds for the verification of the whole file; and the instructions between two checks of the
#: time.
_MAX_VERIFICATION: Final = 10.0
_PROGRESS_STEPS: Final = 100_000

#: How SQLite reports an exceeded quota or limit of a file's size.
_NO_SPACE: Final = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)

_FILE_SUFFIXES: Final = ("", "-wal", "-shm", "-lock")

#: The first bytes of a database (https://www.sqlite.org/fileformat.html, section 1.3.1).
_MAGIC: Final = b"SQLite format 3\0"

_OTHERS_PERMISSIONS: Final = 0o077
_OTHERS_WRITE: Final = 0o022
_WORLD_WRITE: Final = 0o002


def check_folder(context: CheckContext) -> Iterator[Finding]:
    """Examine the folder and the file system of the database."""
    path = context.database
    if path is None:
        return
    path = path.absolute()
    folder = next(each for each in path.parents if each.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as failure:
        yield FOLDER.finding(f"no file can be created in {folder}: {failure.strerror}")
        context.block("the folder is not writable")
    kind = file_system(folder)
    if kind in _NETWORK_TYPES:
        yield NETWORK.finding(f"{folder} is on a file system of type {kind}")
    free = shutil.disk_usage(folder).free
    if free < _MIN_FREE_BYTES:
        yield DISK.finding(f"{free / 2**20:.1f} MB are free in {folder}")


def file_system(folder: Path, mounts: Path | None = None) -> str:
    """Return the type of a folder's file system; empty if it is unknown.

    Args:
        folder: absolute.
        mounts: in the format of ``/proc/self/mountinfo``; None for that of this process.
    """
    found, longest = "", -1
    try:
        lines = (mounts or _MOUNTS).read_text("utf-8", "surrogateescape").splitlines()
    except OSError:  # not Linux
        return ""
    resolved = folder.resolve()
    for line in lines:
        left, _, right = line.partition(" - ")
        point = Path(left.split(" ")[4].replace(r"\040", " "))
        # The last one of equal mount points covers the others.
        if resolved.is_relative_to(point) and len(point.parts) >= longest:
            found, longest = right.split(" ")[0], len(point.parts)
    return found


def check_files(context: CheckContext) -> Iterator[Finding]:
    """Examine the permissions, before the store repairs those of its files."""
    path = context.database
    if path is None or (context.store is None and _is_of_another_program(path)):
        return
    for suffix in _FILE_SUFFIXES:
        file = path.with_name(path.name + suffix)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = file.lstat()
            if stat.S_ISLNK(status.st_mode):  # has no mode of its own; the store refuses it
                continue
            mode = stat.S_IMODE(status.st_mode)
            if os.name == "posix" and mode & _OTHERS_PERMISSIONS:
                yield MODE.finding(f"{file} has mode {mode:03o}")
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        status = path.absolute().parent.stat()
        mode = stat.S_IMODE(status.st_mode)
        others = _WORLD_WRITE if _is_private(status.st_uid, status.st_gid) else _OTHERS_WRITE
        if os.name == "posix" and mode & others and not mode & stat.S_ISVTX:
            yield MODE.finding(f"the folder {path.absolute().parent} has mode {mode:03o}")


def _is_of_another_program(path: Path) -> bool:
    """Return whether a file is no database, so that its permissions are not to be changed."""
    # To close a file releases the locks of this process, so it must not have opened the database.
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) not in (_MAGIC, b"")
    except OSError:
        return False


def _is_private(owner: int, group: int) -> bool:
    """Return whether a group has no other members, such as those that Debian and Fedora create.

    With these, the default umask makes folders writable for the group.
    """
    try:
        import grp  # not on Windows
        import pwd

        user, found = pwd.getpwuid(owner), grp.getgrgid(group)
    except (ImportError, KeyError):
        return False
    is_own = user.pw_gid == group and found.gr_name == user.pw_name
    return is_own and set(found.gr_mem) <= {user.pw_name}


def check_database(context: CheckContext) -> Iterator[Finding]:
    """Read the database without the store, which would create and migrate tables."""
    path = context.database
    if path is None or isinstance(context.store, LocalStore):  # an application has opened it
        return
    if not path.is_file():
        what = "is not a regular file" if path.exists() else "does not exist"
        yield MISSING.finding(f"{path.absolute()} {what}")
        context.block("there is no database")
        return
    try:
        with contextlib.closing(_open(path)) as connection:
            found = list(_examine(connection, context))
    except sqlite3.DatabaseError as failure:
        found = [_finding(path, failure)]
    yield from found
    if found:
        context.block("the database cannot be used")


def check_contents(context: CheckContext) -> Iterator[Finding]:
    """Verify the whole file for a limited time, and read the key fingerprints."""
    path = context.database
    if path is None or not path.is_file():
        return
    end = time.monotonic() + _MAX_VERIFICATION
    try:
        with contextlib.closing(_open(path)) as connection:
            keys = Schema(context.realm).sql("SELECT fingerprint FROM @keys")
            with contextlib.suppress(sqlite3.OperationalError):  # a realm without an application
                rows = connection.execute(keys).fetchall()
                context.fingerprints = frozenset(bytes(row[0]) for row in rows)
            context.server = f"SQLite {sqlite3.sqlite_version}"
            connection.set_progress_handler(lambda: time.monotonic() > end, _PROGRESS_STEPS)
            (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as failure:
        if failure.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            yield INCOMPLETE.finding(f"{path} was read for {_MAX_VERIFICATION:g} s without error")
            return
        yield _finding(path, failure)
        context.block("the database cannot be used")
        return
    if result != "ok":
        yield DAMAGED.finding(f"{path}: {' '.join(result.split())}")
        context.block("the database is damaged")


def _open(path: Path) -> sqlite3.Connection:
    # SQLite's own connection: closing a file descriptor would release the locks of this process.
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=2.0, isolation_level=None
    )


def _examine(connection: sqlite3.Connection, context: CheckContext) -> Iterator[Finding]:
    path = context.database
    ((owner,), (version,), (tables,)) = (
        connection.execute(query).fetchone()
        for query in (
            "PRAGMA application_id",
            "PRAGMA user_version",
            "SELECT count(*) FROM sqlite_master",
        )
    )
    if owner != APPLICATION_ID:
        if tables or owner:
            yield FOREIGN.finding(f"{path} is the database of another program")
        else:
            yield MISSING.finding(f"{path} is empty")
        return
    if version > SCHEMA_VERSION:
        yield NEWER.finding(f"schema {version}")
        return
    if version < SCHEMA_VERSION:
        yield OLDER.finding(f"schema {version}")
        return
    table = Schema(context.realm).sessions
    query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?"
    if connection.execute(query, (table,)).fetchone() == (0,):
        yield REALM.finding(f"{path} has no table of realm {context.realm!r}")
        return
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if mode != "wal":
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        yield WAL.finding(f"the journal mode stays {mode!r}")


def _finding(path: Path, failure: sqlite3.DatabaseError) -> Finding:
    code = failure.sqlite_errorcode & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LOCKED.finding(f"{path} was locked for 2 s")
    if code == sqlite3.SQLITE_FULL or failure.sqlite_errorcode in _NO_SPACE:
        return DISK.finding(f"{path} cannot be written: {failure}")
    if code == sqlite3.SQLITE_IOERR:
        return IO.finding(f"{path}: {failure} ({failure.sqlite_errorname})")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return FOLDER.finding(f"{path} cannot be opened for writing: {failure}")
    remedy = DAMAGED.remedy
    if code == sqlite3.SQLITE_NOTADB:
        remedy = f"check the path first: this may be a file of another program; {remedy}"
    return DAMAGED.finding(f"{path}: {failure}", remedy=remedy)


def problem_of(failure: BaseException | None) -> Problem | None:
    """Return the problem behind an error of the store; None for another error."""
    code = getattr(failure, "sqlite_errorcode", None)
    if code is None:
        return None
    if code & 0xFF == sqlite3.SQLITE_FULL or code in _NO_SPACE:
        return DISK
    if code & 0xFF == sqlite3.SQLITE_IOERR:
        return IO
    if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DAMAGED
    return LOCKED if code & 0xFF == sqlite3.SQLITE_BUSY else None
