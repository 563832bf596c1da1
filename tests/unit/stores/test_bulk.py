"""SupportsBulk: ``delete_many`` and ``create_many`` equal single calls, in one transaction."""

import asyncio
import contextlib
import sqlite3

import msgspec
import pytest

from sojourn import Sessions
from sojourn._core.concurrency import run
from sojourn.errors import StoreError, StoreUnavailable
from sojourn.store import SupportsBulk
from sojourn.stores.memory import MemoryStore
from sojourn.stores.sqlite import SQLiteStore
from sojourn.testing import FaultyStore
from sojourn.testing.records import login, make_record, now, save_login

KINDS = ["memory", "sqlite"]
SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"


@pytest.fixture(params=KINDS)
def store(request, tmp_path):
    if request.param == "memory":
        yield MemoryStore()
        return
    store = SQLiteStore(tmp_path / "sessions.db")
    yield store
    store.close()


@pytest.fixture
def sqlite_store(tmp_path):
    store = SQLiteStore(tmp_path / "sessions.db", timeout=5)
    yield store
    store.close()


def commits(store):
    """Return the list to which the statements of the writing connection are added."""
    statements = []
    with store._committer.in_use:
        store._committer.connect().set_trace_callback(statements.append)
    return statements


def test_both_stores_support_bulk(store):
    assert isinstance(store, SupportsBulk)


@pytest.mark.parametrize("count", [0, 1, 5, 300])
@pytest.mark.parametrize("loop", [True, False])
def test_results_have_the_order_of_the_arguments(store, count, loop):
    """S2, S7: as single calls in this order; the second of two equal arguments finds the first."""
    call = asyncio.run if loop else run
    records = [make_record() for _ in range(count)]
    taken = make_record()
    run(store.create(taken))
    created = call(store.create_many([*records, taken, *records[:1]]))
    assert created == [True] * count + [False] + [False] * len(records[:1])
    assert [run(store.load(record.id)) for record in records] == records
    unknown = make_record().id
    ids = [record.id for record in records]
    deleted = call(store.delete_many([unknown, *ids, *ids[:1]]))
    assert deleted == [False] + [True] * count + [False] * len(ids[:1])
    assert run(store.load(taken.id)) == taken
    assert run(store.count(0)) == 1


def test_deleted_sessions_are_removed_from_the_user_index(store):
    """S15."""
    records = [login(None, "ada", at=n) for n in range(3)]
    for record in records:
        run(save_login(store, record, 0))
    assert run(store.delete_many([record.id for record in records[:2]])) == [True, True]
    assert run(store.list_by_index("user:ada")) == records[2:]


def test_invalidated_records_are_not_deleted(store):
    """S15: they are absent for every call."""
    record = make_record(created_at=now() - 10)
    run(store.create(record))
    run(store.invalidate_all(now()))
    assert run(store.delete_many([record.id])) == [False]


def test_created_records_respect_the_limit_of_the_memory_store():
    """B-54."""
    store = MemoryStore(limit=3)
    records = [make_record() for _ in range(5)]
    assert run(store.create_many(records)) == [True] * 5
    assert [run(store.load(record.id)) for record in records] == [None, None, *records[2:]]


@pytest.mark.parametrize("count", [50, 300])
def test_a_bulk_write_is_one_transaction(sqlite_store, count):
    """S18."""
    records = [make_record() for _ in range(count)]
    statements = commits(sqlite_store)
    asyncio.run(sqlite_store.create_many(records))
    asyncio.run(sqlite_store.delete_many([record.id for record in records]))
    assert statements.count("COMMIT") == 2


async def log_in(store, count):
    """Store sessions of one user in shared transactions; return the user."""
    user = f"user-{count}"
    records = [login(None, user) for _ in range(count)]
    await asyncio.gather(*(save_login(store, record, 0) for record in records))
    return user


def test_revoking_a_user_costs_as_many_calls_for_a_thousand_sessions_as_for_two(store):
    """S16, S18: the cutoff, the list, one bulk delete, one bulk create of the tombstones."""
    counting = FaultyStore(store)
    calls = {}
    with contextlib.closing(Sessions(store=counting, secret=SECRET)) as sessions:
        for count in (1, 2, 10, 1000):
            user = asyncio.run(log_in(store, count))
            counting.calls.clear()
            assert sessions.revoke_user(user) == count
            calls[count] = list(counting.calls)
            assert run(store.list_by_index(f"user:{user}")) == []
    assert calls[1] == ["invalidate_logins", "list_by_index", "delete_many", "create"]
    assert calls[2] == ["invalidate_logins", "list_by_index", "delete_many", "create_many"]
    assert calls[10] == calls[1000] == calls[2]


def test_revoking_a_user_is_three_transactions(sqlite_store):
    """S16, S18: for one session and for a thousand."""
    with contextlib.closing(Sessions(store=sqlite_store, secret=SECRET)) as sessions:
        sessions.list_user("the first contact, which registers the keys")
        for count in (1, 10, 1000):
            user = asyncio.run(log_in(sqlite_store, count))
            statements = commits(sqlite_store)
            assert sessions.revoke_user(user) == count
            # The message to other processes is published in the background.
            assert statements.count("COMMIT") in {3, 4}, count


@pytest.mark.parametrize("count", [3, 300])
def test_a_failed_bulk_write_changes_nothing(sqlite_store, count):
    """S12, S13: neither its own records nor others of the shared transaction are lost or added."""
    records = [make_record() for _ in range(count)]
    records[-1] = msgspec.structs.replace(records[-1], seen_at=2**63)  # not a 64-bit integer
    neighbour = make_record()

    async def scene():
        return await asyncio.gather(
            sqlite_store.create(neighbour),
            sqlite_store.create_many(records),
            return_exceptions=True,
        )

    results = asyncio.run(scene())
    assert results[0] is True
    assert isinstance(results[1], StoreError)
    assert run(sqlite_store.count(0)) == 1
    assert run(sqlite_store.load(neighbour.id)) == neighbour


def test_a_locked_database_is_reported_before_the_deadline_and_nothing_is_written(
    tmp_path, sqlite_store
):
    """S12."""
    records = [make_record() for _ in range(200)]
    with contextlib.closing(
        sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            asyncio.run(sqlite_store.create_many(records))
        other.execute("ROLLBACK")
    assert run(sqlite_store.create(make_record()))
    assert run(sqlite_store.count(0)) == 1


def test_a_closed_store_raises(sqlite_store):
    sqlite_store.close()
    for call in (sqlite_store.create_many([make_record()]), sqlite_store.delete_many([bytes(16)])):
        with pytest.raises(StoreError, match="was closed"):
            run(call)
