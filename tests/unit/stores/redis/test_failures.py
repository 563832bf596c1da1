"""Failures of the server and the network, with real processes and sockets.

Failover: ``test_failover.py``.
"""

import asyncio
import logging
import random
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

import msgspec
import pytest
import redis
import redis.asyncio

from sojourn._core.concurrency import run, sleep
from sojourn.errors import StoreError, StoreUnavailable
from sojourn.store import REVOKED, SAVED, Conflict, LoginSaved
from sojourn.stores.batching import MAX_BATCH
from sojourn.stores.redis import RedisStore
from sojourn.stores.redis.connection import BlockingStream
from sojourn.stores.redis.server_checks import check_server
from sojourn.stores.urls import open_store
from sojourn.testing.decorators import with_loop, without_loop
from sojourn.testing.records import login, make_body, make_record, next_version, now
from sojourn.testing.store_suite.history import make_entry
from tests.integration.binaries import BINARIES
from tests.integration.proxy import Proxy
from tests.integration.valkey import Valkey

RUNNERS = pytest.mark.parametrize("runner", [with_loop, without_loop], ids=["loop", "no loop"])


def store_at(url, timeout=1.0):
    return open_store(url, realm="default", timeout=timeout)


@pytest.fixture
def proxy(valkey):
    made = Proxy(valkey.port)
    yield made
    made.close()


@pytest.fixture
def admin(valkey):
    with redis.Redis.from_url(valkey.url) as client:
        yield client


@pytest.fixture
def own_valkey(tmp_path):
    """A server of this test, which it can disturb."""
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.stop()


async def fails_within(call, seconds):
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await call
    assert time.monotonic() - began < seconds


# The network


@RUNNERS
def test_at_a_silent_server_the_first_call_waits_and_later_ones_fail_fast(runner, proxy):
    """S12: packets are dropped; later calls wait a tenth of the deadline."""

    async def check():
        store = store_at(proxy.url, timeout=2.0)
        record = make_record()
        await store.create(record)
        proxy.swallow = True
        await fails_within(store.load(record.id), 3.5)
        with pytest.MonkeyPatch.context() as patch:
            # The first connection may have been slow on a busy machine.
            patch.setattr("sojourn.stores.reconnection.RECONNECTION_FACTOR", 0)
            for _ in range(3):
                await fails_within(store.load(record.id), 1.5)
        proxy.swallow = False
        assert await store.load(record.id) == record
        store.close()

    runner(check())


@RUNNERS
@pytest.mark.parametrize("over", ["URL", "client"])
def test_a_rejected_authentication_is_unavailable_with_advice(runner, over, valkey, admin):
    """S12, A15: also if the connection broke between two calls."""
    user = ("ACL", "SETUSER", "shop", "on", "~*", "&*", "+@all", "resetpass")
    admin.execute_command(*user, ">hunter2")
    url = valkey.url.replace("//", "//shop:hunter2@")
    client = (redis.asyncio.Redis if runner is with_loop else redis.Redis).from_url(url)
    store = store_at(url) if over == "URL" else RedisStore(client=client)

    async def check():
        assert await store.load(bytes(16)) is None
        admin.execute_command(*user, ">another")
        admin.execute_command("CLIENT", "KILL", "USER", "shop")
        for _ in range(3):
            await sleep(0.01)  # an event loop detects the end of the connection
            with pytest.raises(StoreUnavailable, match="in the URL are not those of") as error:
                await store.load(bytes(16))
            assert "hunter2" not in str(error.value)
        admin.execute_command(*user, ">hunter2")
        assert await store.load(bytes(16)) is None
        store.close()

    runner(check())
    admin.execute_command("ACL", "DELUSER", "shop")


