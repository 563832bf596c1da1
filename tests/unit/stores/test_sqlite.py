"""SQLiteStore: the laws of stores, the database file, group commit and checkpoints.

Several processes: test_sqlite_processes.py. The user index: test_sqlite_users.py.
"""

import asyncio
import contextlib
import gc
import os
import sqlite3
import stat
import threading
import time
import weakref
from pathlib import Path

import msgspec
import pytest

from sojourn._core.concurrency import run
from sojourn.errors import ConfigurationError, StoreError, StoreUnavailable
from sojourn.record import UnreadableRecord
from sojourn.store import SAVED, LocalStore, LoginSaved, NeedsPurge, Purged, SupportsCount
from sojourn.stores.sqlite import SQLiteStore, checkpointer
from sojourn.stores.urls import open_store
from sojourn.testing.records import (
    HOUR,
    MINUTE,
    login,
    make_body,
    make_record,
    next_version,
    now,
    save_login,
)
from sojourn.testing.store_suite.counting import check_estimate
from tests.support.million_sessions import fill
from tests.support.timing import shortest

pytestmark = pytest.mark.anyio

DEADLINE = 0.3


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "sessions.db"


@pytest.fixture
def store(path):
    store = SQLiteStore(path, timeout=DEADLINE)
    yield store
    store.close()


