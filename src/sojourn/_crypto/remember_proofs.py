"""Remember proofs: when, and in which session, the user of a "remember me" cookie logged in.

A proof is ``base64url(AES-SIV(key, 0x01 || instant[8] || session ID[16]))`` with the realm, the
cookie's name and the user as associated data: 41 bytes, 55 characters.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from sojourn._crypto.tickets import derive

_VERSION: Final = b"\x01"
_INSTANT_BYTES: Final = 8

#: 41 bytes in base64url without padding.
PROOF_CHARACTERS: Final = 55


class RememberProof(msgspec.Struct, frozen=True):
    """The content of a proof.

    Attributes:
        authenticated_at: when the user proved their identity, milliseconds since 1970 UTC.
        session_id: of the session that the user logged in to, 16 bytes.
    """

    authenticated_at: int
    session_id: bytes


class RememberProofs:
    """Seals proofs with the newest secret and unseals proofs of every secret.

    Args:
        secrets: newest first.
        realm: the installation's namespace.
    """

    __slots__ = ("_ciphers", "_context")

    def __init__(self, secrets: Sequence[bytes], *, realm: str) -> None:
        self._context = b"sojourn remember\0" + realm.encode() + b"\0"
        self._ciphers = tuple(AESSIV(derive(secret, b"remember", realm, 64)) for secret in secrets)

    def seal(self, proof: RememberProof, user: str, *, name: str) -> str:
        """Return a proof as text for the cookie ``name``, 55 characters."""
        plain = _VERSION + proof.authenticated_at.to_bytes(_INSTANT_BYTES) + proof.session_id
        sealed = self._ciphers[0].encrypt(plain, self._associated(user, name))
        return urlsafe_b64encode(sealed)[:PROOF_CHARACTERS].decode()

    def unseal(self, text: str, user: str, *, name: str) -> RememberProof | None:
        """Return the proof that ``seal`` made into this text; None for any other text or user."""
        if len(text) != PROOF_CHARACTERS or not text.isascii():
            return None
        sealed = urlsafe_b64decode(text + "=")
        if urlsafe_b64encode(sealed)[:-1].decode() != text:
            return None  # not the canonical form, which `seal` returns
        for cipher in self._ciphers:
            try:
                plain = cipher.decrypt(sealed, self._associated(user, name))
            except InvalidTag:
                continue
            if plain[:1] != _VERSION:
                return None
            end = 1 + _INSTANT_BYTES
            return RememberProof(int.from_bytes(plain[1:end]), plain[end:])
        return None

    def _associated(self, user: str, name: str) -> list[bytes]:
        return [self._context + name.encode(), user.encode()]
