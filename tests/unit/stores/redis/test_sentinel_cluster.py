"""The laws in a cluster and behind Sentinels, whose servers start once for the module."""

import asyncio
import gc
import re
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
import redis
from redis.asyncio.sentinel import Sentinel

from sojourn._core.concurrency import run
from sojourn.errors import StoreUnavailable
from sojourn.store import GONE, REVOKED, SAVED, Conflict
from sojourn.stores import amigrate
from sojourn.stores.memory import MemoryStore
from sojourn.stores.redis import RedisStore
from sojourn.stores.redis.encoding import created_at, decode_value
from sojourn.stores.redis.executor import Executor
from sojourn.stores.redis.keys import Keys
from sojourn.stores.redis.scripts import NO_NAMES
from sojourn.stores.urls import open_store
from sojourn.testing.records import login, make_record, next_version, now, save_login
from tests.contract import test_applications as adapters
from tests.contract.store_suite import StoreSuite
from tests.integration.slots import Move
from tests.integration.valkey import running
from tests.integration.valkey_groups import SentinelServers, ValkeyCluster
from tests.support.application_stores import OverValkey

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with running(ValkeyCluster(tmp_path_factory.mktemp("cluster"), steady=True)) as made:
        yield made


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    with running(SentinelServers(tmp_path_factory.mktemp("watched"))) as made:
        yield made


class TestCluster(StoreSuite):
    """S1 to S18 over three primaries with three replicas."""

    lists_by_id = False

    @pytest.fixture(autouse=True)
    def servers(self, cluster):
        cluster.flush()
        self.cluster = cluster

    def make_store(self, realm):
        return open_store(self.cluster.url, realm=realm, timeout=2.0)

    def store_url(self):
        return self.cluster.url

    async def overwrite(self, store, session_id, data):
        digits = session_id.hex()
        key = f"sojourn:default:s:{{{digits[:3]}}}{digits[3:]}"
        with redis.RedisCluster(host="127.0.0.1", port=self.cluster.nodes[0].port) as admin:
            assert admin.exists(key)
            admin.set(key, bytes([NO_NAMES]) + data)

    async def add_raw_history(self, store, data):
        with redis.RedisCluster(host="127.0.0.1", port=self.cluster.nodes[0].port) as admin:
            admin.xadd("sojourn:default:history", {b"e": data, b"x": b"9999999999999"})

    async def index_size(self, store):
        with redis.RedisCluster(host="127.0.0.1", port=self.cluster.nodes[0].port) as admin:
            return sum(admin.zcard(key) for key in admin.scan_iter("sojourn:default:u:*"))


class TestSentinel(StoreSuite):
    """S1 to S18 over a primary that Sentinels announce."""

    lists_by_id = False

    @pytest.fixture(autouse=True)
    def servers(self, watched):
        self.watched = watched
        with redis.Redis(port=watched.primary.port) as admin:
            admin.flushall()

    def make_store(self, realm):
        return open_store(self.watched.url, realm=realm, timeout=2.0)

    def store_url(self):
        return self.watched.url

    async def overwrite(self, store, session_id, data):
        with redis.Redis(port=self.watched.primary.port) as admin:
            admin.set(f"sojourn:default:s:{session_id.hex()}", bytes([NO_NAMES]) + data)

    async def add_raw_history(self, store, data):
        with redis.Redis(port=self.watched.primary.port) as admin:
            admin.xadd("sojourn:default:history", {b"e": data, b"x": b"9999999999999"})

    async def index_size(self, store):
        with redis.Redis(port=self.watched.primary.port) as admin:
            return sum(admin.zcard(key) for key in admin.scan_iter("sojourn:default:u:*"))


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of closed loops
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_async_client_from_sentinels_serves_several_loops_in_turn(watched):
    """S12: connections to the Sentinels belong to one loop; the client stays open."""
    hosts = [("127.0.0.1", int(port)) for port in re.findall(r":(\d+)", watched.url)]
    client = Sentinel(hosts).master_for(urlsplit(watched.url).path.split("/")[1])
    store = RedisStore(client=client)
    for _ in range(3):
        assert asyncio.run(store.create(make_record())) is True
    store.close()
    gc.collect()


