"""Migrator: creates the tables at the first use, and migrates those of an earlier release."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from psycopg import pq

from sojourn.errors import StoreError
from sojourn.stores.postgresql.connection import Transport
from sojourn.stores.postgresql.errors import (
    INSUFFICIENT_PRIVILEGE,
    INVALID_SCHEMA_NAME,
    UNDEFINED_TABLE,
    ServerError,
)
from sojourn.stores.postgresql.pipeline import Query
from sojourn.stores.postgresql.schema import (
    MIGRATED_MEANWHILE,
    SCHEMA_LOCK,
    SCHEMA_VERSION,
    Schema,
)
from sojourn.stores.postgresql.statements import Statement

logger: logging.Logger = logging.getLogger("sojourn")


class Migrator:
    """Creates and migrates the tables of one store, once in each process.

    Args:
        schema: the tables.
        name: of the store, for messages.
    """

    __slots__ = ("_is_ready", "_name", "_schema")

    def __init__(self, schema: Schema, name: str) -> None:
        self._schema = schema
        self._name = name
        self._is_ready = False

    def check_again(self) -> None:
        """Check the tables again at the next call of ``prepare``."""
        self._is_ready = False

    async def prepare(self, transport: Transport, deadline: float) -> None:
        """Create or migrate the tables unless they are known to be those of this release.

        Raises:
            ConnectionLost: the server did not answer.
            ServerError: it rejected a statement.
            StoreError: an operator must create or migrate the tables, or update the application.
        """
        if self._is_ready:
            return
        version = await self._read_version(transport, deadline)
        if version is None or version < SCHEMA_VERSION:
            found = await self._migrate(version, transport, deadline)
            done = "created" if version is None else f"migrated from version {version}"
            logger.info("%s: the tables of version %s were %s", self._name, found, done)
            version = found
        if version is not None and version > SCHEMA_VERSION:
            raise StoreError(
                f"{self._name}: the tables have version {version}, and this release of sojourn "
                f"expects {SCHEMA_VERSION}: a newer release migrated them. Update sojourn here, too"
            )
        self._is_ready = True

    async def _read_version(self, transport: Transport, deadline: float) -> int | None:
        """Return the version of the tables; None if there are none."""
        (outcome,) = await transport.exchange([[self._version_query()]], deadline)
        if isinstance(outcome, ServerError):
            if outcome.sqlstate in {UNDEFINED_TABLE, INVALID_SCHEMA_NAME}:
                return None
            raise outcome
        return _version_in(outcome)

    def _version_query(self) -> Query:
        return _query(self._schema.sql("SELECT version::bigint FROM @schema"))

    async def _migrate(
        self, version: int | None, transport: Transport, deadline: float
    ) -> int | None:
        """Create or migrate the tables in one transaction; return their version.

        Another process may do so at the same time.
        """
        schema = self._schema
        statements = schema.creation() if version is None else schema.migration(version)
        # Under another isolation level, its snapshot would be older than the lock.
        transaction = [
            _query("BEGIN ISOLATION LEVEL READ COMMITTED"),
            _query(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})"),
            *map(_query, statements),
            self._version_query(),
            _query("COMMIT"),
        ]
        (outcome,) = await transport.exchange([transaction], deadline)
        if isinstance(outcome, ServerError):
            if outcome.sqlstate in {INSUFFICIENT_PRIVILEGE, INVALID_SCHEMA_NAME}:
                raise self._cannot_migrate(version, outcome)
            if outcome.sqlstate != MIGRATED_MEANWHILE:
                raise outcome
            return await self._read_version(transport, deadline)
        return _version_in(outcome[:-1])

    def _cannot_migrate(self, version: int | None, error: ServerError) -> StoreError:
        found = "do not exist" if version is None else f"have version {version}"
        raised = StoreError(
            f"{self._name}: the tables {found}, version {SCHEMA_VERSION} is expected, and the "
            f"user may not create or change tables (the server answered {str(error)!r}). Execute "
            "the SQL that `sojourn schema postgresql` prints "
            "(sojourn.stores.postgresql.schema_sql()) as a user who may"
        )
        raised.__cause__ = error
        return raised


def _query(text: str) -> Query:
    return Query(Statement(text, (), is_repeated=False), ())


def _version_in(results: Sequence[pq.abc.PGresult]) -> int | None:
    """Return the version that the last statement has read; None if the row is missing."""
    result = results[-1]
    version = result.get_value(0, 0) if result.ntuples else None
    return None if version is None else int.from_bytes(version)
