"""FaultyStore."""

import asyncio

import pytest

from sojourn._core.concurrency import run
from sojourn.errors import StoreUnavailable
from sojourn.store import SupportsBulk, SupportsImmediate, SupportsUserIndex, value_check
from sojourn.stores.callback import CallbackStore
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore
from sojourn.testing.records import make_record, next_version
from tests.support.small_stores import CapableStore, PlainStore


def test_a_planned_failure_happens_before_or_after_the_effect():
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


def test_all_calls_fail_until_heal():
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


def test_a_response_may_be_late():
    async def scenario():
        store = FaultyStore(MemoryStore())
        record = make_record()
        store.hang("create", after=True, times=1)
        late = asyncio.ensure_future(store.create(record))
        await asyncio.sleep(0.01)
        assert not late.done()
        assert await store.load(record.id) == record
        store.heal()
        assert await late is True

    asyncio.run(scenario())


def test_blocked_calls_can_be_cancelled_or_released():
    async def scenario():
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

    asyncio.run(scenario())


def test_a_function_runs_before_a_call():
    store = FaultyStore(MemoryStore())
    record = make_record()
    run(store.create(record))
    store.meanwhile("touch", lambda: store.store.delete(record.id))
    assert run(store.touch(record)) is False


def test_slow_calls_succeed():
    store = FaultyStore(MemoryStore())
    store.slow("load", seconds=0.001)
    assert run(store.load(bytes(16))) is None


# Capabilities


def test_it_has_the_user_index_of_the_wrapped_store():
    assert isinstance(FaultyStore(MemoryStore()), SupportsUserIndex)
    assert not isinstance(FaultyStore(PlainStore()), SupportsUserIndex)


def test_it_has_the_bulk_methods_of_the_wrapped_store():
    assert not isinstance(FaultyStore(PlainStore()), SupportsBulk)
    store = FaultyStore(CapableStore())
    assert isinstance(store, SupportsBulk)
    records = [make_record(), make_record()]
    assert run(store.create_many(records)) == [True, True]
    store.fail("delete_many", times=1)
    with pytest.raises(StoreUnavailable):
        run(store.delete_many([records[0].id]))
    assert run(store.delete_many([records[0].id])) == [True]
    assert store.calls == ["create_many", "delete_many", "delete_many"]


def test_it_has_the_check_of_values_of_the_wrapped_store():
    check = value_check(FaultyStore(CallbackStore(format="json")))
    assert check is value_check(CallbackStore(format="json")) is not None
    assert value_check(FaultyStore(MemoryStore())) is None


def test_peek_and_swap_are_recorded_as_load_and_save():
    assert not isinstance(FaultyStore(PlainStore()), SupportsImmediate)
    store = FaultyStore(CapableStore())
    record = make_record()
    assert isinstance(store, SupportsImmediate)
    assert store.peek(record.id) is None
    run(store.create(record))
    assert store.peek(record.id) == record
    assert store.swap(next_version(record), 1) is True
    assert store.swap(next_version(record), 1) is False
    assert store.calls == ["create", "load", "save"]


def test_peek_and_swap_decline_while_a_fault_is_planned():
    store = FaultyStore(CapableStore())
    record = make_record()
    run(store.create(record))
    store.fail("load", "save", times=1)
    assert store.peek(record.id) is None
    assert store.swap(next_version(record), 1) is False
    for call in (store.load(record.id), store.save(next_version(record), 1)):
        with pytest.raises(StoreUnavailable):
            run(call)
    assert store.peek(record.id) == record
    assert store.swap(next_version(record), 1) is True
