"""Pydantic models as the class of ``session.state``: each field is one key."""

import enum
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Json,
    RootModel,
    computed_field,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)

from sojourn._core.operations import Merge
from sojourn._core.typed_state import StateSpec
from sojourn.errors import ConfigurationError, InvalidState
from tests.support.working_copies import copy_of
from tests.unit.core.engine_harness import World, end_of_request

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    street: str
    tags: set[str] = set()


class Frozen(BaseModel, frozen=True):
    name: str = "x"


class Shop(BaseModel):
    counter: Annotated[int, Merge.SUM] = 0
    name: Annotated[str, Field(max_length=5)] = "none"
    color: Color = Color.RED
    cart: dict[str, int] = Field(default_factory=dict)
    home: Address | None = None
    fixed: Frozen = Frozen()
    colors: set[Color] = set()
    pair: tuple[Color, ...] = ()
    when: datetime | None = None
    price: Decimal | None = None
    folder: Path | None = None
    code: str

    @field_validator("code")
    @classmethod
    def code_is_upper(cls, value: str) -> str:
        if not value.isascii():
            raise ValueError("expected ASCII")
        return value.upper()

    @field_serializer("folder")
    def folder_as_text(self, value: Path | None) -> str | None:
        return None if value is None else value.as_posix()

    def model_post_init(self, _: object) -> None:
        raise AssertionError("no instance of the state is made")


class Derived(BaseModel):
    """Fields whose serialization depends on more than their value."""

    first: str = "a"
    last: str = "b"
    numbers: Json[list[int]] | None = None
    sizes: dict[Color, set[Color]] = {}
    set_fields: str = ""

    @computed_field
    @property
    def name(self) -> str:
        raise ValueError(f"{self.first} is no name")

    @field_serializer("set_fields")
    def names_of_set_fields(self, _: str) -> str:
        return " ".join(self.model_fields_set)


class Simple(BaseModel):
    wait: timedelta | None = None
    link: Path | None = None


async def loaded_session(cls=Shop, **data):
    world = World(state=cls)
    ticket = await world.create(**data) if data else None
    return world, ticket, await world.load(ticket)


async def test_fields_have_their_defaults_and_a_read_writes_nothing():
    world, _, session = await loaded_session()
    assert (session.state.counter, session.state.name) == (0, "none")
    assert (session.state.color, session.state.cart) == (Color.RED, {})
    with pytest.raises(AttributeError, match="no value for 'code'"):
        session.state.code  # noqa: B018 - raises
    world.store.calls.clear()
    await end_of_request(session)
    assert world.store.calls == []


async def test_values_are_restored_as_the_types_of_the_model():
    """Types that the codec knows are stored unchanged, so that sets are merged by member."""
    world, _, session = await loaded_session()
    values = {
        "color": Color.BLUE,
        "home": Address(street="a", tags={"x"}),
        "colors": {Color.RED},
        "pair": (Color.RED, Color.BLUE),
        "when": NOON,
        "price": Decimal("1.50"),
        "folder": Path("files/x"),
        "code": "abc",
    }
    for name, value in values.items():
        setattr(session.state, name, value)
    await end_of_request(session)
    ticket = copy_of(session).ticket()
    assert await world.data(ticket) == {
        "color": "blue",
        "home": {"street": "a", "tags": {"x"}},
        "colors": {"red"},
        "pair": ["red", "blue"],
        "when": NOON,
        "price": Decimal("1.50"),
        "folder": "files/x",
        "code": "ABC",
    }
    again = await world.load(ticket)
    assert {name: getattr(again.state, name) for name in values} == {**values, "code": "ABC"}
    assert session.state.code == "ABC"


async def test_a_type_that_the_codec_does_not_know_is_stored_as_json():
    world, _, session = await loaded_session(Simple)
    session.state.link = Path("a/b")
    session.state.wait = timedelta(minutes=1)
    await end_of_request(session)
    stored = await world.data(copy_of(session).ticket())
    assert stored == {"link": "a/b", "wait": timedelta(minutes=1)}
    assert session.state.link == Path("a/b")


async def test_assignments_are_validated_and_converted():
    _, _, session = await loaded_session()
    session.state.counter = "5"
    assert session.state.counter == 5
    for name, value, text in [
        ("counter", "many", "valid integer"),
        ("name", "secret text", "at most 5 characters"),
        ("code", "\u00e4", "expected ASCII"),
        ("home", {"street": 5}, "street: "),
        ("color", "green", "'red' or 'blue'"),
    ]:
        with pytest.raises(InvalidState, match=text) as caught:
            setattr(session.state, name, value)
        assert caught.value.field == name
        assert "secret" not in str(caught.value)
    with pytest.raises(AttributeError, match="Shop has no field 'nothing'"):
        session.state.nothing = 1


async def test_the_error_names_each_invalid_item_without_its_value():
    """A18."""
    _, _, session = await loaded_session()
    for name, value, text in [
        ("counter", "secret", "Input should be a valid integer, unable to parse string as an"),
        (
            "home",
            {"street": 5, "tags": [7, "secret"]},
            "street: Input should be a valid string; tags.0: Input should be a valid string",
        ),
    ]:
        with pytest.raises(InvalidState, match=rf"state\.{name}: {text}") as caught:
            setattr(session.state, name, value)
        assert caught.value.found is type(value)
        assert "secret" not in str(caught.value)


