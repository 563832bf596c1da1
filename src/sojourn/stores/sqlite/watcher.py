"""Watcher: one thread that delivers the events of a database to the subscribers of a process."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from sojourn.errors import StoreError
from sojourn.store import BroadcastMessage, MessageHandler
from sojourn.stores.broadcast_messages import decode_message
from sojourn.stores.sqlite.database import DatabaseFile, is_busy
from sojourn.stores.sqlite.events_table import FETCH_LIMIT, EventRow
from sojourn.stores.sqlite.statements import Statements
from sojourn.stores.sqlite.worker import Worker

logger: logging.Logger = logging.getLogger("sojourn")

#: Seconds between two polls of the database: the latency of a message is half of it on average.
_POLL_INTERVAL: Final = 0.05

#: Seconds between two attempts while the database cannot be read.
_RETRY_INTERVAL: Final = 0.5

#: Seconds that a provisional event waits for the message with the reason. That message follows
#: within milliseconds, unless the process that revoked the session has died.
_PROVISIONAL_PERIOD: Final = 0.5

#: Watched sessions whose versions are compared at each poll: less than a millisecond.
_MAX_COMPARED: Final = 250

_FAILURES: Final = (StoreError, OSError, sqlite3.Error)


def _count_up(counts: dict[bytes, int], session_id: bytes) -> None:
    counts[session_id] = counts.get(session_id, 0) + 1


def _count_down(counts: dict[bytes, int], session_id: bytes, number: int) -> None:
    counts[session_id] -= number
    if not counts[session_id]:
        del counts[session_id]


class WatcherSubscription:
    """One subscription; see ``Subscription``.

    Args:
        watcher: delivers to it.
        on_message, on_gap: see ``SupportsBroadcast.subscribe``.
    """

    def __init__(
        self, watcher: Watcher, on_message: MessageHandler, on_gap: Callable[[], object]
    ) -> None:
        self._watcher = watcher
        self._on_message = on_message
        self._on_gap = on_gap
        self._watched: dict[bytes, int] = {}
        self._started = False
        self._closed = False
        # Held while a handler runs, so that none runs after `close`; a handler may call `close`.
        self._lock = threading.RLock()

    def watch(self, session_id: bytes) -> None:
        """Also receive ``changed`` messages of a session."""
        with self._lock:
            if not self._closed:
                _count_up(self._watched, session_id)
                self._watcher.watch(session_id)

    def unwatch(self, session_id: bytes) -> None:
        """Stop receiving the ``changed`` messages of a session."""
        with self._lock:
            if session_id in self._watched:
                _count_down(self._watched, session_id, 1)
                self._watcher.unwatch(session_id, 1)

    def close(self) -> None:
        """End the subscription; no handler is called after this returns."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for session_id, count in self._watched.items():
                self._watcher.unwatch(session_id, count)
        self._watcher.remove(self)

    def deliver(self, messages: Iterable[BroadcastMessage]) -> None:
        """Call the handler with the messages; called in the watcher's thread."""
        for message in messages:
            with self._lock:
                if self._closed or not self._started:
                    return
                if message.kind != "changed" or message.session_id in self._watched:
                    self._call(self._on_message, message)

    def report_gap(self) -> None:
        """Report that messages may have been missed; called in the watcher's thread."""
        with self._lock:
            self._started = True
            if not self._closed:
                self._call(self._on_gap)

    def report_start(self) -> None:
        """Report the gap at the start, once."""
        if not self._started:
            self.report_gap()

    def _call(self, handler: Callable[..., object], *args: object) -> None:
        try:
            handler(*args)
        except Exception:  # the other messages must arrive nevertheless
            logger.exception("a handler of broadcast messages raised")


