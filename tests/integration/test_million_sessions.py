"""The helper that fills a store writes the same data as the store itself."""

import asyncio
import contextlib

import pytest

from sojourn import Sessions
from sojourn.record import user_index_name
from sojourn.store import Closeable
from sojourn.stores.urls import open_store
from tests.integration.valkey import running
from tests.integration.valkey_groups import ValkeyCluster
from tests.support.million_sessions import fill, labels_of, make_records, user_of
from tests.support.postgresql_fixtures import postgresql, shared_postgresql
from tests.support.valkey_fixtures import shared_valkey, valkey

__all__ = ["postgresql", "shared_postgresql", "shared_valkey", "valkey"]

SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"


@pytest.fixture(params=["sqlite", "postgresql", "valkey", "cluster"])
def url(request, tmp_path):
    with contextlib.ExitStack() as stack:
        if request.param == "sqlite":
            yield f"sqlite:///{tmp_path}/sessions.db"
        elif request.param == "cluster":
            cluster = stack.enter_context(running(ValkeyCluster(tmp_path, steady=True)))
            yield cluster.url
        else:
            yield request.getfixturevalue(request.param).url


async def every_record(store):
    found, cursor, is_last = {}, "", False
    while not is_last:
        page = await store.list_page(cursor, 500)
        assert page.unreadable == 0
        found.update((record.id, record) for record in page.records)
        cursor, is_last = page.cursor, not page.cursor
    return found


def test_written_records_are_read_by_the_store(url):
    """Records, users and labels; the user index; a session can be revoked."""
    fill(url, 2_000, users=50, ended=10)
    fill(url, 300, realm="other", seed=1)
    asyncio.run(check(url))


async def check(url):
    sessions = Sessions(store=url, secret=SECRET, store_timeout=20.0)
    expected = {each.id: each.metadata().labels for each in make_records(2_000, users=50)}
    found = await every_record(sessions.store)
    assert {key: record.metadata().labels for key, record in found.items()} == expected
    of_ada = await sessions.store.list_by_index(user_index_name("user-7"))
    numbers = [number for number in range(2_000) if user_of(number, 50) == "user-7"]
    ids = list(expected)
    assert {record.id for record in of_ada} == {ids[number] for number in numbers}
    assert len(await sessions.alist_user("user-7")) == len(numbers) == 20
    assert await sessions.arevoke(ids[-1].hex())
    assert await sessions.arevoke_user("user-7") == len(numbers)
    sessions.close()
    other = open_store(url, realm="other", timeout=20.0)
    assert len(await every_record(other)) == 300
    if isinstance(other, Closeable):
        other.close()


def test_the_same_seed_gives_the_same_sessions():
    first, again = list(make_records(20, at=10**12)), list(make_records(20, at=10**12))
    assert first == again
    assert [record.metadata().labels for record in first] == list(map(labels_of, range(20)))
    assert {one.id for one in make_records(20, seed=1)}.isdisjoint(one.id for one in first)
