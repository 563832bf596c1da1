"""Encryption of record bodies: none, keyed by the secret, or keyed by secret and ticket.

An encrypted body is msgpack ``[user, labels, bin]``, with the bin always in its four-byte form:
``mode[1] (slot[48] slot[48], by ticket only) nonce[16] AES-SIV(data)[16 + n]``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from hmac import digest
from typing import Final, Literal, Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from sojourn._crypto.tickets import derive
from sojourn.errors import ConfigurationError
from sojourn.record import Contents, Record, UnreadableRecord

#: False: plaintext. True: a key from the secret. "ticket": a key from the secret and the ticket.
Encrypt = Literal[False, True, "ticket"]

# The first byte of the encrypted part is the mode; a new format takes new numbers.
_BY_SECRET: Final = b"\x01"
_BY_TICKET: Final = b"\x02"

# AES-SIV (RFC 5297) and not AES-GCM: one key encrypts every save of every session for the lifetime
# of the secret. GCM with random nonces allows 2**32 messages under a key (NIST SP 800-38D 8.3),
# which 1,000 saves a second reach in 50 days, and a single repeated nonce, as from a machine that
# was cloned while running, reveals its authentication key. With SIV, 128 random bits collide after
# 2**64 messages, and a repeated nonce reveals only that two saves of one session were equal. SIV
# costs a second pass, 1.4 µs at 1,000 bytes.
_NONCE_BYTES: Final = 16
_TAG_BYTES: Final = 16

# AES-128-SIV where the key depends on the verifier, which has 128 random bits: a longer key would
# be no stronger against an attacker who has the database and the secret.
_DATA_KEY_BYTES: Final = 32
_SLOT_BYTES: Final = _TAG_BYTES + _DATA_KEY_BYTES
_NO_SLOT: Final = bytes(_SLOT_BYTES)
_AFTER_SLOTS: Final = 1 + 2 * _SLOT_BYTES

_BIN: Final = b"\xc6"  # msgpack bin 32: the length always takes four bytes
_DECODE_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_DAMAGED_TEXT: Final = "is damaged"


class _EncryptedBody(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A body with encrypted data. User and labels are plaintext, because lists read them."""

    user: str | None
    labels: dict[str, str]
    data: bytes


class BodyCipher(Protocol):
    """Encrypts and decrypts the bodies of records.

    User and labels are authenticated together with the data and the session ID: no part can be
    changed, cut or moved to another session. A replay of an older body of the same session is not
    detected.
    """

    def decrypt(self, record: Record, verifier: bytes) -> Contents:
        """Return the contents of a record; the values stay encoded.

        Args:
            record: as stored.
            verifier: of the ticket, 16 bytes: the current or the previous one.

        Raises:
            UnreadableRecord: damaged, of another session, or encrypted in another mode.
        """
        ...

    def encrypt(
        self, session_id: bytes, contents: Contents, *, verifier: bytes, base: bytes = b""
    ) -> bytes:
        """Return the body to store.

        Args:
            session_id: 16 bytes; the body can be decrypted for this session only.
            contents: to be encrypted.
            verifier: 16 bytes, able to decrypt the result.
            base: the body to replace, which ``verifier`` can decrypt; every verifier that decrypts
                it also decrypts the result. Empty at a login and for a new session: only
                ``verifier`` decrypts the result.

        Raises:
            UnreadableRecord: ``verifier`` cannot decrypt ``base``.
        """
        ...

    def rewrap(self, record: Record, verifier: bytes, *, new: bytes) -> bytes:
        """Return the body after a rotation: ``new`` and ``verifier`` can decrypt it.

        Raises:
            UnreadableRecord: ``verifier`` cannot decrypt the body.
        """
        ...

    def drop_previous(self, record: Record) -> bytes:
        """Return the body without access for the previous verifier.

        Raises:
            UnreadableRecord: the body is encrypted in another mode.
        """
        ...


class _VerifierIndependent:
    """The part of ciphers whose keys do not depend on a verifier."""

    __slots__ = ()

    def rewrap(self, record: Record, verifier: bytes, *, new: bytes) -> bytes:  # noqa: ARG002 - protocol
        """Return the body unchanged."""
        return record.body

    def drop_previous(self, record: Record) -> bytes:
        """Return the body unchanged."""
        return record.body


class Plaintext(_VerifierIndependent):
    """Encrypts nothing: a body is msgpack ``[user, labels, data]``."""

    __slots__ = ()

    def decrypt(self, record: Record, verifier: bytes) -> Contents:  # noqa: ARG002 - protocol
        """Return the contents of a record."""
        try:
            return _decode_plaintext(record.body)  # every request; faster than record.contents()
        except _DECODE_ERRORS as error:
            encrypted = _is_valid(_decode_encrypted, record.body)
            why = "is encrypted, and encrypt is off" if encrypted else _DAMAGED_TEXT
            raise _unreadable(record.id, why) from error

    def encrypt(
        self,
        session_id: bytes,  # noqa: ARG002 - protocol
        contents: Contents,
        *,
        verifier: bytes,  # noqa: ARG002 - protocol
        base: bytes = b"",  # noqa: ARG002 - protocol
    ) -> bytes:
        """Return the body to store."""
        return _encode((contents.user, contents.labels, contents.data))


