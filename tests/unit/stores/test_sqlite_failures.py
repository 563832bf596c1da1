"""SQLiteStore over failing files: full, damaged, read-only, deleted and replaced ones (S12)."""

import asyncio
import contextlib
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from sojourn._core.concurrency import run
from sojourn.errors import ConfigurationError, StoreError, StoreUnavailable
from sojourn.store import SessionLimit
from sojourn.stores.sqlite import SQLiteStore
from sojourn.stores.sqlite.database import DatabaseFile
from sojourn.stores.sqlite.write_lock import WriteLock
from sojourn.testing.records import login, make_body, make_record, next_version, now, save_login

pytestmark = pytest.mark.anyio

#: Seconds after which every process has checked the file.
CHECK_INTERVAL = 0.15

# Creates and loads a record for ever; prints "ok" or the error whenever the outcome changes.
USE = """
import logging, sys, time
from sojourn._core.concurrency import run
from sojourn.errors import StoreUnavailable
from sojourn.stores.sqlite import SQLiteStore
from sojourn.testing.records import make_record

logging.basicConfig(stream=sys.stdout, format="log %(levelname)s %(message)s")
store = SQLiteStore(sys.argv[1], timeout=20)
last = None
while True:
    record = make_record()
    try:
        created = run(store.create(record))
        found = created and run(store.load(record.id)) == record
        outcome = "ok" if found else "lost"
    except StoreUnavailable as error:
        outcome = "unavailable"
    if outcome != last:
        last = outcome
        print(outcome, flush=True)
    time.sleep(0.01)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sessions.db"


@pytest.fixture
def stored(path):
    """The IDs of 300 records in a file that is not open."""
    records = [login(None, "ada") for _ in range(300)]
    with contextlib.closing(SQLiteStore(path)) as store:
        for record in records:
            run(save_login(store, record, 0))
    return records


def all_calls(store, record, other):
    """Return a call of every method of the store that reads or writes, by name."""
    return {
        "load": lambda: store.load(record.id),
        "list_by_index": lambda: store.list_by_index("user:ada"),
        "count": lambda: store.count(now()),
        "create": lambda: store.create(other),
        "create_many": lambda: store.create_many([other, make_record()]),
        "save": lambda: store.save(next_version(record), record.version),
        "touch": lambda: store.touch(record.with_seen_at(record.seen_at + 5)),
        "save_login": lambda: store.save_login(
            login(None, "ada"), 0, limit=SessionLimit(300, "evict_oldest"), now=now()
        ),
        "invalidate_logins": lambda: store.invalidate_logins("user:ada", 5),
        "invalidate_all": lambda: store.invalidate_all(5),
        "publish": lambda: store.publish("revoked", b"1" * 16),
        "purge": lambda: store.purge(now(), 10),
        "delete": lambda: store.delete(record.id),
        "delete_many": lambda: store.delete_many([record.id, other.id]),
    }


async def outcomes(store, record, *names):
    """Call methods; return the names of those that raised ``StoreUnavailable``."""
    failed = set()
    every = all_calls(store, record, make_record())
    for name in names or every:
        try:
            await every[name]()
        except StoreUnavailable:
            failed.add(name)
    return failed


READS = {"load", "list_by_index", "count"}


def overwrite(path, start, size=None):
    """Overwrite bytes in the file."""
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xa5" * ((size or path.stat().st_size) - start))


# Damaged files


@pytest.mark.parametrize("runner", ["loop", "no loop"])
@pytest.mark.parametrize(("damage", "size"), [(8192, None), (0, 8192)], ids=["pages", "header"])
def test_a_damaged_file_is_unavailable_for_every_call(path, stored, runner, damage, size):
    """S12, A23: SQLITE_CORRUPT and SQLITE_NOTADB, for reads and writes."""

    async def check():
        with contextlib.closing(SQLiteStore(path)) as store:
            overwrite(path, damage, size)
            failed = await outcomes(store, stored[0])
            assert failed >= READS - {"load"} | {"create", "save", "touch", "delete"}
            assert store.peek(stored[0].id) is None
            assert store.swap(next_version(stored[0]), 1) is False

    asyncio.run(check()) if runner == "loop" else run(check())


def test_a_file_that_is_damaged_at_the_start_is_a_configuration_error(path, stored):
    """S12: the error names the file."""
    overwrite(path, 0, 100)
    with pytest.raises(ConfigurationError, match=r"sessions\.db cannot be used"):
        SQLiteStore(path)


# Full and read-only files


@contextlib.contextmanager
def limited_pages(monkeypatch, store):
    """Prevent every connection from making the database larger."""
    connect = DatabaseFile.connect

    def limited(self, *, busy_timeout):
        connection = connect(self, busy_timeout=busy_timeout)
        [pages] = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(DatabaseFile, "connect", limited)
        with store._committer.in_use:
            store._committer.disconnect()
        yield
    with store._committer.in_use:
        store._committer.disconnect()


def fill(store):
    """Create records until there is no space for another of any size."""
    for size in (100_000, 6_000, 500, 0):
        with contextlib.suppress(StoreUnavailable):
            while True:
                run(store.create(make_record(body=make_body(blob=bytes(size)))))


def test_a_full_database_deletes_and_revokes(path, stored, monkeypatch):
    """S12, W4: SQLITE_FULL; deletions free space for other writes."""
    with contextlib.closing(SQLiteStore(path)) as store, limited_pages(monkeypatch, store):
        fill(store)
        big = next_version(stored[1], body=make_body(blob=bytes(60_000)))
        with pytest.raises(StoreUnavailable, match="full"):
            run(store.save(big, 1))
        assert run(store.load(stored[1].id)) == stored[1]
        with pytest.raises(StoreUnavailable, match="full"):
            run(store.create_many([make_record(body=big.body) for _ in range(3)]))
        before = run(store.count(0))
        assert run(store.touch(stored[1].with_seen_at(stored[1].seen_at + 1))) is True
        assert run(store.delete(stored[0].id)) is True
        listed = [record.id for record in run(store.list_by_index("user:ada"))]
        assert len(listed) == 299
        assert run(store.delete_many(listed)) == [True] * 299
        assert run(store.count(0)) == before - 300
        assert run(store.create(make_record())) is True


def test_a_deletion_succeeds_without_space_for_its_event(path, stored, monkeypatch):
    """S12, S17: other processes detect it at the recheck."""
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL

    def no_space(self, connection, *args, **kwargs):
        connection.execute("ROLLBACK")  # as SQLite does
        raise full

    with contextlib.closing(SQLiteStore(path)) as store:
        monkeypatch.setattr("sojourn.stores.sqlite.events_table.EventsTable._add", no_space)
        assert run(store.delete(stored[0].id)) is True
        assert run(store.delete_many([stored[1].id, stored[0].id])) == [True, False]
        run(store.invalidate_all(5))
        with pytest.raises(StoreUnavailable):
            run(store.publish("revoked", stored[0].id))
        assert run(store.load(stored[0].id)) is None
        assert run(store.load(stored[2].id)) == stored[2]


async def test_a_write_without_space_does_not_fail_others_of_its_batch(path, stored, monkeypatch):
    """S12, S13: SQLite rolls back the transaction; the others are executed again."""
    with contextlib.closing(SQLiteStore(path)) as store, limited_pages(monkeypatch, store):
        await asyncio.to_thread(fill, store)
        answers = await asyncio.gather(
            store.create(make_record(body=make_body(blob=bytes(60_000)))),
            store.delete(stored[0].id),
            store.touch(stored[1].with_seen_at(stored[1].seen_at + 1)),
            store.load(stored[2].id),
            return_exceptions=True,
        )
        assert isinstance(answers[0], StoreUnavailable)
        assert answers[1:] == [True, True, stored[2]]
        assert await store.load(stored[0].id) is None


@contextlib.contextmanager
def limited_file_size(size):
    """Limit the size of files that this process writes, as a quota does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("runner", ["loop", "no loop"])
