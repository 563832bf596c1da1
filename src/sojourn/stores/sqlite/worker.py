"""Worker: what the writer and the keeper have in common, a connection and a thread.

What lives here: opening and closing the two. What must not: what the thread does.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from abc import ABC, abstractmethod
from typing import Final

from sojourn.stores.sqlite.database import DatabaseFile, Turn


class Worker(ABC):
    """Has one connection, opened when it is needed, and one thread, started when it is needed.

    Args:
        file: the database.
        name: the thread's.
        busy_timeout: seconds that SQLite itself waits for a lock.

    Attributes:
        resting: held while the connection is in use; a fork waits for it (``sqlite_process.py``).
    """

    def __init__(self, file: DatabaseFile, name: str, *, busy_timeout: float) -> None:
        self.file: Final = file
        self.resting: Final = threading.Lock()
        self.turn: Final = Turn(file)
        self._name = name
        self._busy_timeout = busy_timeout
        self._connection: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def __del__(self) -> None:
        """Close the connection."""
        self.rest()

    def connect(self) -> sqlite3.Connection:
        """Return the connection; ``resting`` must be held."""
        if self._connection is None:
            self._connection = self.file.connect(timeout=self._busy_timeout)
        return self._connection

    def rest(self) -> None:
        """Close the connection; whoever needs it opens another. ``resting`` must be held."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def let_go(self) -> None:
        """Close what a child inherited; its parent's thread and locks are not here."""
        self.turn.close()

    @property
    def started(self) -> bool:
        """Whether there is a thread."""
        return self._thread is not None

    def start(self) -> None:
        """Start the thread unless there is one."""
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._live, name=self._name, daemon=True)
                thread.start()
                self._thread = thread

    def join(self, timeout: float) -> None:
        """Wait some seconds for the end of the thread, and close the connection."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
        if self.resting.acquire(timeout=timeout):
            self.rest()
            self.resting.release()

    @abstractmethod
    def work(self) -> None:
        """Do what the thread is for, until it is told to stop."""

    def _live(self) -> None:
        self.work()
        with self.resting:
            self.rest()
        self.let_go()