def test_every_session_of_a_cluster_is_migrated(cluster):
    """S11, S15: a scan reads each primary, while moves change the records that it returns."""
    cluster.flush()
    old, new = open_store(cluster.url, realm="default", timeout=5.0), MemoryStore()
    records = [make_record() for _ in range(600)]
    logins = [login(None, f"user-{n % 9}") for n in range(60)]

    async def work():
        assert all(await old.create_many(records))
        for record in logins:
            await save_login(old, record, 0)
        done = await amigrate(old, new, batch_size=64)
        assert (done.moved, done.passes, done.finished) == (660, 2, True)
        old.close()

    asyncio.run(work())
    assert {each.id: each for each in new.records()} == {r.id: r for r in (*records, *logins)}
    listed = [each for n in range(9) for each in asyncio.run(new.list_by_index(f"user:user-{n}"))]
    assert len(listed) == 60


# The laws of requests


class TestApplicationOnCluster(adapters.TestStarlette):
    """A1 to A24 with the sessions in a cluster."""

    @pytest.fixture(autouse=True)
    def servers(self, cluster):
        cluster.flush()
        self.url = cluster.url
        with redis.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port) as self.admin:
            yield

    def make_store(self):
        return open_store(self.url, realm="default", timeout=5.0)

    def stored(self, store):
        found = []
        for key in self.admin.scan_iter("sojourn:default:s:*"):
            digits = key.decode().rpartition(":")[2]
            value = self.admin.get(key)
            mark = self.admin.get(f"sojourn:default:void:{digits[:5]}") or b""
            if created_at(value) >= mark:
                found.append(decode_value(bytes.fromhex(re.sub("[{}]", "", digits)), value))
        return found


class TestApplicationOnSentinel(OverValkey, adapters.TestStarlette):
    """A1 to A24 with the sessions in a primary that Sentinels announce."""

    @pytest.fixture
    def valkey(self, watched):
        with redis.Redis(port=watched.primary.port) as admin:
            admin.flushall()
        return watched.primary

    def make_store(self):
        return open_store(self.watched.url, realm="default", timeout=5.0)

    @pytest.fixture(autouse=True)
    def sentinels(self, watched):
        self.watched = watched


def test_a_login_that_outlasts_its_lock_is_rejected_by_a_revocation(cluster):
    """S16: the server of its record hangs, its lock expires, and the user is revoked."""
    cluster.flush()
    keys = Keys("sojourn", "default", is_cluster=True)
    lock = keys.index(keys.digest("user:ada"))[2]
    with redis.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port) as admin:

        def port_of(key):
            return admin.get_node_from_key(key).port

        records = (login(None, "ada", id=bytes([n]) * 16) for n in range(256))
        record = next(r for r in records if port_of(keys.record(r.id)) != port_of(lock))
        [hanging] = [n for n in cluster.nodes if n.port == port_of(keys.record(record.id))]

    async def check():
        store = open_store(cluster.url, realm="default", timeout=5.0)
        other = open_store(cluster.url, realm="default", timeout=5.0)
        await asyncio.gather(
            store.list_by_index("user:ada"), other.list_by_index("user:ada")
        )  # both have loaded the slot map
        with redis.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port) as admin:
            with hanging.hanging():
                task = asyncio.ensure_future(store.save_login(record, 0, limit=None, now=now()))
                while not admin.exists(lock):  # noqa: ASYNC110 - only the server knows how far it is
                    await asyncio.sleep(0.01)
                admin.delete(lock)  # as its expiry does
                await other.invalidate_logins("user:ada", record.authenticated_at + 1)
            assert await task is REVOKED
        assert await store.load(record.id) is None
        assert await store.list_by_index("user:ada") == []
        store.close()
        other.close()

    asyncio.run(check())


