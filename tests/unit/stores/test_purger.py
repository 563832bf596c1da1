"""Purger: one thread per process, which survives errors and ends with its owner.

The tests wait for that thread; their time limit bounds the wait.
"""

import gc
import logging
import os
import threading
import time

import pytest

from sojourn._core.concurrency import run
from sojourn.errors import StoreUnavailable
from sojourn.record import Record
from sojourn.stores.memory import MemoryStore
from sojourn.stores.purger import MAX_BATCH, Purger
from sojourn.testing import FakeClock, FaultyStore

OTHERS = set()


def threads():
    """Return the threads that this test started; those of earlier tests may still be sleeping."""
    return [
        thread
        for thread in threading.enumerate()
        if thread.name == "sojourn-purger" and thread not in OTHERS
    ]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    """Wait until the threads of the test have ended."""
    OTHERS.clear()
    OTHERS.update(threading.enumerate())
    yield
    wait_until(lambda: not threads())


def wait_until(condition):
    while not condition():
        time.sleep(0.001)  # polls another thread; the test has a time limit


def filled(count, clock):
    store = MemoryStore()
    for number in range(count):
        record = Record(
            id=number.to_bytes(16),
            version=1,
            seen_at=clock(),
            created_at=clock(),
            absolute_at=clock() + 10_000,
            idle_timeout=5_000,
            verifier=bytes(32),
            body=b"x",
        )
        run(store.create(record))
    return store


def test_expired_records_are_deleted_and_no_others():
    """S8, B-54: without requests."""
    clock = FakeClock()
    records = filled(3, clock)
    store = FaultyStore(records)
    purger = Purger(store, clock, 0.001)
    purger.start()
    try:
        wait_until(lambda: store.calls.count("purge") > 3)  # it has examined every record
        assert run(records.count(clock())) == 3
        clock.advance("5 seconds")
        wait_until(lambda: not records.records())
    finally:
        purger.stop()


def test_the_whole_store_is_purged_in_batches():
    clock = FakeClock()
    store = FaultyStore(filled(MAX_BATCH + 1, clock))
    clock.advance("5 seconds")
    purger = Purger(store, clock, 60)
    assert sum(purger.purge_expired() for _ in range(2)) == MAX_BATCH + 1
    assert len(store.calls) >= 3


def test_concurrent_starts_create_one_thread():
    purger = Purger(MemoryStore(), FakeClock(), 60)
    before = len(threads())
    gate = threading.Barrier(8)

    def start():
        gate.wait()
        purger.start()

    starters = [threading.Thread(target=start) for _ in range(8)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    assert len(threads()) == before + 1
    assert threads()[-1].daemon
    purger.stop()


def test_a_stopped_purger_does_not_start_again():
    purger = Purger(MemoryStore(), FakeClock(), 60)
    purger.start()
    purger.stop()
    purger.start()
    wait_until(lambda: not threads())
    assert purger.purge_expired() == 0


def test_the_thread_ends_when_the_purger_is_collected():
    before = len(threads())
    purger = Purger(MemoryStore(), FakeClock(), 0.001)
    purger.start()
    assert len(threads()) == before + 1
    del purger
    gc.collect()
    wait_until(lambda: len(threads()) == before)


@pytest.mark.parametrize("error", [StoreUnavailable("down"), RuntimeError("a fault of the store")])
def test_an_error_is_logged_and_the_purge_is_retried(error, caplog):
    """B-54: otherwise the store would grow without bounds."""
    clock = FakeClock()
    store = FaultyStore(filled(1, clock))
    clock.advance("5 seconds")
    store.fail("purge", times=2, error=error)
    purger = Purger(store, clock, 0.001)
    with caplog.at_level(logging.WARNING, logger="sojourn"):
        purger.start()
        wait_until(lambda: not store.store._records)
    purger.stop()
    assert "could not be removed" in caplog.text


def test_a_forked_child_starts_its_own_thread():
    """A fork inherits no thread."""
    purger = Purger(MemoryStore(), FakeClock(), 60)
    purger.start()
    purger._process = os.getpid() + 1  # as if this were a child
    first = purger._stop
    purger.start()
    assert purger._stop is not first
    assert len(threads()) == 2
    first.set()
    purger.stop()
