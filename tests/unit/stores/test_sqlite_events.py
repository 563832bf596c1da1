"""Broadcast over SQLite: the events table, its watcher, and messages to other processes (S17)."""

import contextlib
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from sojourn._core.concurrency import run
from sojourn.store import (
    LIMIT_REACHED,
    SAVED,
    BroadcastMessage,
    LimitPolicy,
    LoginSaved,
    SessionLimit,
)
from sojourn.stores.sqlite import SQLiteStore, events_table
from sojourn.stores.sqlite.events_table import EventsTable
from sojourn.testing.records import login, make_record, next_version, now, save_login

# Deletes a session and is killed before it publishes the reason.
DIE = """
import os, signal, sys
from sojourn._core.concurrency import run
from sojourn.stores.sqlite import SQLiteStore

store = SQLiteStore(sys.argv[1])
assert run(store.delete(bytes.fromhex(sys.argv[2])))
os.kill(os.getpid(), signal.SIGKILL)
"""

# Creates sessions and revokes them, with reasons.
REVOKE = """
import sys
from sojourn._core.concurrency import run
from sojourn.stores.sqlite import SQLiteStore
from sojourn.testing.records import make_record

store = SQLiteStore(sys.argv[1], timeout=30)
for number in range(100):
    record = make_record()
    assert run(store.create(record))
    assert run(store.delete(record.id))
    run(store.publish("revoked", record.id, reason=str(number)))
    print(record.id.hex(), number)
"""