def test_calls_in_threads_keep_their_deadline_while_a_node_hangs(cluster):
    """S12: the node is also the first one that is asked for the slot map."""
    cluster.flush()
    hanging = cluster.nodes[0]
    store = open_store(cluster.url, realm="default", timeout=2.0)
    records = [make_record(id=bytes([n]) * 16) for n in range(40)]
    with redis.RedisCluster(host="127.0.0.1", port=hanging.port) as admin:
        port_of = {r.id: admin.get_node_from_key(store.keys.record(r.id)).port for r in records}
    for record in records:
        assert run(store.create(record)) is True
    there = [record for record in records if port_of[record.id] == hanging.port]
    elsewhere = next(record for record in records if port_of[record.id] != hanging.port)
    with hanging.hanging():
        for number, record in enumerate(there[:4]):
            started = time.monotonic()
            with pytest.raises(StoreUnavailable):
                run(store.load(record.id))
            # The first call waits for the whole deadline, and the node gets a part of it then.
            assert time.monotonic() - started < (2.0 if number else 3.5)
        started = time.monotonic()
        assert run(store.load(elsewhere.id)) == elsewhere
        assert time.monotonic() - started < 2.0
    assert run(store.load(there[0].id)) == there[0]
    store.close()


def test_a_revocation_waits_for_the_login_that_holds_the_lock_of_the_list(cluster):
    """S16: the login may have read the cutoff before the revocation and be stored after it."""
    cluster.flush()
    keys = Keys("sojourn", "default", is_cluster=True)
    lock = keys.index(keys.digest("user:ada"))[2]
    store = open_store(cluster.url, realm="default", timeout=5.0)
    with (
        redis.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port) as admin,
        ThreadPoolExecutor(1) as threads,
    ):
        admin.set(lock, b"held by a login")
        ending = threads.submit(run, store.invalidate_logins("user:ada", now()))
        with pytest.raises(TimeoutError):
            ending.result(timeout=0.5)
        admin.set(lock, b"held by the next login, which reads the cutoff")
        ending.result(timeout=2.0)
    store.close()


def test_moved_slots_are_found(cluster):
    """MOVED is not a failure: with and without an event loop, also for one call of a batch."""
    cluster.flush()
    records = [make_record(id=bytes([n]) * 16) for n in range(40)]
    blocking = open_store(cluster.url, realm="default", timeout=2.0)
    for record in records:
        assert run(blocking.create(record)) is True

    async def check():
        def move_slots():
            for record in records[:10]:
                with Move(cluster, _key(record)):
                    pass

        store = open_store(cluster.url, realm="default", timeout=2.0)
        assert await store.load(records[0].id) == records[0]  # it has loaded the slot map
        await asyncio.to_thread(move_slots)
        assert await asyncio.gather(*(store.load(r.id) for r in records)) == records
        store.close()

    asyncio.run(check())
    for record in records:
        assert run(blocking.load(record.id)) == record
        assert run(blocking.save(next_version(record), 1)) is SAVED
    blocking.close()


def test_sessions_are_available_while_their_slot_migrates(cluster):
    """ASK and TRYAGAIN are not failures: some keys have moved, some not, some are new."""
    cluster.flush()
    # All in one slot; half exist before the migration, half are created during it.
    records = [make_record(id=bytes([0xAB, n]) + bytes(14)) for n in range(20)]
    blocking = open_store(cluster.url, realm="default", timeout=5.0)
    for record in records[:10]:
        assert run(blocking.create(record)) is True

    async def check():
        store = open_store(cluster.url, realm="default", timeout=5.0)
        assert await store.load(records[0].id) == records[0]
        move = await asyncio.to_thread(Move(cluster, _key(records[0])).__enter__)
        await asyncio.to_thread(move.send, [_key(record) for record in records[:5]])
        await asyncio.gather(*(store.create(record) for record in records[10:]))
        assert await asyncio.gather(*(store.load(r.id) for r in records)) == records
        saves = [store.save(next_version(record), 1) for record in records]
        assert await asyncio.gather(*saves) == [SAVED] * 20
        assert isinstance(await store.save(next_version(records[3]), 1), Conflict)
        assert await store.touch(next_version(records[4])) is True
        for each in (records[0], records[9], records[19]):
            assert await store.delete(each.id) is True
            assert await store.load(each.id) is None
        for each in (records[1], records[8], records[18]):
            assert run_in_thread(blocking.load(each.id)) == next_version(each)
        await store.invalidate_all(now() + 1000)
        assert await asyncio.gather(*(store.load(r.id) for r in records)) == [None] * 20
        assert await store.save(next_version(next_version(records[5])), 2) is GONE
        await asyncio.to_thread(move.__exit__)
        assert await asyncio.gather(*(store.load(r.id) for r in records)) == [None] * 20
        store.close()

    asyncio.run(check())
    blocking.close()


