"""The SQL of one realm: its table, its constant statements, and each write as one function.

What lives here: what is asked of SQLite. What must not: connections, threads and transactions
(``sqlite_writer.py``), or the file (``sqlite_file.py``).

Each write changes the table with one statement, so that one which fails leaves nothing behind in
the transaction it shares with others (law S13). The column ``seen_at`` is the truth, the record's
own copy may be older; ``expires_at`` is what ``purge`` goes by.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from sojourn.core.record import Record, UnreadableRecord
from sojourn.core.store import GONE, SAVED, Conflict, SaveResult

Row = tuple[int, bytes]
"""``seen_at`` and the record's bytes."""


class Table:
    """The statements of one realm. Their text never changes, so each is prepared once.

    Args:
        realm: the installation's namespace; every realm has a table of its own (law S14).
    """

    def __init__(self, realm: str) -> None:
        self.name: Final = "sessions" if realm == "default" else f"sessions_{_fold(realm)}"

        def sql(text: str) -> str:
            return text.replace("@table", _quote(self.name))

        self.schema: Final = (
            sql(
                "CREATE TABLE IF NOT EXISTS @table (id BLOB PRIMARY KEY, "
                "version INTEGER NOT NULL, seen_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, "
                "user TEXT, record BLOB NOT NULL) WITHOUT ROWID"
            ),
            # No index on expires_at: it would cost 60-70 % of the write speed (formats.md).
            sql(
                f"CREATE INDEX IF NOT EXISTS {_quote(f'by_user:{self.name}')} ON @table (user) "
                "WHERE user IS NOT NULL"
            ),
        )
        self.load: Final = sql("SELECT seen_at, record FROM @table WHERE id = ?")
        self.count: Final = sql("SELECT count(*) FROM @table WHERE expires_at > ?")
        self.stretch: Final = sql(
            "SELECT count(*), max(id) FROM (SELECT id FROM @table WHERE id > ? ORDER BY id LIMIT ?)"
        )
        self.expired: Final = sql(
            "SELECT id FROM @table WHERE id > ? AND id <= ? AND expires_at <= ? ORDER BY id LIMIT ?"
        )
        self._insert: Final = sql(
            "INSERT INTO @table VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        )
        # The larger seen_at wins, and the expiry follows from the one that won (law S6).
        self._update: Final = sql(
            "UPDATE @table SET version = ?, seen_at = max(seen_at, ?), "
            "expires_at = min(max(seen_at, ?) + ?, ?), user = ?, record = ? "
            "WHERE id = ? AND version = ?"
        )
        self._touch: Final = sql(
            "UPDATE @table SET seen_at = max(seen_at, ?), "
            "expires_at = min(max(seen_at, ?) + ?, ?) WHERE id = ? AND version = ?"
        )
        self._delete: Final = sql("DELETE FROM @table WHERE id = ?")
        self._forget: Final = sql("DELETE FROM @table WHERE id IN (@expired)").replace(
            "@expired", self.expired
        )

    def create(self, connection: sqlite3.Connection, record: Record) -> bool:
        """Insert a record; False if its ID is taken."""
        row = (
            record.id,
            record.version,
            record.seen_at,
            record.expires_at,
            _user(record),
            record.to_bytes(),
        )
        return connection.execute(self._insert, row).rowcount == 1

    def save(self, connection: sqlite3.Connection, record: Record, expected: int) -> SaveResult:
        """Replace the record whose version is the expected one."""
        done = connection.execute(
            self._update,
            (
                record.version,
                record.seen_at,
                record.seen_at,
                record.idle_timeout,
                record.absolute_at,
                _user(record),
                record.to_bytes(),
                record.id,
                expected,
            ),
        )
        if done.rowcount == 1:
            return SAVED
        row = connection.execute(self.load, (record.id,)).fetchone()
        return GONE if row is None else Conflict(read(record.id, row))

    def touch(self, connection: sqlite3.Connection, record: Record) -> bool:
        """Move ``seen_at`` forward; the limits that it counts with are those that are stored."""
        if self._touch_version(connection, record):
            return True
        row = connection.execute(self.load, (record.id,)).fetchone()
        if row is None:
            return False
        return self._touch_version(connection, read(record.id, row).seen(record.seen_at))

    def _touch_version(self, connection: sqlite3.Connection, record: Record) -> bool:
        done = connection.execute(
            self._touch,
            (
                record.seen_at,
                record.seen_at,
                record.idle_timeout,
                record.absolute_at,
                record.id,
                record.version,
            ),
        )
        return done.rowcount == 1

    def delete(self, connection: sqlite3.Connection, session_id: bytes) -> bool:
        """Remove a record; tell whether there was one."""
        return connection.execute(self._delete, (session_id,)).rowcount == 1

    def forget(
        self, connection: sqlite3.Connection, after: bytes, until: bytes, now: int, limit: int
    ) -> int:
        """Remove what is expired among the IDs in ``(after, until]``; return how many."""
        return connection.execute(self._forget, (after, until, now, limit)).rowcount


def read(session_id: bytes, row: Row) -> Record:
    """Return the record of a row, seen when its column says.

    Raises:
        UnreadableRecord: the bytes are no record of ours (law S9).
    """
    seen_at, data = row
    if type(data) is not bytes or type(seen_at) is not int:
        raise UnreadableRecord(f"the row of {session_id.hex()} was not written by this store")
    return Record.from_bytes(session_id, data).seen(seen_at)


def _user(record: Record) -> str | None:
    # The body begins with msgpack's mark of three items, then the user: 0xc0 is nil. Seeing so
    # saves decoding what may be 64 KiB; the store keeps a body it cannot decode all the same.
    if record.body[1:2] == b"\xc0":
        return None
    try:
        return record.contents().user
    except UnreadableRecord:
        return None


def _fold(realm: str) -> str:
    """Spell a realm so that names which SQLite would take for one stay two: 'A' becomes '^a'."""
    return "".join(f"^{c.lower()}" if "A" <= c <= "Z" or c == "^" else c for c in realm)


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
