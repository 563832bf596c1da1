"""Ticket: the secret in the cookie, and the key ring that seals it.

What lives here: minting, sealing and unsealing tickets, deriving keys. What must not: cookies
(``web/cookies.py``) and the check of a verifier against its record (``engine.py``).

A ticket is ``base64url(AES-SIV(key, 0x01 || session ID || verifier))`` with the realm and the
cookie's name as associated data: 49 bytes, 66 characters. AES-SIV (RFC 5297) is deterministic, so
there is no nonce to repeat; the plaintext is unique random. A ticket made for another realm,
another cookie or by another key is noise (security.md B-14, B-29).
"""

from __future__ import annotations

import hashlib
import secrets
from base64 import urlsafe_b64encode
from binascii import Error as BinasciiError
from binascii import a2b_base64
from collections.abc import Sequence
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

#: 128 random bits each (ASVS 7.2.3): the ID finds the record, the verifier opens it.
ID_BYTES: Final = 16
VERIFIER_BYTES: Final = 16

_VERSION: Final = b"\x01"

#: 49 bytes in base64url without padding.
TICKET_CHARACTERS: Final = 66

# 49 bytes leave four unused bits in the last character; only their canonical form is a ticket, so
# that no second text opens the same session.
_LAST: Final = frozenset("AQgw")

# base64url to base64; the two characters that are only in the latter become invalid.
_TO_BASE64: Final = bytes.maketrans(b"-_+/", b"+/!!")


#: Two generations of at most so many opened tickets are remembered, about 1 MB.
REMEMBERED: Final = 2_048


class Ticket(msgspec.Struct, frozen=True, gc=False):
    """What a cookie carries: 16 bytes of session ID and 16 bytes of verifier.

    ``digest`` follows from the verifier: what a record keeps of it, 32 bytes.
    """

    session_id: bytes
    verifier: bytes
    digest: bytes = b""

    def __post_init__(self) -> None:
        """Compute the digest."""
        msgspec.structs.force_setattr(self, "digest", hash_verifier(self.verifier))

    def __repr__(self) -> str:
        """Show the public half only (law A18)."""
        return f"Ticket({self.session_id.hex()})"


def mint_id() -> bytes:
    """Return a new session ID: 16 bytes from the system's random source."""
    return secrets.token_bytes(ID_BYTES)


def mint_verifier() -> bytes:
    """Return a new verifier: 16 bytes from the system's random source."""
    return secrets.token_bytes(VERIFIER_BYTES)


def hash_verifier(verifier: bytes) -> bytes:
    """Return what a record keeps of a verifier: its SHA-256, 32 bytes.

    A fast hash is right here: the input has 128 random bits, there is nothing to guess.
    """
    return hashlib.sha256(verifier).digest()


class KeyRing:
    """Seals tickets with the newest secret and unseals them with any.

    Args:
        secrets: newest first; each at least 16 bytes (``secret.py`` checks their quality).
        realm: the installation's namespace.

    The cipher objects are built once and reused: building one costs more than using it. Tickets
    that were opened lately are remembered under their text, because opening one is a quarter of
    what a reading request costs (benchmarks/RESULTS.md). Only what was sealed by us gets there, and
    Python's keyed hash of text keeps the time of a look-up from telling how much of a guess was
    right (security.md B-18). Whether the session still lives is asked of its record each time.
    """

    __slots__ = ("_ciphers", "_context", "_earlier", "_opened")

    def __init__(self, secrets: Sequence[bytes], *, realm: str) -> None:
        # One string of associated data instead of three saves a third of the cipher's work;
        # neither a realm nor a cookie's name can contain NUL, so no two are spelled alike.
        self._context = b"sojourn\0" + realm.encode() + b"\0"
        self._ciphers = tuple(AESSIV(derive(secret, b"ticket", realm, 64)) for secret in secrets)
        self._opened: dict[str, tuple[bytes, Ticket]] = {}
        self._earlier: dict[str, tuple[bytes, Ticket]] = {}

    def __repr__(self) -> str:
        """Show how many keys there are, never one of them (law A18)."""
        return f"KeyRing({len(self._ciphers)} keys)"

    def seal(self, ticket: Ticket, *, name: bytes) -> str:
        """Seal a ticket for the cookie ``name``, giving 66 characters."""
        plain = _VERSION + ticket.session_id + ticket.verifier
        sealed = self._ciphers[0].encrypt(plain, [self._context + name])
        return urlsafe_b64encode(sealed)[:TICKET_CHARACTERS].decode()

    def unseal(self, text: str, name: bytes) -> Ticket | None:
        """Open what ``seal`` returned; None for anything else, whatever is wrong with it.

        The shape is checked before any cryptography, so junk costs one regular expression.
        """
        known = self._opened.get(text)
        if known is not None and known[0] == name:
            return known[1]
        known = self._earlier.get(text)
        ticket = known[1] if known is not None and known[0] == name else self._decrypt(text, name)
        if ticket is not None:
            if len(self._opened) >= REMEMBERED:
                self._earlier, self._opened = self._opened, {}
            self._opened[text] = (name, ticket)
        return ticket

    def remembered(self) -> int:
        """Return how many opened tickets are remembered at this moment."""
        return len(self._opened) + len(self._earlier)

    def _decrypt(self, text: str, name: bytes) -> Ticket | None:
        if len(text) != TICKET_CHARACTERS or text[-1] not in _LAST or not text.isascii():
            return None
        try:
            sealed = a2b_base64(text.encode().translate(_TO_BASE64) + b"==", strict_mode=True)
        except BinasciiError:
            return None
        for cipher in self._ciphers:
            try:
                plain = cipher.decrypt(sealed, [self._context + name])
            except InvalidTag:
                continue
            if plain[:1] != _VERSION:
                return None
            return Ticket(plain[1 : 1 + ID_BYTES], plain[1 + ID_BYTES :])
        return None


def derive(secret: bytes, purpose: bytes, realm: str, length: int) -> bytes:
    """Derive a key for one purpose and realm from a secret: HKDF-SHA256 (RFC 5869)."""
    info = b"sojourn/v1/" + purpose + b"/" + realm.encode()
    return HKDF(algorithm=SHA256(), length=length, salt=b"sojourn", info=info).derive(secret)
