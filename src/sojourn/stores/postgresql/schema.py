"""Schema: the tables, their names, and the statements that create and migrate them.

A realm is a column, not a table: its tables are those of every other installation in the schema.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from sojourn.errors import ConfigurationError

#: The version of the tables that this release reads and writes. Version 2 added the history.
SCHEMA_VERSION: Final = 2

#: Key of the advisory lock under which the tables are created and migrated: "sojourn" in ASCII.
SCHEMA_LOCK: Final = int.from_bytes(b"sojourn")

#: SQLSTATE of a migration of tables that another process has migrated.
MIGRATED_MEANWHILE: Final = "SJ001"

_CREATE_HISTORY: Final = (
    """\
CREATE TABLE IF NOT EXISTS @history (
    realm text NOT NULL,
    ended_at bigint NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    expires_at bigint NOT NULL,
    entry bytea NOT NULL,
    PRIMARY KEY (realm, ended_at, id)
)""",
    "CREATE INDEX IF NOT EXISTS sojourn_history_expires ON @history (realm, expires_at)",
)

# No index on expires_at, and a fifth of each page is free: nearly every update then is a
# heap-only tuple, which writes no index. Measured: 27 % more updates and 43 % less WAL.
# Storage is external, because records are encrypted or too small to compress.
# Vacuum runs at a twentieth of dead rows instead of a fifth: it restores the free space of pages
# whose sessions have ended.
_CREATE: Final = (
    """\
CREATE TABLE IF NOT EXISTS @sessions (
    realm text NOT NULL,
    id bytea NOT NULL,
    version bigint NOT NULL,
    seen_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    user_key bytea,
    idp_key bytea,
    record bytea NOT NULL,
    PRIMARY KEY (realm, id)
) WITH (
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_insert_scale_factor = 0.1,
    autovacuum_analyze_scale_factor = 0.05
)""",
    "ALTER TABLE @sessions ALTER record SET STORAGE EXTERNAL",
    """\
CREATE INDEX IF NOT EXISTS sojourn_sessions_user ON @sessions (realm, user_key)
    WHERE user_key IS NOT NULL""",
    """\
CREATE INDEX IF NOT EXISTS sojourn_sessions_idp ON @sessions (realm, idp_key)
    WHERE idp_key IS NOT NULL""",
    """\
CREATE TABLE IF NOT EXISTS @cutoffs (
    realm text NOT NULL,
    name bytea NOT NULL,
    instant bigint NOT NULL,
    PRIMARY KEY (realm, name)
)""",
    """\
CREATE TABLE IF NOT EXISTS @keys (
    realm text NOT NULL,
    fingerprint bytea NOT NULL,
    PRIMARY KEY (realm, fingerprint)
)""",
    *_CREATE_HISTORY,
    """\
CREATE TABLE IF NOT EXISTS @schema (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    version integer NOT NULL
)""",
    # The statements above create what version 1 lacks, so an operator who executes ``schema_sql``
    # again has migrated the tables.
    """\
INSERT INTO @schema AS stored (version) VALUES (@version)
    ON CONFLICT (id) DO UPDATE SET version = @version WHERE stored.version < @version""",
)

#: Stands for a quoted name of a table or for the version.
_PLACEHOLDER: Final = re.compile(r"@(sessions|cutoffs|keys|history|schema|version)\b")

#: From a version to the statements that lead to the next one.
_MIGRATIONS: Final[Mapping[int, Sequence[str]]] = {1: _CREATE_HISTORY}


class Schema:
    """The tables in one schema of a database.

    Args:
        name: of the schema; None for the first one in the user's ``search_path``.

    Attributes:
        name: as given.
        sessions, cutoffs, keys, history, schema: the quoted names of the tables.

    Raises:
        ConfigurationError: the name is empty or contains NUL.
    """

    def __init__(self, name: str | None = None) -> None:
        if name is not None and (not name or "\0" in name):
            raise ConfigurationError(f"schema expects the name of a schema, found {name!r}")
        self.name: Final = name
        prefix = "" if name is None else f"{quote(name)}."
        self.sessions: Final = f"{prefix}sojourn_sessions"
        self.cutoffs: Final = f"{prefix}sojourn_cutoffs"
        self.keys: Final = f"{prefix}sojourn_keys"
        self.history: Final = f"{prefix}sojourn_history"
        self.schema: Final = f"{prefix}sojourn_schema"

    def sql(self, template: str) -> str:
        """Replace the placeholders such as ``@sessions`` by the quoted names."""
        # In one pass, because the name of the schema may contain what looks like a placeholder.
        values = {
            "sessions": self.sessions,
            "cutoffs": self.cutoffs,
            "keys": self.keys,
            "history": self.history,
            "schema": self.schema,
            "version": str(SCHEMA_VERSION),
        }
        return _PLACEHOLDER.sub(lambda match: values[match[1]], template)

    def creation(self) -> list[str]:
        """Return the statements that create missing tables; for one transaction."""
        create_schema = (
            [] if self.name is None else [f"CREATE SCHEMA IF NOT EXISTS {quote(self.name)}"]
        )
        return [*create_schema, *map(self.sql, _CREATE)]

    def migration(self, version: int) -> list[str]:
        """Return the statements that migrate tables of an earlier version; for one transaction.

        The first one fails with ``MIGRATED_MEANWHILE`` if the tables have another version.
        """
        statements = [
            statement
            for number in range(version, SCHEMA_VERSION)
            for statement in _MIGRATIONS[number]
        ]
        check = _CHECK_VERSION.replace("@found", str(version))
        set_version = "UPDATE @schema SET version = @version"
        return [*map(self.sql, (check, *statements, set_version))]


#: Raises ``MIGRATED_MEANWHILE``.
_CHECK_VERSION: Final = f"""\
DO $check_version$ BEGIN
    IF NOT EXISTS (SELECT FROM @schema WHERE version = @found) THEN
        RAISE EXCEPTION 'the tables were migrated meanwhile' USING ERRCODE = '{MIGRATED_MEANWHILE}';
    END IF;
END $check_version$"""


def schema_sql(schema: str | None = None) -> str:
    """Return the SQL that creates or migrates the tables, for a user who may not do so at run time.

    It is one transaction and may be executed again.

    Args:
        schema: the name of the schema; None for the first one in the user's ``search_path``.
    """
    statements = [
        "BEGIN",
        f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})",
        *Schema(schema).creation(),
        "COMMIT",
    ]
    return "".join(f"{statement};\n" for statement in statements)


def quote(name: str) -> str:
    """Return a name as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'
