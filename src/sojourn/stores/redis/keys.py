"""Keys: what every value of an installation is called in the server.

What lives here: the names, and nothing else. A prefix and a realm make names of their own, so two
installations in one server never meet (law S14).

In a cluster the first three digits of an ID are a hash tag: 4096 tags keep what belongs together in
one slot (a record and its part of the mark of ``invalidate_all``) and spread evenly over any number of
masters. Read next: ``scripts.py``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final

from sojourn.errors import ConfigurationError
from sojourn.stores.redis.scripts import DIGEST

_PREFIX: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")

#: Hexadecimal digits of an ID that are its hash tag in a cluster.
_TAG_DIGITS: Final = 3


class Keys:
    """The names of one installation.

    Args:
        prefix: 1 to 64 letters, digits, ``_``, ``.`` and ``-``.
        realm: the installation's namespace.
        clustered: whether names carry hash tags.
    """

    __slots__ = ("_base", "_channel", "_mark", "_record", "clustered", "events")

    def __init__(self, prefix: str, realm: str, *, clustered: bool) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise ConfigurationError(
                f"prefix expects 1 to 64 letters, digits, '_', '.' and '-', found {prefix!r}; it "
                "becomes the first part of every key"
            )
        self.clustered: bool = clustered
        self._base = f"{prefix}:{realm}:"
        self._record = self._base + "s:"
        self._mark = self._base + "void"
        self.events: str = self._base + "events"
        self._channel = self._base + "c:"

    def record(self, session_id: bytes) -> str:
        """Return the key of a session's record."""
        return self._record + self._name(session_id)

    def records(self, session_ids: Iterable[bytes]) -> list[str]:
        """Return the keys of the records of a batch."""
        if self.clustered:
            return [self.record(session_id) for session_id in session_ids]
        start = self._record  # as ``record``, without a call for each
        return [start + session_id.hex() for session_id in session_ids]

    def channel(self, session_id: bytes) -> str:
        """Return where the changes of a session are told; in a cluster it is in its slot."""
        return self._channel + self._name(session_id)

    def _name(self, session_id: bytes) -> str:
        digits = session_id.hex()
        if not self.clustered:
            return digits
        return f"{{{digits[:_TAG_DIGITS]}}}{digits[_TAG_DIGITS:]}"

    def tag(self, session_id: bytes) -> str:
        """Return what decides in which slot a record is; empty where there are no slots."""
        return session_id.hex()[:_TAG_DIGITS] if self.clustered else ""

    def mark(self, tag: str) -> str:
        """Return the key of the mark that ``invalidate_all`` leaves, in the slot of a tag."""
        return f"{self._mark}:{{{tag}}}" if tag else self._mark

    def tags(self) -> list[str]:
        """Return every tag there is: one, empty, without a cluster."""
        if not self.clustered:
            return [""]
        return [f"{number:0{_TAG_DIGITS}x}" for number in range(16**_TAG_DIGITS)]

    def digest(self, name: str) -> bytes:
        """Return what a list is called by, 16 bytes.

        The name itself, such as a user's e-mail address, is hashed: keys show up in tools and logs.
        """
        return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:DIGEST]

    def lists(self, digest: bytes) -> tuple[str, str, str]:
        """Return the keys of a list, of its mark and of its lock, which share a slot."""
        tag = f"{{{digest.hex()}}}" if self.clustered else digest.hex()
        return f"{self._base}u:{tag}", f"{self._base}v:{tag}", f"{self._base}l:{tag}"

    def beginnings(self) -> tuple[str, str]:
        """Return what the keys of all records begin with, and those of all lists."""
        return self._record, f"{self._base}u:"