@contextlib.contextmanager
def held(path, statement="BEGIN IMMEDIATE"):
    """Lock the database as another program that does not use the write lock."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(statement)
        yield other
        if other.in_transaction:
            other.execute("ROLLBACK")


def transactions(store):
    """Return the list to which the statements of the writing connection are added."""
    statements = []
    with store._committer.in_use:
        connection = store._committer._begin(1.0)
        connection.execute("ROLLBACK")
        connection.set_trace_callback(statements.append)
    return statements


async def longest_stall(waiting):
    """Return the longest time in seconds for which a call blocked the event loop."""
    longest, last = 0.0, time.monotonic()
    while not waiting.done():
        await asyncio.sleep(0.001)  # its delay is the time for which the loop was blocked
        longest = max(longest, time.monotonic() - last)
        last = time.monotonic()
    return longest


# The database file


def modes(folder):
    return {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in folder.iterdir()}


def test_only_the_owner_can_read_the_database(path, store):
    """B-50: file, log, index and lock are 0600 and new folders 0700, whatever the umask."""
    run(store.create(make_record()))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    found = modes(path.parent)
    assert set(found) == {f"sessions.db{end}" for end in ("", "-wal", "-shm", "-lock")}
    assert set(found.values()) == {0o600}


def test_permissions_do_not_depend_on_the_umask(path):
    """B-50: also with a umask of 0."""
    before = os.umask(0)
    try:
        store = SQLiteStore(path / "deeper" / "sessions.db")
        run(store.create(make_record()))
    finally:
        os.umask(before)
    assert set(modes(path / "deeper").values()) == {0o600}
    assert {stat.S_IMODE(p.stat().st_mode) for p in (path, path / "deeper", path.parent)} == {0o700}
    store.close()


def test_access_of_other_users_is_removed_on_open(path, store):
    """B-50: it may come from a copy or an earlier umask."""
    store.close()
    path.chmod(0o666)
    SQLiteStore(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("end", ["", "-wal", "-shm", "-lock"])
def test_symbolic_links_are_refused(path, tmp_path, end):
    """B-20, B-50: their target is not written to."""
    target = tmp_path / "elsewhere"
    target.write_bytes(b"")
    path.parent.mkdir()
    Path(f"{path}{end}").symlink_to(target)
    with pytest.raises(ConfigurationError, match="must be a regular file"):
        SQLiteStore(path)
    assert target.read_bytes() == b""


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="must be a regular file"):
        SQLiteStore(tmp_path)


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        SQLiteStore(tmp_path / "file" / "sessions.db")


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE users (name)", "PRAGMA application_id = 7", "PRAGMA user_version = 1"],
)
def test_the_database_of_another_program_is_not_changed(tmp_path, statement):
    """Neither its tables nor its mode."""
    path = tmp_path / "app.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(statement)
    path.chmod(0o644)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="another program"):
        SQLiteStore(path)
    assert path.read_bytes() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_file_of_another_type_is_not_changed(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("remember the milk\n" * 100)
    with pytest.raises(ConfigurationError, match="not a database"):
        SQLiteStore(path)
    assert path.read_text() == "remember the milk\n" * 100


def test_a_newer_schema_is_refused(path, store):
    """S9: a newer release wrote the file."""
    store.close()
    with held(path, "PRAGMA user_version = 3"):
        pass
    with pytest.raises(ConfigurationError, match=r"newer sojourn.*found 3"):
        SQLiteStore(path)


def test_rows_with_values_of_other_types_are_unreadable(path, store):
    """S9."""
    record = make_record()
    run(store.create(record))
    for change in ("record = 'text'", "record = 7", "seen_at = 'yesterday'"):
        with held(path, "BEGIN") as other:
            other.execute(f"UPDATE sessions SET {change}")  # noqa: S608 - from the list above
            other.execute("COMMIT")
        with pytest.raises(UnreadableRecord):
            run(store.load(record.id))


def test_foreign_text_in_a_row_does_not_hide_the_others(path, store):
    """S9: text that is not UTF-8 is a damaged record, not a failure of the store."""
    damaged, intact = login(None, "ada", at=5), login(None, "ada", at=6)
    for record in (damaged, intact):
        run(save_login(store, record, 0))
    with held(path) as other:
        other.execute(
            "UPDATE sessions SET record = CAST(x'ff41' AS TEXT) WHERE id = ?", (damaged.id,)
        )
        other.execute("COMMIT")
    with pytest.raises(UnreadableRecord):
        run(store.load(damaged.id))
    assert run(store.list_by_index("user:ada")) == [intact]
    page = run(store.list_page("", 10))
    assert (page.records, page.unreadable) == ([intact], 1)
    assert isinstance(run(save_login(store, login(None, "ada", at=7), 0)), LoginSaved)


def test_each_realm_has_its_own_table(path, store):
    """S14: SQLite ignores case in names, and tables and indexes share one namespace."""
    realms = ["default", "a", "A", "user", "a_user", "-", "_", "by_user"]
    stores = [SQLiteStore(path, realm=realm) for realm in realms]
    record = make_record()
    for number, each in enumerate(stores):
        assert run(each.create(msgspec.structs.replace(record, body=make_body(n=number))))
    for number, each in enumerate(stores):
        assert run(each.load(record.id)).body == make_body(n=number)
        each.close()


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("sqlite:///here.db", "here.db"),
        ("sqlite:///a/b/here.db", "a/b/here.db"),
        ("sqlite:///./here.db", "here.db"),
        ("sqlite:///with%20space%23%3F.db", "with space#?.db"),
        ("sqlite:///{}/absolute.db", "absolute.db"),
    ],
)
def test_valid_urls_open_the_store(tmp_path, url, where):
    store = open_store(url.format(tmp_path), realm="default", timeout=2)
    run(store.create(make_record()))
    store.close()
    assert (tmp_path / where).stat().st_size > 0


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("sqlite://", "names no file; write 'sqlite:///relative"),
        ("sqlite:///", "names no file"),
        ("sqlite:///folder/", "names no file"),
        ("sqlite://sessions.db", "three slashes"),
        ("sqlite:///a.db?mode=ro", "unknown option 'mode'"),
        ("sqlite:///a#b.db", "as '%23'"),
        ("sqlite:///:memory:", "write 'memory://'"),
        ("sqlit:///a.db", "Did you mean 'sqlite'"),
    ],
)
def test_invalid_urls_are_refused(tmp_path, url, text):
    with pytest.raises(ConfigurationError, match=text):
        open_store(url, realm="default", timeout=2)
    assert list(tmp_path.iterdir()) == []


def test_the_store_has_every_capability_of_embedded_stores(path, store):
    assert isinstance(store, SupportsCount)
    assert isinstance(store, NeedsPurge)
    assert isinstance(store, LocalStore)
    assert store.secret_path() == path.with_name("sessions.db.secret")
    assert repr(store) == f"SQLiteStore({str(path)!r}, table 'sessions')"


# Expiry


def test_a_touch_with_an_older_record_uses_the_stored_limits(store):
    """S6, S8: purge uses the expiry of the stored record."""
    at = now()
    record = make_record(seen_at=at, idle_timeout=MINUTE)
    run(store.create(record))
    run(store.save(next_version(record, idle_timeout=HOUR), 1))
    run(store.touch(record.with_seen_at(at + 1)))
    assert run(store.purge(at + 2 * MINUTE, 10)).removed == 0
    assert run(store.purge(at + HOUR + 1, 10)).removed == 1


def test_a_save_with_an_older_seen_at_keeps_the_later_expiry(store):
    """S6, S8: the larger ``seen_at`` determines the expiry."""
    at = now()
    record = make_record(seen_at=at, idle_timeout=HOUR)
    run(store.create(record))
    run(store.touch(record.with_seen_at(at + MINUTE)))
    run(store.save(next_version(record), 1))
    assert run(store.purge(at + HOUR + MINUTE - 1, 10)).removed == 0
    assert run(store.count(at + HOUR + MINUTE - 1)) == 1
    assert run(store.count(at + HOUR + MINUTE)) == 0


def test_purge_deletes_in_small_transactions(store):
    """S8: at most a hundred records each."""
    old = now() - 24 * HOUR
    for _ in range(350):
        run(store.create(make_record(seen_at=old)))
    statements = transactions(store)
    assert run(store.purge(now(), 300)) == Purged(300, finished=False)
    assert run(store.purge(now(), 300)) == Purged(50, finished=True)
    assert sum(text.startswith('DELETE FROM "sessions"') for text in statements) == 4
    # And one each for the cutoffs of users, the events and the history.
    assert statements.count("COMMIT") == 4 + 3


# Group commit


async def test_the_writes_of_a_tick_are_one_transaction(store):
    """S18: fifty saves, creates and touches cost one commit."""
    records = [make_record() for _ in range(50)]
    statements = transactions(store)
    assert all(await asyncio.gather(*(store.create(r) for r in records)))
    assert statements.count("BEGIN IMMEDIATE") == statements.count("COMMIT") == 1
    saves = (store.save(next_version(record), 1) for record in records)
    touches = (store.touch(record.with_seen_at(record.seen_at + 1)) for record in records)
    answers = await asyncio.gather(*saves, *touches)
    assert answers == [SAVED] * 50 + [True] * 50
    assert statements.count("BEGIN IMMEDIATE") == statements.count("COMMIT") == 2


async def test_writes_that_wait_for_a_lock_share_a_transaction(path):
    """S18: writes of many ticks are committed together."""
    store = SQLiteStore(path, timeout=5)
    records = [make_record() for _ in range(20)]
    statements = transactions(store)
    tasks = []
    with held(path):
        for record in records:
            tasks.append(asyncio.ensure_future(store.create(record)))
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # the last write is queued at the end of its tick
    assert all(await asyncio.gather(*tasks))
    assert statements.count("COMMIT") <= 2
    store.close()


async def test_a_failing_write_does_not_affect_its_batch(store):
    """S13: its caller gets the error; the other writes are committed."""
    records = [make_record() for _ in range(5)]
    records[2] = msgspec.structs.replace(records[2], seen_at=2**63)  # not a 64-bit integer
    answers = await asyncio.gather(*(store.create(r) for r in records), return_exceptions=True)
    assert [answers[n] for n in (0, 1, 3, 4)] == [True] * 4
    assert isinstance(answers[2], StoreError)
    assert isinstance(answers[2].__cause__, OverflowError)
    assert await store.count(0) == 4


async def test_an_unreadable_record_does_not_affect_its_batch(path, store):
    """S9, S13: only the caller that conflicts with it gets the error."""
    damaged, fine = make_record(), make_record()
    await store.create(damaged)
    await store.create(fine)
    with held(path, "BEGIN") as other:
        other.execute("UPDATE sessions SET record = x'00' WHERE id = ?", (damaged.id,))
        other.execute("COMMIT")
    answers = await asyncio.gather(
        store.save(next_version(damaged), 7),
        store.save(next_version(fine), 1),
        return_exceptions=True,
    )
    assert isinstance(answers[0], UnreadableRecord)
    assert answers[1] is SAVED


async def test_a_full_disk_is_reported_and_later_writes_succeed(store):
    """S12: the failed transaction is rolled back."""
    before = make_record()
    await store.create(before)
    connection = store._committer._connection
    [pages] = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    big = [make_record(body=make_body(blob=bytes(60_000))) for _ in range(3)]
    answers = await asyncio.gather(*(store.create(r) for r in big), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
    assert "full" in str(answers[0].__cause__)
    assert [await store.load(record.id) for record in big] == [None] * 3
    assert await store.load(before.id) == before
    store._committer.disconnect()  # the limit belongs to the connection
    assert await store.create(big[0]) is True


async def test_a_disk_error_fails_its_whole_batch_and_no_later_one(store, monkeypatch):
    """S12: it also rolls back the earlier writes of the batch."""

    def broken(connection, record):
        connection.execute("ROLLBACK")  # as SQLite does when the disk fails
        raise sqlite3.OperationalError("disk I/O error")

    records = [make_record() for _ in range(3)]
    calls = [store.create(record) for record in records]
    with monkeypatch.context() as patch:
        patch.setattr(store._statements, "touch", broken)
        answers = await asyncio.gather(*calls, store.touch(records[0]), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 4
    assert [await store.load(record.id) for record in records] == [None] * 3
    assert await store.create(records[0]) is True


@pytest.mark.parametrize("runner", ["loop", "no loop"])
def test_a_locked_database_is_reported_at_the_deadline(path, store, runner):
    """S12: the write is not executed later."""
    record, late = make_record(), make_record()
    run(store.create(record))

    async def law():
        with held(path):
            assert await store.load(record.id) == record  # readers never wait for a writer

            async def create():
                began = time.monotonic()
                with pytest.raises(StoreUnavailable, match=r"within 0\.3 s|is locked") as caught:
                    await store.create(late)
                assert caught.value.__cause__ is not None
                return time.monotonic() - began

            assert DEADLINE * 0.9 < await shortest(create, DEADLINE + 0.5) < DEADLINE + 0.5
        assert await store.touch(record.with_seen_at(record.seen_at + 1)) is True
        assert await store.load(late.id) is None

    if runner == "loop":
        asyncio.run(law())
    else:
        run(law())


async def test_waiting_for_a_lock_does_not_block_the_event_loop(path, store):
    """S12: other requests continue."""
    record = make_record()
    await store.create(record)

    async def delete():
        waiting = asyncio.ensure_future(store.delete(record.id))
        stall = await longest_stall(waiting)
        with pytest.raises(StoreUnavailable):
            waiting.result()
        return stall

    with held(path):
        assert await shortest(delete, DEADLINE / 2) < DEADLINE / 2


async def test_a_database_locked_for_readers_is_reported_at_the_deadline(path):
    """S12: reads fail and do not block the event loop."""
    with contextlib.closing(SQLiteStore(path, timeout=DEADLINE)) as store:
        exclusive = "PRAGMA locking_mode = EXCLUSIVE"
        record = make_record()
        with held(path, exclusive) as other:
            other.execute("BEGIN IMMEDIATE")

            async def load():
                reading = asyncio.ensure_future(store.load(record.id))
                stall = await longest_stall(reading)
                with pytest.raises(StoreUnavailable):
                    reading.result()
                return stall

            async def count():
                began = time.monotonic()
                with pytest.raises(StoreUnavailable):
                    await store.count(0)
                return time.monotonic() - began

            assert await shortest(load, DEADLINE / 2) < DEADLINE / 2
            assert await shortest(count, DEADLINE + 0.5) < DEADLINE + 0.5
            with pytest.raises(StoreUnavailable):
                SQLiteStore(path, timeout=DEADLINE)
        assert await store.create(record) is True
        assert await store.load(record.id) == record


async def test_a_write_cancelled_before_its_batch_is_not_executed(path):
    """S13: of three waiting writes one is cancelled; the others are committed."""
    store = SQLiteStore(path, timeout=5)
    records = [make_record() for _ in range(3)]
    with held(path):
        tasks = [asyncio.ensure_future(store.create(record)) for record in records]
        await asyncio.sleep(0.05)  # until the thread has found the database locked
        tasks[1].cancel()
        await asyncio.sleep(0)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers[0] is answers[2] is True
    assert isinstance(answers[1], asyncio.CancelledError)
    assert await store.load(records[1].id) is None
    store.close()


def test_a_closed_loop_with_pending_writes_does_not_affect_the_next_loop(store):
    """S13: a thread may run one loop after another."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(store.create(make_record()))
    loop.call_soon(loop.stop)  # after the call was made, before the end of its tick
    loop.run_forever()
    loop.close()
    assert not task.done()
    task._log_destroy_pending = False  # abandoned on purpose
    assert asyncio.run(store.create(make_record())) is True


