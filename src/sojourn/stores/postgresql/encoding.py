"""Encoding of parameters and results in PostgreSQL's binary format, and of keys in the index."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Final

from sojourn.record import Record, UnreadableRecord

# Object identifiers of types (``pg_type.dat``).
BYTEA: Final = 17
BIGINT: Final = 20
TEXT: Final = 25
REAL: Final = 700
BYTEA_ARRAY: Final = 1001
TEXT_ARRAY: Final = 1009
BIGINT_ARRAY: Final = 1016

# Dimensions, whether there are nulls, type of the elements, their number, first index.
_ARRAY: Final = struct.Struct("!iIIii")
_BIGINT: Final = struct.Struct("!q")
_REAL: Final = struct.Struct("!f")

#: Sizes of a digest and of a session ID.
DIGEST_BYTES: Final = 16
_ID_LENGTH: Final = (16).to_bytes(4)

#: The length of a bigint before each element of an array.
_BIGINT_BYTES: Final = 8


def pack_bigint(value: int) -> bytes:
    """Return a bigint."""
    return _BIGINT.pack(value)


def pack_real(value: float) -> bytes:
    """Return a real."""
    return _REAL.pack(value)


def unpack_bigint(data: bytes) -> int:
    """Return the number of a bigint, 8 bytes."""
    return int.from_bytes(data, signed=True)


def pack_bigints(values: Sequence[int]) -> bytes:
    """Return an array of bigints."""
    count = len(values)
    interleaved: list[int] = [_BIGINT_BYTES] * (2 * count)
    interleaved[1::2] = values
    return _ARRAY.pack(1, 0, BIGINT, count, 1) + struct.pack("!" + "iq" * count, *interleaved)


def pack_ids(ids: Sequence[bytes]) -> bytes:
    """Return an array of byte strings of 16 bytes each: session IDs or digests."""
    header = _ARRAY.pack(1, 0, BYTEA, len(ids), 1)
    return b"".join((header, _ID_LENGTH, _ID_LENGTH.join(ids))) if ids else _EMPTY_BYTEAS


def pack_byteas(values: Sequence[bytes | None], element: int = BYTEA) -> bytes:
    """Return an array of byte strings of any length, or of texts; None becomes NULL."""
    if not values:
        return _ARRAY.pack(0, 0, element, 0, 1)[:12]
    parts = [_ARRAY.pack(1, 1, element, len(values), 1)]
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            parts += (len(value).to_bytes(4), value)
    return b"".join(parts)


_NULL: Final = b"\xff\xff\xff\xff"
_EMPTY_BYTEAS: Final = _ARRAY.pack(0, 0, BYTEA, 0, 1)[:12]


def digest(name: str) -> bytes:
    """Return the key of an index name: 16 bytes for names of any length and any characters."""
    return hashlib.sha256(name.encode()).digest()[:DIGEST_BYTES]


def advisory_key(*parts: str) -> int:
    """Return the key of an advisory lock, a signed 64-bit number.

    It contains the realm, because all users of a database share these locks.
    """
    text = "\0".join(("sojourn", *parts)).encode()
    return unpack_bigint(hashlib.sha256(text).digest()[:8])


def decode_record(session_id: bytes, seen_at: bytes | None, data: bytes | None) -> Record:
    """Return the record of a row; the column ``seen_at`` counts.

    Args:
        session_id: 16 bytes.
        seen_at: a bigint.
        data: the encoded record.

    Raises:
        UnreadableRecord: the values are not a record of a known format (law S9).
    """
    if data is None or seen_at is None:
        raise UnreadableRecord(f"the row of {session_id.hex()} was not written by this store")
    record = Record.from_bytes(session_id, data)
    return record.with_seen_at(int.from_bytes(seen_at))


def unpack_byteas(data: bytes | None) -> list[bytes]:
    """Return the elements of an array of byte strings without nulls."""
    elements: list[bytes] = []
    position = _ARRAY.size
    while data is not None and position < len(data):
        length = int.from_bytes(data[position : position + 4])
        elements.append(data[position + 4 : position + 4 + length])
        position += 4 + length
    return elements