class SecretCipher(_VerifierIndependent):
    """Encrypts data with a key from the secret: the database alone cannot decrypt or forge it.

    Args:
        secrets: newest first; the first encrypts, all decrypt (ASVS 11.2.2).
        realm: the installation's namespace.
    """

    __slots__ = ("_ciphers",)

    def __init__(self, secrets: Sequence[bytes], *, realm: str) -> None:
        self._ciphers = tuple(AESSIV(derive(secret, b"data", realm, 64)) for secret in secrets)

    def decrypt(self, record: Record, verifier: bytes) -> Contents:  # noqa: ARG002 - protocol
        """Return the contents of a record."""
        body = _parse(record.id, record.body, _BY_SECRET)
        for cipher in self._ciphers:
            try:
                return _decrypt(cipher, record, body, start=1)
            except InvalidTag:
                continue
        raise _unreadable(record.id, "was changed, or encrypted with a secret that is not known")

    def encrypt(
        self,
        session_id: bytes,
        contents: Contents,
        *,
        verifier: bytes,  # noqa: ARG002 - protocol
        base: bytes = b"",  # noqa: ARG002 - protocol
    ) -> bytes:
        """Return the body to store."""
        return _encrypt(self._ciphers[0], session_id, contents, front=_BY_SECRET)


class TicketCipher:
    """Encrypts data with a key from the ticket: database and secret together cannot decrypt it.

    Each session has a random data key, stored before the data in two slots: wrapped for the current
    and for the previous verifier, of which the store has only hashes. So a rotation wraps 32 bytes
    and does not encrypt the data again.

    Args:
        secrets: newest first; the first encrypts, all decrypt (ASVS 11.2.2).
        realm: the installation's namespace.
    """

    __slots__ = ("_roots",)

    def __init__(self, secrets: Sequence[bytes], *, realm: str) -> None:
        self._roots = tuple(derive(secret, b"data by ticket", realm, 32) for secret in secrets)

    def decrypt(self, record: Record, verifier: bytes) -> Contents:
        """Return the contents of a record."""
        body = _parse(record.id, record.body, _BY_TICKET)
        key, _ = self._unwrap(record.id, body.data, verifier)
        try:
            return _decrypt(AESSIV(key), record, body, start=_AFTER_SLOTS)
        except InvalidTag as error:
            raise _unreadable(record.id, "was changed") from error

    def encrypt(
        self, session_id: bytes, contents: Contents, *, verifier: bytes, base: bytes = b""
    ) -> bytes:
        """Return the body to store."""
        if base:
            data = _parse(session_id, base, _BY_TICKET).data
            key, slots = self._unwrap(session_id, data, verifier)
        else:
            key = secrets.token_bytes(_DATA_KEY_BYTES)
            slots = self._wrap(session_id, key, verifier) + _NO_SLOT
        return _encrypt(AESSIV(key), session_id, contents, front=_BY_TICKET + slots)

    def rewrap(self, record: Record, verifier: bytes, *, new: bytes) -> bytes:
        """Return the body with the data key wrapped for ``new`` and for ``verifier``."""
        data = _parse(record.id, record.body, _BY_TICKET).data
        key, _ = self._unwrap(record.id, data, verifier)
        slots = self._wrap(record.id, key, new) + self._wrap(record.id, key, verifier)
        start = len(record.body) - len(data)
        return record.body[: start + 1] + slots + record.body[start + _AFTER_SLOTS :]

    def drop_previous(self, record: Record) -> bytes:
        """Return the body with an empty second slot."""
        data = _parse(record.id, record.body, _BY_TICKET).data
        start = len(record.body) - len(data) + 1 + _SLOT_BYTES
        return record.body[:start] + _NO_SLOT + record.body[start + _SLOT_BYTES :]

    def _unwrap(self, session_id: bytes, data: bytes, verifier: bytes) -> tuple[bytes, bytes]:
        """Return the data key and both slots, the verifier's own wrapped with the newest secret."""
        current, previous = data[1 : 1 + _SLOT_BYTES], data[1 + _SLOT_BYTES : _AFTER_SLOTS]
        for root in self._roots:
            cipher = _wrapper(root, verifier)
            for slot in (current, previous):
                try:
                    key = cipher.decrypt(slot, [_BY_TICKET + session_id])
                except InvalidTag:
                    continue
                if root is not self._roots[0]:
                    own = self._wrap(session_id, key, verifier)
                    return key, own + previous if slot is current else current + own
                return key, current + previous
        raise _unreadable(session_id, "was changed, or encrypted for another ticket or secret")

    def _wrap(self, session_id: bytes, key: bytes, verifier: bytes) -> bytes:
        # Deterministic, without a nonce: the plaintext is random, and equal keys may look equal.
        return _wrapper(self._roots[0], verifier).encrypt(key, [_BY_TICKET + session_id])


