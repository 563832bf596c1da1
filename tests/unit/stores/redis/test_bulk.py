"""``SupportsBulk``: many records are created or deleted in a constant number of batches."""

import asyncio
import math

import pytest
import redis

from sojourn import Sessions
from sojourn.errors import StoreUnavailable
from sojourn.store import LoginSaved, SupportsBulk
from sojourn.stores.batching import MAX_BATCH
from sojourn.stores.urls import open_store
from sojourn.testing.decorators import with_loop, without_loop
from sojourn.testing.records import login, make_record, now

RUNNERS = pytest.mark.parametrize("runner", [with_loop, without_loop], ids=["loop", "no loop"])

#: More than one session, fewer than a batch holds.
MANY = 60


@pytest.fixture
def store(valkey):
    return open_store(valkey.url, realm="default", timeout=2.0)


@pytest.fixture
def admin(valkey):
    with redis.Redis.from_url(valkey.url) as client:
        yield client


def calls(admin):
    """Return how many commands of the store the server has executed."""
    stats = admin.info("commandstats")
    names = ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_mget")
    return sum(stats[name]["calls"] for name in names if name in stats)


def test_the_store_has_the_capability(store):
    assert isinstance(store, SupportsBulk)


@RUNNERS
def test_many_records_are_created_in_one_command(runner, store, admin):
    """S2, S18: results have the order of the arguments; an existing record is not changed."""

    async def check():
        records = [make_record() for _ in range(MANY)]
        await store.create(records[7])
        before = calls(admin)
        created = await store.create_many(records)
        assert calls(admin) - before == 1
        assert created == [at != 7 for at in range(MANY)]
        assert await store.load(records[3].id) == records[3]
        assert await store.create_many([]) == []
        store.close()

    runner(check())


@RUNNERS
def test_many_records_of_one_user_are_deleted_in_two_commands(runner, store, admin):
    """S7, S15, S18: one deletes the records, one their entries in the user's index."""

    async def check():
        records = [login(None, "ada") for _ in range(MANY)]
        for record in records:
            assert isinstance(await store.save_login(record, 0, limit=None, now=now()), LoginSaved)
        kept = login(None, "ada")
        await store.save_login(kept, 0, limit=None, now=now())
        absent = bytes(16)
        await store.delete_many([absent])  # the scripts are loaded
        await store.delete(make_record().id)
        await store.delete_many([records.pop().id])
        before = calls(admin)
        deleted = await store.delete_many([*(record.id for record in records), absent])
        assert calls(admin) - before == 2
        assert deleted == [*([True] * len(records)), False]
        (index,) = admin.keys("sojourn:default:u:*")
        assert admin.zrange(index, 0, -1) == [kept.id]
        assert await store.list_by_index("user:ada") == [kept]
        assert await store.delete_many([records[0].id]) == [False]
        assert await store.delete_many([]) == []
        store.close()

    runner(check())


@RUNNERS
def test_deleting_invalidated_records_returns_false(runner, store, admin):
    """S7, S15: their entries in the index are removed."""

    async def check():
        old, new = login(None, "ada"), login(None, "ada", created_at=now() + 2000)
        for record in (old, new):
            await store.save_login(record, 0, limit=None, now=now())
        await store.invalidate_all(now() + 1000)
        assert await store.delete_many([old.id, new.id]) == [False, True]
        assert admin.keys("sojourn:default:[us]:*") == []
        store.close()

    runner(check())


@RUNNERS
def test_more_records_than_a_batch_holds_are_created_and_deleted(runner, store, admin):
    """S18: the size of a batch is limited, so that other clients get a turn."""

    async def check():
        records = [make_record() for _ in range(600)]
        await store.create_many([make_record()])  # the scripts are loaded
        await store.delete_many([bytes(16)])
        admin.flushall()
        before = calls(admin)
        assert await store.create_many(records) == [True] * 600
        assert await store.delete_many([record.id for record in records]) == [True] * 600
        assert calls(admin) - before <= 6
        assert admin.keys("sojourn:default:s:*") == []
        store.close()

    runner(check())


def test_revoking_a_user_costs_a_constant_number_of_batches(store, admin):
    """S16, S18: the same for ten sessions as for one; for a thousand, only full batches."""

    async def check():
        sessions = Sessions(store=store, secret="Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa")
        for count in (3, 1, 10, 1000):  # the first loads the scripts
            user = f"user-{count}"
            records = [login(None, user) for _ in range(count)]
            await asyncio.gather(
                *(store.save_login(record, 0, limit=None, now=now()) for record in records)
            )
            before = calls(admin)
            assert await sessions.arevoke_user(user) == count
            cost = calls(admin) - before
            # The cutoff and the index; loading, deleting and adding tombstones in batches.
            assert count == 3 or cost == 2 + 3 * math.ceil(count / MAX_BATCH)
            assert await store.list_by_index(f"user:{user}") == []
        sessions.close()

    with_loop(check())


def test_a_failed_bulk_call_raises_and_affects_no_other_caller(valkey):
    """S12, S13."""
    store = open_store("redis://127.0.0.1:1", realm="default", timeout=0.5)

    async def check():
        results = await asyncio.gather(
            store.delete_many([bytes(16)] * 3), store.load(bytes(16)), return_exceptions=True
        )
        assert [type(result) for result in results] == [StoreUnavailable] * 2
        store.close()

    with_loop(check())
