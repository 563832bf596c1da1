"""Writer: one thread for each store that writes for everybody, many at a time.

What lives here: the queue, the shared transaction (group commit) and who learns what of its end.
What must not: SQL (``sqlite_table.py``) and checkpoints (``sqlite_keeper.py``).

A thread of its own, because waiting for another process must not stop an event loop, and because
a transaction for whatever has come in meanwhile costs little more than one for a single write.
Results are given after COMMIT, so whoever has one may rely on it (law S11).
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar, TypeVarTuple

from sojourn.core.drive import Handoff, settle
from sojourn.core.record import UnreadableRecord
from sojourn.errors import StoreError, StoreUnavailable
from sojourn.stores.sqlite_file import DatabaseFile, Turn
from sojourn.stores.sqlite_keeper import Keeper

T = TypeVar("T")
Args = TypeVarTuple("Args")

#: Writes of one transaction: about two milliseconds, so that other processes get their turn.
_MOST: Final = 128


class Write(Handoff[T], Generic[T]):
    """One write on its way through the thread.

    Attributes:
        withdrawn: whoever asked for it has given up; it is not executed if it has not begun.
    """

    __slots__ = ("_args", "_operation", "withdrawn")

    def __init__(
        self, operation: Callable[[sqlite3.Connection, *Args], T], *args: *Args
    ) -> None:
        super().__init__()
        self._operation: Callable[..., T] = operation
        self._args = args
        self.withdrawn = False

    def execute(self, connection: sqlite3.Connection) -> None:
        """Do it within the transaction; remember its result, or the error that is its own."""
        try:
            self.put(self._operation(connection, *self._args))
        except UnreadableRecord as error:
            self.fail(error)
        except Exception as error:
            if not connection.in_transaction:
                raise  # SQLite gave up the whole transaction
            self.fail(failure(error))


class Writer:
    """Executes writes in order, those that wait together in one transaction.

    Args:
        file: where to.
        keeper: is told how much was written.
    """

    def __init__(self, file: DatabaseFile, keeper: Keeper) -> None:
        self._file = file
        self._keeper = keeper
        self._queue: queue.SimpleQueue[Write[Any] | None] = queue.SimpleQueue()
        self._turn = Turn(file)
        self._connection: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        #: Held while the connection is in use; a fork waits for it (``sqlite_process.py``).
        self.resting = threading.Lock()

    def submit(self, write: Write[Any]) -> None:
        """Put a write into the queue, in the thread that will wait for it."""
        self._queue.put(write)
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="sojourn-sqlite-writer", daemon=True
                )
                self._thread.start()

    def stop(self) -> None:
        """Let the thread end after what is in the queue now."""
        self._queue.put(None)

    def join(self, timeout: float) -> None:
        """Wait for the end of the thread, for some seconds."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def rest(self) -> None:
        """Close the connection; the next transaction opens another. Call it with ``resting`` held."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def let_go(self) -> None:
        """Close the file of the turn, in a child that inherited it."""
        self._turn.close()

    def _work(self) -> None:
        take, size = self._queue.get, self._queue.qsize
        ending = False
        while not ending:
            batch = [take()]
            while len(batch) < _MOST and size():
                batch.append(take())
            writes = [write for write in batch if write is not None]
            ending = len(writes) < len(batch)
            if writes:
                self._write(writes)
            del batch, writes  # results must not live until the next write comes
        with self.resting:
            self.rest()
        self._turn.close()

    def _write(self, batch: list[Write[Any]]) -> None:
        try:
            with self._turn, self.resting:
                try:
                    self._transaction(batch)
                except BaseException:
                    # Whatever it was, the next transaction starts from a clean connection.
                    self.rest()
                    raise
        except Exception as error:  # noqa: BLE001 - every waiting caller must hear of it
            for write in batch:
                write.fail(failure(error))
        settle(batch)
        self._keeper.note(len(batch))

    def _transaction(self, batch: list[Write[Any]]) -> None:
        connection = self._connection
        if connection is None:
            connection = self._connection = self._file.connect(timeout=self._file.timeout)
        execute = connection.execute
        execute("BEGIN IMMEDIATE")
        for write in batch:
            if not write.withdrawn:
                write.execute(connection)
        execute("COMMIT")


def failure(error: Exception) -> StoreError:
    """Return what a caller gets for an error of SQLite or of the file system."""
    if isinstance(error, sqlite3.OperationalError | OSError):
        result: StoreError = StoreUnavailable(
            f"SQLite: {error}; nothing was written. Try again later"
        )
    else:
        result = StoreError(f"SQLite: {error}; nothing was written")
    result.__cause__ = error
    return result
