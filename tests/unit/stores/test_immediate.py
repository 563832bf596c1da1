"""SupportsImmediate: ``peek`` and ``swap`` act as ``load`` and ``save``, or decline."""

import asyncio
import contextlib
import os
import sqlite3
import threading

import pytest

from sojourn._core.concurrency import run
from sojourn.errors import StoreError
from sojourn.record import UnreadableRecord
from sojourn.store import SAVED, Conflict, SupportsImmediate
from sojourn.stores.memory import MemoryStore
from sojourn.stores.sqlite import SQLiteStore, checkpointer
from sojourn.testing.records import MINUTE, make_body, make_record, next_version, now


@pytest.fixture(autouse=True)
def no_checkpoint(monkeypatch):
    """Prevent the checkpointer from holding the write lock while a test swaps."""
    monkeypatch.setattr(checkpointer, "_MAX_DELAY", 60)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sessions.db"


@pytest.fixture(params=["memory", "sqlite"])
def store(request, path):
    if request.param == "memory":
        yield MemoryStore()
        return
    store = SQLiteStore(path)
    yield store
    store.close()


@pytest.fixture
def sqlite_store(path):
    store = SQLiteStore(path, timeout=0.3)
    yield store
    store.close()


@pytest.fixture
def record(request):
    """A record in the store, whose connections are open."""
    name = "store" if "store" in request.fixturenames else "sqlite_store"
    store = request.getfixturevalue(name)
    record = make_record()
    run(store.create(record))
    assert run(store.load(record.id)) == record
    return record


@contextlib.contextmanager
def locked(path, *statements):
    """Lock the database as another program that does not use the write lock."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        for statement in statements:
            other.execute(statement)
        yield


def test_both_stores_answer_immediately(store):
    assert isinstance(store, SupportsImmediate)


def test_peek_returns_the_record_that_load_returns(store, record):
    """S1."""
    assert store.peek(record.id) == record
    assert store.peek(bytes(16)) is None


def test_swap_replaces_the_expected_version(store, record):
    """S3."""
    newer = next_version(record, body=make_body(n=1))
    assert store.swap(newer, 1) is True
    assert run(store.load(record.id)) == store.peek(record.id) == newer


def test_swap_changes_nothing_on_a_conflict_or_without_a_record(store, record):
    """S3, S4, S5: ``save`` then returns the reason."""
    assert store.swap(next_version(record), 7) is False
    assert run(store.save(next_version(record), 7)) == Conflict(record)
    absent = make_record()
    assert store.swap(next_version(absent), 1) is False
    assert run(store.load(absent.id)) is None
    assert run(store.load(record.id)) == record


def test_swap_keeps_the_larger_seen_at(store, record):
    """S6: the expiry is derived from it."""
    later = record.seen_at + MINUTE
    run(store.touch(record.with_seen_at(later)))
    assert store.swap(next_version(record, body=make_body(n=1)), 1) is True
    stored = run(store.load(record.id))
    assert (stored.version, stored.seen_at, stored.body) == (2, later, make_body(n=1))
    assert run(store.count(record.expires_at)) == 1


def test_invalidated_records_are_absent(store):
    """S15."""
    old = make_record(created_at=now() - 10)
    run(store.create(old))
    run(store.load(old.id))
    run(store.invalidate_all(now()))
    assert store.peek(old.id) is None
    assert store.swap(next_version(old), 1) is False


def test_a_swapped_record_is_evicted_last():
    """B-54: a swap counts as use, as a save does."""
    store = MemoryStore(limit=2)
    first, second = make_record(), make_record()
    run(store.create(first))
    run(store.create(second))
    assert store.swap(next_version(first), 1)
    run(store.create(make_record()))
    assert run(store.load(second.id)) is None
    assert run(store.load(first.id)) is not None


def test_threads_that_increment_lose_no_update(store, record):
    """S10: every successful swap is one version."""
    done = []

    def work():
        successes = 0
        while successes < 100:
            stored = store.peek(record.id) or run(store.load(record.id))
            newer = next_version(stored)
            saved = store.swap(newer, stored.version)
            successes += saved or run(store.save(newer, stored.version)) is SAVED
        done.append(successes)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [100] * 4
    assert run(store.load(record.id)).version == 1 + 400


def test_a_swap_is_visible_to_other_processes_at_once(path, sqlite_store, record):
    """S11: it is committed when it returns."""
    assert sqlite_store.swap(next_version(record), 1)
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT version FROM sessions").fetchall() == [(2,)]


def test_all_swaps_of_a_tick_take_two_transactions(sqlite_store):
    """S18: the first commits at once, all others share one."""
    records = [make_record() for _ in range(10)]
    run(sqlite_store.create_many(records))
    statements = []
    with sqlite_store._committer.in_use:
        sqlite_store._committer.connect().set_trace_callback(statements.append)
    swapped = []

    async def save(record):
        newer = next_version(record)
        swapped.append(sqlite_store.swap(newer, 1))
        return swapped[-1] or await sqlite_store.save(newer, 1) is SAVED

    async def scene():
        assert all(await asyncio.gather(*map(save, records)))
        await asyncio.sleep(0)
        assert sqlite_store.swap(next_version(next_version(records[0])), 2), "a new tick"

    asyncio.run(scene())
    assert swapped == [True] + [False] * 9
    assert statements.count("COMMIT") == 1
    assert sum(text.startswith("UPDATE") for text in statements) == 11


def test_the_first_read_of_a_new_thread_is_declined(sqlite_store, record):
    """Opening a connection takes milliseconds."""
    seen = []

    def work():
        seen.append(sqlite_store.peek(record.id))
        seen.append(run(sqlite_store.load(record.id)))
        seen.append(sqlite_store.peek(record.id))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None, record, record]


def test_with_a_locked_database_peek_reads_and_swap_declines(path, sqlite_store, record):
    """S12: neither waits."""
    with locked(path, "BEGIN IMMEDIATE"):
        assert sqlite_store.peek(record.id) == record
        assert sqlite_store.swap(next_version(record), 1) is False
    assert run(sqlite_store.load(record.id)) == record
    assert sqlite_store.swap(next_version(record), 1) is True


def test_a_peek_of_a_database_locked_for_readers_is_declined(path, sqlite_store, record):
    """S12: SQLite returns "busy" at once."""
    sqlite_store.before_fork()  # an exclusive lock requires that no connection is open
    with locked(path, "PRAGMA locking_mode = EXCLUSIVE", "BEGIN IMMEDIATE"):
        sqlite_store.after_fork_in_parent()
        with pytest.raises(StoreError):
            run(sqlite_store.load(record.id))
        assert sqlite_store.peek(record.id) is None
        assert sqlite_store.swap(next_version(record), 1) is False
    assert run(sqlite_store.load(record.id)) == record
    assert sqlite_store.peek(record.id) == record


def test_a_swap_during_another_write_is_declined(sqlite_store, record):
    """Whether this process or another one holds the write lock."""
    with sqlite_store._committer.in_use:
        assert sqlite_store.swap(next_version(record), 1) is False
    with sqlite_store._checkpointer.write_lock:
        assert sqlite_store.swap(next_version(record), 1) is False
    assert sqlite_store.swap(next_version(record), 1) is True


def test_a_peek_of_an_unreadable_record_is_declined(path, sqlite_store, record):
    """S9."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE sessions SET record = x'00'")
    assert sqlite_store.peek(record.id) is None
    with pytest.raises(UnreadableRecord):
        run(sqlite_store.load(record.id))


