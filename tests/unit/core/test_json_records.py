"""The JSON form of records: its layout, what it holds, and what is unreadable (law S9)."""

import json
import math
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sojourn._core.codec import MAX_DEPTH, encode
from sojourn._core.json_records import MAX_INTEGER, check_value, from_json, to_json
from sojourn.errors import NotSerializable
from sojourn.record import FOREVER, Record, UnreadableRecord, pack_body
from sojourn.testing.records import make_body, make_record

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
    max_leaves=20,
)


def nested(value, levels):
    """Return the value inside the given number of nested lists."""
    for _ in range(levels):
        value = [value]
    return value


RECORD = Record(
    id=bytes(range(16)),
    version=3,
    seen_at=1_790_000_060_000,
    created_at=1_790_000_000_000,
    absolute_at=1_790_043_200_000,
    idle_timeout=1_800_000,
    verifier=b"\x01" * 32,
    body=pack_body(
        "ada",
        {"browser": "Firefox on Linux", "address": "192.0.2.7"},
        {
            "visits": encode("", 3),
            "cart": encode("", {"apple": 2, "notes": ["ripe", None, 0.5, True]}),
            "\0auth": encode("", {"methods": ["password"]}),
        },
    ),
    authenticated_at=1_790_000_050_000,
    commit_ids=bytes(range(16)),
)

#: The format that other programs read. A change of it is another format.
FORMAT_1 = {
    "format": 1,
    "state": {"visits": 3, "cart": {"apple": 2, "notes": ["ripe", None, 0.5, True]}},
    "metadata": {
        "user": "ada",
        "labels": {"browser": "Firefox on Linux", "address": "192.0.2.7"},
        "reserved": {"auth": {"methods": ["password"]}},
        "version": 3,
        "seen_at": 1_790_000_060_000,
        "created_at": 1_790_000_000_000,
        "absolute_at": 1_790_043_200_000,
        "idle_timeout": 1_800_000,
        "verifier": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
        "authenticated_at": 1_790_000_050_000,
        "previous_verifier": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "previous_valid_until": 0,
        "confirmed": True,
        "persistent": False,
        "reauthentication_required": False,
        "commit_ids": "AAECAwQFBgcICQoLDA0ODw==",
    },
}


def test_the_layout_of_format_1_is_fixed():
    """S9: stored dicts stay readable, also for other programs."""
    assert to_json(RECORD) == FORMAT_1
    assert from_json(RECORD.id, FORMAT_1) == RECORD
    assert from_json(RECORD.id, json.loads(json.dumps(FORMAT_1))) == RECORD


@given(st.dictionaries(st.text(min_size=1).filter(lambda key: "\0" not in key), JSON_VALUES))
@example({"user": 1, "idp_sid": None, "self": "a"})
def test_every_accepted_value_is_restored(state):
    """S9: through the text of two JSON libraries, without a difference."""
    for key, value in state.items():
        check_value(key, value)
    record = make_record(body=make_body("ada", **state))
    text = json.dumps(to_json(record))
    assert from_json(record.id, json.loads(text)) == record
    assert from_json(record.id, msgspec.json.decode(text)) == record


def test_every_field_is_restored():
    """S9: with extreme values."""
    for changes in (
        {"absolute_at": FOREVER, "version": 2**53 - 1, "idle_timeout": FOREVER},
        {"verifier": b"\xff" * 32, "previous_verifier": bytes(range(32))},
        {"confirmed": False, "persistent": True, "reauthentication_required": True},
        {"body": pack_body(None, {}, {})},
    ):
        record = msgspec.structs.replace(RECORD, **changes)
        assert from_json(record.id, json.loads(json.dumps(to_json(record)))) == record


@pytest.mark.parametrize(
    ("value", "path", "kind"),
    [
        (b"x", "", bytes),
        ({1}, "", set),
        (frozenset(), "", frozenset),
        (datetime(2026, 1, 1, tzinfo=UTC), "", datetime),
        ([{"born": date(2026, 1, 1)}], "[0]['born']", date),
        ((1, UUID(int=0)), "[1]", UUID),
        (Decimal(1), "", Decimal),
        (math.nan, "", float),
        ({"a": [math.inf]}, "['a'][0]", float),
        (-math.inf, "", float),
        (2**53, "", int),
        (-(2**53), "", int),
        ({1: "x"}, "", int),
        ({"a": {None: 1}}, "['a']", type(None)),
        (object(), "", object),
        (nested(b"x", MAX_DEPTH), "[0]" * MAX_DEPTH, bytes),
    ],
)
def test_a_value_that_json_cannot_represent_is_refused(value, path, kind):
    """The error names the key, the path and the type."""
    with pytest.raises(NotSerializable, match="holds sessions as JSON") as refused:
        check_value("profile", value)
    assert (refused.value.key, refused.value.path, refused.value.type) == ("profile", path, kind)
    assert f"session['profile']{path} cannot hold" in str(refused.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"x", "a value of type bytes"),
        (2**53, "an integer beyond 2**53 - 1"),
        (math.nan, "the float nan"),
        ({1: "x"}, "a dict with keys of type int"),
    ],
)
def test_the_error_names_the_value_that_json_cannot_represent(value, text):
    with pytest.raises(NotSerializable, match=re.escape(f"['profile'] cannot hold {text}. This ")):
        check_value("profile", value)


