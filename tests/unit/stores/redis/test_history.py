"""The stream of ended sessions: cursors, foreign keys, and the time of the server."""

import asyncio

import pytest
import redis

from sojourn._core.concurrency import run
from sojourn.errors import StoreError
from sojourn.stores.urls import open_store
from sojourn.testing.records import HOUR, now
from sojourn.testing.store_suite.history import make_entry
from tests.integration.valkey import Valkey, running
from tests.support.slow_commands import without_slow_command

KEY = "sojourn:default:history"


@pytest.fixture
def store(valkey):
    store = open_store(valkey.url, realm="default", timeout=2.0)
    yield store
    store.close()


@pytest.fixture
def admin(valkey):
    client = redis.Redis.from_url(valkey.url)
    yield client
    client.close()


@pytest.mark.parametrize("cursor", ["0-0", "00-000"])
def test_the_cursor_before_every_entry_returns_an_empty_page(store, cursor):
    """S9: the server rejects such a range; the other stores return an empty page."""
    run(store.add_history([make_entry()], HOUR))
    assert run(store.list_history(cursor, 10)) == ([], 0, "")


@pytest.mark.parametrize("write", ["set", "lpush", "sadd"])
def test_a_history_key_of_another_type_raises(store, admin, write):
    """S9: the history fails, sessions do not."""
    getattr(admin, write)(KEY, "foreign")
    for call in (store.add_history([make_entry()], HOUR), store.list_history("", 10)):
        with pytest.raises(StoreError, match="another program uses a key with the same prefix"):
            run(call)
    assert admin.type(KEY) != b"stream"


def test_foreign_entries_are_purged(store, admin):
    """S9: they have no expiry and would stay for ever."""
    admin.xadd(KEY, {"foreign": "1"})
    entry = make_entry()
    run(store.add_history([make_entry(now() - 10 * HOUR)], 9 * HOUR))
    run(store.add_history([entry], HOUR))
    while not run(store.purge(now(), 2)).finished:
        pass
    assert run(store.list_history("", 10)) == ([entry], 0, "")
    assert admin.xlen(KEY) == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_million_entries_block_the_server_for_a_few_milliseconds(tmp_path):
    """S8: whether one is added, a page is read or all are purged."""
    with running(Valkey(tmp_path)) as server:
        store = open_store(server.url, realm="default", timeout=10.0)
        admin = redis.Redis.from_url(server.url)
        at = now()

        async def fill():
            for _ in range(250):
                await store.add_history([make_entry(at) for _ in range(4_000)], HOUR)

        async def work():
            await store.add_history([make_entry(at) for _ in range(1_000)], HOUR)
            page = await store.list_history("", 1_000)
            assert len(page.entries) == 1_000
            for instant in (at + HOUR // 2, at + 2 * HOUR):
                finished = False
                while not finished:
                    _, finished = await store.purge(instant, 500)

        async def fill_and_work():
            await fill()
            assert admin.xlen(KEY) == 1_000_000
            assert admin.memory_usage(KEY) < 400_000_000
            await without_slow_command([server.port], work)
            store.close()

        asyncio.run(fill_and_work())
        assert admin.xlen(KEY) == 0
        admin.close()