def test_an_exceeded_quota_is_unavailable_for_writes_until_it_is_raised(path, stored, runner):
    """S12: the write-ahead log cannot grow; reads succeed."""

    async def check():
        with contextlib.closing(SQLiteStore(path)) as store:
            await store.touch(stored[0].with_seen_at(stored[0].seen_at + 1))
            other = make_record()
            log = path.with_name("sessions.db-wal")
            with limited_file_size(log.stat().st_size):
                failed = await outcomes(store, stored[0])
                await asyncio.gather(*[store.load(stored[0].id)] * 3) if runner == "loop" else None
            assert failed >= {"create", "save", "touch", "save_login", "publish", "delete"}
            assert not failed & READS
            assert (await store.load(stored[0].id)).version == 1
            assert await store.create(other) is True
            assert await store.load(other.id) == other

    asyncio.run(check()) if runner == "loop" else run(check())


def test_a_read_only_file_can_be_read(path, stored, monkeypatch):
    """S12: SQLITE_READONLY, as on a disk remounted read-only; every write is unavailable."""
    connect = DatabaseFile.connect

    def read_only(self, *, busy_timeout):
        connection = connect(self, busy_timeout=busy_timeout)
        connection.execute("PRAGMA query_only = 1")
        return connection

    with contextlib.closing(SQLiteStore(path)) as store:
        with monkeypatch.context() as patch:
            patch.setattr(DatabaseFile, "connect", read_only)
            failed = run(outcomes(store, stored[0]))
            assert failed == set(all_calls(store, stored[0], None)) - READS - {"purge"}
            assert store.swap(next_version(stored[0]), 1) is False
        with store._committer.in_use:
            store._committer.disconnect()
        assert run(outcomes(store, stored[0])) == set()


