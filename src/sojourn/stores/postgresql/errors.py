"""Errors of the server and of the connection, and what each means for a caller.

Conditions are the SQLSTATE codes of PostgreSQL's manual, appendix A.
"""

from __future__ import annotations

from typing import Final

from sojourn.errors import StoreError, StoreUnavailable

UNDEFINED_TABLE: Final = "42P01"
INVALID_SCHEMA_NAME: Final = "3F000"
INSUFFICIENT_PRIVILEGE: Final = "42501"

#: The statement changed nothing and may succeed if it is repeated: a serialization failure, a
#: deadlock, or a prepared statement whose tables were migrated.
REPEATABLE: Final = frozenset({"40001", "40P01", "0A000"})

#: A prepared statement is missing or belongs to another client: the connection leads to a pooler
#: that shares the server's connections between transactions.
PREPARED_STATEMENT_ERRORS: Final = frozenset({"26000", "42P05"})

#: Classes of conditions that end by themselves, or when an operator acts.
_UNAVAILABLE_CLASSES: Final = frozenset(
    {
        "08",  # connection exception; a pooler's errors
        "25",  # a replica that is read-only
        "28",  # invalid authorization
        "3D",  # the database does not exist
        "40",  # transaction rollback: deadlock, serialization failure
        "53",  # insufficient resources: disk full, out of memory, too many connections
        "55",  # object not in the required state: lock not available
        "57",  # operator intervention: shutdown, starting up, query cancelled
        "58",  # system error: I/O
        "XX",  # internal error: damaged data
    }
)

#: What to do about conditions that persist until an operator acts.
_REMEDIES: Final = {
    "28000": "check the user in the URL and pg_hba.conf of the server",
    "28P01": "user and password in the URL are not those of the server",
    "3D000": "create the database, or correct its name in the URL",
    "25006": "the server is a replica or read-only; name the primary in the URL",
    "53100": "the disk of the server is full: free some space",
    "53300": "raise max_connections, or put a pooler in front of the server",
    INSUFFICIENT_PRIVILEGE: (
        "grant the user SELECT, INSERT, UPDATE and DELETE on the tables of sojourn and USAGE on "
        "their schema"
    ),
    UNDEFINED_TABLE: (
        "create the tables with the SQL that `sojourn schema postgresql` prints "
        "(sojourn.stores.postgresql.schema_sql())"
    ),
    INVALID_SCHEMA_NAME: "create the schema that the URL names, or correct its name",
    "42703": "another program has a table of this name; give sojourn its own with ?schema=",
}


class ConnectionLost(Exception):
    """The connection could not be established, or was lost.

    Attributes:
        timed_out: the server did not answer before the deadline.
        was_sent: requests may have been executed.
    """

    def __init__(self, text: str, *, timed_out: bool = False, was_sent: bool = False) -> None:
        super().__init__(text)
        self.timed_out: bool = timed_out
        self.was_sent: bool = was_sent


class ServerError(Exception):
    """An error message of the server; the statement's transaction was rolled back.

    Attributes:
        sqlstate: five characters; ``00000`` if the server sent none.
        closes_connection: its severity is FATAL or higher.
    """

    def __init__(self, text: str, *, sqlstate: str | None, closes_connection: bool = False) -> None:
        super().__init__(text)
        self.sqlstate: str = sqlstate or "00000"
        self.closes_connection: bool = closes_connection

    @property
    def is_transient(self) -> bool:
        """Whether the server rejects all work at present; another host of the URL may accept it."""
        return self.closes_connection or self.sqlstate.startswith(("08", "25006", "57P", "58"))


def as_store_error(error: ServerError, name: str) -> StoreError:
    """Return the store's error for a message of the server.

    Args:
        error: the message.
        name: of the store, for the text.
    """
    code = error.sqlstate
    is_unavailable = code[:2] in _UNAVAILABLE_CLASSES or code == INSUFFICIENT_PRIVILEGE
    kind = StoreUnavailable if is_unavailable or error.closes_connection else StoreError
    remedy = _REMEDIES.get(code)
    if remedy is None:
        remedy = "try again later" if kind is StoreUnavailable else "nothing was written"
    raised = kind(f"{name}: the server answered {str(error)!r} (SQLSTATE {code}): {remedy}")
    raised.__cause__ = error
    return raised