def test_at_a_silent_server_calls_in_many_batches_keep_their_deadline(proxy):
    """S12: those in the last batch do not wait for each batch before."""

    async def check():
        store = store_at(proxy.url, timeout=2.0)
        await store.load(bytes(16))
        proxy.swallow = True
        calls = (store.load(number.to_bytes(16)) for number in range(20 * MAX_BATCH))
        began = time.monotonic()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - began < 4.8  # in sequence they would take 5.8
        assert {type(answer) for answer in answers} == {StoreUnavailable}
        proxy.swallow = False
        assert await store.load(bytes(16)) is None
        store.close()

    with_loop(check())


@RUNNERS
@pytest.mark.parametrize("how", ["cut", "half_close"])
def test_a_broken_idle_connection_is_replaced(runner, how, proxy):
    """S12: before it is used, however it ended."""

    async def check():
        store = store_at(proxy.url)
        record = make_record()
        await store.create(record)
        getattr(proxy, how)()
        await _wait_for_end_of_stream(runner)
        assert await store.save(next_version(record), 1) is SAVED
        assert await store.load(record.id) == next_version(record)
        assert proxy.opened == 2
        store.close()

    runner(check())


async def _wait_for_end_of_stream(runner):
    if runner is with_loop:
        await asyncio.sleep(0.05)  # the end of a stream reaches another thread of this machine
    else:
        time.sleep(0.05)  # noqa: ASYNC251 - for the end of the stream; no loop runs here


@RUNNERS
def test_a_distant_server_is_used_again_after_an_outage(runner, proxy):
    """S12: to connect takes longer than a tenth of the deadline, and it did before."""

    async def check():
        proxy.delay = 0.3
        store = store_at(proxy.url, timeout=2.0)
        record = make_record()
        await store.create(record)
        for _ in range(2):
            proxy.swallow = True
            await fails_within(store.load(record.id), 3.5)
            proxy.swallow = False
            assert await store.load(record.id) == record
        store.close()

    runner(check())


@RUNNERS
def test_a_slow_server_is_waited_for_until_the_deadline(runner, proxy):
    """S12."""

    async def check():
        store = store_at(proxy.url, timeout=2.0)
        record = make_record()
        await store.create(record)
        proxy.delay = 0.3
        assert await store.load(record.id) == record
        proxy.delay = 5.0
        await fails_within(store.load(record.id), 3.5)
        proxy.delay = 0.0
        assert await store.load(record.id) == record
        store.close()

    runner(check())


def test_a_read_is_retried_when_its_connection_breaks_but_a_save_is_not(proxy):
    """S12: an idempotent command is retried once on a new connection."""

    async def check():
        store = store_at(proxy.url)
        record = make_record()
        await store.create(record)
        proxy.delay = 0.2
        load = asyncio.ensure_future(store.load(record.id))
        await asyncio.sleep(0.1)  # it was sent, and the reply has not arrived
        proxy.cut()
        proxy.delay = 0.0
        assert await load == record
        proxy.delay = 0.2
        save = asyncio.ensure_future(store.save(next_version(record), 1))
        await asyncio.sleep(0.1)
        proxy.cut()
        proxy.delay = 0.0
        with pytest.raises(StoreUnavailable):
            await save
        assert await store.load(record.id) in (record, next_version(record))
        store.close()

    with_loop(check())


def test_each_caller_of_a_failed_batch_gets_its_own_error(proxy):
    """S13: a note added to one error is not in the others."""

    async def check():
        store = store_at(proxy.url)
        await store.create(make_record())
        proxy.swallow = True
        errors = await asyncio.gather(
            *(store.create(make_record()) for _ in range(5)), return_exceptions=True
        )
        assert [type(error) for error in errors] == [StoreUnavailable] * 5
        assert len({id(error) for error in errors}) == 5
        store.close()

    with_loop(check())


# The server


@RUNNERS
def test_flushed_scripts_are_loaded_again(runner, valkey, admin):
    """NOSCRIPT is answered with the text of the script, in the same call."""

    async def check():
        store = store_at(valkey.url)
        record = make_record()
        for version in range(5):
            if version:
                assert await store.save(next_version(record), version) is SAVED
                record = next_version(record)
            else:
                await store.create(record)
            admin.script_flush()
        assert await store.load(record.id) == record
        store.close()

    runner(check())


