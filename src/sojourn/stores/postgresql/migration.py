"""Migrator: creates the tables at the first use, and migrates those of an earlier release."""

from __future__ import annotations

import logging
from typing import Any

from sojourn.errors import StoreError
from sojourn.stores.postgresql.connection import Transport
from sojourn.stores.postgresql.errors import (
    INSUFFICIENT_PRIVILEGE,
    INVALID_SCHEMA_NAME,
    UNDEFINED_TABLE,
    ServerError,
)
from sojourn.stores.postgresql.protocol import Outcome, Query
from sojourn.stores.postgresql.schema import SCHEMA_LOCK, SCHEMA_VERSION, Schema
from sojourn.stores.postgresql.encoding import TEXT
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
        """Look at the tables again at the next call of ``prepare``."""
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
        if version != SCHEMA_VERSION:
            try:
                await self._migrate(transport, deadline)
            except ServerError as error:
                if error.sqlstate != INSUFFICIENT_PRIVILEGE:
                    raise
                raise self._cannot_migrate(version, error) from error
        self._is_ready = True

    async def _read_version(self, transport: Transport, deadline: float) -> int | None:
        """Return the version of the tables; None if there are none."""
        try:
            return await self._select_version(transport, deadline)
        except ServerError as error:
            if error.sqlstate in {UNDEFINED_TABLE, INVALID_SCHEMA_NAME}:
                return None
            raise

    async def _select_version(self, transport: Transport, deadline: float) -> int | None:
        select = Query(Statement(self._schema.sql("SELECT version::bigint FROM @schema"), ()), ())
        (outcome,) = await transport.exchange([[select]], deadline)
        (result,) = _results(outcome)
        version = result.get_value(0, 0) if result.ntuples else None
        return None if version is None else int.from_bytes(version)

    async def _migrate(self, transport: Transport, deadline: float) -> None:
        """Create or migrate the tables in one transaction; one process at a time."""
        try:
            lock = _query(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")
            exists = Query(
                Statement("SELECT to_regclass($1) IS NOT NULL", (TEXT,), is_repeated=False),
                (self._schema.schema.encode(),),
            )
            (outcome,) = await transport.exchange([[_query("BEGIN"), lock, exists]], deadline)
            found = _results(outcome)[-1].get_value(0, 0) == b"\x01"
            version = await self._select_version(transport, deadline) if found else None
            if version is not None and version > SCHEMA_VERSION:
                raise StoreError(  # noqa: TRY301 - the transaction must be rolled back
                    f"{self._name}: the tables have version {version}, and this release of "
                    f"sojourn expects {SCHEMA_VERSION}: a newer release migrated them. Update "
                    "sojourn here, too"
                )
            if version is None:
                statements = self._schema.creation()
            elif version < SCHEMA_VERSION:
                statements = self._schema.migration(version)
            else:  # another process was faster
                statements = []
            change = [*map(_query, statements), _query("COMMIT")]
            (outcome,) = await transport.exchange([change], deadline)
            _results(outcome)
        except BaseException:
            transport.reset()  # rolls back
            raise
        if statements:
            done = "created" if version is None else f"migrated from version {version}"
            logger.info("%s: the tables of version %d were %s", self._name, SCHEMA_VERSION, done)

    def _cannot_migrate(self, version: int | None, error: ServerError) -> StoreError:
        found = "do not exist" if version is None else f"have version {version}"
        raised = StoreError(
            f"{self._name}: the tables {found}, version {SCHEMA_VERSION} is expected, and the "
            f"user may not create or change tables (the server answered {str(error)!r}). Execute "
            "the output of `sojourn schema postgresql` as a user who may"
        )
        raised.__cause__ = error
        return raised


def _query(text: str) -> Query:
    return Query(Statement(text, (), is_repeated=False), ())


def _results(outcome: Outcome) -> list[Any]:
    if isinstance(outcome, ServerError):
        raise outcome
    return outcome
