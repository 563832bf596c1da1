"""The SQL of one realm: its constant statements, and each write as one function.

What lives here: what is asked of SQLite. What must not: connections, threads and transactions
(``sqlite_writer.py``), or how the tables are made (``sqlite_schema.py``).

Each write changes the tables with one statement or within a savepoint, so that one which fails
leaves nothing behind in the transaction it shares with others (law S13). The column ``seen_at`` is
the truth, the record's own copy may be older; ``expires_at`` is what ``purge`` goes by. Of the
record's bytes, two instants of its header are looked at.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from typing import Final

from sojourn.record import (
    AUTHENTICATED_AT,
    CREATED_AT,
    Record,
    UnreadableRecord,
    pack_instant,
)
from sojourn.store import (
    GONE,
    LIMIT_REACHED,
    REVOKED,
    SAVED,
    Conflict,
    LimitPolicy,
    LoginSaved,
    SaveLoginResult,
    SaveResult,
    SessionLimit,
)
from sojourn.stores.sqlite.schema import NAMES, Schema

Row = tuple[int, bytes]
"""``seen_at`` and the record's bytes."""

#: The name of the mark that concerns every session; those of users and others are never empty.
_ALL: Final = ""


def _instant(field: slice) -> str:
    return f"substr(record, {field.start + 1}, {field.stop - field.start})"


#: What the statements have in common. Mostly nothing voids all; then no record is looked into.
_PARTS: Final = {
    "@alive": "(@void_before IS NULL OR @created_at >= @void_before)",
    "@void_before": "(SELECT before FROM @marks WHERE name = '')",
    "@created_at": _instant(CREATED_AT),
    "@authenticated_at": _instant(AUTHENTICATED_AT),
}


