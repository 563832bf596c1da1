"""Failing servers, cancelled callers, and the number of round trips: laws S12, S13 and S18."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest

from sojourn.errors import StoreUnavailable
from sojourn.store import SAVED, Store, SupportsUserIndex
from sojourn.testing.records import (
    MINUTE,
    login,
    make_body,
    make_record,
    next_version,
    now,
    save_login,
)
from sojourn.testing.store_suite.base import IndexedStore, StoreTests, store_test

outages: pytest.MarkDecorator = pytest.mark.parametrize("kind", ["refuse", "hang"])


class AvailabilityTests(StoreTests):
    """Tests of outages, cancellation and cost."""

    # Outages

    @outages
    @store_test(loop_only=True)
    async def test_an_outage_is_reported_within_the_deadline(
        self, store: Store, kind: Literal["refuse", "hang"]
    ) -> None:
        """S12: each call returns correctly or raises StoreUnavailable; afterwards calls succeed."""
        record, other = make_record(), make_record()
        await store.create(record)
        with self.outage(kind):
            await self._check_outage(
                lambda: store.load(record.id),
                lambda: store.create(other),
                lambda: store.save(next_version(record), 1),
                lambda: store.touch(record.with_seen_at(record.seen_at + 1)),
                lambda: store.delete(record.id),
                lambda: store.purge(now(), 10),
            )
        # A failed call may have succeeded on the server, but never in part.
        assert await store.load(record.id) in (
            record,
            next_version(record),
            next_version(record).with_seen_at(record.seen_at + 1),
            record.with_seen_at(record.seen_at + 1),
            None,
        )
        fresh = make_record()
        assert await store.create(fresh) is True
        assert await store.load(fresh.id) == fresh

    @outages
    @store_test(requires=SupportsUserIndex, loop_only=True)
    async def test_an_outage_of_the_user_index_is_reported_within_the_deadline(
        self, store: IndexedStore, kind: Literal["refuse", "hang"]
    ) -> None:
        """S12: each call returns correctly or raises StoreUnavailable; afterwards calls succeed."""
        record = login(None, "ada")
        with self.outage(kind):
            await self._check_outage(
                lambda: save_login(store, record, 0),
                lambda: store.list_by_index("user:ada"),
                lambda: store.invalidate_logins("user:ada", 5),
                lambda: store.invalidate_all(5),
            )
        found = await store.list_by_index("user:ada")
        assert found == ([] if await store.load(record.id) is None else [record])
        fresh = login(None, "bob")
        await save_login(store, fresh, 0)
        assert await store.list_by_index("user:bob") == [fresh]

    async def _check_outage(self, *calls: Callable[[], Awaitable[Any]]) -> None:
        failures = 0
        for call in calls:
            start = time.monotonic()
            try:
                await call()
            except StoreUnavailable:
                failures += 1
            assert time.monotonic() - start < self.deadline + 1
        assert failures, "no call failed during the outage"

    # Cancellation

    @pytest.mark.parametrize("victim", [0, 7, 19])
    @store_test(loop_only=True)
    async def test_a_cancelled_load_does_not_affect_others(self, store: Store, victim: int) -> None:
        """S13: one of 20 loads in one tick of the loop is cancelled."""
        records = [make_record() for _ in range(20)]
        for record in records:
            await store.create(record)
        results = await self.cancel_one([store.load(r.id) for r in records], victim)
        for number, (result, record) in enumerate(zip(results, records, strict=True)):
            if number != victim or not isinstance(result, asyncio.CancelledError):
                assert result == record
        assert await store.load(records[victim].id) == records[victim]

    @pytest.mark.parametrize("victim", [0, 7, 19])
    @store_test(loop_only=True)
    async def test_a_cancelled_save_does_not_affect_others(self, store: Store, victim: int) -> None:
        """S13: one of 20 saves is cancelled; it happened completely or not at all."""
        records = [make_record() for _ in range(20)]
        for record in records:
            await store.create(record)
        saved = [next_version(record, body=make_body(n=1)) for record in records]
        results = await self.cancel_one([store.save(record, 1) for record in saved], victim)
        for number, result in enumerate(results):
            stored = await store.load(records[number].id)
            if number == victim and isinstance(result, asyncio.CancelledError):
                assert stored in (records[number], saved[number])
            else:
                assert result is SAVED
                assert stored == saved[number]

    # Round trips

    @store_test()
    async def test_each_call_is_one_round_trip(self, store: Store) -> None:
        """S18: load, create, save and touch; a conflict may take another for the newer record."""
        record = make_record()

        async def cost(call: Awaitable[object]) -> int:
            before = self.round_trips(store)
            await call
            return self.round_trips(store) - before

        self.round_trips(store)
        assert await cost(store.create(make_record())) <= 3  # connects, loads scripts
        assert await cost(store.create(record)) == 1
        assert await cost(store.load(record.id)) == 1
        assert await cost(store.save(next_version(record), 1)) == 1
        assert await cost(store.save(next_version(record), 1)) in {1, 2}
        assert await cost(store.touch(record.with_seen_at(record.seen_at + MINUTE))) == 1

    @store_test(loop_only=True)
    async def test_loads_of_one_tick_share_a_round_trip(self, store: Store) -> None:
        """S18: 50 loads in one tick of the loop are one request to the server."""
        records = [make_record() for _ in range(50)]
        self.round_trips(store)
        await asyncio.gather(*(store.create(record) for record in records))
        before = self.round_trips(store)
        assert await asyncio.gather(*(store.load(r.id) for r in records)) == records
        assert self.round_trips(store) - before == 1
