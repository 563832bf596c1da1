"""Keeper: moves what was written from the write-ahead log into the database, beside the writes.

What lives here: when to checkpoint, and how, so that no write waits for it. What must not: records.

A checkpoint that a write sets off (SQLite's own habit) makes that write wait for the disk. This
thread makes PASSIVE ones, during which everybody reads and writes. They never reach the end of
the log while others keep writing, so when it has grown long, a RESTART takes the turn to write
for the moment that the last pages need. The first commit after that begins the log anew, for
which it waits for the disk: so that one is made here, too.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from typing import Final

from sojourn.stores.sqlite_file import DatabaseFile, Turn, is_busy

logger = logging.getLogger("sojourn")

#: Writes after which a checkpoint is due, about one page each.
_EVERY: Final = 1000

#: Seconds after the first write until a checkpoint is due anyway.
_AT_LAST: Final = 1.0

#: Pages in the log above which it is made to start anew: 32 MiB.
_MOST_PAGES: Final = 4096

#: Seconds that a RESTART waits for readers (a count walks for long); writers wait meanwhile.
_PATIENCE: Final = 0.002


class Keeper:
    """Checkpoints one database in the background.

    Args:
        file: the database.
    """

    def __init__(self, file: DatabaseFile) -> None:
        self._file = file
        self._turn = Turn(file)
        self._connection: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None
        self._due = 0
        self._wake = threading.Event()
        self._stopped = False
        #: Held while the connection is in use; a fork waits for it (``sqlite_process.py``).
        self.resting = threading.Lock()

    def note(self, writes: int) -> None:
        """Count what was committed; the writer calls it with a lock of its own held."""
        before = self._due
        self._due = before + writes
        if before == 0 or before < _EVERY <= self._due:
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(
                    target=self._work, name="sojourn-sqlite-keeper", daemon=True
                )
                self._thread.start()
            self._wake.set()

    def stop(self) -> None:
        """Let the thread end after a last checkpoint."""
        self._stopped = True
        self._wake.set()

    def join(self, timeout: float) -> None:
        """Wait for the end of the thread, for some seconds."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def rest(self) -> None:
        """Close the connection; the next checkpoint opens another. Call it with ``resting`` held."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def let_go(self) -> None:
        """Close the file of the turn, in a child that inherited it."""
        self._turn.close()

    def _work(self) -> None:
        while not self._stopped:
            self._wake.wait()
            self._wake.clear()
            if self._due < _EVERY and not self._stopped:
                self._wake.wait(_AT_LAST)
                self._wake.clear()
            self._due = 0
            try:
                self._checkpoint()
            except (OSError, sqlite3.Error) as error:
                with self.resting:
                    self.rest()
                logger.warning("a checkpoint of %s failed, trying again: %s", self._file.path, error)
        with self.resting:
            self.rest()
        self._turn.close()

    def _checkpoint(self) -> None:
        pages, moved = self._run("PASSIVE")
        if pages > _MOST_PAGES:
            self._run("PASSIVE")  # what came during the first, so that little is left for the turn
            with self._turn:
                self._run("RESTART")
                self._begin_log()
        elif pages == moved:
            with self._turn:
                self._begin_log()

    def _run(self, kind: str) -> tuple[int, int]:
        """Make a checkpoint; return the pages in the log and how many of them were moved."""
        with self.resting:
            row = self._connect().execute(f"PRAGMA wal_checkpoint({kind})").fetchone()
        return row[1], row[2]

    def _begin_log(self) -> None:
        with self.resting:
            try:
                self._file.write_nothing(self._connect())
            except sqlite3.OperationalError as error:
                if not is_busy(error):  # then a program without our manners writes, and begins it
                    raise

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._file.connect(timeout=_PATIENCE)
        return self._connection
