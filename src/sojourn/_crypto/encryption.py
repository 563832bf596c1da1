"""Sealing: what a store sees of a session's data, in clear, sealed, or sealed to the ticket.

What lives here: packing, sealing and opening the body of a record. What must not: the header
(``record.py``) and when a verifier is replaced (``engine.py``). User and labels stay readable,
because lists need them, and are bound to the sealed data: none of the three can be changed, cut, or
moved to another session. What no seal can notice is an older body of the same session put back.

A sealed body is msgpack ``[user, labels, bin]``, with the bin always in its four-byte form:
``mark[1] (slot[48] slot[48], by ticket only) nonce[16] AES-SIV(data)[16 + n]``.
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

#: False: in clear. True: by a key from the secret. "ticket": by one from the secret and the ticket.
Encrypt = Literal[False, True, "ticket"]

# The first byte of the sealed part says the form and the mode; a new form takes new numbers.
_BY_SECRET: Final = b"\x01"
_BY_TICKET: Final = b"\x02"

# AES-SIV (RFC 5297) and not AES-GCM: one key seals every save of every session for as long as the
# secret lives, and GCM with random nonces allows 2**32 messages under a key (NIST SP 800-38D 8.3),
# which 1,000 saves a second reach in 50 days; a single repeated nonce, as from a machine that was
# cloned while running, gives its authentication key away. SIV has no such cliff: 128 random bits
# collide by chance after 2**64 messages, and a repeated nonce shows no more than that two saves of
# one session were equal. Its price is a second pass, 1.4 µs at 1,000 bytes.
_NONCE_BYTES: Final = 16
_TAG_BYTES: Final = 16

# AES-128-SIV where the verifier has a part in the key: it has 128 random bits, so a longer key
# would be no stronger against whoever holds the database and the secret.
_DATA_KEY_BYTES: Final = 32
_SLOT_BYTES: Final = _TAG_BYTES + _DATA_KEY_BYTES
_NO_SLOT: Final = bytes(_SLOT_BYTES)
_AFTER_SLOTS: Final = 1 + 2 * _SLOT_BYTES

_BIN: Final = b"\xc6"  # msgpack bin 32: its length takes four bytes, whatever it is
_DAMAGED: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_BROKEN: Final = "is damaged"


class _Sealed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A body whose data is sealed."""

    user: str | None
    labels: dict[str, str]
    data: bytes


class BodyCipher(Protocol):
    """How the bodies of records are written and read."""

    def open(self, record: Record, verifier: bytes) -> Contents:
        """Return what a record holds; the values inside stay encoded.

        Args:
            record: as stored.
            verifier: 16 bytes, of the ticket that opened it: the current or the former one.

        Raises:
            UnreadableRecord: damaged, of another session, or not sealed as this sealer does.
        """
        ...

    def seal(
        self, session_id: bytes, contents: Contents, *, verifier: bytes, base: bytes = b""
    ) -> bytes:
        """Return the body to store.

        Args:
            session_id: 16 bytes; the body opens in no other session.
            contents: what it is to hold.
            verifier: 16 bytes, which will open it.
            base: the body that this one replaces, which ``verifier`` opens too; whoever else can
                open that one will open this one. Empty at a login and for a new session: then
                nobody but ``verifier`` will.

        Raises:
            UnreadableRecord: ``verifier`` does not open ``base``.
        """
        ...

    def rewrap(self, record: Record, verifier: bytes, *, new: bytes) -> bytes:
        """Return the same body for a rotation: ``new`` opens it, and ``verifier`` still does.

        Raises:
            UnreadableRecord: ``verifier`` does not open it.
        """
        ...

    def forget(self, record: Record) -> bytes:
        """Return the same body, which the former verifier opens no longer.

        Raises:
            UnreadableRecord: it is not sealed as this sealer does.
        """
        ...


class _VerifierIndependent:
    """The part of sealers in whose bodies no verifier has a part."""

    __slots__ = ()

    def rewrap(self, record: Record, verifier: bytes, *, new: bytes) -> bytes:  # noqa: ARG002 - protocol
        """Return the same body."""
        return record.body

    def forget(self, record: Record) -> bytes:
        """Return the same body."""
        return record.body


class Plaintext(_VerifierIndependent):
    """Seals nothing: a body is msgpack ``[user, labels, data]``.

    It decodes by itself, not by ``record.contents()``: this is on the way of every request.
    """

    __slots__ = ()

    def open(self, record: Record, verifier: bytes) -> Contents:  # noqa: ARG002 - of the protocol
        """Return what a record holds."""
        try:
            return _decode_clear(record.body)
        except _DAMAGED as error:
            sealed = _is(_decode_sealed, record.body)
            why = "is sealed, and encrypt is off" if sealed else _BROKEN
            raise _unreadable(record.id, why) from error

    def seal(
        self,
        session_id: bytes,  # noqa: ARG002 - of the protocol
        contents: Contents,
        *,
        verifier: bytes,  # noqa: ARG002 - of the protocol
        base: bytes = b"",  # noqa: ARG002 - of the protocol
    ) -> bytes:
        """Return the body to store."""
        return _encode((contents.user, contents.labels, contents.data))


