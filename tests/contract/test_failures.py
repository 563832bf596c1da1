"""Cancelled callers and failing stores, at the level of the engine: laws S12, S13 and A15."""

import asyncio

import pytest

from sojourn.errors import StoreUnavailable
from sojourn.sessions import Sessions
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore, Visitor
from sojourn.testing.visitor import session_of

SECRET = b"failures-7Jm2Qw9vXc4Rk1-Zt"


@pytest.fixture
def store():
    return FaultyStore(MemoryStore())


@pytest.fixture
def visitor(store):
    return Visitor(Sessions(store=store, secret=SECRET, clock=FakeClock(), touch_interval=60))


async def begin(visitor, **data):
    async with visitor.visit() as session:
        session.update(data)


async def increment(visitor, key):
    async with visitor.visit() as session:
        session.increment("n")
        session[key] = True


async def visit_for(verb, visitor):
    """Make the engine call this method of the store."""
    async with visitor.visit() as session:
        if verb == "save":
            session["n"] = 1
        elif verb == "delete":
            session.destroy()
        else:
            visitor.sessions.config.clock.advance(61)


async def let_others_run():
    for _ in range(10):  # more steps than a commit has before it suspends
        await asyncio.sleep(0)


@pytest.mark.anyio
@pytest.mark.parametrize("victim", [0, 1, 2])
async def test_a_cancelled_commit_does_not_block_others(store, visitor, victim):
    """S13: one of three queued commits is cancelled while the store hangs."""
    await begin(visitor, n=0)
    store.calls.clear()
    store.hang("save", times=1)
    tasks = [asyncio.create_task(increment(visitor, f"k{number}")) for number in range(3)]
    await let_others_run()
    assert sorted(store.calls) == ["load", "load", "load", "save"]
    tasks[victim].cancel()
    await let_others_run()
    store.heal()
    async with asyncio.timeout(5):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [
        number == victim for number in range(3)
    ]
    data = dict(await visitor.load())
    assert data["n"] == 2
    assert {key for key in data if key != "n"} == {f"k{n}" for n in range(3) if n != victim}


@pytest.mark.anyio
@pytest.mark.parametrize("verb", ["create", "save"])
async def test_a_failed_commit_can_be_repeated(store, visitor, verb):
    """S12, A15: no operation is lost or applied twice."""
    if verb == "save":
        await begin(visitor, n=1)
    visit = await visitor.begin()
    session = session_of(visit)
    session.increment("n")
    session.append("log", "once")
    store.fail(verb, times=2)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await visitor.end(visit)
    await visitor.end(visit)
    assert dict(await visitor.load()) == {"n": 2 if verb == "save" else 1, "log": ["once"]}


@pytest.mark.anyio
@pytest.mark.parametrize("verb", ["load", "save", "touch", "delete"])
async def test_a_failing_store_never_empties_a_session(store, visitor, verb):
    """A15: a failure before or after its effect; no cookie is cleared and no record created."""
    for after in (False, True):
        await begin(visitor, n=1)
        cookie = visitor.cookie
        store.fail(verb, after=after, times=1)
        store.calls.clear()
        with pytest.raises(StoreUnavailable):
            await visit_for(verb, visitor)
        assert visitor.cookie == cookie
        assert "create" not in store.calls
        store.heal()
        expected = {} if verb == "delete" and after else {"n": 1}
        assert dict(await visitor.load()) == expected


@pytest.mark.anyio
async def test_a_session_revoked_between_load_and_save_stays_ended(store, visitor):
    """A7, S5: revoked just before the store executes the save."""
    await begin(visitor, n=0)
    visit = await visitor.begin()
    session = session_of(visit)
    session.increment("n")
    store.meanwhile("save", lambda: store.store.delete(bytes.fromhex(session.id)))
    await visitor.end(visit)
    assert dict(session) == {}
    assert dict(await visitor.load()) == {}
