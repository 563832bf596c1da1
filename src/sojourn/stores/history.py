"""The stored form of history entries and cursors, for stores with ``SupportsHistory``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from sojourn.record import ID_BYTES
from sojourn.store import HistoryEntry

#: The first byte of an encoded entry; entries of any other format are unreadable (law S9).
FORMAT: Final = 1

_MAX_NUMBER: Final = 2**63 - 1

_CURSOR: Final = re.compile(r"([0-9]{1,19})-([0-9]{1,19})", re.ASCII)

#: Raised for a damaged entry; ``RecursionError`` for one that is nested too deeply (law S9).
_DECODE_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(HistoryEntry).decode


def encode_entry(entry: HistoryEntry) -> bytes:
    """Return the format byte, then msgpack of the fields as an array."""
    return bytes((FORMAT,)) + _encode(entry)


def decode_entry(data: object) -> HistoryEntry | None:
    """Return an entry; None for bytes that are damaged or of another format."""
    if type(data) is not bytes or data[:1] != bytes((FORMAT,)):
        return None
    try:
        entry = _decode(data[1:])
    except _DECODE_ERRORS:
        return None
    valid = len(entry.session_id) in {0, ID_BYTES} and min(entry.ended_at, entry.created_at) >= 0
    return entry if valid else None


def decode_entries(values: Iterable[object]) -> tuple[list[HistoryEntry], int]:
    """Return the entries that can be decoded, and the number of those that cannot."""
    decoded = [decode_entry(value) for value in values]
    entries = [entry for entry in decoded if entry is not None]
    return entries, len(decoded) - len(entries)


def make_cursor(instant: int, number: int) -> str:
    """Return the cursor of an entry, which is the last one of its page.

    Args:
        instant: milliseconds since 1970 UTC.
        number: of the entry among those of the same instant, or of the store.
    """
    return f"{instant}-{number}"


def parse_cursor(cursor: str) -> tuple[int, int]:
    """Return instant and number; those after every entry for the empty cursor.

    Raises:
        ValueError: it is not a cursor of a history.
    """
    if not cursor:
        return _MAX_NUMBER, _MAX_NUMBER
    found = _CURSOR.fullmatch(cursor)
    if found is None or max(map(int, found.groups())) > _MAX_NUMBER:
        raise ValueError(f"expected the cursor of a page of the history, found {cursor!r}")
    return int(found[1]), int(found[2])
