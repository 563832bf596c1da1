"""The tables of a database file: what they are called, how they are made and brought up to date.

What lives here: every statement that makes or alters something. What must not: records
(``sqlite_table.py``) and the file (``sqlite.database.py``, which runs these statements in one
transaction whenever a store opens it).

A file has one version, and for each realm that was ever opened in it a table of sessions and one of
marks: for each name the instant before which a login is void, and under no name the instant before
which every session is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

#: Of the tables; 2 has a column for the session at an identity provider.
VERSION: Final = 2

#: The columns by which sessions are found, called as the names of ``Record.index_names`` begin.
NAMES: Final = ("user", "idp_sid")

_ADD_IDP_SID: Final = "ALTER TABLE @sessions ADD COLUMN idp_sid TEXT"

_NEW: Final = (
    (
        "CREATE TABLE @sessions (id BLOB PRIMARY KEY, version INTEGER NOT NULL, "
        "seen_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, user TEXT, record BLOB NOT NULL) "
        "WITHOUT ROWID"
    ),
    _ADD_IDP_SID,
)

# No index on expires_at: it would cost 60-70 % of the write speed (formats.md).
_REST: Final = (
    *(
        f"CREATE INDEX IF NOT EXISTS @by_{name} ON @sessions ({name}) WHERE {name} IS NOT NULL"
        for name in NAMES
    ),
    "CREATE TABLE IF NOT EXISTS @marks (name TEXT PRIMARY KEY, before BLOB NOT NULL) WITHOUT ROWID",
)

_TABLES: Final = (
    "SELECT name FROM sqlite_master "
    "WHERE type = 'table' AND (name = 'sessions' OR name GLOB 'sessions_*')"
)


class Schema:
    """What the tables of one realm are called (law S14).

    Args:
        realm: the installation's namespace.
    """

    def __init__(self, realm: str) -> None:
        self.sessions: Final = "sessions" if realm == "default" else f"sessions_{_fold(realm)}"
        self._names: Final = {
            "@sessions": _quote(self.sessions),
            "@marks": _quote(f"marks:{self.sessions}"),
            **{f"@by_{name}": _quote(f"by_{name}:{self.sessions}") for name in NAMES},
        }

    def sql(self, text: str) -> str:
        """Put the names of this realm in place of ``@sessions`` and ``@marks``."""
        for placeholder, name in self._names.items():
            text = text.replace(placeholder, name)
        return text

    def missing(self, connection: sqlite3.Connection) -> Iterator[str]:
        """Yield the statements that bring a file up to date and give it this realm's tables."""
        tables = {name for (name,) in connection.execute(_TABLES)}
        if connection.execute("PRAGMA user_version").fetchone()[0] == 1:
            for table in tables:  # of all realms: their stores will find the version raised
                yield _ADD_IDP_SID.replace("@sessions", _quote(table))
        if self.sessions not in tables:
            yield from map(self.sql, _NEW)
        yield from map(self.sql, _REST)


def _fold(realm: str) -> str:
    """Spell a realm so that names which SQLite would take for one stay two: 'A' becomes '^a'."""
    return "".join(f"^{c.lower()}" if "A" <= c <= "Z" or c == "^" else c for c in realm)


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