# Receives in a parent and in its child after a fork.
FORK = """
import os, queue, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # the test forks a process with threads
from sojourn._core.concurrency import run
from sojourn.stores.sqlite import SQLiteStore

store = SQLiteStore(sys.argv[1], timeout=20)

def check(received):
    while received.get(timeout=20).reason != "after the fork":
        pass

received, gap = queue.SimpleQueue(), queue.SimpleQueue()
store.subscribe(received.put, lambda: gap.put(None))
gap.get(timeout=20)
child = os.fork()
if child == 0:
    of_child, gap = queue.SimpleQueue(), queue.SimpleQueue()
    store.subscribe(of_child.put, lambda: gap.put(None))
    gap.get(timeout=20)
    run(store.publish("revoked", b"1" * 16, reason="after the fork"))
    check(of_child)
    assert received.empty()
    store.close()
    os._exit(0)
check(received)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
store.close()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sessions.db"


@pytest.fixture
def store(path):
    with contextlib.closing(SQLiteStore(path, timeout=10)) as store:
        yield store


@pytest.fixture
def other(path):
    """Another store over the same database, as in another process."""
    with contextlib.closing(SQLiteStore(path, timeout=10)) as store:
        yield store


class Received:
    """The messages of a subscription; a gap is None."""

    def __init__(self, store):
        self._queue = queue.SimpleQueue()
        self.subscription = store.subscribe(self._queue.put, lambda: self._queue.put(None))
        assert self.next() is None, "the gap at the start"

    def next(self, timeout=20):
        return self._queue.get(timeout=timeout)

    def rest(self, seconds):
        """Return the messages that arrive within some seconds."""
        time.sleep(seconds)
        found = []
        while not self._queue.empty():
            found.append(self._queue.get())
        return found


def message(kind, session_id, reason="", version=0):
    return BroadcastMessage(1, kind, session_id, version, reason)


def rows(path, table="events:sessions"):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(f'SELECT * FROM "{table}"').fetchall()  # noqa: S608 - a constant


def execute(path, statement):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)


def watchers(others):
    """Return the threads of watchers except those of earlier tests."""
    found = set(threading.enumerate()) - others
    return [each for each in found if each.name == "sojourn-sqlite-watcher"]


def started(program, *args):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, *map(str, args)],
        stdout=subprocess.PIPE,
        text=True,
    )


# Events of the revoking transaction


def test_a_revocation_is_delivered_although_its_process_was_killed(path, store):
    """S17, W4: the event is written with the revocation; the process dies before it publishes."""
    record = make_record()
    assert run(store.create(record))
    received = Received(store)
    began = time.monotonic()
    process = started(DIE, path, record.id.hex())
    assert process.wait(30) == -signal.SIGKILL
    assert received.next() == message("revoked", record.id)
    assert time.monotonic() - began < 20
    process.stdout.close()


@pytest.fixture
def long_provisional_period(monkeypatch):
    """Hold provisional events back for longer than a busy machine takes to publish the reason."""
    monkeypatch.setattr("sojourn.stores.sqlite.watcher._PROVISIONAL_PERIOD", 60.0)


@pytest.mark.usefixtures("long_provisional_period")
def test_the_published_message_replaces_the_event(store, other):
    """W4: it contains the reason; connections are closed once."""
    received = Received(other)
    record = make_record()
    assert run(store.create(record))
    assert run(store.delete(record.id))
    run(store.publish("revoked", record.id, reason="stolen phone"))
    assert received.next() == message("revoked", record.id, "stolen phone")
    assert other._watcher._provisional == {}, "the event is still held back"


def test_each_way_to_end_sessions_adds_events(store, other):
    """S17: deletions of many, logins, evictions by a limit, and the end of all sessions."""
    received = Received(other)
    records = [make_record() for _ in range(3)]
    assert run(store.create_many(records)) == [True] * 3
    absent = b"a" * 16
    assert run(store.delete_many([records[0].id, absent, records[1].id])) == [True, False, True]
    first = login(None, "ada")
    limit = SessionLimit(1, LimitPolicy.EVICT_OLDEST)
    run(save_login(store, first, 0))
    second = login(records[2], "ada", at=first.authenticated_at + 1)
    assert run(store.save_login(second, 1, limit=limit, now=now())) == LoginSaved((first.id,))
    run(store.invalidate_all(5))
    assert sorted((received.next() for _ in range(5)), key=repr) == sorted(
        [
            message("rotated", second.id, version=2),
            message("revoked", records[0].id),
            message("revoked", records[1].id),
            message("revoked", first.id),
            message("all-before", b""),
        ],
        key=repr,
    )
    assert received.rest(0.2) == []


def test_calls_without_an_effect_add_no_event(path, store):
    """S17: no record was deleted, the login was refused, or the session had expired."""
    run(save_login(store, login(None, "ada"), 0))
    expired = make_record(seen_at=1000, created_at=1000, absolute_at=2000)
    assert run(store.create(expired))
    assert run(store.delete(b"a" * 16)) is False
    refusing = SessionLimit(1, LimitPolicy.REFUSE)
    refused = store.save_login(login(None, "ada"), 0, limit=refusing, now=now())
    assert run(refused) is LIMIT_REACHED
    assert run(store.purge(now(), 10)).removed == 1
    assert rows(path) == []


def test_an_event_that_cannot_be_written_rolls_back_the_deletion(path, store):
    """S12, S17."""
    record = make_record()
    assert run(store.create(record))
    forbid = "BEFORE INSERT ON 'events:sessions' BEGIN SELECT raise(ABORT, 'no'); END"
    execute(path, f"CREATE TRIGGER forbid {forbid}")
    with pytest.raises(Exception, match="no"):
        run(store.delete(record.id))
    assert run(store.load(record.id)) == record
    execute(path, "DROP TRIGGER forbid")
    assert run(store.delete(record.id)) is True


@pytest.mark.usefixtures("long_provisional_period")
def test_every_revocation_of_several_processes_arrives_once_with_its_reason(path, store):
    """S17: 300 revocations by three processes that write at the same time."""
    received = Received(store)
    processes = [started(REVOKE, path) for _ in range(3)]
    printed = "".join(process.communicate(timeout=50)[0] for process in processes)
    expected = [line.split() for line in printed.splitlines()]
    assert len(expected) == 300
    found = [received.next() for _ in expected]
    assert sorted((each.session_id.hex(), each.reason) for each in found) == sorted(
        map(tuple, expected)
    )
    assert store._watcher._provisional == {}, "an event is still held back"
    assert received.rest(0.2) == []


# Lost events


def test_deleted_events_are_detected_as_a_gap(path, store, other):
    """S17: the row numbers have a hole."""
    received = Received(other)
    vanish = "DELETE FROM 'events:sessions' WHERE number = new.number"
    trigger = f"AFTER INSERT ON 'events:sessions' WHEN new.number = 2 BEGIN {vanish}; END"
    execute(path, f"CREATE TRIGGER lose {trigger}")
    for number in (b"1", b"2", b"3"):
        run(store.publish("revoked", number * 16, reason="reason"))
    found = [received.next() for _ in range(3)]
    assert found.count(None) == 1
    assert [each.session_id for each in found if each] == [b"1" * 16, b"3" * 16]
    assert received.rest(0.2) == []


@pytest.mark.parametrize("number", [0, 70])
def test_reset_row_numbers_are_detected_as_a_gap(path, store, other, number):
    """S17: another program may reset them; later messages arrive."""
    run(store.publish("revoked", b"1" * 16))
    received = Received(other)
    if not number:
        execute(path, "DELETE FROM 'events:sessions'")
    execute(path, f"UPDATE sqlite_sequence SET seq = {number}")  # noqa: S608 - parameters
    assert received.next() is None
    run(store.publish("revoked", b"2" * 16, reason="reason"))
    assert received.next() == message("revoked", b"2" * 16, "reason")


def test_old_events_are_deleted(path, store, monkeypatch):
    """B-54: the table stays small under constant revocations; purge empties it."""
    monkeypatch.setattr(events_table, "RETENTION", 0)
    for _ in range(20):
        run(store.publish("revoked", *[b"1" * 16] * 10))
        time.sleep(0.002)
    assert len(rows(path)) <= 20
    time.sleep(0.002)
    assert run(store.purge(now(), 5)).finished
    assert rows(path) == []


def test_recent_events_are_kept(path, store):
    """S17: for subscribers with a delay of less than a minute."""
    for _ in range(20):
        run(store.publish("revoked", b"1" * 16))
    assert run(store.purge(now(), 5)).finished
    assert len(rows(path)) == 20


@pytest.mark.parametrize(
    "value", ["x'00'", "'text'", "7", "x'95ff01'", "x'9502a77265766f6b6564c40000a0'"]
)
def test_foreign_events_are_ignored(path, store, other, value):
    """S9, S17: damaged ones, and those of another format."""
    run(store.publish("revoked", b"0" * 16))
    received = Received(other)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # One transaction: the watcher must not read the row between two of the statements.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE sqlite_sequence SET seq = 2")
        query = f"UPDATE 'events:sessions' SET number = 2, message = {value}"  # noqa: S608 - parameters
        connection.execute(query)
        connection.execute("COMMIT")
    run(store.publish("revoked", b"1" * 16))
    assert received.next() == message("revoked", b"1" * 16)


def test_more_events_than_one_read_returns_are_delivered_in_order(store, other, monkeypatch):
    """S17."""
    monkeypatch.setattr("sojourn.stores.sqlite.events_table.FETCH_LIMIT", 7)
    monkeypatch.setattr("sojourn.stores.sqlite.watcher.FETCH_LIMIT", 7)
    received = Received(other)
    ids = [number.to_bytes(16) for number in range(21)]
    run(store.publish("revoked", *ids))
    assert [received.next().session_id for _ in ids] == ids
    assert received.rest(0.2) == []


# The watcher


def test_one_thread_watches_while_there_is_a_subscription(store):
    """S17, W10: it ends with the last subscription; the next one starts another."""
    others = set(threading.enumerate())
    for _ in range(2):
        first, second = Received(store), Received(store)
        assert len(watchers(others)) == 1
        first.subscription.close()
        run(store.publish("revoked", b"1" * 16))
        assert second.next() == message("revoked", b"1" * 16)
        second.subscription.close()
        second.subscription.close()
        for thread in watchers(others):
            thread.join(5)
        assert watchers(others) == []


def test_close_ends_the_watcher(path):
    """S17: also with an open subscription, to which nothing is delivered afterwards."""
    others = set(threading.enumerate())
    store = SQLiteStore(path)
    received = Received(store)
    store.close()
    assert watchers(others) == []
    received.subscription.watch(b"1" * 16)
    received.subscription.close()
    with pytest.raises(Exception, match="was closed"):
        store.subscribe(print, print)


def test_after_a_fork_both_processes_receive_messages(path):
    """S17: the child starts without subscriptions."""
    process = started(FORK, path)
    process.communicate(timeout=50)
    assert process.returncode == 0


def test_an_idle_watcher_uses_little_cpu(store):
    """W10: less than 2 % of a core; measured 0.2 to 0.4."""
    received = Received(store)
    clock = time.pthread_getcpuclockid(store._watcher.thread.ident)  # other threads do not count
    before = time.clock_gettime(clock)
    time.sleep(1)
    assert time.clock_gettime(clock) - before < 0.02
    received.subscription.close()


def test_a_handler_that_raises_does_not_prevent_later_messages(store, caplog):
    """S17."""
    handled = queue.SimpleQueue()

    def broken(each):
        handled.put(each)
        raise ValueError("handler")

    subscription = store.subscribe(broken, lambda: None)
    deadline = time.monotonic() + 20
    while handled.empty() and time.monotonic() < deadline:
        run(store.publish("revoked", b"1" * 16))
        time.sleep(0.06)
    run(store.publish("revoked", b"2" * 16))
    while handled.get(timeout=20).session_id != b"2" * 16:
        pass
    subscription.close()
    assert "a handler of broadcast messages raised" in caplog.text


def test_a_handler_can_close_its_subscription(store):
    """S17: without a deadlock; nothing is delivered afterwards."""
    handled = queue.SimpleQueue()

    def close_at_once(each):
        handled.put(each)
        subscription.close()

    ready = threading.Event()
    subscription = store.subscribe(close_at_once, ready.set)
    assert ready.wait(20)
    run(store.publish("revoked", b"1" * 16, b"2" * 16))
    assert handled.get(timeout=20).session_id == b"1" * 16
    time.sleep(0.2)
    assert handled.empty()


def test_changes_of_many_watched_sessions_are_delivered(store, other):
    """W3: of more sessions than one check compares."""
    received = Received(other)
    records = [make_record() for _ in range(600)]
    run(store.create_many(records))
    for record in records:
        received.subscription.watch(record.id)
    for record in records:
        assert run(store.save(next_version(record), 1)) is SAVED
    missing = {record.id for record in records}
    while missing:
        found = received.next()
        assert found.kind == "changed"
        if found.version == 2:
            missing.discard(found.session_id)
    for record in records:
        received.subscription.unwatch(record.id)
    assert run(store.save(next_version(next_version(records[0])), 2)) is SAVED
    assert received.rest(0.3) == []


def test_under_constant_changes_every_watched_session_is_compared(store, other, monkeypatch):
    """W3: in turn."""
    monkeypatch.setattr("sojourn.stores.sqlite.watcher._MAX_COMPARED", 2)
    received = Received(other)
    busy, *records = (make_record() for _ in range(9))
    run(store.create_many([busy, *records]))
    for record in records:
        received.subscription.watch(record.id)
    saved = {record.id for record in records}
    for record in records:
        assert run(store.save(next_version(record), 1)) is SAVED
    deadline = time.monotonic() + 20
    while saved:
        assert time.monotonic() < deadline, f"{len(saved)} sessions were not compared"
        newer = next_version(busy)
        assert run(store.save(newer, busy.version)) is SAVED
        busy = newer
        with contextlib.suppress(queue.Empty):
            found = received.next(0.01)
            if found.version == 2:
                saved.discard(found.session_id)


def test_events_that_could_not_be_read_are_read_again(store, other, monkeypatch):
    """S12, S17: the table was locked."""
    received = Received(other)
    fetch, failures = EventsTable.fetch, []

    def locked_once(self, connection, after):
        if not failures:
            failures.append(after)
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error
        return fetch(self, connection, after)

    monkeypatch.setattr(EventsTable, "fetch", locked_once)
    run(store.publish("revoked", b"1" * 16))
    found = {received.next(), received.next()}
    assert found == {None, message("revoked", b"1" * 16)}
    assert failures


def test_messages_are_delayed_while_the_table_is_locked(path, store, other):
    """S12: by another program; none is lost."""
    received = Received(other)
    run(store.publish("revoked", b"1" * 16))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as program:
        program.execute("PRAGMA locking_mode = EXCLUSIVE")
        with contextlib.suppress(sqlite3.OperationalError):
            program.execute("BEGIN EXCLUSIVE")
        time.sleep(0.2)
    run(store.publish("revoked", b"2" * 16))
    while received.next() != message("revoked", b"2" * 16):
        pass


def test_a_disk_error_is_retried_and_reported_as_a_gap(store, other, monkeypatch, caplog):
    """S12, S17: with one log line for each outage."""
    monkeypatch.setattr("sojourn.stores.sqlite.watcher._RETRY_INTERVAL", 0.01)
    received = Received(other)

    def broken(self, connection, after):
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(EventsTable, "fetch", broken)
        run(store.publish("revoked", b"1" * 16))
        deadline = time.monotonic() + 20
        while "cannot be read" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
    assert {received.next(), received.next()} == {None, message("revoked", b"1" * 16)}
    assert caplog.text.count("cannot be read") == 1


def test_the_events_table_is_added_to_an_existing_database(path, store):
    """S17: when the next process opens the file."""
    store.close()
    execute(path, "DROP TABLE 'events:sessions'")
    with contextlib.closing(SQLiteStore(path)) as reopened:
        run(reopened.publish("revoked", b"1" * 16))
    assert len(rows(path)) == 1


def test_a_killed_subscriber_leaves_no_lock(path, store):
    """S11, S17."""
    program = (
        "import sys, time\nfrom sojourn.stores.sqlite import SQLiteStore\n"
        "store = SQLiteStore(sys.argv[1])\n"
        "store.subscribe(print, lambda: print('ready', flush=True))\ntime.sleep(60)\n"
    )
    process = started(program, path)
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)
    run(store.publish("revoked", b"1" * 16))
    assert len(rows(path)) == 1
