"""The stored form of history entries, and the cursors of their pages."""

import msgspec
import pytest

from sojourn.store import HistoryEntry
from sojourn.stores.history import (
    decode_entries,
    decode_entry,
    encode_entry,
    make_cursor,
    parse_cursor,
)

ENTRY = HistoryEntry(
    bytes(range(16)), 1_700_000_000_000, "revoked", "support", "ada", 1_600_000_000_000, {"a": "b"}
)


def test_an_entry_is_a_format_byte_and_an_array():
    data = encode_entry(ENTRY)
    assert data[0] == 1
    assert msgspec.msgpack.decode(data[1:]) == [
        *(ENTRY.session_id, ENTRY.ended_at, "revoked", "support", "ada", ENTRY.created_at),
        {"a": "b"},
    ]
    assert decode_entry(data) == ENTRY


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x02" + encode_entry(ENTRY)[1:],
        encode_entry(ENTRY)[:-1],
        encode_entry(ENTRY) + b"\0",
        encode_entry(msgspec.structs.replace(ENTRY, session_id=b"short")),
        encode_entry(msgspec.structs.replace(ENTRY, ended_at=-1)),
        encode_entry(msgspec.structs.replace(ENTRY, created_at=-1)),
        b"\x01" + msgspec.msgpack.encode([bytes(16), "today", "revoked"]),
        b"\x01\x93\xc4\x10" + bytes(16) + b"\x01\xa1\xff",
        b"\x01" + b"\x91" * 100_000,
        "text",
        None,
    ],
)
def test_damaged_and_newer_entries_are_unreadable(data):
    """S9: they are counted and never read in part."""
    assert decode_entry(data) is None
    assert decode_entries([data, encode_entry(ENTRY)]) == ([ENTRY], 1)


def test_a_cursor_is_restored():
    assert parse_cursor(make_cursor(1_700_000_000_000, 7)) == (1_700_000_000_000, 7)


def test_the_empty_cursor_is_after_every_entry():
    assert parse_cursor("") == (2**63 - 1, 2**63 - 1)


@pytest.mark.parametrize(
    "cursor", ["x", "1", "1-", "-1-1", "1-1-1", "1-1\n", " 1-1", "٣-٣", "9223372036854775808-0"]
)
def test_an_invalid_cursor_is_refused(cursor):
    with pytest.raises(ValueError, match=r"^expected the cursor of a page of the history, found"):
        parse_cursor(cursor)
