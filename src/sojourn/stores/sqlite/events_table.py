"""EventsTable: the SQL of the table that carries the broadcast messages of one realm."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import Final

from sojourn.store import MessageKind
from sojourn.stores.broadcast_messages import encode_message
from sojourn.stores.sqlite.schema import Schema

#: Milliseconds that an event is kept. A subscriber that was stopped for longer detects the gap.
RETENTION: Final = 60_000

#: Rows that a subscriber reads at once.
FETCH_LIMIT: Final = 1000

#: Old events that are deleted for each one that is added, so that the table stays small.
_TRIM_FACTOR: Final = 2

#: Number, whether the message is provisional, and the encoded message.
EventRow = tuple[int, int, bytes]


class EventsTable:
    """The statements on the events table of one realm.

    A transaction that revokes sessions adds their events, so both become visible together and a
    process that dies afterwards loses none of them. These events are provisional: the reason is
    known to the message that ``publish`` adds a moment later, and a subscriber prefers that one.

    Args:
        schema: of the realm.
    """

    def __init__(self, schema: Schema) -> None:
        self._name = schema.events
        self._insert: Final = schema.sql(
            "INSERT INTO @events (at, provisional, message) VALUES (?, ?, ?)"
        )
        self._trim: Final = schema.sql(
            "DELETE FROM @events WHERE at < ? AND number IN "
            "(SELECT number FROM @events ORDER BY number LIMIT ?)"
        )
        self._fetch: Final = schema.sql(
            "SELECT number, provisional, message FROM @events WHERE number > ? "
            "ORDER BY number LIMIT ?"
        )

    # Within a write transaction

    def add(self, connection: sqlite3.Connection, messages: Sequence[bytes]) -> None:
        """Add encoded messages; delete some that are too old."""
        self._add(connection, messages, provisional=False)

    def add_provisional(
        self, connection: sqlite3.Connection, kind: MessageKind, session_ids: Iterable[bytes]
    ) -> None:
        """Add messages without a reason, which ``publish`` may follow with one."""
        messages = [encode_message(kind, session_id) for session_id in session_ids]
        self._add(connection, messages, provisional=True)

    def _add(
        self, connection: sqlite3.Connection, messages: Sequence[bytes], *, provisional: bool
    ) -> None:
        if not messages:
            return
        now = time.time_ns() // 1_000_000
        connection.executemany(self._insert, [(now, provisional, each) for each in messages])
        self.trim(connection, now, _TRIM_FACTOR * len(messages))

    def trim(self, connection: sqlite3.Connection, now: int, limit: int) -> int:
        """Delete events older than ``RETENTION``; return their number.

        Args:
            connection: in a transaction.
            now: milliseconds since 1970 UTC.
            limit: the most rows to examine, oldest first.
        """
        return connection.execute(self._trim, (now - RETENTION, limit)).rowcount

    # Reading

    def last_number(self, connection: sqlite3.Connection) -> int:
        """Return the number of the latest event that was ever added, 0 if there was none."""
        query = "SELECT seq FROM sqlite_sequence WHERE name = ?"
        row = connection.execute(query, (self._name,)).fetchone()
        return 0 if row is None else int(row[0])

    def fetch(self, connection: sqlite3.Connection, after: int) -> list[EventRow]:
        """Return up to ``FETCH_LIMIT`` events with numbers greater than ``after``, in order."""
        return connection.execute(self._fetch, (after, FETCH_LIMIT)).fetchall()
