"""``on_invalid_state``: stored values that do not fit the field of the present class."""

from dataclasses import dataclass, field
from typing import Annotated

import msgspec
import pytest
from pydantic import BaseModel, Field

from sojourn._core.operations import Merge
from sojourn.errors import InvalidState
from tests.unit.core.engine_harness import World, end_of_request

pytestmark = pytest.mark.anyio

STORED = {"counter": "many", "cart": ["apple"], "required": "text"}


@dataclass
class AsDataclass:
    required: int
    counter: Annotated[int, Merge.SUM] = 0
    cart: dict[str, int] = field(default_factory=dict)


class AsStruct(msgspec.Struct):
    required: int
    counter: Annotated[int, Merge.SUM] = 0
    cart: dict[str, int] = {}


class AsModel(BaseModel):
    required: int
    counter: Annotated[int, Merge.SUM] = 0
    cart: dict[str, int] = Field(default_factory=dict)


@pytest.fixture(params=[AsDataclass, AsStruct, AsModel])
def cls(request):
    return request.param


async def world_with_older_data(cls, on_invalid):
    """Return a world whose store holds values that do not fit the class, and the ticket."""
    world = World()
    ticket = await world.create(**STORED)
    after = World(state=cls, on_invalid=on_invalid)
    world.spec = after.spec
    world.options["merges"] = after.spec.merges
    world.engine = world.another_process()
    return world, ticket


async def test_with_error_a_read_raises_and_names_the_field(cls):
    world, ticket = await world_with_older_data(cls, "error")
    session = await world.load(ticket)
    for name in STORED:
        with pytest.raises(InvalidState, match=rf"session\.state\.{name}"):
            getattr(session.state, name)


async def test_with_default_a_read_returns_the_default_and_writes_nothing(cls):
    """A3."""
    world, ticket = await world_with_older_data(cls, "default")
    session = await world.load(ticket)
    assert (session.state.counter, session.state.cart) == (0, {})
    with pytest.raises(InvalidState, match=r"session\.state\.required"):
        session.state.required  # noqa: B018 - raises: it has no default
    assert session == STORED
    world.store.calls.clear()
    await end_of_request(session)
    assert world.store.calls == []


async def test_with_default_a_change_replaces_the_stored_value(cls):
    world, ticket = await world_with_older_data(cls, "default")
    session = await world.load(ticket)
    cart = session.state.cart
    assert session.state.cart is cart
    cart["pear"] = 1
    assert session.state.cart == cart
    session.state.counter += 2
    await end_of_request(session)
    assert await world.data(ticket) == {**STORED, "counter": 2, "cart": {"pear": 1}}
    cart["plum"] = 1
    await end_of_request(session)
    assert (await world.data(ticket))["cart"] == {"pear": 1, "plum": 1}


async def test_with_a_function_a_read_returns_its_value(cls):
    calls = []

    def repair(key, raw):
        calls.append((key, raw))
        return dict.fromkeys(raw, 1) if key == "cart" else 5

    world, ticket = await world_with_older_data(cls, repair)
    session = await world.load(ticket)
    assert (session.state.required, session.state.counter) == (5, 5)
    assert session.state.cart == {"apple": 1}
    assert session.state.cart is session.state.cart
    assert calls == [("required", "text"), ("counter", "many"), ("cart", ["apple"])]
    session.state.cart["pear"] = 2
    await end_of_request(session)
    assert (await world.data(ticket))["cart"] == {"apple": 1, "pear": 2}


async def test_a_function_that_returns_a_value_of_a_wrong_type_raises(cls):
    world, ticket = await world_with_older_data(cls, lambda key, raw: "text")
    session = await world.load(ticket)
    with pytest.raises(InvalidState, match=r"session\.state\.counter"):
        session.state.counter  # noqa: B018 - raises


async def test_a_refresh_updates_a_replacement_with_a_parallel_change(cls):
    """W3."""
    world, ticket = await world_with_older_data(cls, "default")
    session = await world.load(ticket)
    cart = session.state.cart
    await world.concurrent_write(ticket, cart=["pear"])
    await session.arefresh()
    assert session.state.cart is cart
    assert cart == {}
    await world.concurrent_write(ticket, cart={"plum": 3})
    await session.arefresh()
    assert session.state.cart == cart == {"plum": 3}
    cart["pear"] = 1
    await end_of_request(session)
    assert (await world.data(ticket))["cart"] == {"plum": 3, "pear": 1}
