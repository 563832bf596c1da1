"""Worker: a connection and a background thread, the base of the classes that work in background."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from abc import ABC, abstractmethod
from typing import Final

from sojourn.stores.sqlite.database import DatabaseFile
from sojourn.stores.sqlite.write_lock import WriteLock


class Worker(ABC):
    """Owns one connection and one thread, both created on first use.

    The thread, and what it waits for, are created when the thread is needed first. Under ``gunicorn
    --worker-class gevent --preload`` the store is built before gevent replaces locks, queues and
    threads: a greenlet that waited for an original queue would stop its whole process.

    Args:
        file: the database.
        name: the name of the thread.
        busy_timeout: seconds that SQLite itself waits for a lock.

    Attributes:
        in_use: held while the connection is in use; a fork waits for it.
        write_lock: for the thread.
    """

    def __init__(self, file: DatabaseFile, name: str, *, busy_timeout: float) -> None:
        self.file: Final = file
        self.in_use: Final = threading.Lock()
        self.write_lock: Final[WriteLock] = file.write_lock()
        self._name = name
        self._busy_timeout = busy_timeout
        self._connection: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None
        self._start_lock = threading.Lock()

    def __del__(self) -> None:
        """Close the connection."""
        self.disconnect()

    @abstractmethod
    def run(self) -> None:
        """Work in the thread until the worker is stopped."""

    @abstractmethod
    def prepare_thread(self) -> None:
        """Create what the thread waits for; called once, before it is started."""

    @property
    def thread(self) -> threading.Thread | None:
        """The thread, None if it was not needed yet."""
        return self._thread

    def connect(self) -> sqlite3.Connection:
        """Return the connection; ``in_use`` must be held."""
        if self._connection is None:
            self._connection = self.file.connect(busy_timeout=self._busy_timeout)
        return self._connection

    def disconnect(self) -> None:
        """Close the connection; ``connect`` opens another. ``in_use`` must be held."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def start(self) -> None:
        """Start the thread unless it was started."""
        with self._start_lock:
            if self._thread is not None:
                return
            self.prepare_thread()
            self._thread = threading.Thread(target=self._main, name=self._name, daemon=True)
        self._thread.start()  # without the lock: a greenlet switches to another one here

    def join(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for the thread to end, then close the connection."""
        if self._thread is not None and self._thread is not threading.current_thread():
            with contextlib.suppress(RuntimeError):  # another thread is about to start it
                self._thread.join(timeout)
        if self.in_use.acquire(timeout=timeout):
            self.disconnect()
            self.in_use.release()

    def pause(self) -> None:
        """Close the connection and keep it closed until ``resume``."""
        self.in_use.acquire()
        self.disconnect()

    def resume(self) -> None:
        """Allow the connection to be opened again."""
        self.in_use.release()

    def close_lock_files(self) -> None:
        """Close the descriptors of the write lock, in the thread's end or in a forked child."""
        self.write_lock.close()

    def _main(self) -> None:
        self.run()
        with self.in_use:
            self.disconnect()
        self.close_lock_files()
