"""Replies: errors of the server, by their code, whichever client read them.

What lives here: ``Refusal``, and what each code means for a caller. What must not: connections.
The codes are those of the server's source (``src/server.c``, ``createSharedObjects``).
"""

from __future__ import annotations

import re
from typing import Final

from sojourn.errors import StoreError, StoreUnavailable

#: The server is there and cannot work: starting, without a master, in the middle of a fail-over.
PASSING: Final = frozenset(
    {
        *("LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY", "NOREPLICAS", "BUSY"),
        *("MOVED", "ASK", "UNBLOCKED"),
    }
)

#: What to do about codes that pass only when somebody acts.
_REMEDIES: Final = {
    "OOM": "the server is full (maxmemory, noeviction): give it more memory or shorter timeouts",
    "NOAUTH": "the server wants a password: put user and password into the URL",
    "WRONGPASS": "user and password in the URL are not those of the server",
    "NOPERM": "the ACL user lacks a command or key; docs/valkey.md lists what is needed",
    "MISCONF": "the server cannot write to its disk and refuses changes; see its log",
    "WRONGTYPE": "another program uses a key with the same prefix; give each its own prefix",
}

#: How Redis before 7 wraps what stopped a command of a script (``src/scripting.c``).
_IN_SCRIPT: Final = re.compile(r"@user_script: ?\d+: -(?=[A-Z]+ )")


class Refusal(Exception):
    """An error that the server answered.

    Attributes:
        code: its first word, such as ``NOSCRIPT``; ``ERR`` where there is none.
    """

    def __init__(self, text: str) -> None:
        wrapped = _IN_SCRIPT.search(text)
        if wrapped is not None:
            text = text[wrapped.end() :]
        super().__init__(text)
        word = text.split(" ", 1)[0]
        self.code: str = word if word.isupper() and word.isalpha() else "ERR"


def is_split(reply: object) -> bool:
    """Tell whether a command did nothing because its slot is on its way, and its keys are apart."""
    return isinstance(reply, Refusal) and reply.code == "TRYAGAIN"


def as_store_error(refusal: Refusal, *, shut_out: bool = False) -> StoreError:
    """Return what a caller gets for an error of the server.

    Args:
        refusal: the error.
        shut_out: the server did not let us in, so it is as good as away, and for all calls.
    """
    passing = refusal.code in PASSING or "max number of clients" in str(refusal)
    kind = StoreUnavailable if passing or shut_out else StoreError
    remedy = "try again later" if passing else _REMEDIES.get(refusal.code, "nothing was written")
    error = kind(f"the server answered {str(refusal)!r}: {remedy}")
    error.__cause__ = refusal
    return error
