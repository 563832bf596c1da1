"""The server's clock: server_time, and revocations by machines with other clocks."""

import asyncio
import time

import pytest
import redis
import redis.asyncio

from sojourn._core.concurrency import run, sleep
from sojourn.errors import StoreUnavailable
from sojourn.sessions import Sessions
from sojourn.store import REVOKED, LoginSaved, SupportsServerTime
from sojourn.stores.redis import RedisStore
from sojourn.stores.redis.keys import Keys
from sojourn.stores.urls import open_store
from sojourn.testing import FakeClock
from sojourn.testing.decorators import with_loop, without_loop
from sojourn.testing.records import HOUR, login, make_record, save_login
from sojourn.testing.store_suite.worker import SECRET
from tests.integration.valkey import running
from tests.integration.valkey_groups import ValkeyCluster

RUNNERS = pytest.mark.parametrize("runner", [with_loop, without_loop], ids=["loop", "no loop"])
SKEWS = pytest.mark.parametrize("skew", [-HOUR, -3_000, 60_000, HOUR])


def real_now():
    return time.time_ns() // 1_000_000


@pytest.fixture
def set_clock(monkeypatch):
    """Return a function that moves the clock of this machine by milliseconds."""
    real = time.time_ns

    def move(milliseconds):
        monkeypatch.setattr(time, "time_ns", lambda: real() + milliseconds * 1_000_000)

    return move


@RUNNERS
def test_server_time_is_the_clock_of_the_server(runner, valkey, set_clock):
    """A22: milliseconds since 1970 UTC, whatever the clock of this machine shows."""

    async def check():
        store = open_store(valkey.url, realm="default", timeout=2.0)
        assert isinstance(store, SupportsServerTime)
        earliest = real_now()
        set_clock(HOUR)
        found = await store.server_time()
        set_clock(0)
        assert earliest <= found <= real_now()
        store.close()

    runner(check())


def test_clients_of_the_application_read_the_clock_of_the_server(valkey):
    """A22: over redis-py, blocking and with asyncio."""
    with redis.Redis.from_url(valkey.url) as client:
        store = RedisStore(client=client)
        assert abs(run(store.server_time()) - real_now()) < 1_000
        store.close()

    async def check():
        client = redis.asyncio.Redis.from_url(valkey.url)
        store = RedisStore(client=client)
        assert abs(await store.server_time() - real_now()) < 1_000
        store.close()
        await client.aclose()

    asyncio.run(check())


def test_a_cluster_has_one_clock(tmp_path):
    """A22: all processes read that of the node which owns a fixed slot."""
    with running(ValkeyCluster(tmp_path, steady=True)) as cluster:
        key = Keys("sojourn", "default", is_cluster=True).events
        admins = [cluster.admin(node) for node in cluster.nodes]

        def time_calls():
            stats = [admin.info("commandstats") for admin in admins]
            return [each.get("cmdstat_time", {"calls": 0})["calls"] for each in stats]

        async def check():
            store = open_store(cluster.url, realm="default", timeout=2.0)
            before = time_calls()
            for _ in range(5):
                assert abs(await store.server_time() - real_now()) < 1_000
            calls = [n - m for n, m in zip(time_calls(), before, strict=True)]
            assert sorted(calls) == [0, 0, 0, 0, 0, 5]
            owner = admins[calls.index(5)]
            owner.get(key)  # any other node answers MOVED
            store.close()

        with_loop(check())
        for admin in admins:
            admin.close()


def test_an_unreachable_server_has_no_time(valkey):
    """S12: the clock of this machine is no substitute."""
    store = open_store("redis://127.0.0.1:1/0", realm="default", timeout=0.5)
    with pytest.raises(StoreUnavailable):
        run(store.server_time())


@RUNNERS
@SKEWS
def test_revoke_all_by_a_machine_with_a_wrong_clock(runner, skew, valkey, set_clock):
    """A22: earlier sessions of other machines end, later ones are accepted at once."""

    async def check():
        store = open_store(valkey.url, realm="default", timeout=2.0)
        sessions = Sessions(store=store, secret=SECRET)
        earlier = make_record(created_at=await store.server_time())
        await store.create(earlier)
        set_clock(skew)
        await sessions.arevoke_all()
        assert await store.load(earlier.id) is None
        set_clock(0)
        await sleep(0.003)  # the server's clock: the cutoff is a millisecond ahead of it
        later = make_record(created_at=await store.server_time())
        assert await store.create(later) is True
        assert await store.load(later.id) == later
        sessions.close()

    runner(check())


@RUNNERS
@SKEWS
def test_revoke_user_by_a_machine_with_a_wrong_clock(runner, skew, valkey, set_clock):
    """A22, S16: logins in progress elsewhere are rejected, later ones accepted at once."""

    async def check():
        store = open_store(valkey.url, realm="default", timeout=2.0)
        sessions = Sessions(store=store, secret=SECRET)
        in_progress = login(None, "ada", at=await store.server_time())
        set_clock(skew)
        assert await sessions.arevoke_user("ada") == 0
        set_clock(0)
        assert await save_login(store, in_progress, 0) is REVOKED
        await sleep(0.003)
        later = login(None, "ada", at=await store.server_time())
        assert await save_login(store, later, 0) == LoginSaved(())
        sessions.close()

    runner(check())


def test_a_clock_of_the_installation_replaces_that_of_the_server(valkey):
    """Tests advance ``clock=``, also with a real server."""
    clock = FakeClock()
    store = open_store(valkey.url, realm="default", timeout=2.0)
    sessions = Sessions(store=store, secret=SECRET, clock=clock)
    record = make_record(created_at=clock.now, seen_at=clock.now, absolute_at=clock.now + 12 * HOUR)
    assert run(store.create(record)) is True
    clock.advance("1 second")
    sessions.revoke_all()
    assert run(store.load(record.id)) is None
    with sessions.open() as visit:
        visit.session.login("ada")
    assert [info.user for info in sessions.list_user("ada")] == ["ada"]
    sessions.close()