class SecretCipher(_VerifierIndependent):
    """Seals data by a key from the secret: the database alone reads and changes nothing.

    Args:
        secrets: newest first; the first seals, all open (ASVS 11.2.2).
        realm: the installation's namespace.
    """

    __slots__ = ("_ciphers",)

    def __init__(self, secrets: Sequence[bytes], *, realm: str) -> None:
        self._ciphers = tuple(AESSIV(derive(secret, b"data", realm, 64)) for secret in secrets)

    def open(self, record: Record, verifier: bytes) -> Contents:  # noqa: ARG002 - of the protocol
        """Return what a record holds."""
        sealed = _sealed(record.id, record.body, _BY_SECRET)
        for cipher in self._ciphers:
            try:
                return _decrypt(cipher, record, sealed, start=1)
            except InvalidTag:
                continue
        raise _unreadable(record.id, "was changed, or sealed by a secret that is not known here")

    def seal(
        self,
        session_id: bytes,
        contents: Contents,
        *,
        verifier: bytes,  # noqa: ARG002 - of the protocol
        base: bytes = b"",  # noqa: ARG002 - of the protocol
    ) -> bytes:
        """Return the body to store."""
        return _encrypt(self._ciphers[0], session_id, contents, front=_BY_SECRET)


class TicketCipher:
    """Seals data to the ticket: the database and the secret together read nothing.

    Each session has a random data key. It lies in front of the data twice, wrapped for the current
    and for the former verifier, of which the store knows only hashes; so a rotation wraps 32 bytes
    and leaves the data alone.

    Args:
        secrets: newest first; the first seals, all open (ASVS 11.2.2).
        realm: the installation's namespace.
    """

    __slots__ = ("_roots",)

    def __init__(self, secrets: Sequence[bytes], *, realm: str) -> None:
        self._roots = tuple(derive(secret, b"data by ticket", realm, 32) for secret in secrets)

    def open(self, record: Record, verifier: bytes) -> Contents:
        """Return what a record holds."""
        sealed = _sealed(record.id, record.body, _BY_TICKET)
        key, _ = self._unwrap(record.id, sealed.data, verifier)
        try:
            return _decrypt(AESSIV(key), record, sealed, start=_AFTER_SLOTS)
        except InvalidTag as error:
            raise _unreadable(record.id, "was changed") from error

    def seal(
        self, session_id: bytes, contents: Contents, *, verifier: bytes, base: bytes = b""
    ) -> bytes:
        """Return the body to store."""
        if base:
            data = _sealed(session_id, base, _BY_TICKET).data
            key, slots = self._unwrap(session_id, data, verifier)
        else:
            key = secrets.token_bytes(_DATA_KEY_BYTES)
            slots = self._wrap(session_id, key, verifier) + _NO_SLOT
        return _encrypt(AESSIV(key), session_id, contents, front=_BY_TICKET + slots)

    def rewrap(self, record: Record, verifier: bytes, *, new: bytes) -> bytes:
        """Return the same body for a rotation: ``new`` opens it, and ``verifier`` still does."""
        data = _sealed(record.id, record.body, _BY_TICKET).data
        key, _ = self._unwrap(record.id, data, verifier)
        slots = self._wrap(record.id, key, new) + self._wrap(record.id, key, verifier)
        start = len(record.body) - len(data)
        return record.body[: start + 1] + slots + record.body[start + _AFTER_SLOTS :]

    def forget(self, record: Record) -> bytes:
        """Return the same body, which the former verifier opens no longer."""
        data = _sealed(record.id, record.body, _BY_TICKET).data
        start = len(record.body) - len(data) + 1 + _SLOT_BYTES
        return record.body[:start] + _NO_SLOT + record.body[start + _SLOT_BYTES :]

    def _unwrap(self, session_id: bytes, data: bytes, verifier: bytes) -> tuple[bytes, bytes]:
        """Return the data key and both slots, the verifier's own as the newest secret wraps it."""
        current, former = data[1 : 1 + _SLOT_BYTES], data[1 + _SLOT_BYTES : _AFTER_SLOTS]
        for root in self._roots:
            cipher = _wrapper(root, verifier)
            for slot in (current, former):
                try:
                    key = cipher.decrypt(slot, [_BY_TICKET + session_id])
                except InvalidTag:
                    continue
                if root is not self._roots[0]:
                    own = self._wrap(session_id, key, verifier)
                    return key, own + former if slot is current else current + own
                return key, current + former
        raise _unreadable(session_id, "was changed, or sealed for another ticket or secret")

    def _wrap(self, session_id: bytes, key: bytes, verifier: bytes) -> bytes:
        # Deterministic: the plaintext is random, and the same key wrapped anew looks the same.
        return _wrapper(self._roots[0], verifier).encrypt(key, [_BY_TICKET + session_id])


