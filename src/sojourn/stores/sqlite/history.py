"""HistoryTable: the SQL of the history of ended sessions of one realm."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from sojourn.store import HistoryEntry
from sojourn.stores.history import encode_entry
from sojourn.stores.sqlite.savepoint import Savepoint
from sojourn.stores.sqlite.schema import Schema


class HistoryTable:
    """The statements on the history table of one realm.

    Args:
        schema: of the realm.
    """

    def __init__(self, schema: Schema) -> None:
        self._insert: Final = schema.sql(
            "INSERT INTO @history (ended_at, expires_at, entry) VALUES (?, ?, ?)"
        )
        self._delete_expired: Final = schema.sql(
            "DELETE FROM @history WHERE number IN "
            "(SELECT number FROM @history WHERE expires_at <= ? LIMIT ?)"
        )
        #: Parameters: instant and number of the cursor, the most rows.
        self.list_page: Final = schema.sql(
            "SELECT ended_at, number, entry FROM @history WHERE (ended_at, number) < (?, ?) "
            "ORDER BY ended_at DESC, number DESC LIMIT ?"
        )

    # Within a write transaction

    def add(
        self, connection: sqlite3.Connection, entries: Sequence[HistoryEntry], lifetime: int
    ) -> None:
        """Add all entries, or none if an error occurs."""
        rows = [(each.ended_at, each.ended_at + lifetime, encode_entry(each)) for each in entries]
        with Savepoint(connection):
            connection.executemany(self._insert, rows)

    def delete_expired(self, connection: sqlite3.Connection, now: int, limit: int) -> int:
        """Delete up to ``limit`` entries whose lifetime is over; return their number."""
        return connection.execute(self._delete_expired, (now, limit)).rowcount