async def test_a_value_that_cannot_be_serialized_raises_at_the_commit():
    """A18: a value was changed in place to another type; the error does not show it."""
    _, _, session = await loaded_session(code="A", home={"street": "a", "tags": set()})
    session.state.home.tags = "secret"
    text = r"state\.home: .*tags.*input_type=str.* \(found Address\)"
    with pytest.raises(InvalidState, match=re.compile(text, re.DOTALL)) as caught:
        await end_of_request(session)
    assert caught.value.found is Address
    assert "secret" not in str(caught.value)


async def test_computed_fields_are_not_stored():
    """They may need fields that the session does not have."""
    world, _, session = await loaded_session(Derived)
    session.state.first = "c"
    await end_of_request(session)
    assert await world.data(copy_of(session).ticket()) == {"first": "c"}


async def test_a_json_field_is_stored_as_text():
    world, _, session = await loaded_session(Derived)
    session.state.numbers = "[1, 2]"
    await end_of_request(session)
    ticket = copy_of(session).ticket()
    assert await world.data(ticket) == {"numbers": "[1,2]"}
    assert (await world.load(ticket)).state.numbers == [1, 2]


async def test_enumerations_in_keys_and_values_are_stored_as_their_values():
    world, _, session = await loaded_session(Derived)
    session.state.sizes = {Color.RED: {Color.BLUE}}
    await end_of_request(session)
    ticket = copy_of(session).ticket()
    assert await world.data(ticket) == {"sizes": {"red": {"blue"}}}
    assert (await world.load(ticket)).state.sizes == {Color.RED: {Color.BLUE}}


async def test_a_field_serializer_can_read_model_fields_set():
    world, _, session = await loaded_session(Derived)
    session.state.set_fields = "x"
    await end_of_request(session)
    assert await world.data(copy_of(session).ticket()) == {"set_fields": "set_fields"}


async def test_changes_in_place_are_detected_and_validated():
    world, ticket, session = await loaded_session(code="A", home={"street": "a", "tags": set()})
    session.state.home.street = "b"
    session.state.home.tags.add("t")
    session.state.cart["apple"] = 2
    session.state.cart |= {"pear": 1}
    await end_of_request(session)
    stored = await world.data(ticket)
    assert stored["home"] == {"street": "b", "tags": {"t"}}
    assert stored["cart"] == {"apple": 2, "pear": 1}
    session.state.home.street = 5
    with pytest.raises(InvalidState, match=r"session\.state\.home"):
        await end_of_request(session)


async def test_parallel_changes_of_one_field_are_merged():
    """A6."""
    world, ticket, one = await loaded_session(
        code="A", counter=1, home={"street": "a", "tags": {"x"}}
    )
    two = await world.load(ticket)
    home = two.state.home
    fixed = two.state.fixed
    for session, tag in ((one, "one"), (two, "two")):
        session.state.counter += 1
        session.state.home.tags.add(tag)
        await end_of_request(session)
    stored = await world.data(ticket)
    assert stored["counter"] == 3
    assert stored["home"]["tags"] == {"x", "one", "two"}
    assert two.state.home is home
    assert home.tags == {"x", "one", "two"}
    assert two.state.fixed is fixed


async def test_a_frozen_value_is_replaced():
    world, ticket, session = await loaded_session(code="A", fixed={"name": "a"})
    assert session.state.fixed.name == "a"
    await world.concurrent_write(ticket, fixed={"name": "b"})
    await session.arefresh()
    assert session.state.fixed == Frozen(name="b")


async def test_an_invalid_stored_value_raises_when_it_is_read():
    world = World()
    ticket = await world.create(counter="many")
    world.spec = StateSpec(Shop)
    session = await world.load(ticket, other_process=True)
    with pytest.raises(InvalidState, match=r"session\.state\.counter"):
        session.state.counter  # noqa: B018 - raises


def make(**namespace):
    return type("Model", (BaseModel,), {"__module__": __name__, **namespace})


class Checked(BaseModel):
    x: int = 0

    @model_validator(mode="after")
    def check(self):
        return self


class Dumped(BaseModel):
    x: int = 0

    @model_serializer
    def dump(self) -> dict[str, int]:
        return {}


@pytest.mark.parametrize(
    ("cls", "text"),
    [
        (
            Checked,
            "a model with model validators cannot be used; use field validators, or put this",
        ),
        (Dumped, "a model with a model serializer cannot be used"),
        (RootModel[int], "a model with a root value cannot be used"),
        (make(model_config=ConfigDict(frozen=True)), "a model with frozen=True cannot be used"),
        (make(x=Field(0, exclude=True), __annotations__={"x": int}), "'x' has exclude=True, which"),
        (make(x=Field(0, frozen=True), __annotations__={"x": int}), "'x' has frozen=True, which"),
        (
            make(x=Field(default_factory=lambda data: 1), __annotations__={"x": int}),
            "'x' has a default_factory",
        ),
    ],
)
def test_a_feature_that_needs_the_whole_model_is_refused(cls, text):
    with pytest.raises(ConfigurationError, match=text):
        StateSpec(cls)