# Checkpoints


def test_the_log_stays_bounded_under_constant_writing(path, monkeypatch):
    """PASSIVE checkpoints never complete under constant writing; RESTART does."""
    monkeypatch.setattr(checkpointer, "_ROWS_PER_CHECKPOINT", 10**9)
    monkeypatch.setattr(checkpointer, "_MAX_DELAY", 60)
    monkeypatch.setattr(checkpointer, "_MAX_LOG_PAGES", 50)
    store = SQLiteStore(path)
    worker, checkpoint = store._checkpointer, store._checkpointer.run_checkpoint
    record = make_record()
    run(store.create(record))

    def write():
        nonlocal record
        record, version = next_version(record), record.version
        assert run(store.save(record, version)) is SAVED

    def write_meanwhile(kind):
        if kind != "PASSIVE":
            return checkpoint(kind)
        with held(path, "BEGIN") as other:  # its snapshot ends the checkpoint early
            other.execute("SELECT count(*) FROM sessions").fetchone()
            write()
            return checkpoint(kind)

    monkeypatch.setattr(worker, "run_checkpoint", write_meanwhile)
    for _ in range(5):
        for _ in range(60):
            write()
        worker.checkpoint()
        pages, _ = checkpoint("PASSIVE")
        assert pages < 10
    monkeypatch.undo()
    store.close()


