"""Values of subclasses are stored as their base type, as JSON encoders do."""

from collections import OrderedDict, defaultdict
from enum import IntEnum, StrEnum
from typing import NamedTuple

import pytest

from sojourn._core.changes import ChangeTracker
from sojourn._core.codec import MAX_DEPTH, decode, encode
from sojourn._core.operations import ABSENT
from sojourn._core.plain_values import PLAIN_CONTAINERS, to_plain, to_plain_containers
from sojourn.errors import NotSerializable


class Point(NamedTuple):
    x: int
    y: str


class Token(dict):
    """A subclass of dict, such as the token of an OAuth client."""


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "overridden"


class Color(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


def tracker(**values):
    return ChangeTracker({key: encode(key, value) for key, value in values.items()}, {}, encode)


def test_scalars_become_their_base_type_and_others_are_returned_unchanged():
    for value, plain in ((Text("a"), "a"), (Color.RED, "red"), (Level.HIGH, 3)):
        assert (type(to_plain(value)), to_plain(value)) == (type(plain), plain)
    for value in (True, None, 1.5, b"x"):
        assert to_plain(value) is value


def test_containers_become_plain_at_any_depth():
    value = OrderedDict(a=[Token(b=Point(1, Text("c")))], d=defaultdict(list, e=[1]))
    plain = to_plain_containers(value)
    assert plain == {"a": [{"b": [1, "c"]}], "d": {"e": [1]}}
    assert type(plain) is type(plain["a"][0]) is type(plain["d"]) is dict
    assert type(plain["a"][0]["b"]) is list
    assert type(plain["a"][0]["b"][1]) is str


def test_later_changes_of_an_assigned_object_are_stored():
    """A2: the assigned object is compared again at the commit."""
    changes, token = tracker(), Token(access="a")
    changes.set("token", token, PLAIN_CONTAINERS)
    token["refresh"] = "b"
    assert changes.modified()
    _, data = changes.take_operations()
    assert decode(data["token"]) == {"access": "a", "refresh": "b"}


def test_later_changes_of_a_default_are_stored():
    changes, token = tracker(), Token()
    assert changes.set_default("token", token, PLAIN_CONTAINERS) is token
    token["access"] = "a"
    assert changes.modified()
    _, data = changes.take_operations()
    assert decode(data["token"]) == {"access": "a"}
    assert changes.set_default("token", Token(other=1), PLAIN_CONTAINERS) == {"access": "a"}


def test_a_read_returns_a_plain_value_whose_changes_are_stored():
    changes, token = tracker(), Token(access="a")
    changes.set("token", token, PLAIN_CONTAINERS)
    found = changes.get("token")
    assert (type(found), found) == (dict, {"access": "a"})
    found["scope"] = "x"
    assert changes.modified()
    _, data = changes.take_operations()
    assert decode(data["token"]) == {"access": "a", "scope": "x"}
    assert changes.get("absent") is ABSENT


def test_a_rebase_replaces_the_value_of_an_assigned_object():
    changes, token = tracker(), Token(access="a")
    changes.set("token", token, PLAIN_CONTAINERS)
    changes.take_operations()
    changes.rebase({"token": encode("token", {"access": "new"})})
    assert changes.get("token") == {"access": "new"}


def nested_in_itself(container, add):
    add(container, container)
    return container


@pytest.mark.parametrize(
    "value",
    [
        nested_in_itself([], list.append),
        nested_in_itself(Token(), lambda token, value: token.update(own=value)),
    ],
    ids=["list", "subclass of dict"],
)
def test_a_value_that_contains_itself_is_refused(value):
    """B-55: with the error of the codec, which names the key."""
    changes = tracker()
    with pytest.raises(NotSerializable, match="nested more than 64 levels"):
        changes.set("x", value, PLAIN_CONTAINERS)
    assert not changes.modified()


def twice_in_itself(container, add):
    for _ in range(2):
        add(container, container)
    return container


@pytest.mark.parametrize(
    "value",
    [
        twice_in_itself([], list.append),
        twice_in_itself(Token(), lambda token, value: token.update({len(token): value})),
    ],
    ids=["list", "subclass of dict"],
)
def test_a_value_that_contains_itself_twice_is_refused_at_once(value):
    """B-55: 2**64 places, of which only the first that is too deep is visited."""
    changes = tracker()
    with pytest.raises(NotSerializable, match="nested more than 64 levels"):
        changes.set("x", value, PLAIN_CONTAINERS)
    assert not changes.modified()


def test_a_scalar_at_the_greatest_depth_becomes_plain():
    value = Text("a")
    for _ in range(MAX_DEPTH):
        value = Token(a=value)
    plain = to_plain_containers([value["a"], Token(b=1)])
    assert [type(each) for each in plain] == [dict, dict]
    assert encode("x", plain)
    with pytest.raises(NotSerializable, match="nested more than 64 levels"):
        encode("x", to_plain_containers([value]))


@pytest.mark.parametrize("value", [{"a": object()}, [object()]])
def test_values_of_other_types_inside_are_refused(value):
    changes = tracker()
    with pytest.raises(TypeError, match="object"):
        changes.set("x", value, PLAIN_CONTAINERS)
    assert not changes.modified()
