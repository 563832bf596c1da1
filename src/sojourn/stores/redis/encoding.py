"""Encoding of stored values.

A value is the digests of the names that a session is indexed under, then its record. ``scripts.py``
describes it, and the Lua scripts read it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from sojourn.record import (
    FORMAT,
    KNOWN_FLAGS,
    NO_COMMIT_IDS,
    NO_VERIFIER,
    PACKED_FLAGS,
    UNPACKED_FLAGS,
    Record,
    UnreadableRecord,
)
from sojourn.store import MessageKind
from sojourn.stores.redis.keys import Keys
from sojourn.stores.redis.scripts import CREATED_AT, DIGEST_BYTES, MAX_NAMES, NO_NAMES

#: The format byte of a record without the previous verifier and its end, which are zero most of the
#: time and a tenth of a small session.
_SHORT_FORMAT: Final = FORMAT | 0x80

#: The same of format 1, which has no commit IDs; read only.
_SHORT_FORMAT_1: Final = 1 | 0x80

# The header of such a record: format, flags, version, seen_at, created_at, authenticated_at,
# absolute deadline, idle timeout, verifier hash, commit IDs.
_HEADER: Final = struct.Struct(">BBQQQQQQ32s16s")
_HEADER_BYTES: Final = _HEADER.size
_COMMIT_IDS_AT: Final = _HEADER_BYTES - len(NO_COMMIT_IDS)

#: Where the record starts in a value, by the first byte of the value.
_RECORD_STARTS: Final = {NO_NAMES + n: 1 + DIGEST_BYTES * n for n in range(MAX_NAMES + 1)}


def encode_value(record: Record, digests: Sequence[bytes] = ()) -> bytes:
    """Return the value of a record indexed under names (digests of 16 bytes).

    The value, not the record, states where a session is indexed: a save never changes that (law
    S15), and a delete returns it.
    """
    return bytes([NO_NAMES + len(digests)]) + b"".join(digests) + encode_record(record)


def encode_record(record: Record) -> bytes:
    """Return the stored form of a record."""
    if record.previous_valid_until or record.previous_verifier != NO_VERIFIER:
        return record.to_bytes()
    # Inlined, as in decode_value: every save calls it.
    header = _HEADER.pack(
        _SHORT_FORMAT,
        PACKED_FLAGS[record.confirmed, record.persistent, record.reauthentication_required],
        record.version,
        record.seen_at,
        record.created_at,
        record.authenticated_at,
        record.absolute_at,
        record.idle_timeout,
        record.verifier,
        record.commit_ids,
    )
    return header + record.body


def decode_value(session_id: bytes, value: bytes) -> Record:
    """Return the record in a value.

    Raises:
        UnreadableRecord: the bytes are damaged, foreign or of a newer format.
    """
    start = _RECORD_STARTS.get(value[0]) if value else None
    if start is None:
        raise UnreadableRecord(
            f"record {session_id.hex()}: {len(value)} bytes beginning with {value[:1].hex()!r} "
            "were not written by this store"
        )
    body = value[start + _HEADER_BYTES :]
    if not body:
        return _decode_other_format(session_id, value[start:])
    # Inlined: every request with a ticket calls it.
    (
        record_format,
        flags,
        version,
        seen_at,
        created_at,
        authenticated_at,
        absolute_at,
        idle_timeout,
        verifier,
        commit_ids,
    ) = _HEADER.unpack_from(value, start)
    if record_format != _SHORT_FORMAT:
        return _decode_other_format(session_id, value[start:])
    confirmed, persistent, reauthentication_required = UNPACKED_FLAGS[flags & KNOWN_FLAGS]
    return Record(
        session_id,
        version,
        seen_at,
        created_at,
        absolute_at,
        idle_timeout,
        verifier,
        body,
        authenticated_at,
        NO_VERIFIER,
        0,
        confirmed,
        persistent,
        reauthentication_required,
        commit_ids,
    )


def _decode_other_format(session_id: bytes, data: bytes) -> Record:
    """Return a record whose header is a complete one, or a short one of format 1."""
    if len(data) > _COMMIT_IDS_AT and data[0] == _SHORT_FORMAT_1:
        header, body = data[1:_COMMIT_IDS_AT], data[_COMMIT_IDS_AT:]
        current = bytes([NO_NAMES, _SHORT_FORMAT]) + header + NO_COMMIT_IDS + body
        return decode_value(session_id, current)
    return Record.from_bytes(session_id, data)


def digests_of(head: bytes) -> list[bytes]:
    """Return the digests of the names in a value or the head of one; none if it is damaged."""
    count = head[0] - NO_NAMES if head else 0
    if not 0 <= count <= MAX_NAMES:
        return []
    return [head[1 + DIGEST_BYTES * n : 1 + DIGEST_BYTES * (n + 1)] for n in range(count)]


def created_at(value: bytes) -> bytes:
    """Return ``created_at`` of a value or head, 8 bytes; undefined if it is damaged."""
    start = 1 + DIGEST_BYTES * (value[0] - NO_NAMES) + CREATED_AT if value else 0
    return value[start : start + 8]


def channel_of(kind: MessageKind, session_id: bytes, keys: Keys) -> str:
    """Return the channel of a message: all processes receive all kinds but ``changed``."""
    return keys.channel(session_id) if kind == "changed" else keys.events
