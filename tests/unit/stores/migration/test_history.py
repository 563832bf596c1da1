"""The history during a migration: added to one store, listed from both."""

import pytest

from sojourn._core.concurrency import run
from sojourn.store import SupportsHistory
from sojourn.stores import migrating
from sojourn.stores.memory import MemoryStore
from sojourn.testing.records import now
from sojourn.testing.store_suite.history import list_all, make_entry
from tests.support.small_stores import PlainStore

LIFETIME = 60_000


def add(store, *entries):
    run(store.add_history(entries, LIFETIME))


@pytest.mark.parametrize("prepare", [True, False])
def test_entries_are_added_to_the_store_that_receives_new_sessions(prepare):
    old, new = MemoryStore(), MemoryStore()
    entry = make_entry()
    add(migrating(old, new, prepare=prepare), entry)
    written, other = (old, new) if prepare else (new, old)
    assert run(written.list_history("", 10)).entries == [entry]
    assert run(other.list_history("", 10)).entries == []


@pytest.mark.parametrize("prepare", [True, False])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6, 9])
def test_entries_of_the_new_store_are_listed_first(prepare, limit):
    old, new = MemoryStore(), MemoryStore()
    at = now()
    entries = [make_entry(at + number) for number in range(6)]
    add(old, *entries[:3])
    add(new, *entries[3:])
    store = migrating(old, new, prepare=prepare)
    assert run(list_all(store, limit))[0] == entries[::-1]


def test_an_old_store_without_a_history_is_skipped():
    store = migrating(PlainStore(), MemoryStore())
    entry = make_entry()
    add(store, entry)
    assert run(store.list_history("", 1)).entries == [entry]
    assert run(list_all(store, 1))[0] == [entry]
    with pytest.raises(ValueError, match="cursor"):
        run(store.list_history("old:", 1))


def test_the_store_that_receives_new_sessions_must_keep_a_history():
    assert not isinstance(migrating(MemoryStore(), PlainStore()), SupportsHistory)
    assert not isinstance(migrating(PlainStore(), MemoryStore(), prepare=True), SupportsHistory)


@pytest.mark.parametrize("cursor", ["new", "new:x", "other:1-1", "1-1", ":"])
def test_a_cursor_identifies_its_store(cursor):
    store = migrating(MemoryStore(), MemoryStore())
    with pytest.raises(ValueError, match="cursor of a page of the history"):
        run(store.list_history(cursor, 1))
