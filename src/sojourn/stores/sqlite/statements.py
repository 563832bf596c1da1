"""Statements: the SQL of one realm, with one method for each write."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from sojourn.record import (
    AUTHENTICATED_AT,
    CREATED_AT,
    TRANSIT_VERSION,
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
from sojourn.stores.broadcast_messages import encode_message
from sojourn.stores.sqlite.events_table import EventsTable
from sojourn.stores.sqlite.history import HistoryTable
from sojourn.stores.sqlite.savepoint import Savepoint
from sojourn.stores.sqlite.schema import INDEX_COLUMNS, Schema

Row = tuple[int, bytes]
"""``seen_at`` and the encoded record."""

#: The name of the cutoff of all sessions; names of users and labels are never empty.
_ALL_SESSIONS: Final = ""


def _header_field(field: slice) -> str:
    return f"substr(record, {field.start + 1}, {field.stop - field.start})"


#: Usually there is no cutoff for all sessions; then the record is not examined.
_FRAGMENTS: Final = {
    "@valid": "(@not_before IS NULL OR @created_at >= @not_before)",
    "@not_before": "(SELECT before FROM @cutoffs WHERE name = '')",
    "@created_at": _header_field(CREATED_AT),
    "@is_session": f"version > 0 AND version < {TRANSIT_VERSION}",
    "@authenticated_at": _header_field(AUTHENTICATED_AT),
}


class Statements:
    """The statements of one realm. Their text is constant, so SQLite prepares each only once.

    A write changes the tables with one statement or within a savepoint, so that a failed write
    leaves nothing behind in the transaction it shares with others (law S13). The column ``seen_at``
    is authoritative, the copy in the record may be older; ``purge`` uses ``expires_at``. Two
    instants are read from the bytes of the record, at their fixed offsets. A write that ends
    sessions adds events in the same step (``events_table.py``).

    Args:
        realm: the installation's namespace; each realm has its own tables (law S14).
        add_events: add events of ended sessions. Without, a full database can still delete.

    Attributes:
        events: of the realm.
        history: of the realm.
    """

    def __init__(self, realm: str, *, add_events: bool = True) -> None:
        self.schema: Final = Schema(realm)
        self.events: Final = EventsTable(self.schema)
        self.history: Final = HistoryTable(self.schema)
        self._add_events = add_events

        def sql(template: str) -> str:
            for fragment, meaning in _FRAGMENTS.items():
                template = template.replace(fragment, meaning)
            return self.schema.sql(template)

        self.load: Final = sql("SELECT seen_at, record FROM @sessions WHERE id = ? AND @valid")
        self.count: Final = sql(
            "SELECT count(*) FROM @sessions WHERE id <= ? AND @is_session AND expires_at > ? "
            "AND @valid"
        )
        list_by = (
            "SELECT id, seen_at, record FROM @sessions WHERE @column = ? AND @valid "
            "ORDER BY @authenticated_at DESC, id DESC"
        )
        #: By index column.
        self.list_by_index: Final = {
            column: sql(list_by.replace("@column", column)) for column in INDEX_COLUMNS
        }
        self.next_id_range: Final = sql(
            "SELECT count(*), max(id) "
            "FROM (SELECT id FROM @sessions WHERE id > ? ORDER BY id LIMIT ?)"
        )
        self.list_expired: Final = sql(
            "SELECT id FROM @sessions WHERE id > ? AND id <= ? AND (expires_at <= ? OR NOT @valid) "
            "ORDER BY id LIMIT ?"
        )
        self.list_page: Final = sql(
            "SELECT id, seen_at, record FROM @sessions WHERE id > ? AND id <= ? AND @valid "
            "ORDER BY id"
        )
        # The second parameter includes the cutoff of all sessions, whose name is empty.
        self.list_cutoffs: Final = sql(
            "SELECT name, before FROM @cutoffs WHERE name > ? OR name = '' AND ? "
            "ORDER BY name LIMIT ?"
        )
        self.load_version: Final = sql("SELECT version FROM @sessions WHERE id = ? AND @valid")
        self._insert: Final = sql(
            "INSERT INTO @sessions (id, version, seen_at, expires_at, record) "
            "VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        )
        # The larger seen_at is stored, and the expiry follows from it (law S6).
        self._update: Final = sql(
            "UPDATE @sessions SET version = ?, seen_at = max(seen_at, ?), "
            "expires_at = min(max(seen_at, ?) + ?, ?), record = ? "
            "WHERE id = ? AND version = ? AND @valid"
        )
        self._touch: Final = sql(
            "UPDATE @sessions SET seen_at = max(seen_at, ?), "
            "expires_at = min(max(seen_at, ?) + ?, ?) WHERE id = ? AND version = ? AND @valid"
        )
        self._delete: Final = sql("DELETE FROM @sessions WHERE id = ? AND @valid")
        self._delete_expired: Final = sql("DELETE FROM @sessions WHERE id IN (@expired)").replace(
            "@expired", self.list_expired
        )
        self._set_index: Final = sql("UPDATE @sessions SET user = ?, idp_sid = ? WHERE id = ?")
        self._count_of_user: Final = sql("SELECT count(*) FROM @sessions WHERE user = ?")
        # The other sessions of a user, except for the number that may stay.
        excess = (
            "SELECT id FROM @sessions WHERE user = ? AND id <> ? AND expires_at > ? AND @valid "
            "ORDER BY @order DESC, id DESC LIMIT -1 OFFSET ?"
        )
        self.list_oldest_excess: Final = sql(excess.replace("@order", "@authenticated_at"))
        self.list_idlest_excess: Final = sql(excess.replace("@order", "seen_at"))
        self._set_cutoff: Final = sql(
            "INSERT INTO @cutoffs VALUES (?, ?) "
            "ON CONFLICT DO UPDATE SET before = max(before, excluded.before)"
        )
        self._find_later_cutoff: Final = sql("SELECT 1 FROM @cutoffs WHERE name = ? AND before > ?")
        self._list_keys: Final = sql("SELECT fingerprint FROM @keys")
        self._insert_key: Final = sql("INSERT INTO @keys VALUES (?) ON CONFLICT DO NOTHING")
        self._delete_cutoffs: Final = sql(
            "DELETE FROM @cutoffs WHERE name IN "
            "(SELECT name FROM @cutoffs WHERE name <> '' AND before <= ? LIMIT ?)"
        )

    # Writes, each within a transaction; their contract is that of the store's method

    def create(self, connection: sqlite3.Connection, record: Record) -> bool:
        """Insert a record; return False if its ID is taken."""
        row = (record.id, record.version, record.seen_at, record.expires_at, record.to_bytes())
        return connection.execute(self._insert, row).rowcount == 1

    def create_many(self, connection: sqlite3.Connection, records: Sequence[Record]) -> list[bool]:
        """Insert all records, or none if an error occurs."""
        with Savepoint(connection):
            return [self.create(connection, record) for record in records]

    def save(self, connection: sqlite3.Connection, record: Record, expected: int) -> SaveResult:
        """Replace the record whose version is the expected one."""
        if self.swap(connection, record, expected):
            return SAVED
        row = connection.execute(self.load, (record.id,)).fetchone()
        return GONE if row is None else Conflict(decode_row(record.id, row))

    def swap(self, connection: sqlite3.Connection, record: Record, expected: int) -> bool:
        """Replace the record whose version is the expected one; return False if there is none."""
        parameters = (
            record.version,
            record.seen_at,
            record.seen_at,
            record.idle_timeout,
            record.absolute_at,
            record.to_bytes(),
            record.id,
            expected,
        )
        return connection.execute(self._update, parameters).rowcount == 1

    def touch(self, connection: sqlite3.Connection, record: Record) -> bool:
        """Move ``seen_at`` forward; the new expiry follows from the stored limits."""
        if self._touch_version(connection, record):
            return True
        row = connection.execute(self.load, (record.id,)).fetchone()
        if row is None:
            return False
        stored = decode_row(record.id, row)
        return self._touch_version(connection, stored.with_seen_at(record.seen_at))

    def _touch_version(self, connection: sqlite3.Connection, record: Record) -> bool:
        parameters = (
            record.seen_at,
            record.seen_at,
            record.idle_timeout,
            record.absolute_at,
            record.id,
            record.version,
        )
        return connection.execute(self._touch, parameters).rowcount == 1

    def delete(self, connection: sqlite3.Connection, session_id: bytes) -> bool:
        """Delete a record; return whether there was one."""
        (existed,) = self.delete_many(connection, (session_id,))
        return existed

    def delete_many(
        self, connection: sqlite3.Connection, session_ids: Sequence[bytes]
    ) -> list[bool]:
        """Delete all records, or none if an error occurs."""
        with Savepoint(connection):
            existed = [
                connection.execute(self._delete, (session_id,)).rowcount == 1
                for session_id in session_ids
            ]
            self._add_revoked(connection, itertools.compress(session_ids, existed))
            return existed

    def _add_revoked(self, connection: sqlite3.Connection, session_ids: Iterable[bytes]) -> None:
        if self._add_events:
            self.events.add_provisional(connection, "revoked", session_ids)

    def delete_expired(
        self, connection: sqlite3.Connection, after: bytes, until: bytes, now: int, limit: int
    ) -> int:
        """Delete expired records with IDs in ``(after, until]``; return their number."""
        return connection.execute(self._delete_expired, (after, until, now, limit)).rowcount

    def save_login(
        self,
        connection: sqlite3.Connection,
        record: Record,
        expected: int,
        limit: SessionLimit | None,
        now: int,
    ) -> SaveLoginResult:
        """Save or insert a record, index it, and evict sessions above the limit."""
        with Savepoint(connection) as savepoint:
            result = self._save_login(connection, record, expected, limit, now)
            if not isinstance(result, LoginSaved):
                savepoint.roll_back()
            return result

    def _save_login(
        self,
        connection: sqlite3.Connection,
        record: Record,
        expected: int,
        limit: SessionLimit | None,
        now: int,
    ) -> SaveLoginResult:
        names = record.index_names()
        login_at = pack_instant(record.authenticated_at)
        for name in names:
            if connection.execute(self._find_later_cutoff, (name, login_at)).fetchone():
                return REVOKED
        inserted = expected == 0 and self.create(connection, record)
        saved = SAVED if inserted else self.save(connection, record, expected)
        if saved is not SAVED:
            return saved
        columns = dict(name.split(":", 1) for name in names)
        excess: list[tuple[bytes]] = []
        if limit is not None and names and self._may_exceed(connection, columns["user"], limit):
            by_idle = limit.policy is LimitPolicy.EVICT_IDLEST
            query = self.list_idlest_excess if by_idle else self.list_oldest_excess
            parameters = (columns["user"], record.id, now, limit.max_sessions - 1)
            excess = connection.execute(query, parameters).fetchall()
            if excess and limit.policy is LimitPolicy.REFUSE:
                return LIMIT_REACHED
            connection.executemany(self._delete, excess)
        connection.execute(self._set_index, (*map(columns.get, INDEX_COLUMNS), record.id))
        evicted = tuple(session_id for (session_id,) in excess)
        self._add_revoked(connection, evicted)
        if not inserted and self._add_events:  # connections have the ticket from before the login
            message = encode_message("rotated", record.id, version=record.version)
            self.events.add(connection, [message])
        return LoginSaved(evicted)

    def _may_exceed(self, connection: sqlite3.Connection, user: str, limit: SessionLimit) -> bool:
        # Reads the index only, so a login below the limit does not read the user's sessions.
        (number,) = connection.execute(self._count_of_user, (user,)).fetchone()
        return bool(number >= limit.max_sessions)

    def invalidate_logins(self, connection: sqlite3.Connection, name: str, before: int) -> None:
        """Set the cutoff of a name; the latest counts."""
        connection.execute(self._set_cutoff, (name, pack_instant(before)))

    def invalidate_all(self, connection: sqlite3.Connection, before: int) -> None:
        """Set the cutoff of all sessions; the latest counts."""
        with Savepoint(connection):
            connection.execute(self._set_cutoff, (_ALL_SESSIONS, pack_instant(before)))
            if self._add_events:
                self.events.add_provisional(connection, "all-before", [b""])

    def register_keys(self, connection: sqlite3.Connection, fingerprints: Sequence[bytes]) -> bool:
        """Add fingerprints to an empty set or to one that has one of them."""
        known = {fingerprint for (fingerprint,) in connection.execute(self._list_keys)}
        if known and known.isdisjoint(fingerprints):
            return False
        with Savepoint(connection):
            added = [(each,) for each in fingerprints if each not in known]
            connection.executemany(self._insert_key, added)
        return True

    def delete_cutoffs(self, connection: sqlite3.Connection, until: int, limit: int) -> int:
        """Delete cutoffs of names that are at ``until`` or earlier; return their number."""
        return connection.execute(self._delete_cutoffs, (pack_instant(until), limit)).rowcount


def decode_row(session_id: bytes, row: Row) -> Record:
    """Return the record of a row, with ``seen_at`` from its column.

    Raises:
        UnreadableRecord: the values are not a record of a known format (law S9).
    """
    seen_at, data = row
    if type(data) is not bytes or type(seen_at) is not int:
        raise UnreadableRecord(f"the row of {session_id.hex()} was not written by this store")
    return Record.from_bytes(session_id, data).with_seen_at(seen_at)


def decode_rows(rows: Iterable[tuple[bytes, int, bytes]]) -> list[Record]:
    """Return the records of ``(id, seen_at, record)`` rows; unreadable ones are omitted."""
    records = []
    for session_id, seen_at, data in rows:
        with contextlib.suppress(UnreadableRecord):
            records.append(decode_row(session_id, (seen_at, data)))
    return records
