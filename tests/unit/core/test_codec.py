"""The codec: every accepted value is restored, every other value is refused."""

import math
import pickle
import sys
from collections import OrderedDict, defaultdict
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from msgspec.msgpack import Ext

from sojourn._core.codec import MAX_DEPTH, checked_encoder, decode, encode
from sojourn.errors import NotSerializable

OFFSETS = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
KEYS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
SCALARS = (
    KEYS
    | st.integers()
    | st.datetimes()
    | st.datetimes(timezones=OFFSETS)
    | st.dates()
    | st.times()
    | st.times(timezones=OFFSETS)
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False)
)
MEMBERS = st.recursive(
    SCALARS, lambda inner: st.frozensets(inner, max_size=3) | st.tuples(inner, inner), max_leaves=6
)
VALUES = st.recursive(
    SCALARS | st.sets(MEMBERS, max_size=4) | st.frozensets(MEMBERS, max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


class Number(IntEnum):
    ONE = 1


class Name(StrEnum):
    ADA = "ada"


class Wide(IntEnum):
    HUGE = 2**70


class Plain(Enum):
    ONE = 1


class Lone(StrEnum):
    SURROGATE = "\ud800"


class Pair(int, Enum):
    """An integer whose ``value`` is a tuple."""

    def __new__(cls, number):
        member = int.__new__(cls, number)
        member._value_ = (number,)
        return member

    ONE = 1


class Text(str):
    __slots__ = ()


@given(VALUES)
def test_every_value_is_restored(value):
    """S9."""
    back = decode(encode("key", value))
    assert back == value
    assert type(back) is type(value)
    assert encode("key", back) == encode("key", value)


@given(st.sets(MEMBERS, max_size=8))
def test_equal_sets_have_equal_bytes(members):
    """Change detection compares bytes, and a set has no order."""
    assert encode("key", {*sorted(members, key=repr, reverse=True)}) == encode("key", members)


@pytest.mark.parametrize(
    "value",  # including naive datetimes
    [
        2**64, -(2**63) - 1, 10**400, -(10**400), [2**70, {"deep": {-(2**70)}}], frozenset({2**64}),
        float("inf"), "\0", "\U0010ffff", b"\xff" * 70_000, datetime.max, datetime.min, date.max,  # noqa: DTZ901
        time.max, timedelta.max, timedelta.min, UUID(int=0), Decimal("-0"), Decimal("Infinity"),
        {"": {}}, set(), frozenset(), [], {None: 1, b"x": 2, 1.5: 3, True: 4, "s": 5},
        datetime(2026, 1, 1, tzinfo=UTC),
    ],
)  # fmt: skip
def test_extreme_values_are_restored(value):
    back = decode(encode("key", value))
    assert back == value
    assert type(back) is type(value)


def test_values_that_are_unequal_to_themselves_are_restored():
    assert math.isnan(decode(encode("key", float("nan"))))
    assert decode(encode("key", Decimal("NaN"))).is_nan()
    assert decode(encode("key", Decimal("sNaN"))).is_snan()
    assert decode(encode("key", Decimal("-0"))).is_signed()


def test_a_tuple_is_restored_as_a_list_except_inside_a_set():
    assert decode(encode("key", (1, (2, 3)))) == [1, [2, 3]]
    assert decode(encode("key", {(1, (2, 3))})) == {(1, (2, 3))}
    assert decode(encode("key", {(frozenset({(1,)}),)})) == {(frozenset({(1,)}),)}


@pytest.mark.parametrize(
    ("value", "path", "kind"),
    [
        (object(), "", object),
        ([1, object()], "[1]", object),
        ({"a": [{"b": object()}]}, "['a'][0]['b']", object),
        ({1, object()}, "{...}", object),
        ({"a": {1 + 2j}}, "['a']{...}", complex),
        (bytearray(b"x"), "", bytearray),
        (memoryview(b"x"), "", memoryview),
        (Plain.ONE, "", Plain),
        ({Plain.ONE: 1}, "", Plain),
        (Text("x"), "", Text),
        ([True, Text("x")], "[1]", Text),
        (OrderedDict(a=1), "", OrderedDict),
        (defaultdict(list), "", defaultdict),
        (Ext(1, b""), "", Ext),
        ({(1, 2): 3}, "", tuple),
        ({"a": {Text("x"): 3}}, "['a']", Text),
        ("\ud800", "", str),
        (["\udfff"], "[0]", str),
        ([Lone.SURROGATE], "[0]", str),
        ([Pair.ONE], "[0]", Pair),
        ({"\ud800": 1}, "", str),
        ({2**70: 1}, "", int),
        (range(3), "", range),
        (map(str, []), "", map),
        (int, "", type),
    ],
)
def test_other_types_are_refused_with_key_path_and_type(value, path, kind):
    with pytest.raises(NotSerializable) as caught:
        encode("cart", value)
    error = caught.value
    assert isinstance(error, TypeError)
    assert (error.key, error.path, error.type) == ("cart", path, kind)
    assert f"session['cart']{path} cannot hold" in str(error)
    assert kind.__name__ in str(error) or isinstance(value, str | list | dict)
    assert "Convert the value first" in str(error)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({(1, 2): 3}, "a dict with keys of type tuple"),
        ({2**70: 1}, "a dict with an integer key of more than 64 bits"),
        ("\ud800", "a lone surrogate"),
    ],
)
def test_the_error_for_a_dict_key_or_surrogate_names_the_reason(value, reason):
    """Naming the type alone would be wrong: other tuples, integers and strings are accepted."""
    with pytest.raises(NotSerializable, match=reason):
        encode("cart", value)


