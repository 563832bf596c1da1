"""Names of keys and channels of one installation."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from sojourn.errors import ConfigurationError
from sojourn.stores.redis.scripts import DIGEST_BYTES

_PREFIX: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")

#: Hex digits of an ID that are its hash tag in a cluster.
_TAG_DIGITS: Final = 3


class IndexKeys(NamedTuple):
    """The keys of one name's index, its cutoff and its lock, which share a slot."""

    entries: str
    cutoff: str
    lock: str


class Keys:
    """The names of one installation.

    Prefix and realm are part of every name, so installations that share a server are separate (law
    S14). In a cluster the first three hex digits of an ID are its hash tag: 4096 tags keep a record
    and its copy of the cutoff of ``invalidate_all`` in one slot, and spread evenly over the
    primaries.

    Args:
        prefix: 1 to 64 letters, digits, ``_``, ``.`` and ``-``.
        realm: the installation's namespace.
        is_cluster: whether keys have hash tags.

    Attributes:
        events: the channel of messages for all processes.
        fingerprints: the key of the set of key fingerprints.
        history: the key of the stream of ended sessions.
    """

    __slots__ = (
        "_base",
        "_channel",
        "_cutoff",
        "_record",
        "events",
        "fingerprints",
        "history",
        "is_cluster",
    )

    def __init__(self, prefix: str, realm: str, *, is_cluster: bool) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise ConfigurationError(
                f"prefix expects 1 to 64 letters, digits, '_', '.' and '-', found {prefix!r}; it "
                "becomes the first part of every key"
            )
        self.is_cluster: bool = is_cluster
        self._base = f"{prefix}:{realm}:"
        self._record = self._base + "s:"
        self._cutoff = self._base + "void"
        self._channel = self._base + "c:"
        self.events: str = self._base + "events"
        self.fingerprints: str = self._base + "keys"
        self.history: str = self._base + "history"

    def record(self, session_id: bytes) -> str:
        """Return the key of a record."""
        return self._record + self._name(session_id)

    def cutoff_and_record(self, session_id: bytes) -> tuple[str, str]:
        """Return the key of the cutoff that concerns a record, and the key of the record."""
        if not self.is_cluster:  # inlined: a call of a thread is a batch of one
            return self._cutoff, self._record + session_id.hex()
        return self.cutoff(self.tag(session_id)), self.record(session_id)

    def records(self, session_ids: Iterable[bytes]) -> list[str]:
        """Return the keys of several records."""
        if self.is_cluster:
            return [self.record(session_id) for session_id in session_ids]
        start = self._record  # inlined: one call less for each record of a batch
        return [start + session_id.hex() for session_id in session_ids]

    def channel(self, session_id: bytes) -> str:
        """Return the channel of a session's changes; in a cluster, of the session's slot."""
        return self._channel + self._name(session_id)

    def _name(self, session_id: bytes) -> str:
        digits = session_id.hex()
        if not self.is_cluster:
            return digits
        return f"{{{digits[:_TAG_DIGITS]}}}{digits[_TAG_DIGITS:]}"

    def tag(self, session_id: bytes) -> str:
        """Return the hash tag of a record; empty without a cluster."""
        return session_id[:2].hex()[:_TAG_DIGITS] if self.is_cluster else ""

    def tags(self) -> list[str]:
        """Return all hash tags; without a cluster, one empty tag."""
        if not self.is_cluster:
            return [""]
        return [f"{number:0{_TAG_DIGITS}x}" for number in range(16**_TAG_DIGITS)]

    def cutoff(self, tag: str) -> str:
        """Return the key of the cutoff of ``invalidate_all`` for the records of a tag."""
        return f"{self._cutoff}:{{{tag}}}" if tag else self._cutoff

    def digest(self, name: str) -> bytes:
        """Return the digest that identifies a name's index, 16 bytes.

        Names such as a user's e-mail address are hashed, because keys appear in tools and logs.
        """
        return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:DIGEST_BYTES]

    def index(self, digest: bytes) -> IndexKeys:
        """Return the keys of a name's index."""
        tag = f"{{{digest.hex()}}}" if self.is_cluster else digest.hex()
        return IndexKeys(f"{self._base}u:{tag}", f"{self._base}v:{tag}", f"{self._base}l:{tag}")

    def cutoff_prefix(self) -> str:
        """Return the common prefix of the cutoffs of all names."""
        return f"{self._base}v:"

    def prefixes(self) -> tuple[str, str]:
        """Return the common prefix of all record keys, and of all index keys."""
        return self._record, f"{self._base}u:"
