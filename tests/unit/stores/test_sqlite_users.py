"""SQLiteStore: the user index, cutoffs and the migration of files of earlier releases.

The laws of lists and logins run in test_sqlite.py.
"""

import asyncio
import contextlib
import sqlite3
import threading

import pytest

from sojourn._core.concurrency import run
from sojourn.errors import StoreError
from sojourn.record import INDEXED_LABELS, user_index_name
from sojourn.store import LIMIT_REACHED, LimitPolicy, LoginSaved, SessionLimit
from sojourn.stores.sqlite import SQLiteStore
from sojourn.stores.sqlite.schema import INDEX_COLUMNS
from sojourn.testing.records import (
    HOUR,
    login,
    make_body,
    make_record,
    next_version,
    now,
    save_login,
)

# The tables of a file of the first release in which two realms were opened.
FIRST_SCHEMA = """
PRAGMA page_size = 8192;
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS "sessions" (id BLOB PRIMARY KEY, version INTEGER NOT NULL,
    seen_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, user TEXT, record BLOB NOT NULL)
    WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS "by_user:sessions" ON "sessions" (user) WHERE user IS NOT NULL;
CREATE TABLE IF NOT EXISTS "sessions_^admin" (id BLOB PRIMARY KEY, version INTEGER NOT NULL,
    seen_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, user TEXT, record BLOB NOT NULL)
    WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS "by_user:sessions_^admin" ON "sessions_^admin" (user)
    WHERE user IS NOT NULL;
PRAGMA application_id = 1399485038;
PRAGMA user_version = 1;
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sessions.db"


@pytest.fixture
def store(path):
    store = SQLiteStore(path)
    yield store
    store.close()


@contextlib.contextmanager
def connection_to(path):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        yield other


def fill(path, table, records):
    with connection_to(path) as other:
        other.executemany(
            f'INSERT INTO "{table}" VALUES (?, ?, ?, ?, ?, ?)',  # noqa: S608 - our own names
            [
                (r.id, r.version, r.seen_at, r.expires_at, r.contents().user, r.to_bytes())
                for r in records
            ],
        )


@pytest.fixture
def old_file(path):
    """Create a file of the first release; return its records by realm."""
    with connection_to(path) as other:
        other.executescript(FIRST_SCHEMA)
    people = [login(None, f"user-{n % 3}", at=n) for n in range(9)]
    visitors = [make_record(body=make_body(None, None, n=n)) for n in range(9)]
    admins = [login(None, "root", at=n) for n in range(3)]
    fill(path, "sessions", people + visitors)
    fill(path, "sessions_^admin", admins)
    return {"default": people + visitors, "Admin": admins}


def schema_of(path):
    with connection_to(path) as other:
        rows = other.execute("SELECT name, sql FROM sqlite_master WHERE sql NOT NULL").fetchall()
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {name: " ".join(sql.split()) for name, sql in rows}


def test_a_file_of_the_first_release_is_migrated(path, old_file):
    """S9, S15: in all realms at once; no session and no user is lost."""
    for realm, records in old_file.items():
        store = SQLiteStore(path, realm=realm)
        for record in records:
            assert run(store.load(record.id)) == record
        assert run(store.count(now())) == len(records)
        user = records[0].contents().user
        theirs = [r for r in records if r.contents().user == user]
        assert run(store.list_by_index(user_index_name(user))) == theirs[::-1]
        known = login(records[0], user, idp_sid="s-1")
        assert run(save_login(store, known, 1)) == LoginSaved(())
        assert run(store.list_by_index("idp_sid:s-1")) == [known]
        store.close()
    with connection_to(path) as other:
        assert other.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_migrated_file_has_the_schema_of_a_new_one(tmp_path, path, old_file):
    new = tmp_path / "new.db"
    for realm in old_file:
        SQLiteStore(path, realm=realm).close()
        SQLiteStore(new, realm=realm).close()

    def columns(where, table):
        with connection_to(where) as other:
            return other.execute(f'PRAGMA table_info("{table}")').fetchall()

    assert set(schema_of(path)) == set(schema_of(new))
    for table in ("sessions", "sessions_^admin"):
        assert columns(path, table) == columns(new, table)


def test_concurrent_migrations_succeed(path, old_file):
    """The first start of several workers after an upgrade."""
    stores, errors = [], []

    def open_it():
        try:
            stores.append(SQLiteStore(path, timeout=10))
        except Exception as error:  # noqa: BLE001 - shown below, in the test's thread
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for store in stores:
        assert run(store.count(now())) == len(old_file["default"])
        store.close()


def test_lists_use_an_index(path, store):
    """S15: the table is not scanned."""
    with connection_to(path) as other:

        def indexes(statement, *values):
            plan = other.execute(f"EXPLAIN QUERY PLAN {statement}", values)
            return next(row[3].partition("sessions USING ")[2] for row in plan)

        for name, statement in store._statements.list_by_index.items():
            assert indexes(statement, "x").startswith(f"INDEX by_{name}:sessions")
        for statement in (
            store._statements.list_oldest_excess,
            store._statements.list_idlest_excess,
        ):
            assert indexes(statement, "x", b"", 0, 1).startswith("INDEX by_user:sessions")


def test_each_index_name_has_a_column():
    """S15."""
    assert ("user", *INDEXED_LABELS) == INDEX_COLUMNS


def test_a_refused_login_does_not_affect_its_batch(store):
    """S13: other writes of the transaction are committed."""

    async def law():
        before, anonymous = make_record(), make_record()
        await store.create(before)
        await store.create(anonymous)
        await save_login(store, login(None, "ada"), 0)
        fresh = make_record()
        saved = next_version(before)
        only = SessionLimit(1, LimitPolicy.REFUSE)
        answers = await asyncio.gather(
            store.save(saved, 1),
            save_login(store, login(anonymous, "ada"), 1, limit=only),
            store.create(fresh),
        )
        assert answers[1] is LIMIT_REACHED
        assert await store.load(before.id) == saved
        assert await store.load(fresh.id) == fresh
        assert await store.load(anonymous.id) == anonymous

    asyncio.run(law())


def test_a_failing_login_affects_neither_its_batch_nor_other_sessions_of_its_user(store):
    """S13: an error after the save and the evictions rolls back both."""
    others = [login(None, "ada", at=n) for n in range(3)]
    for record in others:
        run(save_login(store, record, 0))
    with store._committer.in_use:
        store._committer.connect().execute(
            "CREATE TEMP TRIGGER fault BEFORE UPDATE OF user ON sessions "
            "BEGIN SELECT RAISE(ABORT, 'as planned'); END"
        )

    async def law():
        fresh, attempt = make_record(), login(None, "ada", at=9)
        answers = await asyncio.gather(
            store.create(fresh),
            save_login(store, attempt, 0, limit=SessionLimit(1, LimitPolicy.EVICT_OLDEST)),
            return_exceptions=True,
        )
        assert answers[0] is True
        assert isinstance(answers[1], StoreError)
        assert await store.load(fresh.id) == fresh
        assert await store.load(attempt.id) is None
        assert await store.list_by_index("user:ada") == others[::-1]

    asyncio.run(law())


def test_invalidate_all_writes_a_cutoff_and_an_event(path, store):
    """S15: for any number of records; this cutoff never expires."""
    old = [make_record(created_at=now() - 1) for _ in range(50)]
    for record in old:
        run(store.create(record))
    with store._committer.in_use:
        connection = store._committer.connect()
        before = connection.total_changes
    run(store.invalidate_all(now()))
    assert connection.total_changes - before == 2
    at = now() + 48 * HOUR
    while not run(store.purge(at, 10)).finished:
        pass
    late = make_record(created_at=now() - HOUR)
    run(store.create(late))
    assert run(store.load(late.id)) is None
    store.close()
    again = SQLiteStore(path)
    assert run(again.load(late.id)) is None
    again.close()


def test_old_cutoffs_are_deleted_in_small_transactions(store):
    """S8."""
    for n in range(25):
        run(store.invalidate_logins(f"user:{n}", 5 + n))
    assert run(store.purge(now(), 10)).finished
    with connection_to(store._file.path) as other:
        assert other.execute("SELECT count(*) FROM 'marks:sessions'").fetchone() == (0,)


def test_fingerprints_of_keys_are_rows_of_eight_bytes(tmp_path):
    """A24: the stored format; each realm has a table, which is added to existing files."""
    path, fingerprint = tmp_path / "sessions.db", bytes(range(8))
    for realm in ("default", "shop"):
        store = SQLiteStore(path, realm=realm)
        store.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("DROP TABLE 'keys:sessions'")
    store = SQLiteStore(path)
    assert run(store.register_keys([fingerprint]))
    assert not run(store.register_keys([b"another!"]))
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT * FROM 'keys:sessions'").fetchall() == [(fingerprint,)]
        assert other.execute("SELECT * FROM 'keys:sessions_shop'").fetchall() == []
    store.close()