def test_flushed_scripts_and_killed_connections_under_load_lose_no_save(valkey, admin):
    """S10, S12: acknowledged increments are stored."""
    stop = threading.Event()

    def disturb():
        while not stop.wait(0.02):
            admin.script_flush()
            admin.execute_command("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "yes")

    async def increment(store, record):
        done = tries = 0
        current = record
        while done < 30:
            tries += 1
            attempt = next_version(current, body=make_body(n=current.version))
            try:
                answer = await store.save(attempt, current.version)
            except StoreUnavailable:
                answer = Conflict(await _until_loaded(store, record.id))
            if answer is SAVED:
                current, done = attempt, done + 1
            else:
                assert answer.newer.version in (current.version, current.version + 1)
                current = answer.newer
            await asyncio.sleep(0.005)  # so that disturbances happen between saves
        return await store.load(record.id) == current

    async def check():
        store = store_at(valkey.url)
        records = [make_record() for _ in range(8)]
        await asyncio.gather(*(store.create(record) for record in records))
        disturber = threading.Thread(target=disturb)
        disturber.start()
        try:
            assert await asyncio.gather(*(increment(store, r) for r in records)) == [True] * 8
        finally:
            stop.set()
            disturber.join()
        store.close()

    with_loop(check())


async def _until_loaded(store, session_id):
    while True:
        try:
            return await store.load(session_id)
        except StoreUnavailable:
            await asyncio.sleep(0.01)  # connections are killed constantly


@RUNNERS
def test_a_killed_server_is_used_again_after_its_restart(runner, own_valkey):
    """S12: kill -9; no task and no connection is left open."""

    def files():
        return len(list(Path("/proc/self/fd").iterdir()))

    async def check():
        store = store_at(own_valkey.url)
        record = make_record()
        assert await store.create(record) is True
        before = files()
        for _ in range(3):
            with own_valkey.refusing():
                for _ in range(3):
                    await fails_within(store.load(record.id), 0.5)
            assert await store.load(record.id) is None  # this server has no persistence
            assert await store.create(record) is True
        assert files() <= before
        if runner is with_loop:
            assert len(asyncio.all_tasks()) == 1
        store.close()

    runner(check())


@RUNNERS
@BINARIES
def test_a_full_server_is_unavailable_for_writes(runner, binary, tmp_path):
    """S12: maxmemory with noeviction; loads and deletions succeed."""
    options = ("--maxmemory", "6mb", "--maxmemory-policy", "noeviction")
    server = Valkey(tmp_path, *options, binary=binary)
    server.start()

    async def check():
        store = store_at(server.url)
        records = []
        error: Exception | None = None
        while error is None:
            record = make_record(body=make_body(n=b"x" * 20_000))
            try:
                assert await store.create(record) is True
                records.append(record)
            except StoreError as full:
                error = full
        assert type(error) is StoreUnavailable
        assert re.search(r"OOM.*more memory", str(error))
        assert await store.load(record.id) is None
        first = records[0]
        with pytest.raises(StoreUnavailable, match="OOM"):
            await store.save(next_version(first), 1)
        assert await store.load(first.id) == first
        for other in records:
            assert await store.delete(other.id) is True
        assert await store.create(record) is True
        store.close()

    try:
        runner(check())
    finally:
        server.stop()


@RUNNERS
@BINARIES
def test_a_read_only_replica_is_reported(runner, binary, tmp_path, caplog):
    """S12: writes fail before the deadline, and a warning is logged at the start."""
    server = Valkey(tmp_path, binary=binary)
    server.start()
    with redis.Redis.from_url(server.url) as replica:
        replica.replicaof("127.0.0.1", 1)  # its primary does not exist; it is read-only anyway

        async def check():
            store = store_at(server.url)
            with caplog.at_level(logging.WARNING, logger="sojourn"):
                assert await store.load(bytes(16)) is None
            assert "read-only replica" in caplog.text
            record = make_record()
            await fails_within(store.create(record), 0.5)
            replica.replicaof("NO", "ONE")
            assert await store.create(record) is True
            store.close()

        try:
            runner(check())
        finally:
            server.stop()


def test_a_damaged_key_fails_only_its_own_caller(valkey, admin):
    """S13: a list under one of twenty keys."""

    async def check():
        store = store_at(valkey.url)
        records = [make_record() for _ in range(20)]
        admin.lpush(f"sojourn:default:s:{records[7].id.hex()}", "x")
        created = await asyncio.gather(
            *(store.create(record) for record in records), return_exceptions=True
        )
        assert [created[n] is True for n in range(20) if n != 7] == [True] * 19
        saved = await asyncio.gather(
            *(store.save(next_version(record), 1) for record in records), return_exceptions=True
        )
        assert [saved[n] is SAVED for n in range(20) if n != 7] == [True] * 19
        assert isinstance(saved[7], StoreError)
        assert await store.load(records[7].id) is None
        store.close()

    with_loop(check())


# Authentication and settings


def test_the_acl_rule_in_the_documentation_is_sufficient(valkey, admin):
    """docs/valkey.md: for every call, but not for keys of other programs."""
    rule = ["on", ">opensesame", "resetkeys", "~sojourn:*", "resetchannels", "&sojourn:*", "-@all"]
    rule += ["+mget", "+evalsha", "+eval", "+get", "+set", "+del", "+getrange", "+setrange"]
    rule += ["+exists", "+pexpire", "+pttl", "+zadd", "+zrem", "+zrange", "+zscore", "+zcard"]
    rule += ["+zrandmember", "+time", "+publish", "+subscribe", "+ping", "+select", "+info"]
    rule += ["+client|setname", "+unsubscribe", "+xadd", "+xrange", "+xrevrange", "+xdel"]
    admin.execute_command("ACL", "SETUSER", "web", *rule)
    try:
        store = store_at(f"redis://web:opensesame@127.0.0.1:{valkey.port}/0")
        record = make_record()
        assert run(store.create(record)) is True
        assert run(store.save(next_version(record), 1)) is SAVED
        assert run(store.delete(record.id)) is True
        entry = make_entry()
        run(store.add_history([entry], 60_000))
        assert run(store.list_history("", 10)).entries == [entry]
        run(store.purge(entry.ended_at + 60_000, 10))  # removes it
        for listing in (store.list_page("", 10), store.count(now())):
            with pytest.raises(StoreError, match=r"NOPERM|no permissions"):
                run(listing)
        admin.execute_command("ACL", "SETUSER", "web", "+scan", "+dbsize")
        assert run(store.list_page("", 10)).records == []
        assert run(store.count(now())) == 0
        store.close()
        for url in (f"redis://web:wrong@127.0.0.1:{valkey.port}",):
            with pytest.raises(StoreError, match=r"WRONGPASS.*user and password") as caught:
                run(store_at(url).load(bytes(16)))
            assert "wrong@" not in str(caught.value)
        other = store_at(f"redis://web:opensesame@127.0.0.1:{valkey.port}/0?prefix=other")
        with pytest.raises(StoreUnavailable, match="NOPERM"):
            run(other.create(record))
        other.close()
    finally:
        admin.execute_command("ACL", "DELUSER", "web")


@RUNNERS
def test_a_url_with_a_user_and_no_password_authenticates_as_that_user(runner, valkey, admin):
    """The default user may have more privileges."""
    admin.execute_command("ACL", "SETUSER", "shop", "on", "nopass", "resetkeys", "&*", "+@all")

    async def check():
        store = store_at(valkey.url.replace("//", "//shop@"))
        with pytest.raises(StoreError, match="the ACL user lacks a command or key"):
            await store.create(make_record())
        store.close()

    runner(check())
    admin.execute_command("ACL", "DELUSER", "shop")


def test_databases_of_different_numbers_are_isolated(valkey):
    """S14: the number in the URL."""
    one, two = (store_at(f"redis://127.0.0.1:{valkey.port}/{number}") for number in (0, 3))
    record = make_record()
    run(one.create(record))
    assert run(two.load(record.id)) is None
    assert run(two.create(record)) is True
    one.close()
    two.close()


@pytest.mark.parametrize(
    ("info", "text"),
    [
        ({"redis_version": "6.0.9"}, "Redis 6.0.9; sessions need Redis 6.2 or newer"),
        ({"redis_version": "7.2.4", "valkey_version": "7.0.1"}, "sessions need Valkey 7.2"),
        (
            {"maxmemory_policy": "allkeys-lru", "maxmemory": "1000"},
            "drops sessions.*set 'maxmemory-policy noeviction'",
        ),
        ({"maxmemory_policy": "volatile-ttl", "maxmemory": "0"}, "should a limit be set later"),
        ({"role": "slave"}, "read-only replica.*redis\\+sentinel://"),
    ],
)
def test_a_dangerous_setting_is_named_with_its_remedy(info, text):
    """A setting that would lose sessions."""
    (warning,) = check_server(info)
    assert re.search(text, warning)


@pytest.mark.parametrize(
    "info", [{}, {"redis_version": "6.2.0"}, {"redis_version": "7.2.4", "valkey_version": "9.1"}]
)
def test_a_suitable_server_has_no_warnings(info):
    assert check_server(info) == []


def test_a_dangerous_policy_is_logged_once(tmp_path, caplog):
    """At the first call."""
    server = Valkey(tmp_path, "--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru")
    server.start()
    try:
        store = store_at(server.url)
        with caplog.at_level(logging.WARNING, logger="sojourn"):
            for _ in range(3):
                run(store.load(bytes(16)))
        assert caplog.text.count("maxmemory-policy is allkeys-lru") == 1
        store.close()
    finally:
        server.stop()


@RUNNERS
def test_instants_are_compared_as_numbers_in_any_locale_of_the_server(runner, tmp_path):
    """S6, S16: Lua compares strings by the locale of the server."""
    charmap = shutil.which("localedef") and Path("/usr/share/i18n/locales/en_US")
    if not charmap or not charmap.exists():
        pytest.skip("no locale can be built here")
    build = ["localedef", "-i", "en_US", "-f", "UTF-8", str(tmp_path / "en_US.UTF-8")]
    subprocess.run(build, check=True, capture_output=True)

    class Localised(Valkey):
        def command(self):
            return ["env", f"LOCPATH={tmp_path}", "LC_ALL=en_US.UTF-8", *super().command()]

    server = Localised(tmp_path)
    server.start()

    async def check():
        store = store_at(server.url)
        rng = random.Random(6)
        for number in range(100):
            first = now()
            other = first + rng.randrange(-100_000, 100_000)
            record = make_record(seen_at=first)
            await store.create(record)
            if number % 2:
                await store.touch(msgspec.structs.replace(record, seen_at=other))
            else:
                await store.save(next_version(record, seen_at=other), 1)
            found = await store.load(record.id)
            assert found.seen_at == max(first, other)
            await store.invalidate_logins(f"user:{number}", first)
            await store.invalidate_logins(f"user:{number}", other)
            known = login(None, str(number), at=max(first, other) - 1)
            assert await store.save_login(known, 0, limit=None, now=first) is REVOKED
            known = login(None, str(number), at=max(first, other))
            assert isinstance(await store.save_login(known, 0, limit=None, now=first), LoginSaved)
        store.close()

    try:
        runner(check())
    finally:
        server.stop()


def test_an_interrupted_call_leaves_no_unusable_connection(valkey, monkeypatch):
    """S13: the timeout of a greenlet, or a signal, interrupts a thread that waits for a reply."""
    store = store_at(valkey.url)
    record = make_record()
    run(store.create(record))

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(BlockingStream, "_feed_before", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(store.load(record.id))
    try:
        assert run(store.load(record.id)) == record
    finally:
        store.close()
