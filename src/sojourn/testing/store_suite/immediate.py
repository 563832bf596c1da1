"""Calls that never suspend: ``SupportsImmediate``; laws S1, S3 to S6 and S9."""

from __future__ import annotations

import functools
import secrets
from contextlib import suppress
from typing import Any, Protocol

import msgspec
import pytest

from sojourn._core.concurrency import run
from sojourn.record import UnreadableRecord
from sojourn.store import (
    GONE,
    SAVED,
    Conflict,
    Store,
    SupportsImmediate,
    SupportsUserIndex,
)
from sojourn.testing.decorators import in_threads
from sojourn.testing.records import MINUTE, make_body, make_record, next_version, now
from sojourn.testing.store_suite.base import StoreTests, close, store_test


class ImmediateStore(Store, SupportsImmediate, Protocol):
    """A store with peek and swap."""


immediate_test: store_test = store_test(requires=SupportsImmediate)


class ImmediateTests(StoreTests):
    """Tests of peek and swap: each either does what load and save do, or declines."""

    @immediate_test
    async def test_peek_returns_what_load_returns(self, store: ImmediateStore) -> None:
        """S1, S3, S6: after each change, in every store object; or None, and load returns it."""
        other: Any = self.make_store("default")
        record = make_record()
        saved = next_version(record, body=make_body(n=1), verifier=secrets.token_bytes(32))
        touched = saved.with_seen_at(saved.seen_at + MINUTE)
        assert store.peek(record.id) is None
        await store.create(record)
        await self._check_stored(record, store, other)
        assert await other.save(saved, 1) is SAVED
        await self._check_stored(saved, store, other)
        assert await store.touch(touched) is True
        await self._check_stored(touched, store, other)
        await other.delete(record.id)
        for each in (store, other):
            assert each.peek(record.id) is None
            assert await each.load(record.id) is None
        close(other)

    async def _check_stored(self, record: Any, *stores: ImmediateStore) -> None:
        for store in stores:
            assert store.peek(record.id) in (record, None)
            assert await store.load(record.id) == record
            assert store.peek(record.id) in (record, None)

    @immediate_test
    async def test_swap_saves_or_changes_nothing(self, store: ImmediateStore) -> None:
        """S3: after True the record is stored in every store object; after False, save works."""
        other: Any = self.make_store("default")
        record = make_record()
        await store.create(record)
        for number in range(1, 20):
            saved = next_version(record, body=make_body(n=number))
            swapper = other if number % 3 == 0 else store
            if not swapper.swap(saved, record.version):
                await self._check_stored(record, store, other)
                assert await swapper.save(saved, record.version) is SAVED
            await self._check_stored(saved, store, other)
            record = saved
        close(other)

    @immediate_test
    async def test_swap_with_another_version_changes_nothing(self, store: ImmediateStore) -> None:
        """S4: it returns False, and save reports the conflict."""
        first = make_record()
        stored = next_version(first, body=make_body(n=1))
        await store.create(first)
        await store.save(stored, 1)
        for expected in (0, 1, 3, 2**40):
            attempt = msgspec.structs.replace(
                first, version=expected + 1, body=make_body(n=9), seen_at=first.seen_at + MINUTE
            )
            assert store.swap(attempt, expected) is False
            await self._check_stored(stored, store)
            assert await store.save(attempt, expected) == Conflict(stored)

    @immediate_test
    async def test_swap_never_creates(self, store: ImmediateStore) -> None:
        """S5: neither a record that never existed nor a deleted one."""
        absent, deleted = make_record(), make_record()
        await store.create(deleted)
        store.peek(deleted.id)
        await store.delete(deleted.id)
        for record in (absent, deleted):
            assert store.peek(record.id) is None
            assert store.swap(next_version(record), 1) is False
            assert await store.load(record.id) is None
            assert await store.save(next_version(record), 1) is GONE

    @immediate_test
    async def test_swap_keeps_the_larger_seen_at(self, store: ImmediateStore) -> None:
        """S6: a swap of a record that was loaded before a touch keeps the touch."""
        record = make_record()
        await store.create(record)
        later = record.seen_at + MINUTE
        await store.touch(record.with_seen_at(later))
        saved = next_version(record, body=make_body(n=1))
        if not store.swap(saved, 1):
            assert await store.save(saved, 1) is SAVED
        await self._check_stored(saved.with_seen_at(later), store)

    @immediate_test
    async def test_records_before_a_cutoff_are_absent(self, store: ImmediateStore) -> None:
        """S5, S15: ``invalidate_all`` of any store object counts for peek and swap."""
        if not isinstance(store, SupportsUserIndex):
            pytest.skip("this store does not implement SupportsUserIndex")
        other: Any = self.make_store("default")
        at = now()
        old, new = make_record(created_at=at - 1), make_record(created_at=at)
        for record in (old, new):
            await store.create(record)
            assert store.peek(record.id) in (record, None)
        await other.invalidate_all(at)
        for each in (store, other):
            assert each.peek(old.id) is None
            assert each.swap(next_version(old), 1) is False
            assert await each.load(old.id) is None
            await self._check_stored(new, each)
        close(other)

    @immediate_test
    async def test_peek_of_a_damaged_record_is_not_a_record(self, store: ImmediateStore) -> None:
        """S9: it returns None or raises UnreadableRecord, as load does."""
        record = make_record()
        await store.create(record)
        await self.overwrite(store, record.id, b"\x80\x04 not a record")
        with suppress(UnreadableRecord):
            assert store.peek(record.id) is None

    def test_parallel_swaps_lose_no_update(self) -> None:
        """S4, S10: of swaps and saves with the same expected version one succeeds."""
        with self.blocking_stores(2, requires=SupportsImmediate) as stores:
            record = make_record()
            run(stores[0].create(record))
            successes: list[int] = []

            def write(store: ImmediateStore) -> None:
                for _ in range(50):
                    found = store.peek(record.id) or run(store.load(record.id))
                    assert found is not None
                    saved = next_version(found)
                    swapped = store.swap(saved, found.version)
                    if swapped or run(store.save(saved, found.version)) is SAVED:
                        successes.append(saved.version)

            in_threads(*(functools.partial(write, store) for store in stores * 4))
            assert sorted(successes) == list(range(2, len(successes) + 2))
            found = run(stores[1].load(record.id))
            assert found.version == len(successes) + 1
