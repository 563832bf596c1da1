"""Schema: the tables of a database file, their names, creation and migration."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from typing import Final

#: Version 2 added a column for the session at an identity provider.
SCHEMA_VERSION: Final = 2

#: The indexed columns, named as the prefixes of ``Record.index_names``.
INDEX_COLUMNS: Final = ("user", "idp_sid")

_ADD_IDP_SID: Final = "ALTER TABLE @sessions ADD COLUMN idp_sid TEXT"

_CREATE_SESSIONS: Final = (
    (
        "CREATE TABLE @sessions (id BLOB PRIMARY KEY, version INTEGER NOT NULL, "
        "seen_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, user TEXT, record BLOB NOT NULL) "
        "WITHOUT ROWID"
    ),
    _ADD_IDP_SID,
)

# No index on expires_at: it would cost 60-70 % of the write speed.
_CREATE_IF_MISSING: Final = (
    *(
        f"CREATE INDEX IF NOT EXISTS @by_{name} ON @sessions ({name}) WHERE {name} IS NOT NULL"
        for name in INDEX_COLUMNS
    ),
    (
        "CREATE TABLE IF NOT EXISTS @cutoffs (name TEXT PRIMARY KEY, before BLOB NOT NULL) "
        "WITHOUT ROWID"
    ),
    "CREATE TABLE IF NOT EXISTS @keys (fingerprint BLOB PRIMARY KEY) WITHOUT ROWID",
    # AUTOINCREMENT: numbers are never reused, so a subscriber detects rows that were deleted.
    (
        "CREATE TABLE IF NOT EXISTS @events (number INTEGER PRIMARY KEY AUTOINCREMENT, "
        "at INTEGER NOT NULL, provisional INTEGER NOT NULL, message BLOB NOT NULL)"
    ),
    (
        "CREATE TABLE IF NOT EXISTS @history (number INTEGER PRIMARY KEY, "
        "ended_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, entry BLOB NOT NULL)"
    ),
    "CREATE INDEX IF NOT EXISTS @by_ended_at ON @history (ended_at)",
    "CREATE INDEX IF NOT EXISTS @by_expires_at ON @history (expires_at)",
)

_LIST_SESSION_TABLES: Final = (
    "SELECT name FROM sqlite_master "
    "WHERE type = 'table' AND (name = 'sessions' OR name GLOB 'sessions_*')"
)


class Schema:
    """The table names of one realm (law S14).

    A file has one schema version. For each realm that was opened in it there is a table of
    sessions, a table of fingerprints of the application's keys, a table of events, which are the
    broadcast messages of the last minute (``events_table.py``), a table of ended sessions
    (``history.py``), and a table of cutoffs (stored under the name ``marks``): the instant before
    which logins under a name are invalid and, under the empty name, the instant before which all
    sessions are.

    Args:
        realm: the installation's namespace.

    Attributes:
        sessions: the name of the realm's table of sessions, unquoted.
        events: the name of its table of events, unquoted.
    """

    def __init__(self, realm: str) -> None:
        self.sessions: Final = (
            "sessions" if realm == "default" else f"sessions_{_escape_case(realm)}"
        )
        self.events: Final = f"events:{self.sessions}"
        self._names: Final = {
            "@sessions": _quote(self.sessions),
            "@cutoffs": _quote(f"marks:{self.sessions}"),
            "@keys": _quote(f"keys:{self.sessions}"),
            "@events": _quote(self.events),
            "@history": _quote(f"history:{self.sessions}"),
            "@by_ended_at": _quote(f"by_ended_at:{self.sessions}"),
            "@by_expires_at": _quote(f"by_expires_at:{self.sessions}"),
            **{f"@by_{name}": _quote(f"by_{name}:{self.sessions}") for name in INDEX_COLUMNS},
        }

    def sql(self, template: str) -> str:
        """Replace the placeholders such as ``@sessions`` by the quoted names of this realm."""
        for placeholder, name in self._names.items():
            template = template.replace(placeholder, name)
        return template

    def migrations(self, connection: sqlite3.Connection) -> Iterator[str]:
        """Yield the statements that bring the file to ``SCHEMA_VERSION`` with this realm's tables.

        They must run in one transaction.
        """
        tables = {name for (name,) in connection.execute(_LIST_SESSION_TABLES)}
        if connection.execute("PRAGMA user_version").fetchone()[0] == 1:
            for table in tables:  # of all realms, because the version is the file's
                yield _ADD_IDP_SID.replace("@sessions", _quote(table))
        if self.sessions not in tables:
            yield from map(self.sql, _CREATE_SESSIONS)
        yield from map(self.sql, _CREATE_IF_MISSING)


def realms_of(connection: sqlite3.Connection) -> list[str]:
    """Return the realms that have tables in a database, in alphabetical order."""
    tables = [name for (name,) in connection.execute(_LIST_SESSION_TABLES)]
    return sorted(
        "default" if name == "sessions" else _unescape_case(name.removeprefix("sessions_"))
        for name in tables
    )


def _escape_case(realm: str) -> str:
    """Encode upper case as '^' and lower case ('A': '^a'), because SQLite ignores case in names."""
    return "".join(f"^{c.lower()}" if "A" <= c <= "Z" or c == "^" else c for c in realm)


def _unescape_case(name: str) -> str:
    return re.sub(r"\^(.)", lambda match: match[1].upper(), name)


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
