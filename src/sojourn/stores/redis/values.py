"""Values: what the server keeps of one session, a record behind the lists it is in.

What lives here: packing and unpacking. What must not: who reads it in the server; ``scripts.py``
describes the same bytes and reads them in Lua.

The store, not the record, says where a session is listed: a save never changes it, whatever user
the saved record names (law S15), and whoever deletes a session knows from it which lists to clean.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from sojourn.record import (
    FORMAT,
    KNOWN_FLAGS,
    NO_VERIFIER,
    PACKED_FLAGS,
    UNPACKED_FLAGS,
    Record,
    UnreadableRecord,
)
from sojourn.stores.redis.scripts import DIGEST, MOST_LISTS, UNLISTED

Value = bytes

#: The first byte of a record without the verifier that was replaced, and its end: they are nothing
#: but zeros most of the time, a tenth of a small session, and are left out then.
_SHORT: Final = FORMAT | 0x80

# What is left of the header: that byte, flags, version, seen, created, authenticated, absolute
# deadline, idle timeout, verifier hash.
_HEAD: Final = struct.Struct(">BBQQQQQQ32s")
_HEAD_BYTES: Final = _HEAD.size
_FIELDS: Final = struct.Struct(">xBQQQQQQ32s")  # the same, for whoever knows that byte


def pack(record: Record, lists: Sequence[bytes] = ()) -> Value:
    """Return the value of a record that is in these lists (digests of 16 bytes)."""
    return bytes([UNLISTED + len(lists)]) + b"".join(lists) + shorten(record)


def shorten(record: Record) -> bytes:
    """Return a record as it is stored: without the replaced verifier, if there is none."""
    if record.previous_valid_until or record.previous_verifier != NO_VERIFIER:
        return record.to_bytes()
    # Written out, as in ``unpack``: every save of a batch comes this way.
    head = _HEAD.pack(
        _SHORT,
        PACKED_FLAGS[record.confirmed, record.persistent, record.reauthentication_required],
        record.version,
        record.seen_at,
        record.created_at,
        record.authenticated_at,
        record.absolute_at,
        record.idle_timeout,
        record.verifier,
    )
    return head + record.body


def unpack(session_id: bytes, value: Value) -> Record:
    """Return the record of a value.

    Raises:
        UnreadableRecord: the bytes are none of ours.
    """
    lists = value[0] - UNLISTED if value else -1
    if not 0 <= lists <= MOST_LISTS:
        raise UnreadableRecord(
            f"record {session_id.hex()}: {len(value)} bytes beginning with {value[:1].hex()!r} "
            "were not written by this store"
        )
    start = 1 + DIGEST * lists
    end = start + _HEAD_BYTES
    if len(value) <= end or value[start] != _SHORT:
        return Record.from_bytes(session_id, value[start:])
    # Written out, because every request that brings a ticket comes this way.
    (
        flags,
        version,
        seen_at,
        created_at,
        authenticated_at,
        absolute_at,
        idle_timeout,
        verifier,
    ) = _FIELDS.unpack_from(value, start)
    confirmed, persistent, reauthentication_required = UNPACKED_FLAGS[flags & KNOWN_FLAGS]
    return Record(
        session_id,
        version,
        seen_at,
        created_at,
        absolute_at,
        idle_timeout,
        verifier,
        value[end:],
        authenticated_at,
        NO_VERIFIER,
        0,
        confirmed,
        persistent,
        reauthentication_required,
    )


def lists_of(head: Value) -> list[bytes]:
    """Return the digests of the lists that a value, or the head of one, names."""
    count = head[0] - UNLISTED if head else 0
    if not 0 <= count <= MOST_LISTS:
        return []
    return [head[1 + DIGEST * n : 1 + DIGEST * (n + 1)] for n in range(count)]


def created_at(value: Value) -> bytes:
    """Return the created-at of a value or head, 8 bytes; it means nothing in a damaged one."""
    start = 1 + DIGEST * (value[0] - UNLISTED) + 18 if value else 0
    return value[start : start + 8]