def test_a_swap_that_fails_is_declined(sqlite_store, record):
    """S12: the next write starts with a clean connection."""
    with sqlite_store._committer.in_use:
        sqlite_store._committer.connect().execute("PRAGMA query_only = 1")
    assert sqlite_store.swap(next_version(record), 1) is False
    assert run(sqlite_store.save(next_version(record), 1)) is SAVED


def test_calls_of_a_paused_store_are_declined(sqlite_store, record):
    """While another thread forks, every connection is closed and locked."""
    sqlite_store.before_fork()
    try:
        assert sqlite_store.peek(record.id) is None
        assert sqlite_store.swap(next_version(record), 1) is False
    finally:
        sqlite_store.after_fork_in_parent()
    assert run(sqlite_store.load(record.id)) == record
    assert sqlite_store.peek(record.id) == record


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the test forks a process with threads
def test_after_a_fork_each_process_opens_its_own_connections(sqlite_store, record):
    child = os.fork()
    if child == 0:
        try:
            assert sqlite_store.peek(record.id) is None
            assert sqlite_store.swap(next_version(record), 1) is False
            assert run(sqlite_store.load(record.id)) == record
            assert sqlite_store.peek(record.id) == record
            assert run(sqlite_store.touch(record))
            assert sqlite_store.swap(next_version(record), 1) is True
            sqlite_store.close()
        except BaseException:  # noqa: BLE001 - the child must not run the other tests
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sqlite_store.peek(record.id) is None
    assert run(sqlite_store.load(record.id)).version == 2
    assert sqlite_store.peek(record.id).version == 2


def test_after_close_load_and_save_raise(sqlite_store, record):
    sqlite_store.close()
    assert sqlite_store.peek(record.id) is None
    assert sqlite_store.swap(next_version(record), 1) is False
    for call in (sqlite_store.load(record.id), sqlite_store.save(next_version(record), 1)):
        with pytest.raises(StoreError, match="was closed"):
            run(call)
