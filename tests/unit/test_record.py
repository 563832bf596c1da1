"""Record: every field is restored, and damaged bytes are unreadable as a whole."""

import os
import pickle

import msgspec
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
    new_commit_id,
    pack_body,
    pack_instant,
    parse_session_id,
)

INSTANTS = st.integers(0, FOREVER)
HASHES = st.binary(min_size=32, max_size=32)
RECORDS = st.builds(
    Record,
    id=st.binary(min_size=16, max_size=16),
    version=st.integers(1, 2**63),
    seen_at=INSTANTS,
    created_at=INSTANTS,
    absolute_at=INSTANTS,
    idle_timeout=INSTANTS,
    verifier=HASHES,
    body=st.binary(min_size=1, max_size=50),
    authenticated_at=INSTANTS,
    previous_verifier=HASHES,
    previous_valid_until=INSTANTS,
    confirmed=st.booleans(),
    persistent=st.booleans(),
    reauthentication_required=st.booleans(),
    commit_ids=st.binary(min_size=16, max_size=16),
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
def test_every_field_is_restored(record):
    """S9."""
    assert Record.from_bytes(record.id, record.to_bytes()) == record


def test_the_layout_is_the_documented_one():
    """Header fields at fixed offsets, big-endian."""
    data = make(
        confirmed=True,
        persistent=True,
        previous_verifier=b"f" * 32,
        previous_valid_until=9,
        commit_ids=b"fourthr.two.one.",
    ).to_bytes()
    assert data[:2] == bytes([2, 0b11])
    assert [int.from_bytes(data[2 + 8 * n : 10 + 8 * n]) for n in range(6)] == [
        7, 1_000, 500, 0, 90_000, 5_000,
    ]  # fmt: skip
    assert data[50:82] == b"v" * 32
    assert data[82:114] == b"f" * 32
    assert int.from_bytes(data[114:122]) == 9
    assert data[122:138] == b"fourthr.two.one."
    assert data[138:] == make().body


def test_format_1_is_readable():
    """S9: it has no commit IDs; the rest of its header is the same."""
    record = make(authenticated_at=3, previous_verifier=b"f" * 32, previous_valid_until=9)
    data = record.to_bytes()
    assert Record.from_bytes(record.id, b"\x01" + data[1:122] + data[138:]) == record


def test_commit_ids_are_found_by_version():
    """A21: those of the last four commits, newest first."""
    record = make(version=6)
    for commit_id in (b"v007", b"v008", b"v009", b"v010", b"v011"):
        record = msgspec.structs.replace(
            record, version=record.version + 1, commit_ids=record.next_commit_ids(commit_id)
        )
    assert record.version == 11
    assert [record.commit_id(version) for version in range(6, 12)] == [
        None, None, b"v008", b"v009", b"v010", b"v011",
    ]  # fmt: skip


def test_commit_ids_are_random():
    assert len({new_commit_id() for _ in range(1_000)}) > 990


def draw_commit_ids():
    return [new_commit_id() for _ in range(8)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_draws_its_own_commit_ids():
    """A21: otherwise it could take a commit of another process for its own."""
    new_commit_id()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"".join(draw_commit_ids()))
        os._exit(0)
    os.waitpid(child, 0)
    found = os.read(reader, 100)
    os.close(reader)
    os.close(writer)
    assert len(found) == 32
    assert found != b"".join(draw_commit_ids())


def test_a_record_truncated_at_any_byte_is_unreadable():
    """B-21, S9."""
    record = make()
    data = record.to_bytes()
    for end in range(len(data)):
        with pytest.raises(UnreadableRecord, match=record.session_id):
            Record.from_bytes(record.id, data[:end]).contents()


@pytest.mark.parametrize("tail", [b"\0", b"\xc0", b"\x93"])
def test_a_record_with_bytes_after_its_body_is_unreadable(tail):
    record = make()
    with pytest.raises(UnreadableRecord):
        Record.from_bytes(record.id, record.to_bytes() + tail).contents()


@pytest.mark.parametrize("start", [b"\x94\xc0\x80\x80", b"\x93\xa3ada\x80"])
def test_a_body_that_is_nested_too_deeply_is_unreadable(start):
    """B-21, S9: also in a part that is skipped."""
    record = make(body=start + b"\x91" * 100_000)
    for reader in (
        (record.contents, record.index_names) if start[1:2] != b"\xc0" else (record.contents,)
    ):
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
def test_any_bytes_are_decoded_or_unreadable(body):
    try:
        contents = make(body=body).contents()
    except UnreadableRecord:
        return
    assert pack_body(*contents)


def test_a_key_that_is_not_utf8_is_unreadable():
    body = pack_body(None, {}, {"aé": b"x"}).replace("é".encode(), b"\xff\xff")
    with pytest.raises(UnreadableRecord, match="damaged"):
        make(body=body).contents()


def test_values_stay_encoded():
    assert make().contents() == Contents(
        "ada", {"browser": "Firefox"}, {"a": b"\x01", "b": b"\xc0"}
    )


def test_expires_at_is_the_earlier_of_both_limits():
    """min(seen_at + idle timeout, absolute deadline)."""
    assert make().expires_at == 6_000
    assert make(absolute_at=5_999).expires_at == 5_999


def test_seen_at_never_decreases():
    """S6."""
    record = make()
    assert record.with_seen_at(2_000).seen_at == 2_000
    assert record.with_seen_at(2_000).version == record.version
    assert record.with_seen_at(999) is record


def test_session_id_is_the_id_in_hex():
    assert make().session_id == bytes(range(16)).hex()


def test_an_anonymous_record_has_no_index_names():
    assert make(body=pack_body(None, {"idp_sid": "s-1"}, {"a": b"\x01"})).index_names() == ()


def test_a_record_is_indexed_by_its_user_and_its_provider_session():
    body = pack_body("ada", {"browser": "B", "idp_sid": "s-1"}, {"a": b"\x01"})
    assert make(body=body).index_names() == ("user:ada", "idp_sid:s-1")


def test_index_names_of_a_damaged_body_raise():
    with pytest.raises(UnreadableRecord, match="damaged"):
        make(body=b"\x93\xa3ad").index_names()


def test_instants_in_the_header_sort_as_bytes():
    """S15: stores order logins and apply cutoffs by comparing the stored bytes."""
    data = make(created_at=2**40 + 5, authenticated_at=2**41 + 7).to_bytes()
    assert data[CREATED_AT] == pack_instant(2**40 + 5)
    assert data[AUTHENTICATED_AT] == pack_instant(2**41 + 7)
    assert pack_instant(255) < pack_instant(256) < pack_instant(FOREVER)


@pytest.mark.parametrize(
    "text", ["", "0" * 31, "0" * 33, "F" * 32, "g" * 32, "0" * 32 + "\n", None, 5, bytes(32)]
)
def test_only_32_hex_digits_are_a_public_id(text):
    assert parse_session_id(text) is None


def test_a_public_id_is_parsed():
    assert parse_session_id("0a" * 16) == b"\n" * 16
