"""Derive the verifier that replaces another one at a rotation, and recognise descendants."""

from __future__ import annotations

from collections.abc import Sequence
from hmac import compare_digest, digest
from typing import Final

from sojourn._crypto.tickets import VERIFIER_BYTES, derive, hash_verifier

#: The number of rotations after which a replaced ticket is no longer recognised; it is rejected
#: in any case.
MAX_DESCENDANTS: Final = 256


class VerifierChain:
    """Derives verifiers with the newest secret and recognises those of every secret.

    The next verifier is an HMAC of the current one, for three reasons. Parallel requests that
    rotate get the same ticket. A browser that lost the response and returns with the previous
    ticket gets the same new ticket again, although no store holds it. A ticket that was replaced
    long ago is recognised as an ancestor, which is the sign of theft (security.md B-40).

    Without the secret, a derived verifier cannot be distinguished from random bits (NIST SP
    800-63B-4 SESS-11). A login starts a new chain with a random verifier.

    Args:
        secrets: newest first.
        realm: the installation's namespace.
    """

    __slots__ = ("_keys",)

    def __init__(self, secrets: Sequence[bytes], *, realm: str) -> None:
        self._keys = tuple(derive(secret, b"rotation", realm, 32) for secret in secrets)

    def next_verifier(self, session_id: bytes, verifier: bytes) -> bytes:
        """Return the verifier that replaces ``verifier`` at a rotation, 16 bytes."""
        return _next_verifier(self._keys[0], session_id, verifier)

    def descendant(self, session_id: bytes, verifier: bytes, *, hashed: bytes) -> bytes | None:
        """Return the descendant of a replaced verifier that has a given hash.

        Args:
            session_id: 16 bytes.
            verifier: the replaced verifier, 16 bytes.
            hashed: SHA-256 of the current verifier, from the record.

        Returns:
            16 bytes. None if the current verifier is no descendant, or more than
            ``MAX_DESCENDANTS`` rotations later.
        """
        for key in self._keys:
            found = verifier
            for _ in range(MAX_DESCENDANTS):
                found = _next_verifier(key, session_id, found)
                if compare_digest(hash_verifier(found), hashed):
                    return found
        return None


def _next_verifier(key: bytes, session_id: bytes, verifier: bytes) -> bytes:
    return digest(key, session_id + verifier, "sha256")[:VERIFIER_BYTES]
