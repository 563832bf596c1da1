"""ReaderPool: one read-only connection per thread."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
import weakref
from typing import Any, Final

from sojourn._core.concurrency import offload
from sojourn.errors import StoreError, StoreUnavailable
from sojourn.stores.sqlite.database import DatabaseFile, is_busy, to_store_error

#: Seconds between two attempts while another program has locked the database.
_POLL_INTERVAL: Final = 0.005


class Reader:
    """The connection of one thread; ``lock`` is held while it is in use."""

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
        """Close the connection when its thread has ended."""
        self.close()


class ReaderPool:
    """The readers of all threads of this process.

    A short read runs in the calling thread, under an event loop too: it takes 6-10 µs, whereas a
    hop to another thread takes 22-41 µs of CPU and milliseconds of waiting. The write-ahead log
    lets readers and the writer work at the same time.

    Args:
        file: the database.
    """

    def __init__(self, file: DatabaseFile) -> None:
        self._file = file
        self._local = threading.local()
        self._readers: weakref.WeakSet[Reader] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closed = False
        self._paused: list[Reader] = []

    async def fetch_one(self, sql: str, parameters: tuple[Any, ...]) -> Any:
        """Return the first row of a short query, None if there is none.

        Raises:
            StoreUnavailable: the database cannot be read.
        """
        self._file.check_identity()
        try:
            reader = getattr(self._local, "reader", None) or self._register()
            with reader.lock:
                connection = reader.connection or self._open(reader)
                # The cursor ends after the only row, so it leaves no snapshot open.
                return connection.execute(sql, parameters).fetchone()
        except sqlite3.Error as error:
            if not is_busy(error):
                raise self._discard(error) from error
        # Rare: SQLite recovers the log of a crashed process, or another program locked the file.
        rows = await self.fetch_all(sql, parameters)
        return rows[0] if rows else None

    def try_fetch_one(self, sql: str, parameters: tuple[Any, ...]) -> Any:
        """Return the first row of a short query; None if there is none or it would have to wait.

        Uses the connection that ``fetch_one`` has opened in this thread.
        """
        reader: Reader | None = getattr(self._local, "reader", None)
        if reader is None or not reader.lock.acquire(blocking=False):
            return None
        try:
            self._file.check_identity()
            connection = reader.connection
            return connection and connection.execute(sql, parameters).fetchone()
        except (sqlite3.Error, StoreUnavailable):
            return None
        finally:
            reader.lock.release()

    async def fetch_all(self, sql: str, parameters: tuple[Any, ...]) -> list[Any]:
        """Return all rows of a query that may take long; under a loop, in a worker thread.

        Raises:
            StoreUnavailable: the database cannot be read.
        """
        return await offload(self._fetch_all, sql, parameters)

    def _fetch_all(self, sql: str, parameters: tuple[Any, ...]) -> list[Any]:
        deadline = time.monotonic() + self._file.timeout
        self._file.check_identity()
        while True:
            try:
                reader = getattr(self._local, "reader", None) or self._register()
                with reader.lock:
                    connection = reader.connection or self._open(reader)
                    return connection.execute(sql, parameters).fetchall()
            except sqlite3.Error as error:
                if not is_busy(error) or time.monotonic() >= deadline:
                    raise self._discard(error) from error
            time.sleep(_POLL_INTERVAL)

    def _discard(self, error: sqlite3.Error) -> StoreError:
        """Close this thread's connection after an error; return the error for the caller."""
        reader: Reader | None = getattr(self._local, "reader", None)
        if reader is not None:
            with reader.lock:
                reader.close()
        return to_store_error(error)

    def _register(self) -> Reader:
        reader = Reader()
        with self._lock:
            self._readers.add(reader)
        self._local.reader = reader
        return reader

    def _open(self, reader: Reader) -> sqlite3.Connection:
        if self._closed:
            raise StoreError(f"the store over {self._file.path} was closed; create a new one")
        reader.connection = self._file.connect(busy_timeout=0)
        reader.connection.execute("PRAGMA query_only = 1").close()
        return reader.connection

    def close(self) -> None:
        """Close all connections; later reads raise ``StoreError``."""
        self._closed = True
        self.pause()
        self.resume()

    def pause(self) -> None:
        """Close all connections and block reads until ``resume``."""
        self._lock.acquire()
        self._paused = list(self._readers)
        for reader in self._paused:
            reader.lock.acquire()
            reader.close()

    def resume(self) -> None:
        """Allow reads again."""
        for reader in self._paused:
            reader.lock.release()
        self._paused = []
        self._lock.release()