def test_the_check_ignores_values_that_are_nested_too_deeply():
    """The codec refuses them. A list that contains itself ends the check."""
    endless = []
    endless.append(endless)
    check_value("k", endless)
    with pytest.raises(NotSerializable, match=f"nested more than {MAX_DEPTH}"):
        encode("k", endless)


def test_a_replay_whose_result_json_cannot_represent_is_not_written():
    """Two parallel increments may add up to infinity."""
    record = make_record(body=make_body(total=math.inf))
    with pytest.raises(NotSerializable, match=r"session\['total'\] cannot hold the float inf"):
        to_json(record)


def changed(part=None, /, **changes):
    """Return the dict of format 1 with changed entries, at the top or in one part."""
    if part is None:
        return {**FORMAT_1, **changes}
    return {**FORMAT_1, part: {**FORMAT_1[part], **changes}}


DAMAGED = [
    None,
    17,
    "text",
    b"bytes",
    [],
    {},
    {"format": 1},
    {"format": 1, "ended": True},
    {"error": "rate limited"},
    changed(format=0),
    changed(format=2),
    changed(format=True),
    changed(format="1"),
    changed(state=None),
    changed(state=[]),
    changed(metadata=None),
    changed(metadata={}),
    changed("state", **{"\0auth": {"methods": []}}),
    changed("state", **{"\ud800": 1}),
    changed("state", text="\ud800"),
    changed("state", data=b"x"),
    changed("state", number=math.nan),
    changed("metadata", more=1),
    changed("metadata", user=7),
    changed("metadata", user="\ud800"),
    changed("metadata", labels=None),
    changed("metadata", labels={"browser": 1}),
    changed("metadata", reserved=[]),
    changed("metadata", reserved={"auth": b"x"}),
    changed("metadata", version=-1),
    changed("metadata", version=2**64),
    changed("metadata", version=3.0),
    changed("metadata", version="3"),
    changed("metadata", seen_at=None),
    changed("metadata", verifier="AQ=="),
    changed("metadata", verifier="*"),
    changed("metadata", commit_ids="AQ=="),
    changed("metadata", confirmed=1),
    *(
        {**FORMAT_1, "metadata": {k: v for k, v in FORMAT_1["metadata"].items() if k != name}}
        for name in FORMAT_1["metadata"]
    ),
]


@pytest.mark.parametrize("value", DAMAGED, ids=range(len(DAMAGED)))
def test_a_dict_of_another_form_is_unreadable(value):
    """S9: damaged, foreign and newer dicts are never read in part."""
    with pytest.raises(UnreadableRecord, match=RECORD.id.hex()):
        from_json(RECORD.id, value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (changed(format=2), "found format 2"),
        (
            {**FORMAT_1, "metadata": {"version": 3, "user": "ada"}},
            "found metadata with the fields user, version",
        ),
        (changed("metadata", verifier="AQ=="), "a field of the metadata is out of range"),
        (changed("state", cart=b"x"), "session['cart'] cannot hold a value of type bytes"),
        (changed("state", cart=nested(1, MAX_DEPTH + 1)), "session['cart']"),
        (changed("metadata", reserved={"auth": b"x"}), "session['auth'] cannot hold"),
        (changed("metadata", reserved={"auth": nested(1, MAX_DEPTH + 1)}), "session['auth']"),
    ],
)
def test_the_error_names_the_unreadable_entry(value, text):
    """S9."""
    with pytest.raises(
        UnreadableRecord, match=f"expected a dict of JSON format 1: {re.escape(text)}"
    ):
        from_json(RECORD.id, value)


def test_the_deepest_value_is_readable():
    """B-55: as deep as in every other store."""
    deepest = changed("state", cart=nested(1, MAX_DEPTH))
    assert to_json(from_json(RECORD.id, deepest)) == deepest


def test_additional_entries_are_ignored():
    """Such as the ``_id`` of a document database."""
    assert from_json(RECORD.id, changed(_id="x", _rev=2)) == RECORD


def test_a_deeply_nested_dict_is_unreadable():
    """S9, B-21."""
    endless = {}
    endless["more"] = endless
    with pytest.raises(UnreadableRecord):
        from_json(RECORD.id, changed("state", deep=endless))
    with pytest.raises(UnreadableRecord):
        from_json(RECORD.id, changed("metadata", user=endless))


def test_the_dict_shares_no_object_with_the_record():
    """The function of the application may change its argument."""
    value = to_json(RECORD)
    value["state"]["cart"].clear()
    value["metadata"]["labels"].clear()
    assert to_json(RECORD) == FORMAT_1