class Table:
    """The statements of one realm. Their text never changes, so each is prepared once.

    Args:
        realm: the installation's namespace; every realm has tables of its own (law S14).
    """

    def __init__(self, realm: str) -> None:
        self.schema: Final = Schema(realm)
        self.name: Final = self.schema.sessions

        def sql(text: str) -> str:
            for part, meaning in _PARTS.items():
                text = text.replace(part, meaning)
            return self.schema.sql(text)

        self.load: Final = sql("SELECT seen_at, record FROM @sessions WHERE id = ? AND @alive")
        self.count: Final = sql(
            "SELECT count(*) FROM @sessions WHERE version > 0 AND expires_at > ? AND @alive"
        )
        find = (
            "SELECT id, seen_at, record FROM @sessions WHERE @name = ? AND @alive "
            "ORDER BY @authenticated_at DESC, id DESC"
        )
        self.find: Final = {name: sql(find.replace("@name", name)) for name in NAMES}
        self.stretch: Final = sql(
            "SELECT count(*), max(id) "
            "FROM (SELECT id FROM @sessions WHERE id > ? ORDER BY id LIMIT ?)"
        )
        self.expired: Final = sql(
            "SELECT id FROM @sessions WHERE id > ? AND id <= ? AND (expires_at <= ? OR NOT @alive) "
            "ORDER BY id LIMIT ?"
        )
        self._insert: Final = sql(
            "INSERT INTO @sessions (id, version, seen_at, expires_at, record) "
            "VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        )
        # The larger seen_at wins, and the expiry follows from the one that won (law S6).
        self._update: Final = sql(
            "UPDATE @sessions SET version = ?, seen_at = max(seen_at, ?), "
            "expires_at = min(max(seen_at, ?) + ?, ?), record = ? "
            "WHERE id = ? AND version = ? AND @alive"
        )
        self._touch: Final = sql(
            "UPDATE @sessions SET seen_at = max(seen_at, ?), "
            "expires_at = min(max(seen_at, ?) + ?, ?) WHERE id = ? AND version = ? AND @alive"
        )
        self._delete: Final = sql("DELETE FROM @sessions WHERE id = ? AND @alive")
        self._forget: Final = sql("DELETE FROM @sessions WHERE id IN (@expired)").replace(
            "@expired", self.expired
        )
        self._name: Final = sql("UPDATE @sessions SET user = ?, idp_sid = ? WHERE id = ?")
        # The others of a user, but for as many as may stay.
        surplus = (
            "SELECT id FROM @sessions WHERE user = ? AND id <> ? AND expires_at > ? AND @alive "
            "ORDER BY @order DESC, id DESC LIMIT -1 OFFSET ?"
        )
        self._oldest: Final = sql(surplus.replace("@order", "@authenticated_at"))
        self._idlest: Final = sql(surplus.replace("@order", "seen_at"))
        self._mark: Final = sql(
            "INSERT INTO @marks VALUES (?, ?) "
            "ON CONFLICT DO UPDATE SET before = max(before, excluded.before)"
        )
        self._marked: Final = sql("SELECT 1 FROM @marks WHERE name = ? AND before > ?")
        self._forget_marks: Final = sql(
            "DELETE FROM @marks WHERE name IN "
            "(SELECT name FROM @marks WHERE name <> '' AND before <= ? LIMIT ?)"
        )

    def create(self, connection: sqlite3.Connection, record: Record) -> bool:
        """Insert a record; False if its ID is taken."""
        row = (record.id, record.version, record.seen_at, record.expires_at, record.to_bytes())
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
        return self._touch_version(connection, read(record.id, row).with_seen_at(record.seen_at))

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

    def save_login(
        self,
        connection: sqlite3.Connection,
        record: Record,
        expected: int,
        limit: SessionLimit | None,
        now: int,
    ) -> SaveLoginResult:
        """Save or insert a record, list it under its names, let go who is too many for it."""
        connection.execute("SAVEPOINT bind")
        done = False
        try:
            result = self._bind(connection, record, expected, limit, now)
            done = isinstance(result, LoginSaved)
        finally:
            if connection.in_transaction:  # else SQLite gave up all of it
                if not done:
                    connection.execute("ROLLBACK TO bind")
                connection.execute("RELEASE bind")
        return result

    def _bind(
        self,
        connection: sqlite3.Connection,
        record: Record,
        expected: int,
        limit: SessionLimit | None,
        now: int,
    ) -> SaveLoginResult:
        names = record.index_names()
        began = pack_instant(record.authenticated_at)
        if any(connection.execute(self._marked, (name, began)).fetchone() for name in names):
            return REVOKED
        inserted = expected == 0 and self.create(connection, record)
        saved = SAVED if inserted else self.save(connection, record, expected)
        if saved is not SAVED:
            return saved
        columns = dict(name.split(":", 1) for name in names)
        surplus: list[tuple[bytes]] = []
        if limit is not None and names:
            statement = self._idlest if limit.policy is LimitPolicy.EVICT_IDLEST else self._oldest
            others = (columns["user"], record.id, now, limit.max_sessions - 1)
            surplus = connection.execute(statement, others).fetchall()
            if surplus and limit.policy is LimitPolicy.REFUSE:
                return LIMIT_REACHED
            connection.executemany(self._delete, surplus)
        connection.execute(self._name, (*map(columns.get, NAMES), record.id))
        return LoginSaved(tuple(session_id for (session_id,) in surplus))

    def invalidate_logins(self, connection: sqlite3.Connection, name: str, before: int) -> None:
        """Mark the instant before which logins under a name are void."""
        connection.execute(self._mark, (name, pack_instant(before)))

    def invalidate_all(self, connection: sqlite3.Connection, before: int) -> None:
        """Mark the instant before which records are absent."""
        connection.execute(self._mark, (_ALL, pack_instant(before)))

    def forget_marks(self, connection: sqlite3.Connection, until: int, limit: int) -> int:
        """Remove marks of names that are as old; return how many."""
        return connection.execute(self._forget_marks, (pack_instant(until), limit)).rowcount


def read(session_id: bytes, row: Row) -> Record:
    """Return the record of a row, seen when its column says.

    Raises:
        UnreadableRecord: the bytes are no record of ours (law S9).
    """
    seen_at, data = row
    if type(data) is not bytes or type(seen_at) is not int:
        raise UnreadableRecord(f"the row of {session_id.hex()} was not written by this store")
    return Record.from_bytes(session_id, data).with_seen_at(seen_at)


def read_all(rows: Iterable[tuple[bytes, int, bytes]]) -> list[Record]:
    """Return the records of the rows that can be read."""
    records = []
    for session_id, seen_at, data in rows:
        with contextlib.suppress(UnreadableRecord):
            records.append(read(session_id, (seen_at, data)))
    return records
