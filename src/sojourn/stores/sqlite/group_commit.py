"""Writer: many writes in one transaction, made by whoever finds the way free.

What lives here: the shared transaction (group commit), who makes it, and who learns what of its
end. What must not: SQL (``sqlite_table.py``) and checkpoints (``sqlite_keeper.py``).

The writes of one tick of an event loop are committed together at its end, in the loop's own
thread: some 10 µs each, and no write waits for the disk, because the keeper does. Only when another
thread or process is writing at that moment they go to a thread, which waits for its turn and takes
along what has come meanwhile. (All through the thread: 79 µs of CPU a write beside a busy loop,
because two threads fight for the interpreter; this way 26.)

Results are given after COMMIT, so whoever has one may rely on it (law S11).
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar, TypeVarTuple

from sojourn._core.concurrency import ThreadFuture, settle
from sojourn.errors import StoreError, StoreUnavailable
from sojourn.record import UnreadableRecord
from sojourn.stores.sqlite.checkpointer import Keeper
from sojourn.stores.sqlite.database import DatabaseFile, Turn, is_busy
from sojourn.stores.sqlite.worker import Worker

T = TypeVar("T")
Args = TypeVarTuple("Args")

#: Writes of one transaction: about a millisecond, so that other processes get their turn.
_MOST: Final = 128

#: Seconds between two looks at a database that a program without our manners holds.
_BREATH: Final = 0.002


class Write(ThreadFuture[T], Generic[T]):
    """One write on its way to the database.

    Attributes:
        withdrawn: whoever asked for it has given up; it is not executed if it has not begun.
    """

    __slots__ = ("_args", "_operation", "withdrawn")

    def __init__(self, operation: Callable[[sqlite3.Connection, *Args], T], *args: *Args) -> None:
        super().__init__()
        self._operation: Callable[..., T] = operation
        self._args = args
        self.withdrawn: bool = False

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


class _Tick(threading.local):
    """The writes that the event loop of this thread asked for since it began its tick."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.writes: list[Write[Any]] = []


class Writer(Worker):
    """Executes writes, those that wait together in one transaction.

    Its own turn is the thread's, who waits for it; the other is for those who only try.

    Args:
        file: where to.
        keeper: is told how much was written.
    """

    def __init__(self, file: DatabaseFile, keeper: Keeper) -> None:
        super().__init__(file, "sojourn-sqlite-writer", busy_timeout=0)
        self._keeper = keeper
        self._tick = _Tick()
        self._queue: queue.SimpleQueue[Write[Any] | None] = queue.SimpleQueue()
        self._free_turn = Turn(file)

    def submit(self, write: Write[Any]) -> None:
        """Execute a write soon; call it in the thread that will wait for the result."""
        if write.loop is None:
            self._execute([write])
            return
        tick = self._tick
        if tick.writes and tick.loop is write.loop:
            tick.writes.append(write)
        else:  # the first of this tick (what a closed loop left behind has nobody who waits)
            tick.loop, tick.writes = write.loop, [write]
            write.loop.call_soon(self._end_tick)

    def submit_later(self, write: Write[Any]) -> None:
        """Execute a write that takes longer in the thread, where no event loop waits for it."""
        self._queue.put(write)
        if not self.started:
            self.start()

    def stop(self) -> None:
        """Let the thread end after what is in the queue now."""
        if self.started:
            self._queue.put(None)

    def let_go(self) -> None:
        """Close what a child inherited; its parent's thread and locks are not here."""
        super().let_go()
        self._free_turn.close()

    def _end_tick(self) -> None:
        tick = self._tick
        writes, tick.writes, tick.loop = tick.writes, [], None
        self._execute(writes)

    def _execute(self, batch: list[Write[Any]]) -> None:
        """Commit at once if nobody else writes at this moment, else leave it to the thread."""
        if len(batch) <= _MOST and self._commit_if_free(batch):
            for write in batch:
                write.wake()
        else:
            for write in batch:
                self.submit_later(write)

    def _commit_if_free(self, batch: list[Write[Any]]) -> bool:
        if not self.resting.acquire(blocking=False):
            return False
        try:
            if not self._free_turn.take_if_free():
                return False
            try:
                return self._commit(batch, patience=0)
            finally:
                self._free_turn.give_back()
        finally:
            self.resting.release()

    # The thread

    def work(self) -> None:
        """Commit what is in the queue, until it says to stop."""
        take, size = self._queue.get, self._queue.qsize
        ending = False
        while not ending:
            batch = [take()]
            while len(batch) < _MOST and size():
                batch.append(take())
            writes = [write for write in batch if write is not None]
            ending = len(writes) < len(batch)
            if writes:
                self._commit_in_turn(writes)
            del batch, writes  # results must not live until the next write comes

    def _commit_in_turn(self, batch: list[Write[Any]]) -> None:
        try:
            with self.turn, self.resting:
                self._commit(batch, patience=self.file.timeout)
        except OSError as error:  # of the turn
            _fail(batch, error)
        settle(batch)

    # The transaction

    def _commit(self, batch: list[Write[Any]], *, patience: float) -> bool:
        """Execute and commit; False, and nothing begun, if the database is held and no patience.

        Each write then has its result or its error. Both locks must be held.
        """
        try:
            connection = self._begin(patience)
            if connection is None:
                return False
            before = connection.total_changes
            for write in batch:
                if not write.withdrawn:
                    write.execute(connection)
            connection.execute("COMMIT")
            self._keeper.note(connection.total_changes - before)
        except Exception as error:  # noqa: BLE001 - every waiting caller must hear of it
            self.rest()  # whatever it was, the next transaction starts from a clean connection
            _fail(batch, error)
        except BaseException:  # a signal ends the program, or the worker of its server
            self.rest()
            raise
        return True

    def _begin(self, patience: float) -> sqlite3.Connection | None:
        """Begin a transaction that may write; None if others hold the database and no patience.

        Raises:
            sqlite3.OperationalError: they hold it for longer than ``patience`` seconds.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                connection = self.connect()
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                if patience == 0:
                    return None
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_BREATH)
            else:
                return connection


def _fail(batch: list[Write[Any]], error: Exception) -> None:
    for write in batch:
        write.fail(failure(error))


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
