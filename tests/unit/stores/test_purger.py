"""The thread that forgets: one for each process, gone with its owner, stopped by no error.

Waiting here is for a thread of its own and bounded by the test's time limit.
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
from sojourn.stores.purger import BATCH, Purger
from sojourn.testing import FakeClock, FaultyStore

OTHERS = set()


def threads():
    """Return the sweepers that this test started; those of earlier tests may still be asleep."""
    return [
        thread
        for thread in threading.enumerate()
        if thread.name == "sojourn-sweeper" and thread not in OTHERS
    ]


@pytest.fixture(autouse=True)
def none_is_left():
    """Wait until the threads of the test have ended."""
    OTHERS.clear()
    OTHERS.update(threading.enumerate())
    yield
    wait_until(lambda: not threads())


def wait_until(condition):
    while not condition():
        time.sleep(0.001)  # another thread is at work; the test has a time limit


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


def test_it_removes_the_expired_and_nothing_else():
    """S8, B-54: without traffic."""
    clock = FakeClock()
    store = filled(3, clock)
    sweeper = Purger(store, clock, 0.001)
    sweeper.start()
    time.sleep(0.02)  # long enough for a round that must remove nothing
    assert run(store.count(clock())) == 3
    clock.advance("5 seconds")
    wait_until(lambda: not store._records)
    sweeper.stop()


def test_a_round_goes_through_the_whole_store_in_batches():
    clock = FakeClock()
    store = FaultyStore(filled(BATCH + 1, clock))
    clock.advance("5 seconds")
    sweeper = Purger(store, clock, 60)
    assert sum(sweeper.round() for _ in range(2)) == BATCH + 1
    assert len(store.calls) >= 3


def test_there_is_one_thread_however_many_start_it():
    sweeper = Purger(MemoryStore(), FakeClock(), 60)
    before = len(threads())
    gate = threading.Barrier(8)

    def start():
        gate.wait()
        sweeper.start()

    starters = [threading.Thread(target=start) for _ in range(8)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    assert len(threads()) == before + 1
    assert threads()[-1].daemon
    sweeper.stop()


def test_once_stopped_it_stays_so():
    sweeper = Purger(MemoryStore(), FakeClock(), 60)
    sweeper.start()
    sweeper.stop()
    sweeper.start()
    wait_until(lambda: not threads())
    assert sweeper.round() == 0


def test_it_ends_when_nobody_has_the_sweeper_any_more():
    before = len(threads())
    sweeper = Purger(MemoryStore(), FakeClock(), 0.001)
    sweeper.start()
    assert len(threads()) == before + 1
    del sweeper
    gc.collect()
    wait_until(lambda: len(threads()) == before)


@pytest.mark.parametrize("error", [StoreUnavailable("down"), RuntimeError("a fault of the store")])
def test_an_error_is_logged_and_the_next_round_comes(error, caplog):
    """B-54: a thread that died would leave the store to grow without bounds."""
    clock = FakeClock()
    store = FaultyStore(filled(1, clock))
    clock.advance("5 seconds")
    store.fail("purge", times=2, error=error)
    sweeper = Purger(store, clock, 0.001)
    with caplog.at_level(logging.WARNING, logger="sojourn"):
        sweeper.start()
        wait_until(lambda: not store.store._records)
    sweeper.stop()
    assert "could not be removed" in caplog.text


def test_a_child_process_starts_its_own():
    """A fork inherits no thread."""
    sweeper = Purger(MemoryStore(), FakeClock(), 60)
    sweeper.start()
    sweeper._process = os.getpid() + 1  # as if this were a child
    first = sweeper._stop
    sweeper.start()
    assert sweeper._stop is not first
    assert len(threads()) == 2
    first.set()
    sweeper.stop()
