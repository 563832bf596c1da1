"""Many records in one call: ``SupportsBulk``; laws S2, S7, S14, S15 and S18."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import pytest

from sojourn.store import GONE, Store, SupportsBulk, SupportsUserIndex
from sojourn.testing.records import (
    MINUTE,
    login,
    make_body,
    make_record,
    next_version,
    now,
    save_login,
)
from sojourn.testing.store_suite.base import StoreTests, close, store_test


class BulkStore(Store, SupportsBulk, Protocol):
    """A store with bulk methods."""


bulk_test: store_test = store_test(requires=SupportsBulk)


class BulkTests(StoreTests):
    """Tests of delete_many and create_many."""

    @bulk_test
    async def test_delete_many_returns_what_single_deletes_return(self, store: BulkStore) -> None:
        """S7: one result for each ID, in order; only these records are deleted."""
        records = [make_record() for _ in range(7)]
        for record in records:
            await store.create(record)
        await store.delete(records[4].id)
        unknown = secrets.token_bytes(16)
        ids = [records[2].id, unknown, records[4].id, records[0].id, records[6].id]
        assert await store.delete_many(ids) == [True, False, False, True, True]
        assert await store.delete_many(ids) == [False] * 5
        for number, record in enumerate(records):
            remains = number in (1, 3, 5)
            assert await store.load(record.id) == (record if remains else None)
        assert await store.save(next_version(records[0]), 1) is GONE
        assert await store.touch(records[0].with_seen_at(records[0].seen_at + MINUTE)) is False

    @bulk_test
    async def test_create_many_returns_what_single_creates_return(self, store: BulkStore) -> None:
        """S2: one result for each record, in order; a taken ID keeps its record."""
        taken, deleted = make_record(), make_record()
        for record in (taken, deleted):
            await store.create(record)
        await store.delete(deleted.id)
        new = [make_record(body=make_body(n=n)) for n in range(3)]
        tombstone = make_record(version=0)
        other = make_record(id=taken.id, body=make_body(other=1), seen_at=taken.seen_at + 1)
        records = [new[0], other, new[1], deleted, tombstone, new[2]]
        assert await store.create_many(records) == [True, False, True, True, True, True]
        for record in (*new, taken, deleted, tombstone):
            assert await store.load(record.id) == record

    @bulk_test
    async def test_duplicate_arguments_count_once(self, store: BulkStore) -> None:
        """S2, S7: the first of equal IDs takes effect, the others return False."""
        record, second = make_record(), make_record()
        copies = [make_record(id=record.id, body=make_body(n=n)) for n in range(1, 3)]
        created = await store.create_many([record, copies[0], second, copies[1]])
        assert created == [True, False, True, False]
        assert await store.load(record.id) == record
        deleted = await store.delete_many([record.id, second.id, record.id, second.id])
        assert deleted == [True, True, False, False]
        assert await store.load(record.id) is None

    @bulk_test
    async def test_empty_arguments_return_an_empty_list(self, store: BulkStore) -> None:
        """SupportsBulk: no record changes."""
        record = make_record()
        await store.create(record)
        assert await store.delete_many([]) == []
        assert await store.create_many([]) == []
        assert await store.load(record.id) == record

    @bulk_test
    async def test_bulk_calls_of_realms_are_isolated(self, store: BulkStore) -> None:
        """S14: the same IDs in two realms name different records."""
        other: Any = self.make_store("other")
        records = [make_record() for _ in range(3)]
        ids = [record.id for record in records]
        assert await store.create_many(records) == [True] * 3
        assert await other.delete_many(ids) == [False] * 3
        assert await other.create_many(records) == [True] * 3
        assert await store.delete_many(ids) == [True] * 3
        assert [await other.load(session_id) for session_id in ids] == records
        close(other)

    @bulk_test
    async def test_delete_many_removes_index_entries(self, store: BulkStore) -> None:
        """S15: of every deleted session; create_many adds none."""
        indexed: Any = store
        if not isinstance(store, SupportsUserIndex):
            pytest.skip("this store does not implement SupportsUserIndex")
        logins = [login(None, f"user-{n % 2}", idp_sid=f"s-{n}", at=n) for n in range(6)]
        for record in logins:
            await save_login(indexed, record, 0)
        assert await store.delete_many([record.id for record in logins[1:]]) == [True] * 5
        assert await indexed.list_by_index("user:user-0") == [logins[0]]
        for name in ("user:user-1", "idp_sid:s-1", "idp_sid:s-5"):
            assert await indexed.list_by_index(name) == []
        again = login(None, "user-1")
        assert await store.create_many([again]) == [True]
        assert await indexed.list_by_index("user:user-1") == []
        assert await store.delete_many([again.id, logins[0].id]) == [True, True]
        assert await self.index_size(store) == 0

    @bulk_test
    async def test_bulk_calls_ignore_records_before_a_cutoff(self, store: BulkStore) -> None:
        """S5, S15: for delete_many, records before ``invalidate_all`` are absent."""
        if not isinstance(store, SupportsUserIndex):
            pytest.skip("this store does not implement SupportsUserIndex")
        at = now()
        old, new = make_record(created_at=at - 1), make_record(created_at=at)
        assert await store.create_many([old, new]) == [True, True]
        await store.invalidate_all(at)
        assert await store.delete_many([old.id, new.id]) == [False, True]

    @store_test(requires=SupportsBulk, loop_only=True)
    async def test_each_record_is_deleted_by_one_of_parallel_calls(self, store: BulkStore) -> None:
        """S7: overlapping delete_many, delete and save calls in one tick of the loop."""
        records = [make_record() for _ in range(20)]
        await store.create_many(records)
        ids = [record.id for record in records]
        calls: list[Awaitable[Any]] = [store.delete_many(ids[:15]), store.delete_many(ids[5:])]
        calls += [store.save(next_version(record), 1) for record in records[:10]]
        calls += [store.delete(session_id) for session_id in ids[8:12]]
        first, second, *others = await asyncio.gather(*calls)
        singles = others[10:]
        deleted = Counter(
            session_id
            for called, results in ((ids[:15], first), (ids[5:], second), (ids[8:12], singles))
            for session_id, result in zip(called, results, strict=True)
            if result is True
        )
        assert deleted == dict.fromkeys(ids, 1)
        assert [await store.load(session_id) for session_id in ids] == [None] * 20

    @bulk_test
    async def test_bulk_calls_cost_a_constant_number_of_round_trips(self, store: BulkStore) -> None:
        """S18: for 200 records as many as for 20."""

        async def cost(call: Callable[[], Awaitable[object]]) -> int:
            before = self.round_trips(store)
            await call()
            return self.round_trips(store) - before

        self.round_trips(store)
        costs = []
        for number in (3, 20, 200):  # the first connects and loads scripts
            records = [make_record() for _ in range(number)]
            ids = [record.id for record in records]
            created = await cost(lambda records=records: store.create_many(records))  # type: ignore[misc]
            deleted = await cost(lambda ids=ids: store.delete_many(ids))  # type: ignore[misc]
            costs.append((created, deleted))
        assert costs[2] == costs[1]