def run_in_thread(coroutine):
    """Return the result of a coroutine that is run without an event loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run, coroutine).result()


def _key(record):
    digits = record.id.hex()
    return f"sojourn:default:s:{{{digits[:3]}}}{digits[3:]}"


# Clients of an application


@pytest.mark.parametrize("kind", ["asyncio", "blocking"])
def test_a_cluster_client_of_the_application_is_used_under_a_loop(cluster, kind):
    """Its slot map and settings are used; it stays open."""
    cluster.flush()
    records = [make_record(id=bytes([n]) * 16) for n in range(40)]

    async def check():
        port = cluster.nodes[0].port
        module = redis.asyncio if kind == "asyncio" else redis
        client = module.RedisCluster(host="127.0.0.1", port=port, socket_timeout=2.0)
        store = RedisStore(client=client, timeout=2.0)
        assert await store.create_many(records) == [True] * 40
        assert await asyncio.gather(*(store.load(record.id) for record in records)) == records
        with Move(cluster, _key(records[0])):
            pass
        assert await asyncio.gather(*(store.load(record.id) for record in records)) == records
        store.close()
        await asyncio.sleep(0.05)  # its connections close in a task
        if kind == "asyncio":
            assert await client.ping()
            await client.aclose()
        else:
            assert client.ping()
            client.close()

    asyncio.run(check())


def test_a_blocking_cluster_client_of_the_application_is_used_in_threads(cluster):
    """Without an event loop."""
    cluster.flush()
    records = [make_record(id=bytes([n]) * 16) for n in range(40)]
    with redis.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port) as client:
        store = RedisStore(client=client, timeout=2.0)
        assert run(store.create_many(records)) == [True] * 40
        assert [run(store.load(record.id)) for record in records] == records
        with Move(cluster, _key(records[0])):
            pass
        assert [run(store.load(record.id)) for record in records] == records
        store.close()
        assert client.ping()


@pytest.mark.parametrize("has_loop", [True, False], ids=["loop", "no loop"])
def test_many_sessions_of_a_user_are_deleted_in_two_batches(cluster, has_loop, monkeypatch):
    """S15, S18: grouped by node; their entries are removed from the index of the user."""
    cluster.flush()
    store = open_store(cluster.url, realm="default", timeout=5.0)
    records = [login(None, "ada", id=bytes([n]) * 16) for n in range(60)]
    execute = Executor.execute
    batches = []

    async def counted(executor, requests, deadline):
        batches.append(len(requests))
        return await execute(executor, requests, deadline)

    monkeypatch.setattr(Executor, "execute", counted)

    async def check():
        for record in records:
            await store.save_login(record, 0, limit=None, now=now())
        batches.clear()
        assert await store.delete_many([record.id for record in records[:59]]) == [True] * 59
        assert batches == [59, 1]
        assert await store.list_by_index("user:ada") == records[59:]
        store.close()

    asyncio.run(check()) if has_loop else run(check())
    with redis.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port) as admin:
        (index,) = admin.scan_iter("sojourn:default:u:*")
        assert admin.zcard(index) == 1