def body_cipher(encrypt: Encrypt, secrets: Sequence[bytes], *, realm: str) -> BodyCipher:
    """Return the cipher for an option ``encrypt``.

    Args:
        encrypt: the option.
        secrets: newest first.
        realm: the installation's namespace.

    Raises:
        ConfigurationError: the option has none of the three values.
    """
    if check_encrypt(encrypt) is False:
        return Plaintext()
    return (SecretCipher if encrypt is True else TicketCipher)(secrets, realm=realm)


def check_encrypt(encrypt: object) -> Encrypt:
    """Return a valid option ``encrypt``.

    Raises:
        ConfigurationError: the option has none of the three values.
    """
    if encrypt is False or encrypt is True:
        return encrypt
    if encrypt == "ticket":
        return "ticket"
    raise ConfigurationError(f"encrypt expects False, True or 'ticket', found {encrypt!r}")


def _wrapper(root: bytes, verifier: bytes) -> AESSIV:
    """Return the cipher that wraps data keys for one secret and one verifier.

    The key is one block of HKDF-Expand (RFC 5869 2.3); the root is the output of HKDF-Extract. To
    build an HKDF object costs more than the rest of the decryption.
    """
    return AESSIV(digest(root, verifier + b"\x01", "sha256"))


def _encrypt(cipher: AESSIV, session_id: bytes, contents: Contents, *, front: bytes) -> bytes:
    data = _encode(contents.data)
    size = len(front) + _NONCE_BYTES + _TAG_BYTES + len(data)
    owner = _encode((contents.user, contents.labels))
    head = b"\x93" + owner[1:] + _BIN + size.to_bytes(4)  # an array of three instead of two
    nonce = secrets.token_bytes(_NONCE_BYTES)
    associated_data = _associated_data(session_id, nonce, front[:1], head)
    return b"".join((head, front, nonce, cipher.encrypt(data, associated_data)))


def _decrypt(cipher: AESSIV, record: Record, body: _EncryptedBody, *, start: int) -> Contents:
    """Return the contents of a body whose nonce is at ``start`` of the encrypted part.

    Raises:
        InvalidTag: it was encrypted with another key, or changed.
    """
    data = body.data
    nonce = data[start : start + _NONCE_BYTES]
    associated_data = _associated_data(record.id, nonce, data[:1], record.body[: -len(data)])
    plain = cipher.decrypt(data[start + _NONCE_BYTES :], associated_data)
    try:
        return Contents(body.user, body.labels, _decode_data(plain))
    except _DECODE_ERRORS as error:  # only an attacker who knows the key can cause this (B-11)
        raise _unreadable(record.id, _DAMAGED_TEXT) from error


def _associated_data(session_id: bytes, nonce: bytes, mode: bytes, head: bytes) -> list[bytes]:
    """Return the associated data: session ID, nonce, mode, and the head (user, labels, length).

    One string costs less than several. All parts before the head have a fixed length, so the
    concatenation is unambiguous.
    """
    return [session_id + nonce + mode + head]


def _parse(session_id: bytes, body: bytes, mode: bytes) -> _EncryptedBody:
    """Return a body of one mode, its data still encrypted.

    Plaintext bodies are rejected: an attacker with write access to the database could plant one.
    """
    try:
        parsed = _decode_encrypted(body)
    except _DECODE_ERRORS as error:
        plaintext = _is_valid(_decode_plaintext, body)
        why = "is plaintext, and encrypt is on: it may be forged" if plaintext else _DAMAGED_TEXT
        raise _unreadable(session_id, why) from error
    if parsed.data[:1] != mode:
        raise _unreadable(session_id, "was encrypted in another mode of encrypt")
    return parsed


def _is_valid(decode: Callable[[bytes], object], body: bytes) -> bool:
    try:
        decode(body)
    except _DECODE_ERRORS:
        return False
    return True


def _unreadable(session_id: bytes, why: str) -> UnreadableRecord:
    return UnreadableRecord(f"the body of record {session_id.hex()} {why}")


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_plaintext: Final = msgspec.msgpack.Decoder(Contents).decode
_decode_encrypted: Final = msgspec.msgpack.Decoder(_EncryptedBody).decode
_decode_data: Final = msgspec.msgpack.Decoder(dict[str, bytes]).decode