class Watcher(Worker):
    """Delivers the events of one realm; ends with its last subscription and is then replaced.

    It reads ``PRAGMA data_version`` 20 times a second, which takes some microseconds and shows
    whether another connection has committed. Only then it reads the events, and the versions of the
    sessions that are watched. The thread runs while there is a subscription.

    Args:
        file: the database.
        statements: of the realm.
    """

    def __init__(self, file: DatabaseFile, statements: Statements) -> None:
        super().__init__(file, "sojourn-sqlite-watcher", busy_timeout=0)
        self._statements = statements
        self._events = statements.events
        self._lock = threading.Lock()
        self._subscriptions: list[WatcherSubscription] = []
        self._watch_counts: dict[bytes, int] = {}
        self._wake: threading.Event
        self._stopped = False
        # The attributes below belong to the thread.
        self._position: int | None = None  # the number of the last event that was read
        self._data_version: tuple[sqlite3.Connection, int] | None = None
        self._provisional: dict[tuple[str, bytes], tuple[float, BroadcastMessage]] = {}
        self._versions: dict[bytes, int] = {}
        self._uncompared: list[bytes] = []
        self._compare_again = False
        self._missed = False
        self._failed = False

    def prepare_thread(self) -> None:
        """Create the event that wakes the thread."""
        self._wake = threading.Event()

    # Called by other threads

    def subscribe(
        self, on_message: MessageHandler, on_gap: Callable[[], object]
    ) -> WatcherSubscription | None:
        """Add a subscription; return None if the thread is ending. ``start`` must follow."""
        with self._lock:
            if self._stopped:
                return None
            subscription = WatcherSubscription(self, on_message, on_gap)
            self._subscriptions.append(subscription)
        return subscription

    def remove(self, subscription: WatcherSubscription) -> None:
        """Remove a subscription; the last one ends the thread."""
        with self._lock:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
            last = not self._subscriptions
        if last:
            self.stop()

    def watch(self, session_id: bytes) -> None:
        """Compare the versions of a session until ``unwatch`` was called as often."""
        with self._lock:
            _count_up(self._watch_counts, session_id)

    def unwatch(self, session_id: bytes, count: int) -> None:
        """Take back ``count`` calls of ``watch``."""
        with self._lock:
            _count_down(self._watch_counts, session_id, count)

    def stop(self) -> None:
        """Let the thread end."""
        with self._lock:
            self._stopped = True
        if self._thread is not None:
            self._wake.set()

    def start(self) -> None:
        """Start the thread unless it was started, and let it poll at once."""
        super().start()
        self._wake.set()

    # In the thread

    def run(self) -> None:
        """Deliver events until the watcher is stopped."""
        while not self._stopped:
            interval = _POLL_INTERVAL
            try:
                self._poll()
            except _FAILURES as error:
                self._missed, self._data_version = True, None
                if not is_busy(error):  # another program has locked it for a moment
                    self._report_failure(error)
                    interval = _RETRY_INTERVAL
            self._wake.wait(interval)
            self._wake.clear()

    def _report_failure(self, error: Exception) -> None:
        if not self._failed:
            self._failed = True
            logger.warning(
                "broadcast messages in %s cannot be read, will be retried: %s",
                self.file.path,
                error,
            )
        if not isinstance(error, StoreError):  # of a file that was moved and may come back
            with self.in_use:
                self.disconnect()

    def _poll(self) -> None:
        """Read what is new and deliver it."""
        self.file.check_identity()
        with self._lock:
            subscriptions = list(self._subscriptions)
        gap = self._missed
        messages: list[BroadcastMessage] = []
        with self.in_use:
            connection = self.connect()
            if self._is_changed(connection):
                gap = self._read_events(connection, messages) or gap
                self._compare_again = True
            self._compare_versions(connection, messages)
        self._missed = self._failed = False
        self._append_overdue(messages)
        for subscription in subscriptions:
            subscription.deliver(messages)
            if gap:
                subscription.report_gap()
            else:
                subscription.report_start()

    def _is_changed(self, connection: sqlite3.Connection) -> bool:
        """Return whether another connection has committed since the last call."""
        version: int = connection.execute("PRAGMA data_version").fetchone()[0]
        previous, self._data_version = self._data_version, (connection, version)
        # The number has a meaning for this connection only.
        return previous is None or previous[0] is not connection or previous[1] != version

    def _read_events(
        self, connection: sqlite3.Connection, messages: list[BroadcastMessage]
    ) -> bool:
        """Append the new messages; return whether some are missing."""
        if self._position is None:
            self._position = self._events.last_number(connection)
            return False
        gap = False
        full = True
        while full:
            last = self._events.last_number(connection)
            rows = self._events.fetch(connection, self._position)
            full = len(rows) == FETCH_LIMIT
            self._append_messages(rows, messages)
            read_until = rows[-1][0] if full else max([last, *(row[0] for row in rows[-1:])])
            # Numbers are consecutive; those of trimmed or deleted rows are missing.
            gap = gap or read_until - self._position != len(rows)
            self._position = read_until
        return gap

    def _append_messages(self, rows: list[EventRow], messages: list[BroadcastMessage]) -> None:
        """Append the messages of rows; hold the provisional ones back."""
        for _number, provisional, data in rows:
            message = decode_message(data)
            if message is None:
                continue
            key = (message.kind, message.session_id)
            if provisional:
                self._provisional[key] = (time.monotonic() + _PROVISIONAL_PERIOD, message)
            else:
                self._provisional.pop(key, None)
                messages.append(message)

    def _append_overdue(self, messages: list[BroadcastMessage]) -> None:
        """Append the provisional messages that no message with a reason has followed."""
        now = time.monotonic()
        for key, (deadline, message) in list(self._provisional.items()):
            if now >= deadline:
                del self._provisional[key]
                messages.append(message)

    def _compare_versions(
        self, connection: sqlite3.Connection, messages: list[BroadcastMessage]
    ) -> None:
        """Append a ``changed`` message for some watched sessions with another version."""
        if self._compare_again and not self._uncompared:
            # Not before all were compared: constant changes must not delay the last ones.
            self._compare_again = False
            with self._lock:
                self._uncompared = list(self._watch_counts)
                unwatched = self._versions.keys() - self._watch_counts.keys()
            for session_id in unwatched:
                del self._versions[session_id]
        compared = self._uncompared[-_MAX_COMPARED:]
        del self._uncompared[-_MAX_COMPARED:]
        query = self._statements.load_version
        for session_id in compared:
            row = connection.execute(query, (session_id,)).fetchone()
            if row is not None and self._versions.get(session_id) != row[0]:
                self._versions[session_id] = row[0]
                messages.append(BroadcastMessage(1, "changed", session_id, row[0], ""))
