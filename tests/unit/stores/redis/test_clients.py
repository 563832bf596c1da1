"""RedisStore with redis-py clients of the application, asyncio and blocking."""

import asyncio
import gc

import pytest
import redis
import redis.asyncio

from sojourn._core.concurrency import run
from sojourn.errors import ConfigurationError, StoreUnavailable
from sojourn.stores.redis import RedisStore
from sojourn.stores.urls import open_store
from sojourn.testing.records import make_record
from tests.unit.stores.redis.test_store import OnServer

pytestmark = pytest.mark.slow  # the same laws as with URLs


class TestOverBlockingClient(OnServer):
    """S1 to S18; under an event loop in worker threads."""

    @pytest.fixture(autouse=True)
    def client(self, server):
        with redis.Redis.from_url(self.valkey.url) as self.client:
            yield

    def make_store(self, realm):
        return RedisStore(client=self.client, realm=realm)


class TestOverAsyncClient(OnServer):
    """The laws of stores, under an event loop only."""

    requires_event_loop = True

    def make_store(self, realm):
        client = redis.asyncio.Redis.from_url(self.valkey.url, decode_responses=True)
        return RedisStore(client=client, realm=realm)


def test_close_leaves_the_client_of_the_application_open(valkey):
    with redis.Redis.from_url(valkey.url) as client:
        store = RedisStore(client=client)
        assert run(store.create(make_record())) is True
        store.close()
        assert client.ping() is True


def test_an_async_client_without_a_loop_is_refused_with_advice(valkey):
    store = RedisStore(client=redis.asyncio.Redis.from_url(valkey.url))
    assert "a blocking client such as redis.Redis" in (store.requires_event_loop() or "")
    with pytest.raises(ConfigurationError, match="none runs in this thread: give RedisStore a URL"):
        run(store.load(bytes(16)))


def test_an_async_cluster_client_in_a_second_loop_is_refused_with_advice():
    """Its locks and connections belong to the first loop; calls would hang or fail."""
    store = RedisStore(client=redis.asyncio.RedisCluster(host="127.0.0.1", port=1), timeout=0.5)
    with pytest.raises(StoreUnavailable):
        asyncio.run(store.load(bytes(16)))
    with pytest.raises(ConfigurationError, match=r"that used it first.*a URL"):
        asyncio.run(store.load(bytes(16)))
    store.close()


def test_stores_with_different_prefixes_are_isolated(valkey):
    """S14: one server, one realm, two prefixes."""
    with redis.Redis.from_url(valkey.url) as client:
        one, two = (RedisStore(client=client, prefix=prefix) for prefix in ("one", "two"))
        record = make_record()
        run(one.create(record))
        assert run(two.load(record.id)) is None
        run(one.invalidate_all(record.created_at + 1))
        assert run(two.create(record)) is True
        assert run(two.load(record.id)) == record


@pytest.mark.parametrize("prefix", ["", "a:b", "{x}", "x" * 65, "ä"])
def test_an_ambiguous_prefix_is_refused(prefix):
    with pytest.raises(ConfigurationError, match="prefix expects"):
        RedisStore(client=redis.Redis(), prefix=prefix)


def test_an_object_that_is_no_client_is_refused():
    with pytest.raises(ConfigurationError, match=r"expects redis\.Redis.*found builtins\.dict"):
        RedisStore(client={})


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of closed loops
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_async_client_serves_several_loops_in_turn(valkey):
    """S12: a loop that was closed with its connections affects no later one, as in test suites."""
    store = RedisStore(client=redis.asyncio.Redis.from_url(valkey.url))
    records = [make_record() for _ in range(3)]
    for record in records:
        assert asyncio.run(store.create(record)) is True
    store.close()
    gc.collect()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of closed loops
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_store_serves_threads_and_several_loops_in_turn(valkey):
    """One object for ASGI and WSGI, management commands and tests."""
    store = open_store(valkey.url, realm="default", timeout=2.0)
    records = [make_record() for _ in range(3)]
    run(store.create(records[0]))
    asyncio.run(store.create(records[1]))

    async def both():
        await asyncio.gather(
            store.create(records[2]), asyncio.to_thread(lambda: run(store.load(records[0].id)))
        )
        return await asyncio.gather(*(store.load(record.id) for record in records))

    assert asyncio.run(both()) == records
    assert [run(store.load(record.id)) for record in records] == records
    store.close()
    gc.collect()
