"""CSRF tokens: prove that a page of the application sent a request.

A token is ``base64url(mask[32] || mask XOR HMAC-SHA256(key, hash of the verifier))``, 86
characters.
"""

from __future__ import annotations

import secrets as random
from base64 import urlsafe_b64encode
from binascii import Error as BinasciiError
from binascii import a2b_base64
from collections.abc import Iterable, Sequence
from hmac import compare_digest, digest
from typing import Final

from sojourn._crypto.tickets import derive
from sojourn.record import NO_VERIFIER

_MAC_BYTES: Final = 32

#: 64 bytes in base64url without padding.
TOKEN_CHARACTERS: Final = 86

#: The last characters of tokens: four of its six bits are unused, and zero.
_LAST_CHARACTERS: Final = "AQgw"

# base64url to base64; the two characters that are only in the latter become invalid.
_TO_BASE64: Final = bytes.maketrans(b"-_+/", b"+/!!")


class CsrfTokens:
    """Makes tokens with the newest secret and accepts tokens of every secret.

    Tokens are not stored. A rotation or a login replaces them, because it replaces the verifier
    (NIST SP 800-63B-4 SESS-19 and 20). They depend on the hash of the verifier, because a record
    contains only the hash of a previous verifier, and a form that was loaded before a rotation may
    be sent after it.

    Args:
        secrets: newest first.
        realm: the installation's namespace.
    """

    __slots__ = ("_keys",)

    def __init__(self, secrets: Sequence[bytes], *, realm: str) -> None:
        self._keys = tuple(derive(secret, b"csrf", realm, _MAC_BYTES) for secret in secrets)

    def make(self, verifier_hash: bytes) -> str:
        """Return a new token, 86 characters.

        The random mask defeats BREACH: the length of a compressed page that repeats a secret
        reveals the secret to an attacker who can have the page loaded many times. SameSite and the
        origin check make that hard, but both can be switched off. The mask costs a microsecond.

        Args:
            verifier_hash: SHA-256 of the current verifier, 32 bytes.

        Raises:
            ValueError: there is no verifier; the token would be the same for every visitor.
        """
        if verifier_hash == NO_VERIFIER:
            raise ValueError("expected the hash of a session's verifier, found none")
        mask = random.token_bytes(_MAC_BYTES)
        masked = _xor(mask, digest(self._keys[0], verifier_hash, "sha256"))
        return urlsafe_b64encode(mask + masked)[:TOKEN_CHARACTERS].decode()

    def check(self, value: object, verifier_hashes: Iterable[bytes]) -> bool:
        """Return whether a value is a token for one of these verifiers (B-17).

        Args:
            value: from the request, of any type.
            verifier_hashes: of the current verifier and of the previous one; ``NO_VERIFIER`` is
                ignored.
        """
        mac = _unmask(value)
        if mac is None:
            return False
        hashes = [known for known in verifier_hashes if known != NO_VERIFIER]
        return any(
            compare_digest(mac, digest(key, known, "sha256"))
            for key in self._keys
            for known in hashes
        )


def _unmask(value: object) -> bytes | None:
    if not isinstance(value, str) or len(value) != TOKEN_CHARACTERS or not value.isascii():
        return None
    if value[-1] not in _LAST_CHARACTERS:
        return None  # not the canonical form, which ``make`` returns
    try:
        raw = a2b_base64(value.encode().translate(_TO_BASE64) + b"==", strict_mode=True)
    except BinasciiError:
        return None
    return _xor(raw[:_MAC_BYTES], raw[_MAC_BYTES:])


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one) ^ int.from_bytes(other)).to_bytes(_MAC_BYTES)