def test_integers_of_64_bits_are_stored_as_msgpack_integers():
    """Also beside wider ones: equal values have equal bytes."""
    msgpack = msgspec.msgpack.encode
    plain = [0, -1, 200, -(2**63), 2**63, 2**64 - 1]
    assert encode("key", plain) == msgpack(plain)
    wide = Ext(9, (2**70).to_bytes(9, "big"))
    assert encode("key", [*plain, 2**70]) == msgpack([*plain, wide])


def test_a_container_that_contains_itself_is_refused():
    """Without a RecursionError."""
    loop: list = []
    loop.append(loop)
    cycle: dict = {}
    cycle["self"] = [cycle]
    for value in (loop, cycle):
        with pytest.raises(NotSerializable, match="nested more than"):
            encode("key", value)


@pytest.mark.parametrize(
    "wrap", [lambda v: [v], lambda v: {"k": v}, lambda v: (v,), lambda v: frozenset({v})]
)
def test_nesting_deeper_than_the_limit_is_refused(wrap):
    """B-55: 64 containers inside of each other are accepted, whatever the innermost value is."""
    for innermost in (1, 2**70, UUID(int=1), Name.ADA):
        value: object = innermost
        for _ in range(64):
            value = wrap(value)
        for encoder in (encode, checked_encoder(lambda *_: None)):
            assert decode(encoder("key", value)) is not None
            with pytest.raises(NotSerializable, match="nested more than 64 levels"):
                encoder("key", wrap(value))


def test_the_error_for_a_value_nested_too_deeply_names_its_path():
    """NotSerializable names key, path and type."""
    value: object = {}
    for _ in range(MAX_DEPTH):
        value = [value]
    with pytest.raises(NotSerializable) as caught:
        encode("cart", value)
    error = caught.value
    assert (error.key, error.path, error.type) == ("cart", "[0]" * MAX_DEPTH, dict)


class Exploit:
    """Fails the test when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_is_never_executed(protocol):
    """B-10, B-11."""
    with pytest.raises(msgspec.DecodeError):
        decode(pickle.dumps(Exploit(), protocol) + b"\xc1")


@given(st.binary(max_size=40))
def test_damaged_bytes_raise_a_decode_error(data):
    """S9."""
    with suppress(msgspec.DecodeError):
        decode(data)


@pytest.mark.parametrize("data", [b"\xa1\xff", b"\x91\xa1\xff", b"\x81\xa1\xff\x01"])
def test_text_that_is_not_utf_8_raises_a_decode_error(data):
    """S9."""
    with pytest.raises(msgspec.DecodeError, match="UTF-8"):
        decode(data)


def test_deeply_nested_bytes_raise_a_decode_error():
    """S9, B-21."""
    with pytest.raises(msgspec.DecodeError, match="nested"):
        decode(b"\x91" * 100_000)


@given(st.integers(1, 127), st.binary(max_size=20))
def test_damaged_extensions_raise_a_decode_error(code, data):
    with suppress(msgspec.DecodeError):
        decode(msgspec.msgpack.encode(Ext(code, data)))


def test_the_error_for_an_unknown_extension_says_that_it_may_be_newer():
    with pytest.raises(msgspec.DecodeError, match="newer"):
        decode(msgspec.msgpack.encode(Ext(99, b"")))


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (Name.ADA, "ada"),
        (Number.ONE, 1),
        (Wide.HUGE, 2**70),
        ([Name.ADA, 2**70], ["ada", 2**70]),
        ({Name.ADA: [Number.ONE]}, {"ada": [1]}),
        ({Number.ONE, Name.ADA}, {1, "ada"}),
    ],
)
def test_str_and_int_enumerations_are_stored_as_their_base_value(value, stored):
    decoded = decode(encode("key", value))
    assert decoded == stored
    assert encode("key", value) == encode("key", stored)
    assert not isinstance(decoded, Enum)


def test_depth_is_counted_from_the_given_level():
    """B-55: an operation with a path has the depth limit of the whole value."""
    encode("key", [], depth=MAX_DEPTH - 1)
    for encoder in (encode, checked_encoder(lambda *_: None)):
        with pytest.raises(NotSerializable, match="nested more than"):
            encoder("key", [], depth=MAX_DEPTH)


def test_the_check_of_a_store_is_called_before_the_encoding():
    """Without a check the encoder is `encode` itself, so that it costs no call."""
    checked = []
    encoder = checked_encoder(lambda *arguments: checked.append(arguments))
    assert encoder("key", [1]) == encode("key", [1])
    assert checked == [("key", [1])]
    with pytest.raises(NotSerializable) as caught:
        encoder("cart", object())
    assert caught.value.key == "cart"
    assert checked_encoder(None) is encode


class TestMarkup:
    """Safe HTML is restored as markup; templates escape any other text."""

    @pytest.mark.parametrize("value", [Markup("<b>"), [Markup("<b>")], {"a": Markup("é")}])
    def test_markup_is_restored_as_markup(self, value):
        found = decode(encode("key", value))
        assert found == value
        text = next(iter(found.values())) if isinstance(found, dict) else found[0]
        assert isinstance(found if isinstance(found, str) else text, Markup)

    def test_an_object_with_an_html_method_is_stored_as_markup(self):
        """As in Flask's serializer, such as lazy translations."""

        class Lazy:
            def __html__(self):
                return "<i>"

        assert decode(encode("key", Lazy())) == Markup("<i>")
        with pytest.raises(NotSerializable):
            encode("key", Lazy)

    def test_a_process_without_markupsafe_reads_plain_text(self, monkeypatch):
        """Its templates escape the text."""
        monkeypatch.setitem(sys.modules, "markupsafe", None)
        found = decode(encode("key", Markup("<b>")))
        assert type(found) is str
        assert found == "<b>"
