"""Inspector: queries the server of a store for its state and its settings."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import psycopg

from sojourn.errors import StoreUnavailable
from sojourn.stores.postgresql.errors import PREPARED_STATEMENT_ERRORS, ServerError
from sojourn.stores.postgresql.schema import SCHEMA_VERSION, Schema
from sojourn.stores.postgresql.store import PostgresStore

#: How often two connections are compared: other clients of a pooler may take the connection first.
_MAX_COMPARISONS: Final = 5

#: Seconds for the request to cancel a query, which a server that hangs does not answer.
_CANCEL_TIMEOUT: Final = 1.0

_PRIVILEGES: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")


class ConnectFailed(Exception):
    """A connection could not be established.

    Attributes:
        needs_password: the server requires one, and none was given.
        used_password: a password was sent.
    """

    def __init__(self, error: psycopg.Error) -> None:
        super().__init__(" ".join(str(error).split()))
        pgconn = error.pgconn
        self.needs_password: bool = pgconn is not None and bool(pgconn.needs_password)
        self.used_password: bool = pgconn is not None and bool(pgconn.used_password)


class Tables(msgspec.Struct, frozen=True):
    """The tables of a store, as far as its user may read them.

    Attributes:
        schema: where they are, or would be created; None if there is no such schema.
        version: None if there are none.
        expected: the version of this release.
        missing: the privileges that the user lacks, such as ``INSERT on sojourn_sessions``.
        may_create: whether the user may create tables in the schema.
    """

    schema: str | None
    version: int | None
    expected: int
    missing: tuple[str, ...]
    may_create: bool


class Inspector:
    """Executes queries that the store itself does not need, on a connection of its own.

    Args:
        store: whose server is examined.
        timeout: seconds for connecting, and for each query.
    """

    def __init__(self, store: PostgresStore, timeout: float) -> None:
        self._store = store
        self._timeout = timeout
        self._connection: psycopg.Connection[Any] | None = None

    def connect(self) -> None:
        """Connect.

        Raises:
            ConnectFailed: the server is unreachable or rejected the connection.
            StoreError: the address of an application's pool is unknown.
        """
        self._connection = self._connect()

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            return self._store.source.connect(self._timeout)
        except psycopg.Error as error:
            raise ConnectFailed(error) from error

    def query(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query.

        Args:
            sql: with ``%s`` for the parameters.
            parameters: their values.

        Raises:
            ServerError: the server rejected it.
            StoreUnavailable: the server did not answer in time; the connection is closed.
        """
        return self._query(self._connected(), sql, *parameters)

    def _connected(self) -> psycopg.Connection[Any]:
        assert self._connection is not None  # noqa: S101 - `connect` comes first
        return self._connection

    def _query(
        self,
        connection: psycopg.Connection[Any],
        sql: str,
        *parameters: object,
        prepare: bool = False,
    ) -> list[tuple[Any, ...]]:
        timed_out = threading.Event()
        timer = threading.Timer(self._timeout, _interrupt, (connection, timed_out))
        timer.daemon = True
        timer.start()
        try:
            # psycopg accepts literals only; every caller gives constants and quoted names.
            cursor = connection.execute(sql.encode(), parameters or None, prepare=prepare)
            return cursor.fetchall() if cursor.description is not None else []
        except psycopg.Error as error:
            if timed_out.is_set():
                raise StoreUnavailable(
                    f"no answer to a query in {self._timeout:g} s; see pg_stat_activity for "
                    "another session that holds a lock on the table"
                ) from error
            text = " ".join(str(error).split())
            raise ServerError(text, sqlstate=error.sqlstate) from error
        finally:
            timer.cancel()

    def setting(self, name: str) -> str:
        """Return a setting of the session, such as ``on`` or ``250ms``; empty if it is unknown."""
        rows = self.query("SELECT current_setting(%s, true)", name)
        return str(rows[0][0] or "")

    # Tables

    def tables(self) -> Tables:
        """Return the state of the tables; nothing is created or migrated.

        Raises:
            ServerError: the server rejected a query.
        """
        tables = self._store.tables
        [(schema, may_create)] = self.query(
            "SELECT name, coalesce(has_schema_privilege(name, 'CREATE'), "
            "has_database_privilege(current_database(), 'CREATE')) FROM (SELECT "
            "CASE WHEN %s::text IS NULL THEN current_schema()::text ELSE (SELECT nspname::text "
            "FROM pg_namespace WHERE nspname = %s) END AS name) AS found",
            tables.name,
            tables.name,
        )
        if schema and self.query("SELECT has_schema_privilege(%s, 'USAGE')", schema) == [(False,)]:
            missing: tuple[str, ...] = (f"USAGE on schema {schema}",)
            return Tables(schema, SCHEMA_VERSION, SCHEMA_VERSION, missing, bool(may_create))
        [(exists,)] = self.query("SELECT to_regclass(%s) IS NOT NULL", tables.schema)
        missing = tuple(self._missing_privileges(tables))
        version: int | None = None
        if exists and f"SELECT on {tables.schema}" not in missing:
            rows = self.query(f"SELECT version FROM {tables.schema}")  # noqa: S608 - a quoted name
            version = rows[0][0] if rows else None
        elif exists:
            version = SCHEMA_VERSION  # exists and is unreadable, which `missing` says
        return Tables(schema, version, SCHEMA_VERSION, missing, bool(may_create))

    def _missing_privileges(self, tables: Schema) -> Iterator[str]:
        data = (tables.sessions, tables.cutoffs, tables.keys, tables.history)
        for table in (*data, tables.schema):
            needed = _PRIVILEGES if table != tables.schema else ("SELECT",)
            for privilege in needed:
                [(granted,)] = self.query(
                    "SELECT has_table_privilege(to_regclass(%s), %s)", table, privilege
                )
                if granted is False:  # None if the table does not exist
                    yield f"{privilege} on {table}"

    def fingerprints(self, realm: str) -> frozenset[bytes]:
        """Return the fingerprints of the keys that use a realm.

        Raises:
            ServerError: the table does not exist, or the user may not read it.
        """
        keys = self._store.tables.keys
        rows = self.query(f"SELECT fingerprint FROM {keys} WHERE realm = %s", realm)  # noqa: S608 - a quoted name
        return frozenset(bytes(fingerprint) for (fingerprint,) in rows)

    # Poolers

    def is_pooled(self) -> bool:
        """Return whether a pooler such as PgBouncer answers instead of the server."""
        return self._is_pooled(self._connected())

    def _is_pooled(self, connection: psycopg.Connection[Any]) -> bool:
        # A pooler gives each client a process ID of its own.
        [(process_id,)] = self._query(connection, "SELECT pg_backend_pid()")
        return bool(process_id != connection.pgconn.backend_pid)

    def allows_transactions(self) -> bool:
        """Return whether a transaction may have several statements; not in statement mode.

        The rejection closes the connection, so a new one is used.

        Raises:
            ConnectFailed: the server rejected the connection.
        """
        with contextlib.closing(self._connect()) as connection:
            try:
                self._query(connection, "BEGIN")
                self._query(connection, "ROLLBACK")
            except ServerError:
                return False
            return True

    def shares_connections(self) -> bool:
        """Return whether two clients use one connection of the server, as in transaction mode.

        Raises:
            ConnectFailed: the server rejected the connection.
            ServerError: the server rejected a query.
        """
        with contextlib.closing(self._connect()) as other:
            for _ in range(_MAX_COMPARISONS):
                own = self._query(self._connected(), "SELECT pg_backend_pid()")
                if self._query(other, "SELECT pg_backend_pid()") == own:
                    return True
        return False

    def keeps_prepared_statements(self) -> bool:
        """Return whether a statement that was prepared can be executed in a later transaction.

        Raises:
            ConnectFailed: the server rejected the connection.
            ServerError: the server rejected a query.
        """
        with contextlib.closing(self._connect()) as preparing:
            for _ in range(_MAX_COMPARISONS):
                sql = "SELECT pg_backend_pid() AS sojourn_doctor"
                own = self._query(preparing, sql, prepare=True)
                with contextlib.closing(self._connect()) as other:
                    # While the transaction of the other client holds the connection on which the
                    # statement was prepared, the pooler has to use another one.
                    self._query(other, "BEGIN")
                    is_held = self._query(other, "SELECT pg_backend_pid()") == own
                    try:
                        if is_held:
                            self._query(preparing, sql, prepare=True)
                    except ServerError as error:
                        if error.sqlstate in PREPARED_STATEMENT_ERRORS:
                            return False
                        raise
                    if is_held:
                        return True
        return True

    def listener_is_pooled(self) -> bool:
        """Return whether a pooler answers on the connection that listens for broadcasts.

        Raises:
            ConnectFailed: the server rejected the connection.
            ServerError: the server rejected a query.
        """
        try:
            connection = self._store.connect_listener()
        except psycopg.Error as error:
            raise ConnectFailed(error) from error
        with contextlib.closing(connection):
            return self._is_pooled(connection)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()


def _interrupt(connection: psycopg.Connection[Any], timed_out: threading.Event) -> None:
    """End a query that takes too long: psycopg waits without a limit."""
    timed_out.set()
    with contextlib.suppress(psycopg.Error):
        connection.cancel_safe(timeout=_CANCEL_TIMEOUT)  # otherwise it goes on in the server
    with contextlib.suppress(psycopg.Error, OSError):
        copy = socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM)
        with copy:
            copy.shutdown(socket.SHUT_RDWR)
