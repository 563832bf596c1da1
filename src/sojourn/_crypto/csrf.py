"""CSRF tokens: a proof in the request itself that one of our own pages sent it.

What lives here: making and checking tokens. What must not: where in a request a token travels (the
application knows) and the gate over ``Sec-Fetch-Site`` and ``Origin`` (``web/origin.py``),
which needs no token and stands in front of this.

A token is ``base64url(mask[32] || mask XOR HMAC-SHA256(key, hash of the verifier))``, 86
characters. Nothing is stored for it: a rotation or a login replaces it because it replaces the
verifier (NIST SP 800-63B-4 SESS-19 and 20).
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

#: What a token may end with: four of the six bits of its last character are nothing.
_LAST: Final = "AQgw"

# base64url to base64; the two characters that are only in the latter become invalid.
_TO_BASE64: Final = bytes.maketrans(b"-_+/", b"+/!!")


class CsrfTokens:
    """Makes tokens with the newest secret and accepts those of any.

    The verifier's hash goes in, not the verifier: of a former verifier a record keeps no more, and
    a form that was opened before a rotation comes back after it.

    Args:
        secrets: newest first.
        realm: the installation's namespace.
    """

    __slots__ = ("_keys",)

    def __init__(self, secrets: Sequence[bytes], *, realm: str) -> None:
        self._keys = tuple(derive(secret, b"csrf", realm, _MAC_BYTES) for secret in secrets)

    def make(self, verifier_hash: bytes) -> str:
        """Return a token, 86 characters, another one each time.

        The mask is for BREACH: a compressed page that repeats a secret gives it away, letter by
        letter, to who can have it loaded again and again and see its length. SameSite and the gate
        make that hard, but both can be switched off; the mask costs a microsecond.

        Args:
            verifier_hash: 32 bytes, as the record keeps it of the current verifier.

        Raises:
            ValueError: there is no verifier. The token would be everybody's.
        """
        if verifier_hash == NO_VERIFIER:
            raise ValueError("expected the hash of a session's verifier, found none")
        mask = random.token_bytes(_MAC_BYTES)
        masked = _xor(mask, digest(self._keys[0], verifier_hash, "sha256"))
        return urlsafe_b64encode(mask + masked)[:TOKEN_CHARACTERS].decode()

    def check(self, value: object, verifier_hashes: Iterable[bytes]) -> bool:
        """Tell whether ``make`` returned a value for one of these verifiers (B-17).

        Args:
            value: what the request brought; anything that is no token is just wrong.
            verifier_hashes: of the current verifier, and of the former one in its grace; those that
                are ``NO_VERIFIER`` are passed over.
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
    if value[-1] not in _LAST:
        return None  # the same bytes, spelled in a way that ``make`` does not
    try:
        raw = a2b_base64(value.encode().translate(_TO_BASE64) + b"==", strict_mode=True)
    except BinasciiError:
        return None
    return _xor(raw[:_MAC_BYTES], raw[_MAC_BYTES:])


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one) ^ int.from_bytes(other)).to_bytes(_MAC_BYTES)
