"""Errors of the server and of the connection, and what each means for a caller.

Error codes are those of the server's source (``src/server.c``, ``createSharedObjects``).
"""

from __future__ import annotations

import re
from typing import Final

from sojourn.errors import StoreError, StoreUnavailable

#: Codes of a server that cannot work for now: starting, without a primary, during a failover.
TRANSIENT_CODES: Final = frozenset(
    {
        *("LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY", "NOREPLICAS", "BUSY"),
        *("MOVED", "ASK", "UNBLOCKED"),
    }
)

#: Codes of a server that works in part or rejects this client until an operator acts: calls fail as
#: unavailable (503 with Retry-After), and the connection stays, since others may succeed.
_REFUSING_CODES: Final = frozenset({"OOM", "MISCONF", "NOAUTH", "WRONGPASS", "NOPERM"})

#: What to do about codes that persist until an operator acts.
_REMEDIES: Final = {
    "OOM": "the server is full (maxmemory, noeviction): give it more memory or shorter timeouts",
    "NOAUTH": "the server requires a password: put user and password into the URL",
    "WRONGPASS": "user and password in the URL are not those of the server",
    "NOPERM": "the ACL user lacks a command or key; docs/valkey.md lists what is needed",
    "READONLY": (
        "it is a replica: try again later if a failover is in progress, or name the primary in the "
        "URL"
    ),
    "MISCONF": "the server cannot write to its disk and refuses changes; see its log",
    "WRONGTYPE": "another program uses a key with the same prefix; give each its own prefix",
}

#: What follows the name of an unknown command: its arguments, as those of AUTH.
_ARGUMENTS: Final = ", with args beginning with:"

#: How Redis before 7 wraps an error of a command in a script (``src/scripting.c``).
_SCRIPT_ERROR_PREFIX: Final = re.compile(r"@user_script: ?\d+: -(?=[A-Z]+ )")


class ConnectionLost(Exception):
    """The connection could not be established, or was lost.

    Attributes:
        timed_out: the server did not answer before the deadline.
    """

    def __init__(self, text: str, *, timed_out: bool = False) -> None:
        super().__init__(text)
        self.timed_out: bool = timed_out


class ServerError(Exception):
    """An error reply of the server.

    Attributes:
        code: its first word, such as ``NOSCRIPT``; ``ERR`` if there is none.
    """

    def __init__(self, text: str) -> None:
        prefix = _SCRIPT_ERROR_PREFIX.search(text)
        if prefix is not None:
            text = text[prefix.end() :]
        text = text.partition(_ARGUMENTS)[0]  # they may be a password or the data of a session
        super().__init__(text)
        word = text.split(" ", 1)[0]
        self.code: str = word if word.isupper() and word.isalpha() else "ERR"


def has_code(reply: object, *codes: str) -> bool:
    """Return whether a reply is an error with one of the codes."""
    return isinstance(reply, ServerError) and reply.code in codes


def parse_redirection(error: ServerError) -> tuple[int, str, int]:
    """Return slot, host and port of a MOVED or ASK error.

    The host is empty if the node does not know its own name; the sender's host is meant.
    """
    _, slot, location = str(error).split(" ")[:3]
    host, _, port = location.rpartition(":")
    return int(slot), "" if host == "?" else host, int(port)


def connect_failed(error: BaseException) -> ConnectionLost:
    """Return the error for a failed attempt to connect."""
    if isinstance(error, TimeoutError):
        return ConnectionLost("it could not be reached in time", timed_out=True)
    return ConnectionLost(f"it could not be reached ({error})")


def connection_lost(error: BaseException | None) -> ConnectionLost:
    """Return the error for an established connection that failed; None: the server closed it."""
    if isinstance(error, TimeoutError):
        return ConnectionLost("no answer in time", timed_out=True)
    return ConnectionLost(f"the connection broke ({error or 'closed by the server'})")


def as_store_error(error: ServerError, *, access_denied: bool = False) -> StoreError:
    """Return the store's error for an error reply.

    Args:
        error: the reply.
        access_denied: the server rejected the connection itself, so no call can succeed.
    """
    is_transient = error.code in TRANSIENT_CODES or "max number of clients" in str(error)
    is_unavailable = is_transient or access_denied or error.code in _REFUSING_CODES
    kind = StoreUnavailable if is_unavailable else StoreError
    fallback = "try again later" if is_transient else "nothing was written"
    if access_denied and not is_transient:
        fallback = "correct user, password and database in the URL"
    remedy = _REMEDIES.get(error.code, fallback)
    raised = kind(f"the server answered {str(error)!r}: {remedy}")
    raised.__cause__ = error
    return raised