async def test_the_log_of_an_idle_store_is_checkpointed(path, monkeypatch):
    """A copy of the database file alone is complete while the application is idle."""
    monkeypatch.setattr(checkpointer, "_MAX_DELAY", 0.01)
    store = SQLiteStore(path)
    record = make_record()
    await store.create(record)
    copy = path.with_name("copy.db")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        copy.write_bytes(path.read_bytes())
        with contextlib.closing(sqlite3.connect(copy)) as backup:
            if backup.execute("SELECT id FROM sessions").fetchall() == [(record.id,)]:
                break
        await asyncio.sleep(0.01)
    else:
        pytest.fail("the record was not moved into the database file")
    store.close()


# Closing


def test_close_checkpoints_and_removes_the_log(path, store):
    """S11."""
    record = make_record()
    run(store.create(record))
    store.close()
    assert set(modes(path.parent)) == {"sessions.db", "sessions.db-lock"}
    again = SQLiteStore(path)
    assert run(again.load(record.id)) == record
    again.close()


def test_a_closed_store_raises(store):
    store.close()
    store.close()
    record = make_record()
    for call in (
        store.load(record.id),
        store.create(record),
        store.save(record, 1),
        store.touch(record),
        store.delete(record.id),
        store.purge(0, 10),
        store.count(0),
    ):
        with pytest.raises(StoreError, match="was closed"):
            run(call)


