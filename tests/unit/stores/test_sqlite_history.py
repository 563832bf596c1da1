"""The history in an SQLite file: its table, its indexes, and files without the table."""

import contextlib
import sqlite3

import pytest

from sojourn._core.concurrency import run
from sojourn.errors import StoreError
from sojourn.stores.sqlite import SQLiteStore
from sojourn.stores.sqlite.schema import Schema
from sojourn.stores.sqlite.statements import Statements
from sojourn.testing.records import HOUR, make_record, now
from sojourn.testing.store_suite.history import make_entry


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sessions.db"


@pytest.fixture
def store(path):
    store = SQLiteStore(path)
    yield store
    store.close()


def connect(path):
    return contextlib.closing(sqlite3.connect(path, isolation_level=None))


def test_the_table_is_added_to_an_existing_file(path):
    """At the next start, with its sessions; a process of the earlier release can continue."""
    store = SQLiteStore(path)
    record = make_record()
    run(store.create(record))
    store.close()
    with connect(path) as file:
        file.execute("DROP TABLE 'history:sessions'")
        (version,) = file.execute("PRAGMA user_version").fetchone()
    store = SQLiteStore(path)
    entry = make_entry()
    run(store.add_history([entry], HOUR))
    assert run(store.list_history("", 10)).entries == [entry]
    assert run(store.load(record.id)) == record
    store.close()
    with connect(path) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (version,)


@pytest.mark.parametrize(
    ("query", "parameters", "index"),
    [
        (lambda statements: statements.history.list_page, (1, 1, 50), "by_ended_at"),
        (
            lambda _: Schema("default").sql("SELECT number FROM @history WHERE expires_at <= ?"),
            (1,),
            "by_expires_at",
        ),
    ],
)
def test_pages_and_purges_use_an_index(path, store, query, parameters, index):
    """S8: their cost is independent of the size of the table."""
    with connect(path) as file:
        plan = file.execute(
            f"EXPLAIN QUERY PLAN {query(Statements('default'))}", parameters
        ).fetchall()
    assert f"{index}:sessions" in plan[0][3]
    assert "SEARCH" in plan[0][3]
    assert not any("TEMP B-TREE" in step[3] for step in plan)


def test_an_error_adds_none_of_the_entries(store):
    """S12."""
    first = make_entry()
    run(store.add_history([first], HOUR))
    with pytest.raises(StoreError):
        run(store.add_history([make_entry(), make_entry(2**63)], HOUR))
    assert run(store.list_history("", 10)).entries == [first]


def test_entries_are_listed_by_the_instant_of_the_end(store):
    """Even if another process adds one late."""
    at = now()
    entries = [make_entry(at + number) for number in (5, 1, 3)]
    for entry in entries:
        run(store.add_history([entry], HOUR))
    listed = run(store.list_history("", 10)).entries
    assert [entry.ended_at - at for entry in listed] == [5, 3, 1]