def body_cipher(encrypt: Encrypt, secrets: Sequence[bytes], *, realm: str) -> BodyCipher:
    """Return the sealer for an option ``encrypt``.

    Args:
        encrypt: as the developer wrote it.
        secrets: newest first.
        realm: the installation's namespace.

    Raises:
        ConfigurationError: it is none of the three values.
    """
    if check_encrypt(encrypt) is False:
        return Plaintext()
    return (SecretCipher if encrypt is True else TicketCipher)(secrets, realm=realm)


def check_encrypt(encrypt: object) -> Encrypt:
    """Return an option ``encrypt`` as it was written.

    Raises:
        ConfigurationError: it is none of the three values.
    """
    if encrypt is False or encrypt is True:
        return encrypt
    if encrypt == "ticket":
        return "ticket"
    raise ConfigurationError(f"encrypt expects False, True or 'ticket', found {encrypt!r}")


def _wrapper(root: bytes, verifier: bytes) -> AESSIV:
    """Return the cipher of one secret and one verifier.

    One block of HKDF-Expand (RFC 5869 2.3): the root came out of HKDF-Extract, and building the
    HKDF object costs more than the whole rest of opening a record.
    """
    return AESSIV(digest(root, verifier + b"\x01", "sha256"))


def _encrypt(cipher: AESSIV, session_id: bytes, contents: Contents, *, front: bytes) -> bytes:
    data = _encode(contents.data)
    size = len(front) + _NONCE_BYTES + _TAG_BYTES + len(data)
    owner = _encode((contents.user, contents.labels))
    head = b"\x93" + owner[1:] + _BIN + size.to_bytes(4)  # an array of three instead of two
    nonce = secrets.token_bytes(_NONCE_BYTES)
    bound = _bound(session_id, nonce, front[:1], head)
    return b"".join((head, front, nonce, cipher.encrypt(data, bound)))


def _decrypt(cipher: AESSIV, record: Record, sealed: _Sealed, *, start: int) -> Contents:
    """Return the contents, whose sealed part has its nonce at ``start``.

    Raises:
        InvalidTag: another key sealed it, or anything of it was changed.
    """
    data = sealed.data
    nonce = data[start : start + _NONCE_BYTES]
    bound = _bound(record.id, nonce, data[:1], record.body[: -len(data)])
    plain = cipher.decrypt(data[start + _NONCE_BYTES :], bound)
    try:
        return Contents(sealed.user, sealed.labels, _decode_data(plain))
    except _DAMAGED as error:  # only whoever knows the key can make this (B-11)
        raise _unreadable(record.id, _BROKEN) from error


def _bound(session_id: bytes, nonce: bytes, mark: bytes, head: bytes) -> list[bytes]:
    """Return what the data cannot be moved away from: session, mode, user, labels, length.

    One string of associated data costs less than several; all before the head has a fixed length,
    so no two are spelled alike.
    """
    return [session_id + nonce + mark + head]


def _sealed(session_id: bytes, body: bytes, mark: bytes) -> _Sealed:
    """Return a sealed body of one mode, its data still sealed.

    A body in clear is refused, or whoever can write to the database could plant one.
    """
    try:
        sealed = _decode_sealed(body)
    except _DAMAGED as error:
        clear = _is(_decode_clear, body)
        why = "is in clear, and encrypt is on: anybody could have written it" if clear else _BROKEN
        raise _unreadable(session_id, why) from error
    if sealed.data[:1] != mark:
        raise _unreadable(session_id, "was sealed in another mode of encrypt")
    return sealed


def _is(decode: Callable[[bytes], object], body: bytes) -> bool:
    try:
        decode(body)
    except _DAMAGED:
        return False
    return True


def _unreadable(session_id: bytes, why: str) -> UnreadableRecord:
    return UnreadableRecord(f"the body of record {session_id.hex()} {why}")


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_clear: Final = msgspec.msgpack.Decoder(Contents).decode
_decode_sealed: Final = msgspec.msgpack.Decoder(_Sealed).decode
_decode_data: Final = msgspec.msgpack.Decoder(dict[str, bytes]).decode