def test_a_collected_store_leaves_no_thread_and_no_connection(path):
    """S11: without close(), acknowledged writes are committed."""

    def live():
        store = SQLiteStore(path)
        with held(path):  # so that the thread is needed, too
            creator = threading.Thread(target=lambda: run(store.create(record)))
            creator.start()
            while not store._committer.thread:
                time.sleep(0.001)  # polls the thread, which has no event
        creator.join()
        threads = [store._committer.thread, store._checkpointer.thread]
        return weakref.ref(store), threads

    record = make_record()
    reference, threads = live()
    gc.collect()
    assert reference() is None
    for thread in filter(None, threads):
        thread.join(10)
        assert not thread.is_alive()
    again = SQLiteStore(path)
    assert run(again.load(record.id)) == record
    again.close()


def test_a_thread_that_ends_closes_its_connection(store):
    """A thread pool that replaces its threads does not accumulate open files."""
    record = make_record()
    run(store.create(record))
    for _ in range(20):
        thread = threading.Thread(target=lambda: run(store.load(record.id)))
        thread.start()
        thread.join()
    gc.collect()
    assert len(store._readers._readers) <= 2


def test_the_count_of_many_records_is_an_estimate(tmp_path, monkeypatch):
    """From a part of the range of IDs."""
    url = f"sqlite:///{tmp_path}/sessions.db"
    fill(url, 30_000, ended=5_000)
    store = SQLiteStore(tmp_path / "sessions.db")
    at = now()
    assert run(store.count(at)).is_exact
    assert run(store.count(at)) == 25_000
    monkeypatch.setattr("sojourn.stores.sqlite.store._MAX_COUNTED", 29_000)
    check_estimate(run(store.count(at)), 25_000)
    store.close()
