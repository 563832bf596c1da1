"""Readers: a connection for each thread, so that reads wait for nobody.

What lives here: opening, using and closing them. What must not: SQL and writes.

A read is made in the thread that asks, under an event loop too: it takes 6-10 µs, and going
through another thread 22-41 µs of CPU and milliseconds of waiting (performance.md). SQLite's
write-ahead log lets readers and the writer go on beside each other.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
import weakref
from typing import Any, Final

from sojourn._core.concurrency import offload
from sojourn.errors import StoreError
from sojourn.stores.sqlite.database import DatabaseFile, is_busy
from sojourn.stores.sqlite.group_commit import failure

#: Seconds between two tries while somebody else holds the whole database.
_BREATH: Final = 0.005


class Reader:
    """One thread's connection; ``lock`` is held while it is in use."""

    __slots__ = ("__weakref__", "connection", "lock")

    def __init__(self) -> None:
        self.connection: sqlite3.Connection | None = None
        self.lock: threading.Lock = threading.Lock()

    def close(self) -> None:
        """Close the connection; the next read opens another."""
        connection, self.connection = self.connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def __del__(self) -> None:
        """Close the connection of a thread that has ended."""
        self.close()


class Readers:
    """The readers of all threads of this process.

    Args:
        file: the database.
    """

    def __init__(self, file: DatabaseFile) -> None:
        self._file = file
        self._local = threading.local()
        self._all: weakref.WeakSet[Reader] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closed = False
        self._paused: list[Reader] = []

    async def first(self, statement: str, parameters: tuple[Any, ...]) -> Any:
        """Return the first row of a short question, None if there is none.

        Raises:
            StoreUnavailable: the database cannot be read.
        """
        try:
            return self._ask(statement, parameters)
        except sqlite3.Error as error:
            if not is_busy(error):
                raise self._failed(error) from error
        # Rare: a crashed process's log is being taken over, or another program locked the file.
        return await offload(self._wait_and_ask, statement, parameters)

    async def rows(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        """Return all rows of a question that takes its time: under a loop, in a worker thread.

        Raises:
            StoreUnavailable: the database cannot be read.
        """
        return await offload(self._wait_and_ask_all, statement, parameters)

    def _ask(self, statement: str, parameters: tuple[Any, ...]) -> Any:
        try:
            reader: Reader = self._local.reader
        except AttributeError:
            reader = self._register()
        with reader.lock:
            connection = reader.connection or self._open(reader)
            # The cursor is at its end after the only row, so no snapshot stays behind.
            return connection.execute(statement, parameters).fetchone()

    def _ask_all(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        reader = getattr(self._local, "reader", None) or self._register()
        with reader.lock:
            connection = reader.connection or self._open(reader)
            return connection.execute(statement, parameters).fetchall()

    def _wait_and_ask(self, statement: str, parameters: tuple[Any, ...]) -> Any:
        rows = self._wait_and_ask_all(statement, parameters)
        return rows[0] if rows else None

    def _wait_and_ask_all(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        deadline = time.monotonic() + self._file.timeout
        while True:
            try:
                return self._ask_all(statement, parameters)
            except sqlite3.Error as error:
                if not is_busy(error) or time.monotonic() >= deadline:
                    raise self._failed(error) from error
            time.sleep(_BREATH)

    def _failed(self, error: sqlite3.Error) -> StoreError:
        """Start from a clean connection the next time."""
        reader = getattr(self._local, "reader", None)
        if reader is not None:
            with reader.lock:
                reader.close()
        return failure(error)

    def _register(self) -> Reader:
        reader = Reader()
        with self._lock:
            self._all.add(reader)
        self._local.reader = reader
        return reader

    def _open(self, reader: Reader) -> sqlite3.Connection:
        if self._closed:
            raise StoreError(
                f"the store over {self._file.path} was closed; make a new one, or close it later"
            )
        reader.connection = self._file.connect(timeout=0)
        reader.connection.execute("PRAGMA query_only = 1").close()
        return reader.connection

    def close(self) -> None:
        """Close them all; a later read is an error."""
        self._closed = True
        self.pause()
        self.resume()

    def pause(self) -> None:
        """Close them all and let nobody read until ``resume``."""
        self._lock.acquire()
        self._paused = list(self._all)
        for reader in self._paused:
            reader.lock.acquire()
            reader.close()

    def resume(self) -> None:
        """Let everybody read again."""
        for reader in self._paused:
            reader.lock.release()
        self._paused = []
        self._lock.release()
