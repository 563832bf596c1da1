"""Lua scripts: steps that the server must execute atomically. Their text is in ``lua/``."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from typing import Final

from sojourn.record import FORMAT

# The layout of a stored value: the byte NO_NAMES + n, n digests of the names under which the
# session is indexed, the record. These constants precede every script as local variables.

#: The first byte of the value of a session without names.
NO_NAMES: Final = 0xA0

#: Bytes of the digest of a name.
DIGEST_BYTES: Final = 16

#: Names of one session: its user, and its session at an identity provider.
MAX_NAMES: Final = 2

#: Milliseconds that the server keeps a record after its end. The core decides expiry and reports an
#: expired record; this is garbage collection.
TTL_MARGIN: Final = 60_000

#: Members of an index above which each login checks as many random ones.
CLEANING_SAMPLE: Final = 16

#: The most members of an index that one script examines for a limit of sessions: of a larger index,
#: those added first and random others. Each costs the server about 10 µs.
EXAMINED_MEMBERS: Final = 256
EXAMINED_OLDEST: Final = 192

#: The first byte of the set of key fingerprints, and the bytes of one.
FINGERPRINTS_FORMAT: Final = 1
FINGERPRINT_BYTES: Final = 8

# Positions in a record, from 0; the version is at 2. Numbers have 8 bytes, big-endian.
SEEN_AT: Final = 10
CREATED_AT: Final = 18
AUTHENTICATED_AT: Final = 26
ABSOLUTE_AT: Final = 34
IDLE_TIMEOUT: Final = 42

_CONSTANTS: Final = {
    "FORMAT": FORMAT,
    "NO_NAMES": NO_NAMES,
    "DIGEST_BYTES": DIGEST_BYTES,
    "MAX_NAMES": MAX_NAMES,
    "TTL_MARGIN": TTL_MARGIN,
    "CLEANING_SAMPLE": CLEANING_SAMPLE,
    "EXAMINED_MEMBERS": EXAMINED_MEMBERS,
    "EXAMINED_OLDEST": EXAMINED_OLDEST,
    "FINGERPRINTS_FORMAT": FINGERPRINTS_FORMAT,
    "FINGERPRINT_BYTES": FINGERPRINT_BYTES,
    "SEEN_AT": SEEN_AT,
    "CREATED_AT": CREATED_AT,
    "AUTHENTICATED_AT": AUTHENTICATED_AT,
    "ABSOLUTE_AT": ABSOLUTE_AT,
    "IDLE_TIMEOUT": IDLE_TIMEOUT,
}

_INCLUDE: Final = re.compile(r"^-- include (\S+)\n", re.MULTILINE)


class Script:
    """A script, which accesses only the keys it is given.

    ``login.lua`` and ``evict.lua`` access other records of the user, so they need a single server.

    A line ``-- include name.lua`` stands for the file ``lua/include/name.lua``, which may include
    others; each is included once.

    Args:
        name: of a file in ``lua/``.

    Attributes:
        text: what EVAL takes.
        sha: what EVALSHA takes.
    """

    __slots__ = ("sha", "text")

    def __init__(self, name: str) -> None:
        names, values = ", ".join(_CONSTANTS), ", ".join(map(str, _CONSTANTS.values()))
        self.text: str = f"local {names} = {values}\n{_read(name, set())}"
        self.sha: str = hashlib.sha1(self.text.encode()).hexdigest()  # noqa: S324 - as the server does


def _read(path: str, included: set[str]) -> str:
    """Return the text of a file with its includes."""

    def include(found: re.Match[str]) -> str:
        if found[1] in included:
            return ""
        included.add(found[1])
        return _read(f"include/{found[1]}", included)

    text = files("sojourn.stores.redis").joinpath("lua", path).read_text("utf-8")
    return _INCLUDE.sub(include, text)


WRITE: Final = Script("write.lua")
WRITE_ONE: Final = Script("write_one.lua")
LOGIN: Final = Script("login.lua")
EVICT: Final = Script("evict.lua")
LOCK_INDEX: Final = Script("lock_index.lua")
ADD_TO_INDEX: Final = Script("add_to_index.lua")
REMOVE_FROM_INDEX: Final = Script("remove_from_index.lua")
UNLOCK: Final = Script("unlock.lua")
ADVANCE_CUTOFF: Final = Script("advance_cutoff.lua")
REGISTER_KEYS: Final = Script("register_keys.lua")
PUBLISH_SHARDED: Final = Script("publish_sharded.lua")
ADD_HISTORY: Final = Script("add_history.lua")
TRIM_HISTORY: Final = Script("trim_history.lua")
