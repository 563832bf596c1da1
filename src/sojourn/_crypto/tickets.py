"""Tickets: the content of the session cookie, and the key ring that seals and unseals it.

A ticket is ``base64url(AES-SIV(key, 0x01 || session ID || verifier))`` with the realm and the
cookie's name as associated data: 49 bytes, 66 characters.
"""

from __future__ import annotations

import hashlib
import re
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

from sojourn.record import ID_BYTES

#: 128 random bits, as the session ID has (ASVS 7.2.3).
VERIFIER_BYTES: Final = 16

_VERSION: Final = b"\x01"

#: 49 bytes in base64url without padding.
TICKET_CHARACTERS: Final = 66

# 49 bytes leave four unused bits in the last character. Only the canonical form, with these bits
# zero, is accepted, so that no second text is the same ticket.
_LAST_CHARACTERS: Final = frozenset("AQgw")

#: The text of a ticket, whatever secret has sealed it.
_FORM: Final = re.compile(r"[A-Za-z0-9_-]{65}[AQgw]")

# base64url to base64; the two characters that are only in the latter become invalid.
_TO_BASE64: Final = bytes.maketrans(b"-_+/", b"+/!!")

#: The size of each of the two generations of the ticket cache; together about 1 MB.
MAX_CACHED_TICKETS: Final = 2_048


class Ticket(msgspec.Struct, frozen=True, gc=False):
    """The content of a cookie: session ID and verifier, 16 bytes each.

    Attributes:
        digest: the SHA-256 of the verifier, 32 bytes; computed.
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
    """Return the SHA-256 of a verifier, 32 bytes, as records store it.

    A fast hash is sufficient: a verifier has 128 random bits and cannot be guessed.
    """
    return hashlib.sha256(verifier).digest()


def is_well_formed(text: str) -> bool:
    """Return whether a text has the form of a ticket, whatever secret has sealed it."""
    return _FORM.fullmatch(text) is not None


class KeyRing:
    """Seals tickets with the newest secret and unseals tickets of every secret.

    AES-SIV (RFC 5297) is deterministic, so there is no nonce to repeat; the plaintext is unique
    and random. A ticket of another realm, another cookie or another key is rejected (security.md
    B-14, B-29).

    Unsealed tickets are cached by their text: unsealing is a quarter of the cost of a reading
    request (benchmarks/RESULTS.md). Only valid tickets are cached. Python's keyed hash of strings
    keeps the time of a look-up from revealing how much of a guess was right (security.md B-18). The
    cache says nothing about the session: its record is loaded for each request.

    Args:
        secrets: newest first, at least 16 bytes each.
        realm: the installation's namespace.
    """

    __slots__ = ("_cache", "_ciphers", "_context", "_previous_cache")

    def __init__(self, secrets: Sequence[bytes], *, realm: str) -> None:
        # One string of associated data instead of three saves a third of the cipher's work.
        # Neither a realm nor a cookie's name can contain NUL, so the encoding is unambiguous.
        self._context = b"sojourn\0" + realm.encode() + b"\0"
        # To build a cipher costs more than to use it.
        self._ciphers = tuple(AESSIV(derive(secret, b"ticket", realm, 64)) for secret in secrets)
        self._cache: dict[str, tuple[bytes, Ticket]] = {}
        self._previous_cache: dict[str, tuple[bytes, Ticket]] = {}

    def __repr__(self) -> str:
        """Show the number of keys, but no key (law A18)."""
        return f"KeyRing({len(self._ciphers)} keys)"

    def seal(self, ticket: Ticket, *, name: bytes) -> str:
        """Return a ticket as text for the cookie ``name``, 66 characters."""
        plain = _VERSION + ticket.session_id + ticket.verifier
        sealed = self._ciphers[0].encrypt(plain, [self._context + name])
        return urlsafe_b64encode(sealed)[:TICKET_CHARACTERS].decode()

    def unseal(self, text: str, name: bytes) -> Ticket | None:
        """Return the ticket that ``seal`` made into this text; None for any other text.

        The form is checked before any cryptography, so invalid text costs little.
        """
        cached = self._cache.get(text)
        if cached is not None and cached[0] == name:
            return cached[1]
        cached = self._previous_cache.get(text)
        if cached is not None and cached[0] == name:
            ticket: Ticket | None = cached[1]
        else:
            ticket = self._decrypt(text, name)
        if ticket is not None:
            if len(self._cache) >= MAX_CACHED_TICKETS:
                self._previous_cache, self._cache = self._cache, {}
            self._cache[text] = (name, ticket)
        return ticket

    def cached_tickets(self) -> int:
        """Return the number of entries in both generations of the cache."""
        return len(self._cache) + len(self._previous_cache)

    def _decrypt(self, text: str, name: bytes) -> Ticket | None:
        if len(text) != TICKET_CHARACTERS or text[-1] not in _LAST_CHARACTERS or not text.isascii():
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


#: Fewer bits than a secret has, so that a fingerprint does not determine one.
_FINGERPRINT_BYTES: Final = 8


def key_fingerprint(secret: bytes, realm: str) -> bytes:
    """Return the fingerprint of a secret, 8 bytes, as stores hold it (B-48).

    A purpose of its own: it says nothing about the keys of tickets and records. It can confirm a
    guess, as a ticket can, which is why guessable secrets are rejected.
    """
    return derive(secret, b"fingerprint", realm, _FINGERPRINT_BYTES)


def derive(secret: bytes, purpose: bytes, realm: str, length: int) -> bytes:
    """Return a key for one purpose and realm, derived with HKDF-SHA256 (RFC 5869)."""
    info = b"sojourn/v1/" + purpose + b"/" + realm.encode()
    return HKDF(algorithm=SHA256(), length=length, salt=b"sojourn", info=info).derive(secret)
