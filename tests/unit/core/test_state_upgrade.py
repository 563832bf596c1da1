"""Data of an older state class is upgraded when it is read, and stored with the next change."""

from dataclasses import dataclass, field

import pytest

from sojourn._core.codec import encode
from sojourn._core.reserved_keys import STATE_VERSION
from sojourn._core.state_upgrade import StateUpgrade
from sojourn._core.typed_state import StateSpec
from sojourn.errors import ConfigurationError, NotSerializable
from tests.support.working_copies import copy_of
from tests.unit.core.engine_harness import World, end_of_request

pytestmark = pytest.mark.anyio


@dataclass
class Shop:
    cart: dict[str, int] = field(default_factory=dict)


def to_dict(version, data):
    """Upgrade version 0, a list of articles, to version 2, a dict of counts."""
    if version < 2:
        data["cart"] = dict.fromkeys(data.get("cart", []), 1)
    return data


def app_data(stored):
    return {key: value for key, value in stored.items() if key != STATE_VERSION}


async def world_with_old_session(version=0):
    """Return a world whose store holds a session of an earlier version."""
    earlier = None if version == 0 else StateUpgrade(version, None)
    world = World(upgrade=earlier)
    ticket = await world.create(cart=["apple"], other=1)
    upgrade = StateUpgrade(2, to_dict)
    world.options["upgrade"] = upgrade
    world.spec = StateSpec(Shop, upgrade=upgrade)
    world.engine = world.another_process()
    return world, ticket


async def test_a_request_that_reads_gets_upgraded_data_and_writes_nothing():
    """A3."""
    world, ticket = await world_with_old_session()
    session = await world.load(ticket)
    assert session.state.cart == {"apple": 1}
    assert session == {"cart": {"apple": 1}, "other": 1}
    world.store.calls.clear()
    await end_of_request(session)
    assert world.store.calls == []
    assert (await world.data(ticket))["cart"] == ["apple"]


async def test_a_session_created_after_a_destroy_has_the_newest_version():
    world, ticket = await world_with_old_session()
    session = await world.load(ticket)
    session.destroy()
    session["cart"] = {"plum": 1}
    await end_of_request(session)
    ticket = copy_of(session).ticket()
    assert await world.data(ticket) == {"cart": {"plum": 1}, STATE_VERSION: 2}


@pytest.mark.parametrize("version", [0, 1])
async def test_the_next_change_stores_the_upgraded_data(version):
    world, ticket = await world_with_old_session(version)
    session = await world.load(ticket)
    session["new"] = 1
    await end_of_request(session)
    expected = {"cart": {"apple": 1}, "other": 1, "new": 1, STATE_VERSION: 2}
    assert await world.data(ticket) == expected
    again = await world.load(ticket)
    assert again == {"cart": {"apple": 1}, "other": 1, "new": 1}


async def test_parallel_requests_upgrade_once_and_lose_no_change():
    """A6: a commit that meets upgraded data keeps its changes."""
    world, ticket = await world_with_old_session()
    first, second = await world.load(ticket), await world.load(ticket)
    first.state.cart["pear"] = 1
    second.state.cart["plum"] = 1
    await end_of_request(first)
    await end_of_request(second)
    stored = await world.data(ticket)
    assert stored["cart"] == {"apple": 1, "pear": 1, "plum": 1}
    assert second.state.cart == stored["cart"]


async def test_a_commit_that_meets_older_data_upgrades_it():
    """A6: a process of the previous version is still running."""
    world, ticket = await world_with_old_session()
    session = await world.load(ticket)
    session.state.cart["plum"] = 1
    world.options["upgrade"] = None
    await world.concurrent_write(ticket, cart=["apple", "pear"])
    await end_of_request(session)
    assert app_data(await world.data(ticket))["cart"] == {"apple": 1, "pear": 1, "plum": 1}


async def test_a_refresh_upgrades_data_of_an_older_process():
    world, ticket = await world_with_old_session()
    session = await world.load(ticket)
    session["mine"] = 1
    world.options["upgrade"] = None
    await world.concurrent_write(ticket, cart=["pear"])
    await session.arefresh()
    assert session == {"cart": {"pear": 1}, "other": 1, "mine": 1}
    untouched = await world.load(ticket)
    await world.concurrent_write(ticket, cart=["plum"])
    await world.engine.refresh(untouched)
    assert untouched.state.cart == {"plum": 1}


async def test_clear_needs_no_upgrade():
    world, ticket = await world_with_old_session()
    session = await world.load(ticket)
    session.clear()
    session["cart"] = {}
    world.options["upgrade"] = None
    await world.concurrent_write(ticket, cart=["pear"])
    await end_of_request(session)
    assert await world.data(ticket) == {"cart": {}, STATE_VERSION: 2}


async def test_a_new_session_stores_the_version_and_an_empty_one_no_record():
    """B-53."""
    world, _ = await world_with_old_session()
    session = await world.load(None)
    session["a"] = 1
    del session["a"]
    await end_of_request(session)
    assert session.new
    session = await world.load(None)
    session["a"] = 1
    await end_of_request(session)
    record = await world.memory.load(bytes.fromhex(session.id))
    assert record.contents().data[STATE_VERSION] == encode("", 2)


async def test_data_of_a_newer_version_is_not_upgraded():
    """During a rolling deployment, or after a rollback."""
    world, ticket = await world_with_old_session(version=3)
    session = await world.load(ticket)
    assert session == {"cart": ["apple"], "other": 1}
    session["new"] = 1
    await end_of_request(session)
    assert (await world.data(ticket))[STATE_VERSION] == 3


def test_data_without_keys_of_the_application_is_not_upgraded():
    data = {"\0flash": b"x"}
    assert StateUpgrade(1, to_dict).apply(data) is data


def test_reserved_keys_are_kept_and_hidden_from_the_upgrade():
    found = []

    def seen(version, data):
        found.append((version, dict(data)))
        return data

    data = {"\0flash": b"x", "a": encode("", 1)}
    assert StateUpgrade(1, seen).apply(data) == {**data, STATE_VERSION: encode("", 1)}
    assert found == [(0, {"a": 1})]


@pytest.mark.parametrize(
    ("result", "error", "text"),
    [
        (None, ConfigurationError, "found NoneType for version 0"),
        ({1: 2}, ConfigurationError, "string keys"),
        ({"a": object()}, NotSerializable, r"session\['a'\]"),
    ],
)
def test_an_upgrade_that_returns_another_type_raises(result, error, text):
    with pytest.raises(error, match=text):
        StateUpgrade(1, lambda version, data: result).apply({"a": encode("", 1)})


def test_data_of_the_present_or_a_later_version_is_returned_unchanged():
    def refuse(version, data):
        pytest.fail(f"upgraded from version {version}")

    for version in (2, 3):
        data = {"cart": encode("cart", []), STATE_VERSION: encode(STATE_VERSION, version)}
        assert StateUpgrade(2, refuse).apply(data) is data


def test_data_of_the_first_version_needs_no_function():
    """The first version of an application has only data without a version."""
    data = {"cart": encode("cart", [])}
    assert StateUpgrade(2, None).apply(data) is data


def test_the_error_of_a_wrong_result_names_the_function():
    data = {"cart": encode("cart", [])}
    with pytest.raises(ConfigurationError, match="found list for version 0"):
        StateUpgrade(2, lambda _version, data: list(data)).apply(data)
