"""Batches are reported with their size, their duration and whether they failed."""

import asyncio
import threading

import pytest

from sojourn.errors import StoreUnavailable
from sojourn.record import Record
from sojourn.store import SupportsBatchObservers
from sojourn.stores import migrating
from sojourn.stores.batching import Batchers
from sojourn.stores.memory import MemoryStore
from sojourn.stores.sqlite import SQLiteStore


class Executor:
    """Answers each request, or fails."""

    def __init__(self):
        self.timeout = 1.0
        self.error = None

    async def execute(self, requests, deadline):
        if self.error is not None:
            raise self.error
        return [2 * request for request in requests]

    def close(self):
        """Close nothing."""


class Observer:
    """Records size and failure of each batch."""

    def __init__(self):
        self.batches = []

    def __call__(self, size, seconds, /, *, failed):
        assert 0 <= seconds < 60
        self.batches.append((size, failed))


@pytest.fixture
def executor():
    return Executor()


@pytest.fixture
def batchers(executor):
    made = Batchers(lambda: executor, lambda: executor, advice=None, timeout=1.0)
    yield made
    made.close()


def test_batches_of_an_event_loop_are_reported(batchers, executor):
    observer = Observer()
    batchers.add_observer(observer)

    async def calls():
        assert await asyncio.gather(*map(batchers.submit, range(5))) == [0, 2, 4, 6, 8]
        executor.error = StoreUnavailable("no answer")
        with pytest.raises(StoreUnavailable):
            await batchers.submit(1)

    asyncio.run(calls())
    assert observer.batches == [(5, False), (1, True)]


def test_batches_of_threads_are_reported(batchers):
    observer = Observer()
    batchers.add_observer(observer)

    def call():
        with pytest.raises(StopIteration):
            batchers.submit(1).send(None)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(size for size, _ in observer.batches) == 4


def test_observers_can_be_added_and_removed_while_batchers_exist(batchers, executor):
    first, second = Observer(), Observer()

    async def calls():
        await batchers.submit(1)
        batchers.add_observer(first)
        await batchers.submit(1)
        batchers.add_observer(second)
        await batchers.submit(1)
        batchers.remove_observer(first)
        batchers.remove_observer(second)
        await batchers.submit(1)
        return batchers._by_loop[asyncio.get_running_loop()][0]

    batcher = asyncio.run(calls())
    assert [len(first.batches), len(second.batches)] == [2, 1]
    assert batcher.execute == executor.execute  # nothing in between without an observer


def record(number):
    return Record(
        id=number.to_bytes(16),
        version=1,
        seen_at=1,
        created_at=1,
        absolute_at=2**50,
        idle_timeout=2**40,
        verifier=bytes(32),
        body=b"x",
    )


def test_transactions_of_sqlite_are_reported():
    """Writes of one event-loop tick are one batch."""
    store, observer = SQLiteStore("sessions.db"), Observer()
    assert isinstance(store, SupportsBatchObservers)
    store.add_batch_observer(observer)

    async def calls():
        await asyncio.gather(*(store.create(record(number)) for number in range(1, 5)))

    asyncio.run(calls())
    assert observer.batches == [(4, False)]
    store.remove_batch_observer(observer)
    asyncio.run(store.delete(record(1).id))
    assert len(observer.batches) == 1
    store.close()


def test_a_migrating_store_reports_the_batches_of_both_stores():
    old, new = SQLiteStore("old.db"), SQLiteStore("new.db")
    store, observer = migrating(old, new), Observer()
    store.add_batch_observer(observer)
    asyncio.run(old.create(record(1)))
    asyncio.run(new.create(record(2)))
    assert observer.batches == [(1, False), (1, False)]
    store.remove_batch_observer(observer)
    asyncio.run(new.create(record(3)))
    assert len(observer.batches) == 2
    assert not isinstance(MemoryStore(), SupportsBatchObservers)
    store.close()
