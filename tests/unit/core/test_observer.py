"""Engine.observe and Engine.use_store, which telemetry uses."""

import pytest

from sojourn.record import Record
from sojourn.session import create_session
from sojourn.testing import FaultyStore
from tests.support.small_stores import PlainStore
from tests.unit.core.engine_harness import Browser, World, end_of_request

pytestmark = pytest.mark.anyio


class Observer:
    """Records the wrapped functions and the result of each call."""

    def __init__(self):
        self.calls = []

    def observed_load(self, load):
        async def observed(*args):
            copy = await load(*args)
            self.calls.append(("load", copy.record is not None))
            return copy

        return observed

    def observed_immediate_load(self, load):
        def observed(ticket, client):
            copy = load(ticket, client)
            if copy is not None:
                self.calls.append(("immediate load", True))
            return copy

        return observed

    def observed_swap(self, swap):
        def observed(record: Record, expected_version):
            swapped = swap(record, expected_version)
            self.calls.append(("swap", swapped))
            return swapped

        return observed

    async def observed_commit(self, copy, writing):
        result = await writing
        self.calls.append(("commit", copy.session_id().hex()))
        return result


async def observed_world():
    world = World()
    observer = Observer()
    world.engine.observe(observer)
    return world, observer


async def test_loads_and_commits_are_observed():
    world, observer = await observed_world()
    ticket = await world.create(a=1)
    session_id = ticket.session_id.hex()
    assert observer.calls == [("load", False), ("commit", session_id)]
    observer.calls.clear()
    session = await world.load(ticket)
    session["a"] = 2
    await end_of_request(session)
    assert observer.calls == [("load", True), ("commit", session_id)]


async def test_an_immediate_load_and_commit_are_observed():
    world, observer = await observed_world()
    ticket = await world.create(a=1)
    await end_of_request(await world.load(ticket))  # confirms the session
    observer.calls.clear()
    copy = world.engine.load_immediately(ticket, Browser())
    create_session(copy, world.engine.engine)["a"] = 2
    assert world.engine.commit_immediately(copy)
    assert observer.calls == [("immediate load", True), ("swap", True)]


async def test_a_commit_without_changes_is_not_observed():
    world, observer = await observed_world()
    ticket = await world.create(a=1)
    await end_of_request(await world.load(ticket))
    observer.calls.clear()
    await end_of_request(await world.load(ticket))
    assert observer.calls == [("load", True)]


async def test_a_claim_is_observed_as_a_commit():
    world, observer = await observed_world()
    ticket = await world.create(a=1)
    session = await world.load(ticket)
    observer.calls.clear()
    assert await world.engine.claim(session, "a", None) == 1
    assert observer.calls[-1] == ("commit", ticket.session_id.hex())


async def test_without_an_observer_the_functions_are_not_wrapped():
    world, observer = await observed_world()
    engine = world.engine.engine
    assert engine.observed
    world.engine.observe(None)
    assert not engine.observed
    assert engine.load == engine._loader.load
    assert engine.load_immediately == engine._loader.load_immediately
    await world.create(a=1)
    assert observer.calls == []


async def test_use_store_replaces_the_store_for_every_call():
    """Load, commit, touch and revoke; afterwards the former store is restored."""
    world = World()
    ticket = await world.create(a=1)
    world.store.calls.clear()
    wrapper = FaultyStore(world.memory)
    world.engine.use_store(wrapper)
    assert world.engine.store is wrapper
    session = await world.load(ticket)
    session["a"] = 2
    await end_of_request(session)
    assert await world.engine.lister.find(ticket.session_id)
    assert wrapper.calls[-1] == "load"
    await world.engine.revoker.revoke(ticket.session_id, "test")
    await world.engine.lister.find(ticket.session_id)
    assert {"load", "save", "delete"} <= set(wrapper.calls)
    assert world.store.calls == []
    world.engine.use_store(world.store)
    await world.load(ticket)
    assert world.store.calls == ["load", "load"]  # the second one is for the tombstone


async def test_a_store_that_always_suspends_is_observed():
    world, observer = await observed_world()
    world.engine.use_store(PlainStore())
    ticket = await world.create(a=1)
    assert world.engine.load_immediately(ticket, Browser()) is None
    await world.load(ticket)
    assert [name for name, _ in observer.calls] == ["load", "commit", "load"]
