"""FakeClock, FaultyStore and Visitor: that the tools of tests do what they say."""

import asyncio
from datetime import timedelta

import pytest

from sojourn._core.concurrency import run
from sojourn.errors import ConfigurationError, StoreUnavailable
from sojourn.sessions import Sessions
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore, Visitor
from sojourn.testing.records import make_record, next_version


def test_the_clock_stands_still_until_it_is_moved():
    clock = FakeClock(1_000)
    assert clock() == clock() == 1_000
    assert clock.advance("5 minutes") == clock() == 301_000
    clock.advance(1.5)
    clock.advance(timedelta(hours=1))
    assert clock() == 3_902_500
    assert repr(clock) == "FakeClock(3902500)"


def test_the_clock_never_goes_back():
    with pytest.raises(ConfigurationError):
        FakeClock().advance(-1)


def test_a_planned_failure_happens_before_the_effect_or_after_it():
    store = FaultyStore(MemoryStore())
    record = make_record()
    store.fail("create", times=1)
    with pytest.raises(StoreUnavailable):
        run(store.create(record))
    assert run(store.load(record.id)) is None
    store.fail("create", after=True, times=1)
    with pytest.raises(StoreUnavailable):
        run(store.create(record))
    assert run(store.load(record.id)) == record
    store.fail("save", times=1, error=LookupError("mine"))
    with pytest.raises(LookupError, match="mine"):
        run(store.save(next_version(record), 1))
    assert store.calls == ["create", "load", "create", "load", "save"]


def test_all_verbs_fail_until_healed():
    store = FaultyStore(MemoryStore())
    store.fail()
    record = make_record()
    for _ in range(3):
        for call in (
            lambda: store.load(record.id),
            lambda: store.create(record),
            lambda: store.save(record, 1),
            lambda: store.touch(record),
            lambda: store.delete(record.id),
            lambda: store.purge(0, 1),
        ):
            with pytest.raises(StoreUnavailable):
                run(call())
    store.heal()
    assert run(store.create(record))
    assert run(store.purge(record.seen_at, 1)) is not None


def test_what_hangs_can_be_cancelled_or_healed():
    async def law():
        store = FaultyStore(MemoryStore())
        record = make_record()
        store.hang("create", times=2)
        cancelled = asyncio.ensure_future(store.create(record))
        healed = asyncio.ensure_future(store.create(record))
        await asyncio.sleep(0)
        assert not cancelled.done()
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert await store.load(record.id) is None
        store.heal()
        assert await healed is True

    asyncio.run(law())


def test_something_else_happens_meanwhile():
    store = FaultyStore(MemoryStore())
    record = make_record()
    run(store.create(record))
    store.meanwhile("touch", lambda: store.store.delete(record.id))
    assert run(store.touch(record)) is False


def test_slow_calls_answer_rightly():
    store = FaultyStore(MemoryStore())
    store.slow("load", seconds=0.001)
    assert run(store.load(bytes(16))) is None


def test_a_visitor_keeps_and_forgets_its_cookie():
    visitor = Visitor(Sessions(store="memory://"))

    async def fail():
        async with visitor.visit() as session:
            session["n"] = 2
            raise LookupError

    async def story():
        async with visitor.visit() as session:
            session["n"] = 1
        assert visitor.cookie is not None
        with pytest.raises(LookupError):
            await fail()
        assert dict(await visitor.load()) == {"n": 1}
        async with visitor.visit() as session:
            session.destroy()
        assert visitor.cookie is None
        assert dict(await visitor.load()) == {}

    run(story())
    assert repr(visitor) == "<Visitor without a cookie>"
