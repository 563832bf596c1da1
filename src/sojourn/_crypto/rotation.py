"""Chain: from a verifier to the one that a rotation puts in its place.

What lives here: deriving the next verifier, and telling whether one came from another. What must
not: when to rotate (``policy.py``) and what that does to a record (``renewal.py``).

The next verifier is not drawn but derived from the present one by a key of ours, and that buys
three things. Parallel requests that rotate at once arrive at the same ticket. A browser that lost
the answer and comes back with the former ticket gets the same new one again, though no store keeps
it. And a ticket that was replaced long ago is recognised as an ancestor, which is the sign of theft
(security.md B-40). Without the secret the next verifier cannot be told from random bits (SP
800-63B-4 SESS-11); a login starts a new chain with a random one.
"""

from __future__ import annotations

from collections.abc import Sequence
from hmac import compare_digest, digest
from typing import Final

from sojourn._crypto.tickets import VERIFIER_BYTES, derive, hash_verifier

#: How many rotations back a replaced ticket is recognised; older ones are refused all the same.
MEMORY: Final = 256


class VerifierChain:
    """Derives verifiers with the newest secret and recognises those of any.

    Args:
        secrets: newest first.
        realm: the installation's namespace.
    """

    __slots__ = ("_keys",)

    def __init__(self, secrets: Sequence[bytes], *, realm: str) -> None:
        self._keys = tuple(derive(secret, b"rotation", realm, 32) for secret in secrets)

    def next_verifier(self, session_id: bytes, verifier: bytes) -> bytes:
        """Return the verifier that replaces one at a rotation, 16 bytes."""
        return _next_verifier(self._keys[0], session_id, verifier)

    def descendant(self, session_id: bytes, verifier: bytes, *, hashed: bytes) -> bytes | None:
        """Return the descendant of a verifier whose hash is given.

        Args:
            session_id: 16 bytes.
            verifier: 16 bytes, replaced at some time.
            hashed: what the record keeps of its current verifier.

        Returns:
            16 bytes; None if it descends from another one, or from this one too long ago.
        """
        for key in self._keys:
            found = verifier
            for _ in range(MEMORY):
                found = _next_verifier(key, session_id, found)
                if compare_digest(hash_verifier(found), hashed):
                    return found
        return None


def _next_verifier(key: bytes, session_id: bytes, verifier: bytes) -> bytes:
    return digest(key, session_id + verifier, "sha256")[:VERIFIER_BYTES]