def test_a_full_disk_at_the_start_is_unavailable(path, stored, monkeypatch):
    """S12: and no configuration error, since a restart may help."""
    with limited_file_size(0), pytest.raises((StoreUnavailable, ConfigurationError)):
        SQLiteStore(path)
    with contextlib.closing(SQLiteStore(path)) as store:
        assert run(store.load(stored[0].id)) == stored[0]


# Deleted, renamed and replaced files


class User:
    """A process that uses the store; its outcomes and log lines."""

    def __init__(self, path):
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", USE, str(path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.log = []

    def next(self):
        """Return the next outcome."""
        while (line := self.process.stdout.readline().strip()).startswith("log "):
            self.log.append(line)
        return line

    def end(self):
        self.process.kill()
        self.process.communicate(timeout=20)


@pytest.fixture
def users(path):
    with contextlib.ExitStack() as stack:

        def start():
            user = User(path)
            stack.callback(user.end)
            assert user.next() == "ok"
            return user

        yield start


def files(path):
    return sorted(path.parent.glob(f"{path.name}*"))


def move(path, folder):
    """Move the database and the files beside it; return where the database is now."""
    folder.mkdir(exist_ok=True)
    # The database is moved first and moved back last: an open connection needs its log.
    for each in files(path)[:: -1 if path.parent.name == "away" else 1]:
        each.rename(folder / each.name)
    return folder / path.name


def test_a_renamed_file_is_unavailable_in_every_process_until_it_is_back(path, users, tmp_path):
    """S12, S10: no process creates another database; each logs one line."""
    processes = [users() for _ in range(3)]
    away = move(path, tmp_path / "away")
    assert [user.next() for user in processes] == ["unavailable"] * 3
    time.sleep(2 * CHECK_INTERVAL)
    assert not path.exists()
    move(away, tmp_path)
    assert [user.next() for user in processes] == ["ok"] * 3
    for user in processes:
        errors = [line for line in user.log if "ERROR" in line]
        assert len(errors) == 1
        assert "sessions.db was deleted or renamed while it was in use" in errors[0]
        assert any("is back and used again" in line for line in user.log)
        user.end()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_processes_of_a_deleted_file_do_not_use_its_replacement(path, users):
    """S12: two databases would each have half of the sessions."""
    old = [users() for _ in range(2)]
    for each in files(path):
        each.unlink()
    assert [user.next() for user in old] == ["unavailable"] * 2
    new = users()
    time.sleep(2 * CHECK_INTERVAL)
    assert all(user.process.poll() is None for user in (*old, new))
    with contextlib.closing(SQLiteStore(path)) as store:
        record = make_record()
        assert run(store.create(record))
        restarted = users()
        assert run(store.load(record.id)) == record
    for user in old:
        user.process.kill()
        rest = user.process.stdout.read()
        assert "ok" not in rest.split(), "an old process adopted the new file"
    assert new.process.poll() is None
    assert restarted.process.poll() is None


