"""BulkTests pass for a correct store and fail for each faulty one."""

import asyncio
from typing import ClassVar

import pytest

from sojourn.testing.decorators import with_loop
from sojourn.testing.store_suite.bulk import BulkTests
from tests.support.dict_store import DictStore


class Store(DictStore):
    """A store that counts its round trips: one for a call, whatever it does on the server."""

    def __init__(self):
        super().__init__()
        self.round_trips = 0

    async def delete_many(self, session_ids):
        self.round_trips += 1
        return await super().delete_many(session_ids)

    async def create_many(self, records):
        self.round_trips += 1
        return await super().create_many(records)


class Suite(BulkTests):
    """The suite over a given store class."""

    def __init__(self, store=Store):
        self.store = store
        self.stores = {}

    def make_store(self, realm):
        return self.stores.setdefault(realm, self.store())

    def round_trips(self, store):
        return store.round_trips

    async def index_size(self, store):
        return len([record for name in NAMES for record in await store.list_by_index(name)])


NAMES = ("user:user-0", "user:user-1", *(f"idp_sid:s-{n}" for n in range(6)))
TESTS = [name for name in dir(BulkTests) if name.startswith("test_")]


@pytest.mark.parametrize("test", TESTS)
def test_a_correct_store_passes(test):
    """S2, S7, S14, S15, S18."""
    getattr(Suite(), test)(with_loop)


# Faults


class ReversesResults(Store):
    async def delete_many(self, session_ids):
        return (await super().delete_many(session_ids))[::-1]


class ChecksBeforeDeleting(Store):
    async def delete_many(self, session_ids):
        found = [await self.load(session_id) is not None for session_id in session_ids]
        await asyncio.sleep(0)
        await super().delete_many(session_ids)
        return found


class ReportsAllDeleted(Store):
    async def delete_many(self, session_ids):
        await super().delete_many(session_ids)
        return [True] * len(session_ids)


class StopsAtUnknown(Store):
    async def delete_many(self, session_ids):
        results = []
        for session_id in session_ids:
            if results and not results[-1]:
                results.append(False)
            else:
                results.append(await self.delete(session_id))
        return results


class Replaces(Store):
    async def create_many(self, records):
        results = await super().create_many(records)
        for record in records:
            await self.delete(record.id)
            await self.create(record)
        return results


class AllOrNothing(Store):
    async def create_many(self, records):
        if any([await self.load(record.id) for record in records]):
            return [False] * len(records)
        return await super().create_many(records)


class DropsDuplicates(Store):
    async def delete_many(self, session_ids):
        return await super().delete_many(list(dict.fromkeys(session_ids)))


class CountsDuplicates(Store):
    async def delete_many(self, session_ids):
        found = {i for i in session_ids if await self.load(i) is not None}
        await super().delete_many(session_ids)
        return [session_id in found for session_id in session_ids]


class DeletesAllWithoutArguments(Store):
    async def delete_many(self, session_ids):
        results = await super().delete_many(session_ids or list(self._records))
        return results[: len(session_ids)]


class FailsWithoutArguments(Store):
    async def create_many(self, records):
        assert records
        return await super().create_many(records)


class KeepsIndexEntries(Store):
    def __init__(self):
        super().__init__()
        self.index = {}

    async def save_login(self, record, *arguments, **options):
        for name in record.index_names():
            self.index.setdefault(name, []).append(record)
        return await super().save_login(record, *arguments, **options)

    async def list_by_index(self, name):
        return self.index.get(name, [])


class IndexesCreated(Store):
    async def create_many(self, records):
        results = await super().create_many(records)
        for record, created in zip(records, results, strict=True):
            if created and record.index_names():
                await self.delete(record.id)
                await self.save_login(record, 0, limit=None, now=record.seen_at)
        return results


class IgnoresCutoff(Store):
    async def delete_many(self, session_ids):
        return [self._records.pop(session_id, None) is not None for session_id in session_ids]


class OneByOne(Store):
    async def delete_many(self, session_ids):
        self.round_trips += len(session_ids)
        return await super().delete_many(session_ids)


class SharesRealms(Store):
    shared: ClassVar[dict] = {}

    async def create_many(self, records):
        return [self.shared.setdefault(r.id, r) is r for r in records]

    async def delete_many(self, session_ids):
        return [self.shared.pop(i, None) is not None for i in session_ids]


DELETE = "test_delete_many_returns_what_single_deletes_return"
CREATE = "test_create_many_returns_what_single_creates_return"
DUPLICATES = "test_duplicate_arguments_count_once"
EMPTY = "test_empty_arguments_return_an_empty_list"
INDEX = "test_delete_many_removes_index_entries"


@pytest.mark.parametrize(
    ("test", "fault"),
    [
        (DELETE, ReversesResults),
        (DELETE, ReportsAllDeleted),
        (DELETE, StopsAtUnknown),
        (CREATE, Replaces),
        (CREATE, AllOrNothing),
        (DUPLICATES, DropsDuplicates),
        (DUPLICATES, CountsDuplicates),
        (EMPTY, DeletesAllWithoutArguments),
        (EMPTY, FailsWithoutArguments),
        (INDEX, KeepsIndexEntries),
        (INDEX, IndexesCreated),
        ("test_bulk_calls_of_realms_are_isolated", SharesRealms),
        ("test_bulk_calls_ignore_records_before_a_cutoff", IgnoresCutoff),
        ("test_each_record_is_deleted_by_one_of_parallel_calls", ChecksBeforeDeleting),
        ("test_bulk_calls_cost_a_constant_number_of_round_trips", OneByOne),
    ],
)
def test_a_faulty_store_fails(test, fault):
    """S2, S7, S14, S15, S18: each test fails for a store with a fault that it must detect."""
    with pytest.raises((AssertionError, ValueError)):
        getattr(Suite(fault), test)(with_loop)
