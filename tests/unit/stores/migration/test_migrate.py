"""``migrate``: progress, rate limit, errors, and records that it cannot move."""

import asyncio
import time

import pytest

from sojourn.errors import ConfigurationError, StoreUnavailable
from sojourn.stores import MigrationProgress, amigrate, migrate
from sojourn.stores.memory import MemoryStore
from sojourn.stores.sqlite import SQLiteStore
from sojourn.testing import FaultyStore
from sojourn.testing.records import login, make_record, save_login
from tests.unit.stores.migration.test_migrating import StoreWithoutCapabilities


def fill(store, number):
    records = [make_record() for _ in range(number)]
    for record in records:
        asyncio.run(store.create(record))
    return records


def test_the_stores_of_two_urls_are_migrated(tmp_path):
    """S11: sessions, users, tombstones and cutoffs, in one call."""
    urls = [f"sqlite:///{tmp_path}/{name}.db" for name in ("old", "new")]
    old = SQLiteStore(tmp_path / "old.db")
    records = [login(None, "ada", at=n) for n in range(5)]
    for record in records:
        asyncio.run(save_login(old, record, 0))
    tombstone = make_record(version=0)
    asyncio.run(old.create(tombstone))
    asyncio.run(old.invalidate_logins("user:bob", 77))
    asyncio.run(old.invalidate_all(5))
    old.close()
    done = migrate(*urls)
    assert done == MigrationProgress(moved=6, cutoffs=2, passes=2, finished=True)
    new = SQLiteStore(tmp_path / "new.db")
    assert asyncio.run(new.list_by_index("user:ada")) == records[::-1]
    assert asyncio.run(new.load(tombstone.id)) == tombstone
    assert dict(asyncio.run(new.list_cutoffs("", 10)).cutoffs) == {"": 5, "user:bob": 77}
    new.close()
    assert migrate(*urls) == MigrationProgress(cutoffs=2, passes=1, finished=True)


def test_with_batches_of_one_every_cutoff_is_copied(tmp_path):
    """S16: the cutoff of all sessions, which has an empty name, does not end the pages."""
    old, new = SQLiteStore(tmp_path / "old.db"), MemoryStore()
    asyncio.run(old.invalidate_all(5))
    for n in range(3):
        asyncio.run(old.invalidate_logins(f"user:{n}", n + 1))
    assert migrate(old, new, batch_size=1).cutoffs == 4
    found = dict(asyncio.run(new.list_cutoffs("", 10)).cutoffs)
    assert found == {"": 5, "user:0": 1, "user:1": 2, "user:2": 3}
    old.close()


def test_progress_is_reported_after_each_batch():
    old, new = MemoryStore(), MemoryStore()
    fill(old, 25)
    seen = []
    migrate(old, new, batch_size=10, on_progress=seen.append)
    assert [each.moved for each in seen if not each.passes][-3:] == [10, 20, 25]
    assert [each.finished for each in seen[:-1]] == [False] * (len(seen) - 1)
    assert seen[-1] == MigrationProgress(moved=25, passes=2, finished=True)


def test_rate_limits_the_number_of_records_per_second():
    old, new = MemoryStore(), MemoryStore()
    fill(old, 30)
    start = time.monotonic()
    migrate(old, new, batch_size=5, max_rate=100.0)
    assert time.monotonic() - start >= 0.3


def test_a_failure_is_raised_and_the_next_run_continues():
    """S12: no session is lost."""
    old, new = FaultyStoreWithScan(MemoryStore()), MemoryStore()
    records = fill(old.store, 40)
    old.fail("save", times=7)
    with pytest.raises(StoreUnavailable):
        migrate(old, new, batch_size=20)
    old.heal()
    assert migrate(old, new).finished
    assert sorted(r.id for r in new.records()) == sorted(r.id for r in records)


class FaultyStoreWithScan(FaultyStore):
    """A faulty store that can be scanned."""

    def __init__(self, store):
        super().__init__(store)
        self.list_page, self.list_cutoffs = store.list_page, store.list_cutoffs


def test_unreadable_records_are_counted_and_not_moved(tmp_path):
    """S9."""
    old = SQLiteStore(tmp_path / "old.db")
    fill(old, 3)
    with old._committer.in_use:
        old._committer.connect().execute(
            "UPDATE sessions SET record = x'80' WHERE id = (SELECT max(id) FROM sessions)"
        )
    new = MemoryStore()
    done = migrate(old, new)
    assert (done.moved, done.unreadable, done.finished) == (2, 1, True)
    old.close()


def test_invalid_arguments_are_refused():
    with pytest.raises(ConfigurationError, match="SupportsListing"):
        migrate(StoreWithoutCapabilities(), MemoryStore())
    for wrong in ({"batch_size": 0}, {"max_rate": 0.0}):
        with pytest.raises(ConfigurationError, match="batch_size"):
            migrate(MemoryStore(), MemoryStore(), **wrong)


@pytest.mark.anyio
async def test_the_blocking_function_is_refused_under_an_event_loop():
    """A24: it would block every other request."""
    with pytest.raises(ConfigurationError, match="amigrate"):
        migrate(MemoryStore(), MemoryStore())
    assert (await amigrate(MemoryStore(), MemoryStore())).finished