@pytest.mark.parametrize("opened", ["reader", "none"])
def test_a_replaced_file_is_never_opened(path, stored, tmp_path, caplog, opened):
    """S12: neither by existing connections nor by new ones, within 0.1 s."""
    latest = stored[-1]  # the login of the calls below may evict the oldest
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    with contextlib.closing(SQLiteStore(path)) as store:
        if opened == "reader":
            run(store.load(latest.id))
            run(store.delete(latest.id))
        kept = path.rename(tmp_path / "kept.db")
        copy.rename(path)
        time.sleep(CHECK_INTERVAL)
        assert run(outcomes(store, latest)) == set(all_calls(store, latest, None))
        assert store.peek(latest.id) is None
        assert store.swap(next_version(stored[1]), 1) is False
        assert caplog.text.count("was replaced by another file") == 1
        path.unlink()
        kept.rename(path)
        assert run(outcomes(store, stored[1])) == set()
        found = run(store.load(latest.id))
        assert (found is None) is (opened == "reader")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_file_replaced_between_two_checks_is_not_opened(path, stored, tmp_path):
    """S12: a new thread opens the file a moment after it was replaced."""
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    with contextlib.closing(SQLiteStore(path)) as store:
        run(store.load(stored[0].id))
        copy.replace(path)

        def load():
            with contextlib.suppress(StoreUnavailable):
                found.append(run(store.load(stored[0].id)))

        found = []
        thread = threading.Thread(target=load)
        thread.start()
        thread.join()
        assert found == []


def test_a_folder_that_cannot_be_read_is_unavailable(path, stored, monkeypatch):
    """S12: such as a lost network file system."""
    with contextlib.closing(SQLiteStore(path)) as store:
        run(store.load(stored[0].id))

        def broken(path):
            raise PermissionError(13, "Permission denied")

        with monkeypatch.context() as patch:
            patch.setattr("sojourn.stores.sqlite.database._identify", broken)
            time.sleep(CHECK_INTERVAL)
            with pytest.raises(StoreUnavailable, match="cannot be found: Permission denied"):
                run(store.load(stored[0].id))
        assert run(store.load(stored[0].id)) == stored[0]


def test_the_file_is_checked_at_most_every_tenth_of_a_second(path, stored, monkeypatch):
    """S18: otherwise a call only reads a clock."""
    compared = []
    with contextlib.closing(SQLiteStore(path)) as store:
        run(store.load(stored[0].id))
        run(store.touch(stored[0]))
        monkeypatch.setattr(store._file, "_compare_identity", lambda: compared.append(None))
        store._file._check_at = time.monotonic() + 60
        for _ in range(10):
            run(store.load(stored[0].id))
            store.peek(stored[0].id)
            run(store.touch(stored[0]))
        assert compared == []


def test_programming_errors_are_not_reported_as_unavailable(path, stored):
    """S12: a retry would not help."""
    with contextlib.closing(SQLiteStore(path)) as store:
        with pytest.raises(StoreError) as caught:
            run(store._write(lambda connection: connection.execute("SELECT ?")))
        assert not isinstance(caught.value, StoreUnavailable)


async def test_a_write_whose_batch_is_never_executed_fails_at_the_deadline(path, monkeypatch):
    """S12: the end of the tick fails, and no thread continues."""
    store = SQLiteStore(path, timeout=0.1)
    await store.create(make_record())

    def fail(lock):
        raise OSError("the lock file cannot be opened")

    failures = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: failures.append(context["exception"])
    )
    monkeypatch.setattr(WriteLock, "try_acquire", fail)
    with pytest.raises(StoreUnavailable, match=r"could not be written within 0\.1 s"):
        await store.create(make_record())
    assert [type(failure) for failure in failures] == [OSError]
    monkeypatch.undo()
    assert await store.create(make_record()) is True
    store.close()
