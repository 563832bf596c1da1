"""Signatures of itsdangerous and Django, verified with hmac.

Only the canonical spelling of a signature is accepted, so that no second text is the same cookie.
"""

from __future__ import annotations

import hashlib
import hmac
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol

from sojourn.errors import ConfigurationError
from sojourn.legacy.decoding import decode_json

#: Bytes of decompressed data. The sender is known by the signature, so this bounds accidents only.
MAX_DATA_BYTES: Final = 1_048_576

_BASE_62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

#: Characters of a timestamp; enough until the year 10,000.
_MAX_TIMESTAMP: Final = 12


def check_keys(secret_key: str | bytes | Sequence[str | bytes], *, option: str) -> list[bytes]:
    """Return the keys of another library as bytes.

    Raises:
        ConfigurationError: there is none, or one is empty.
    """
    given = [secret_key] if isinstance(secret_key, str | bytes) else list(secret_key)
    keys = [key.encode() if isinstance(key, str) else key for key in given]
    if not keys or not all(keys):
        raise ConfigurationError(f"{option} expects the secret of the old installation, found none")
    return keys


class ItsDangerous:
    """Verifies what a signer of itsdangerous 2 signed, with SHA-1 as its defaults are.

    itsdangerous is no dependency: an application that leaves Flask or Starlette need not keep it.

    Args:
        keys: all are accepted.
        salt: of the signer.
        derivation: of the signing key.
    """

    def __init__(
        self, keys: Sequence[bytes], salt: bytes, derivation: Literal["django-concat", "hmac"]
    ) -> None:
        if derivation == "hmac":
            self._keys = [hmac.digest(key, salt, "sha1") for key in keys]
        else:
            self._keys = [
                hashlib.sha1(salt + b"signer" + key).digest()  # noqa: S324 - the peer's own format
                for key in keys
            ]

    def unsign(self, value: str) -> bytes | None:
        """Return the signed part of a value; None if no key has signed it."""
        signed, separator, signature = value.encode("latin-1").rpartition(b".")
        if not separator:
            return None
        found = False
        for key in self._keys:
            expected = urlsafe_b64encode(hmac.digest(key, signed, "sha1")).rstrip(b"=")
            found |= hmac.compare_digest(expected, signature)
        return signed if found else None

    def unsign_timed(self, value: str) -> tuple[bytes, int] | None:
        """Return the payload and the time of a timed signature, in milliseconds since 1970 UTC."""
        signed = self.unsign(value)
        if signed is None:
            return None
        payload, separator, stamp = signed.rpartition(b".")
        raw = decode_base64(stamp)
        if not separator or raw is None or not 0 < len(stamp) <= _MAX_TIMESTAMP:
            return None
        return payload, int.from_bytes(raw, "big") * 1000


class DjangoSignature:
    """Verifies what ``django.core.signing.dumps`` signed (Django 3.1 and later).

    Args:
        keys: ``SECRET_KEY`` and ``SECRET_KEY_FALLBACKS``; all are accepted.
        salt: of the signer.
    """

    def __init__(self, keys: Sequence[bytes], salt: str) -> None:
        self._keys = [hashlib.sha256(salt.encode() + b"signer" + key).digest() for key in keys]

    def unsign_timed(self, value: str) -> tuple[bytes, int] | None:
        """Return the payload and the time of a signature, in milliseconds since 1970 UTC."""
        signed, separator, signature = value.rpartition(":")
        payload, stamp_separator, stamp = signed.rpartition(":")
        if not (separator and stamp_separator and value.isascii()):
            return None
        found = False
        for key in self._keys:
            expected = urlsafe_b64encode(hmac.digest(key, signed.encode(), "sha256")).rstrip(b"=")
            found |= hmac.compare_digest(expected, signature.encode())
        if not found or not 0 < len(stamp) <= _MAX_TIMESTAMP:
            return None
        signed_at = 0
        for digit in stamp:
            position = _BASE_62.find(digit)
            if position < 0:
                return None
            signed_at = signed_at * 62 + position
        return payload.encode(), signed_at * 1000


class TimedSignature(Protocol):
    """A signature with the time at which it was made."""

    def unsign_timed(self, value: str) -> tuple[bytes, int] | None:
        """Return the payload and the time in milliseconds since 1970 UTC; None if it is invalid."""


class SignedData(NamedTuple):
    """What a signed cookie holds.

    Attributes:
        payload: that was signed.
        signed_at: milliseconds since 1970 UTC.
        data: of the session.
    """

    payload: bytes
    signed_at: int
    data: Mapping[str, Any]


def read_signed(
    signature: TimedSignature, value: str, *, now: int, max_age: int, source: str
) -> SignedData | None:
    """Return the session in a signed cookie, whose JSON may be compressed.

    Args:
        signature: verifies the value.
        value: of the cookie.
        now: milliseconds since 1970 UTC.
        max_age: of the signature, milliseconds.
        source: names the reader in the log.

    Returns:
        None if it is invalid or too old.
    """
    found = signature.unsign_timed(value)
    if found is None:
        return None
    payload, signed_at = found
    if now > signed_at + max_age:
        return None
    raw = decode_compressed(payload)
    data = None if raw is None else decode_json(raw, source)
    return None if data is None else SignedData(payload, signed_at, data)


def decode_base64(
    text: bytes, decode: Callable[[bytes], bytes] = urlsafe_b64decode
) -> bytes | None:
    """Return the bytes of base64 without padding; None if it is invalid."""
    try:
        return decode(text + b"=" * (-len(text) % 4))
    except ValueError:
        return None


def decode_compressed(payload: bytes) -> bytes | None:
    """Return the data of a payload that begins with a dot if it is compressed; None if damaged."""
    data = decode_base64(payload.removeprefix(b"."))
    if data is None or not payload.startswith(b"."):
        return data
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(data, MAX_DATA_BYTES)
    except zlib.error:
        return None
    return data if stream.eof else None
