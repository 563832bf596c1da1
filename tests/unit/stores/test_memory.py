"""MemoryStore: the laws of stores, the limit and the URL."""

import os

import pytest

from sojourn._core.concurrency import run
from sojourn.errors import ConfigurationError
from sojourn.stores.memory import MemoryStore
from sojourn.stores.urls import open_store
from sojourn.testing.records import login, make_record, next_version, now, save_login


def test_the_least_recently_used_record_is_evicted():
    """B-54: the limit is never exceeded; records written or touched last are kept."""
    store = MemoryStore(limit=3)
    old, saved, touched, new = (make_record() for _ in range(4))
    for record in (old, saved, touched):
        run(store.create(record))
    run(store.save(next_version(old), 1))
    run(store.touch(touched))
    run(store.create(new))
    assert run(store.load(saved.id)) is None
    assert [run(store.load(record.id)).id for record in (old, touched, new)] == [
        record.id for record in (old, touched, new)
    ]
    assert run(store.count(now())) == 3


def test_many_sessions_use_bounded_memory():
    """B-54."""
    store = MemoryStore(limit=50)
    for _ in range(500):
        run(store.create(make_record()))
    assert run(store.count(now())) == 50


def test_an_evicted_record_is_removed_from_the_index():
    """S15, B-54."""
    store = MemoryStore(limit=2)
    for n in range(5):
        run(save_login(store, login(None, "ada", at=n, idp_sid=f"s-{n}"), 0))
    assert [record.authenticated_at for record in run(store.list_by_index("user:ada"))] == [4, 3]
    assert len(store._index_names) == 2
    assert set(store._index) == {"user:ada", "idp_sid:s-3", "idp_sid:s-4"}


def test_a_failed_create_evicts_no_record():
    """S2."""
    store = MemoryStore(limit=2)
    first, second = make_record(), make_record()
    run(store.create(first))
    run(store.create(second))
    assert run(store.create(second)) is False
    assert run(store.load(first.id)) == first


def test_count_omits_expired_records():
    store = MemoryStore()
    at = now()
    run(store.create(make_record()))
    run(store.create(make_record(seen_at=at - 10**8)))
    assert run(store.count(at)) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_does_not_wait_for_a_thread_of_its_parent():
    """S12: the lock that the thread holds at the fork is never released in the child."""
    store = MemoryStore()
    store._lock.acquire()
    child = os.fork()
    if child == 0:
        os._exit(0 if store._lock.acquire(timeout=0) else 1)
    store._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_memory_store_has_no_secret_file():
    assert MemoryStore().secret_path() is None


def test_repr_shows_the_number_of_records():
    store = MemoryStore(limit=7)
    run(store.create(make_record()))
    assert repr(store) == "MemoryStore(1 of 7 records)"


@pytest.mark.parametrize("url", ["memory://", "memory:///", "memory://?limit=2"])
def test_valid_urls_open_a_memory_store(url):
    store = open_store(url, realm="default", timeout=2)
    for _ in range(3):
        run(store.create(make_record()))
    assert run(store.count(now())) == (2 if "limit" in url else 3)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("memory://host", "has no host and no path"),
        ("memory:///a/file", "has no host and no path"),
        ("memory://?limit=many", "expects int, found 'many'"),
        ("memory://?limit=0", "a limit of 1 or more, found 0"),
        ("memory://?limits=3", "Did you mean 'limit'"),
    ],
)
def test_invalid_urls_are_refused(url, text):
    with pytest.raises(ConfigurationError, match=text):
        open_store(url, realm="default", timeout=2)
