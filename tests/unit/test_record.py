"""The stored form: every field comes back, and damaged bytes are never half-read.

Read next: ``test_ticket.py``.
"""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.record import (
    AUTHENTICATED_AT,
    CREATED_AT,
    FOREVER,
    FORMAT,
    Contents,
    Record,
    UnreadableRecord,
    pack_body,
    pack_instant,
)

MOMENTS = st.integers(0, FOREVER)
HASHES = st.binary(min_size=32, max_size=32)
RECORDS = st.builds(
    Record,
    id=st.binary(min_size=16, max_size=16),
    version=st.integers(1, 2**63),
    seen_at=MOMENTS,
    created_at=MOMENTS,
    absolute_at=MOMENTS,
    idle_timeout=MOMENTS,
    verifier=HASHES,
    body=st.binary(min_size=1, max_size=50),
    authenticated_at=MOMENTS,
    previous_verifier=HASHES,
    previous_valid_until=MOMENTS,
    confirmed=st.booleans(),
    persistent=st.booleans(),
)


def make(**fields):
    given_ = {
        "id": bytes(range(16)),
        "version": 7,
        "seen_at": 1_000,
        "created_at": 500,
        "absolute_at": 90_000,
        "idle_timeout": 5_000,
        "verifier": b"v" * 32,
        "body": pack_body("ada", {"browser": "Firefox"}, {"a": b"\x01", "b": b"\xc0"}),
    }
    return Record(**{**given_, **fields})


@given(RECORDS)
def test_every_field_comes_back(record):
    """S9."""
    assert Record.from_bytes(record.id, record.to_bytes()) == record


def test_layout_is_the_documented_one():
    """formats.md: header at fixed offsets, big-endian."""
    data = make(
        confirmed=True, persistent=True, previous_verifier=b"f" * 32, previous_valid_until=9
    ).to_bytes()
    assert data[:2] == bytes([FORMAT, 0b11])
    assert [int.from_bytes(data[2 + 8 * n : 10 + 8 * n]) for n in range(6)] == [
        7, 1_000, 500, 0, 90_000, 5_000,
    ]  # fmt: skip
    assert data[50:82] == b"v" * 32
    assert data[82:114] == b"f" * 32
    assert int.from_bytes(data[114:122]) == 9
    assert data[122:] == make().body


def test_truncated_at_every_byte_is_unreadable():
    """B-21, S9."""
    record = make()
    data = record.to_bytes()
    for end in range(len(data)):
        with pytest.raises(UnreadableRecord, match=record.session_id):
            Record.from_bytes(record.id, data[:end]).contents()


@pytest.mark.parametrize("tail", [b"\0", b"\xc0", b"\x93"])
def test_bytes_after_the_body_make_it_unreadable(tail):
    record = make()
    with pytest.raises(UnreadableRecord):
        Record.from_bytes(record.id, record.to_bytes() + tail).contents()


@pytest.mark.parametrize("start", [b"\x94\xc0\x80\x80", b"\x93\xa3ada\x80"])
def test_a_body_nested_without_end_is_unreadable(start):
    """B-21, S9: also where it stands behind what is read."""
    record = make(body=start + b"\x91" * 100_000)
    for reader in (record.contents, record.names) if start[1:2] != b"\xc0" else (record.contents,):
        with pytest.raises(UnreadableRecord, match="damaged"):
            reader()


@pytest.mark.parametrize("format_", [0, FORMAT + 1, 255])
def test_newer_and_foreign_formats_are_unreadable(format_):
    """S9."""
    data = bytes([format_]) + make().to_bytes()[1:]
    with pytest.raises(UnreadableRecord, match=f"expected format {FORMAT}"):
        Record.from_bytes(bytes(16), data)


@pytest.mark.parametrize("data", [b"", b"\x01", pickle.dumps({"user": 1}), b'{"a":1}' * 40])
def test_foreign_bytes_are_unreadable(data):
    """B-10, B-21."""
    with pytest.raises(UnreadableRecord):
        Record.from_bytes(bytes(16), data).contents()


@given(st.binary(max_size=60))
def test_any_body_is_read_whole_or_unreadable(body):
    try:
        contents = make(body=body).contents()
    except UnreadableRecord:
        return
    assert pack_body(*contents)


def test_a_key_that_is_no_text_is_unreadable():
    body = pack_body(None, {}, {"aé": b"x"}).replace("é".encode(), b"\xff\xff")
    with pytest.raises(UnreadableRecord, match="damaged"):
        make(body=body).contents()


def test_contents_stay_encoded():
    assert make().contents() == Contents(
        "ada", {"browser": "Firefox"}, {"a": b"\x01", "b": b"\xc0"}
    )


def test_expiry_is_derived():
    """formats.md: min(seen_at + idle, absolute deadline)."""
    assert make().expires_at == 6_000
    assert make(absolute_at=5_999).expires_at == 5_999


def test_seen_moves_forward_only():
    """S6."""
    record = make()
    assert record.seen(2_000).seen_at == 2_000
    assert record.seen(2_000).version == record.version
    assert record.seen(999) is record


def test_repr_of_a_record_opens_nothing():
    """A18: the hash of a verifier is no verifier."""
    assert make().session_id == bytes(range(16)).hex()


def test_an_anonymous_record_is_listed_under_no_name():
    assert make(body=pack_body(None, {"idp_sid": "s-1"}, {"a": b"\x01"})).names() == ()


def test_a_record_is_listed_under_its_user_and_its_providers_session():
    body = pack_body("ada", {"browser": "B", "idp_sid": "s-1"}, {"a": b"\x01"})
    assert make(body=body).names() == ("user:ada", "idp_sid:s-1")


def test_names_of_a_damaged_body_are_an_error():
    with pytest.raises(UnreadableRecord, match="damaged"):
        make(body=b"\x93\xa3ad").names()


def test_two_instants_of_the_header_can_be_compared_where_they_stand():
    """S15: stores order logins and void sessions by the stored bytes alone."""
    data = make(created_at=2**40 + 5, authenticated_at=2**41 + 7).to_bytes()
    assert data[CREATED_AT] == pack_instant(2**40 + 5)
    assert data[AUTHENTICATED_AT] == pack_instant(2**41 + 7)
    assert pack_instant(255) < pack_instant(256) < pack_instant(FOREVER)
