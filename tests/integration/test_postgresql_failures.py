"""Failures of a real PostgreSQL server: S12, with the store in an event loop and in threads.

Network: ``test_postgresql_network.py``. Crashes: ``test_postgresql_crash.py``.
"""

import asyncio
import functools
import os
import queue
import random
import shutil
import subprocess
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import msgspec
import psycopg
import pytest

from sojourn._core.concurrency import run, sleep
from sojourn.errors import StoreUnavailable
from sojourn.store import GONE, SAVED, Conflict, LimitPolicy, LoginSaved, SessionLimit
from sojourn.testing.decorators import in_threads, with_loop
from sojourn.testing.records import HOUR, login, make_body, make_record, next_version, now
from tests.integration.postgresql import Postgres, give, make_folder
from tests.support.postgresql_faults import (
    LATEST,
    RUNNERS,
    fails_within,
    leaving_nothing,
    recovered,
    store_at,
    tasks_end,
    until,
)


@pytest.fixture(scope="module")
def shared_server():
    server = Postgres()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def own_server(shared_server):
    """A server for these tests only, for faults that would affect other tests."""
    with shared_server.admin(options="-c default_transaction_read_only=off") as admin:
        admin.execute("ALTER ROLE postgres RESET ALL")
    shared_server.reset()
    with leaving_nothing(shared_server):
        yield shared_server


@contextmanager
def holding(server, lock, *parameters):
    """Inside the block, hold a lock, such as that of a migration."""
    with server.admin() as admin:
        admin.execute("BEGIN")
        admin.execute(lock, parameters)
        yield
        admin.execute("ROLLBACK")


def waiting(server):
    """Return the number of statements that wait for a lock."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return server.query(waits)[0][0]


# Locks and timeouts


@RUNNERS
def test_call_on_a_locked_table_fails_at_its_deadline_and_cancels_its_statement(runner, postgresql):
    """S12: otherwise the statement would be executed after its call failed."""

    async def check():
        store = store_at(postgresql.url)
        record = make_record()
        await store.create(record)
        with holding(postgresql, "LOCK TABLE sojourn_sessions IN ACCESS EXCLUSIVE MODE"):
            await fails_within(store.load(record.id))
            await fails_within(store.save(next_version(record), 1))
            await fails_within(store.create(make_record()))
            await until(lambda: waiting(postgresql) == 0, "no statement waits for the lock")
        assert await store.load(record.id) == record
        assert await store.count(now()) == 1
        store.close()
        await tasks_end(runner)

    with leaving_nothing(postgresql):
        runner(check())


@pytest.mark.slow
@RUNNERS
def test_a_locked_row_delays_its_own_session_only(runner, postgresql):
    """S12: loads never wait; saves of other sessions succeed in later batches."""

    async def check():
        store = store_at(postgresql.url)
        locked, other = make_record(), make_record()
        await store.create(locked)
        await store.create(other)
        lock = "SELECT 1 FROM sojourn_sessions WHERE id = %s FOR UPDATE"
        with holding(postgresql, lock, locked.id):
            assert await store.load(locked.id) == locked
            assert await store.save(next_version(other), 1) is SAVED
            await fails_within(store.save(next_version(locked), 1))
            assert await store.save(at_version(other, 3), 2) is SAVED
        assert await store.save(next_version(locked), 1) is SAVED
        store.close()
        await tasks_end(runner)

    with leaving_nothing(postgresql):
        runner(check())


@pytest.mark.slow
@RUNNERS
@pytest.mark.parametrize("setting", ["statement_timeout", "lock_timeout"])
def test_statement_timeout_of_the_server_is_a_store_failure(runner, setting, own_server):
    """S12: an administrator set a statement_timeout that is shorter than the deadline."""

    async def check():
        store = store_at(own_server.url)
        record = make_record()
        await store.create(record)
        own_server.query(f"ALTER ROLE postgres SET {setting} = '100ms'")
        store.close()
        limited = store_at(own_server.url)
        assert await limited.load(record.id) == record
        lock = "LOCK TABLE sojourn_sessions IN ACCESS EXCLUSIVE MODE"
        with holding(own_server, lock):
            began = time.monotonic()
            await fails_within(limited.save(next_version(record), 1), match="timeout")
            assert time.monotonic() - began < 0.9
        assert await limited.save(next_version(record), 1) is SAVED
        limited.close()
        await tasks_end(runner)

    runner(check())


@pytest.mark.slow
@RUNNERS
def test_connection_closed_by_idle_session_timeout_is_replaced(runner, own_server):
    """S12: idle_session_timeout closes a connection between two calls."""

    async def check():
        store = store_at(own_server.url)
        record = make_record()
        await store.create(record)
        own_server.query("ALTER ROLE postgres SET idle_session_timeout = '50ms'")
        for version in range(1, 4):
            terminate_connections(own_server)
            await sleep(0.2)  # longer than the server's timeout
            assert await store.save(next_version(record), version) is SAVED
            record = next_version(record)
        store.close()
        await tasks_end(runner)

    runner(check())


# Connections


@pytest.mark.slow
@RUNNERS
def test_too_many_connections_are_reported(runner):
    """S12: the first call after a connection is free succeeds."""
    options = {"max_connections": "5", "superuser_reserved_connections": "0"}
    server = Postgres(options | {"max_wal_senders": "0"})
    server.start()
    server.query("CREATE ROLE shop LOGIN SUPERUSER")

    async def check():
        store = store_at(server.url)
        record = make_record()
        await store.create(record)
        store.close()
        with ExitStack() as stack:
            with suppress(psycopg.OperationalError):
                while True:
                    stack.enter_context(closing(server.admin()))
            late = store_at(server.url)
            for _ in range(3):
                await fails_within(late.load(record.id), 0.9, match="too many clients")
        assert await recovered(functools.partial(late.load, record.id)) == record
        late.close()
        await tasks_end(runner)

    try:
        runner(check())
    finally:
        server.remove()


@RUNNERS
def test_a_store_keeps_three_connections_for_any_number_of_callers(runner, postgresql):
    """S18: per event loop, and for all threads; a server has a hundred for all clients."""

    async def check():
        store = store_at(postgresql.url)
        records = [make_record() for _ in range(50)]
        if runner is with_loop:
            await asyncio.gather(*map(store.create, records))
        else:
            in_threads(*(lambda record=record: run(store.create(record)) for record in records))
        await store.load(records[0].id)
        await store.count(now())
        assert postgresql.connections() <= 3
        store.close()

    with leaving_nothing(postgresql):
        runner(check())


@pytest.mark.slow
@RUNNERS
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_store_reconnects_to_a_restarted_server(runner, mode, own_server):
    """S12: no task or connection remains, and no acknowledged write is lost."""

    async def check():
        store = store_at(own_server.url)
        record = make_record()
        await store.create(record)
        for version in range(1, 4):
            with own_server.refusing(mode):
                for _ in range(3):
                    await fails_within(store.load(record.id), 0.9)
            assert await store.load(record.id) == record
            assert await store.save(next_version(record), version) is SAVED
            record = next_version(record)
        store.close()
        await tasks_end(runner)

    runner(check())


async def increment(store, record):
    """Save fifteen new versions; return whether the last is stored."""
    current, done = record, 0
    while done < 15:
        attempt = next_version(current, body=make_body(n=current.version))
        try:
            answer = await store.save(attempt, current.version)
        except StoreUnavailable:
            answer = Conflict(await recovered(functools.partial(store.load, record.id)))
        if answer is SAVED:
            current, done = attempt, done + 1
        else:
            assert answer.newer.version - current.version in (0, 1)
            current = answer.newer
        await sleep(0.005)  # so that a fault interrupts some of them
    return await recovered(functools.partial(store.load, record.id)) == current


def terminate_connections(server):
    """Terminate all connections, as an administrator may."""
    server.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )


@RUNNERS
def test_terminated_connections_under_load_lose_no_acknowledged_save(runner, postgresql):
    """S10, S12: all connections are terminated repeatedly."""

    async def check():
        store = store_at(postgresql.url)
        records = [make_record() for _ in range(4)]
        for record in records:
            await store.create(record)
        results = []

        async def work(record):
            results.append(await increment(store, record))

        disturber.start()
        if runner is with_loop:
            await asyncio.gather(*map(work, records))
        else:
            in_threads(*(lambda record=record: run(work(record)) for record in records))
        assert results == [True] * 4
        store.close()

    stop = threading.Event()

    def disturb():
        while not stop.wait(0.05):
            terminate_connections(postgresql)

    with leaving_nothing(postgresql):
        disturber = threading.Thread(target=disturb)
        try:
            runner(check())
        finally:
            stop.set()
            disturber.join()


@pytest.mark.slow
@RUNNERS
def test_a_server_that_became_read_only_is_unavailable(runner, own_server):
    """S12: as after a failover; loads still succeed."""

    async def check():
        store = store_at(own_server.url)
        record = make_record()
        await store.create(record)
        own_server.query("ALTER ROLE postgres SET default_transaction_read_only = on")
        terminate_connections(own_server)
        await sleep(0.05)  # this process detects the closed connections
        await fails_within(store.save(next_version(record), 1), match="read-only")
        assert await store.load(record.id) == record
        with own_server.admin(options="-c default_transaction_read_only=off") as admin:
            admin.execute("ALTER ROLE postgres RESET default_transaction_read_only")

        async def save():
            return await store.save(next_version(record), 1)

        assert await recovered(save) is SAVED
        store.close()
        await tasks_end(runner)

    runner(check())


# A full disk


@pytest.fixture
def small_disk():
    """A file system of 128 MB; needs the right to mount one."""
    folder = make_folder("postgresql-disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        folder.rmdir()
        pytest.skip("a full disk is not tested: this user may not mount a tmpfs")
    give(folder)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()


@pytest.mark.slow
@RUNNERS
def test_a_full_disk_is_unavailable_for_writes_only(runner, small_disk):
    """S12: reads still succeed, no acknowledged write is lost, and free space ends the failure."""
    # The write-ahead log is allocated in advance, as on a separate disk.
    options = {"min_wal_size": "32MB", "max_wal_size": "32MB", "autovacuum": "off"}
    server = Postgres(options, folder=small_disk)
    server.start()
    body = make_body(text="x" * 50_000)

    async def check():
        store = store_at(server.url)
        created = []
        await store.create(make_record())
        fill(small_disk)
        with pytest.raises(StoreUnavailable, match="free some space"):
            await create_until_full(store, body, created)
        for record in created:
            assert await store.load(record.id) == record
        await fails_within(store.create(make_record(body=body)))
        (small_disk / "filler").unlink()

        async def create():
            return await store.create(make_record(body=body))

        assert await recovered(create) is True
        for record in created:
            assert await store.load(record.id) == record
            assert await store.delete(record.id) is True
        store.close()
        await tasks_end(runner)

    try:
        runner(check())
    finally:
        server.stop("immediate")


async def create_until_full(store, body, created):
    for _ in range(2_000):
        record = make_record(body=body)
        assert await store.create(record)
        created.append(record)


def fill(folder, left=4 << 20):
    """Fill a file system up to some bytes."""
    status = os.statvfs(folder)
    size = status.f_bavail * status.f_frsize - left
    with Path(folder, "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


# Deadlocks


def at_version(record, version):
    return msgspec.structs.replace(record, version=version)


@pytest.fixture
def without_deadlocks(own_server):
    """Check that the server detects no deadlock during the test."""
    before = own_server.log.count("deadlock detected")
    yield
    assert own_server.log.count("deadlock detected") == before


class RandomOrder:
    """Saves, touches, deletions and creations of the same sessions, in a random order each time.

    Args:
        seed: of the order.
    """

    def __init__(self, store, records, seed):
        self._store = store
        self._records = records
        self._order = random.Random(seed)

    async def in_tasks(self):
        """Make the calls of a round in one tick, so that they form one batch."""
        for version in range(1, 16):
            for result in await asyncio.gather(*self._calls(version)):
                self._check(result)

    def in_threads(self):
        """Make the calls of a round in threads, so that they form a few batches."""
        for version in range(1, 16):
            in_threads(*(lambda c=call: self._check(run(c)) for call in self._calls(version)))

    def _calls(self, version):
        shuffled = list(self._records)
        self._order.shuffle(shuffled)
        return [self._call(record, version) for record in shuffled]

    def _call(self, record, version):
        match self._order.randrange(10):
            case 0:
                return self._store.delete(record.id)
            case 1:
                return self._store.create(record)
            case 2:
                seen_at = record.seen_at + self._order.randrange(1_000)
                return self._store.touch(record.with_seen_at(seen_at))
            case _:
                return self._store.save(at_version(record, version + 1), version)

    def _check(self, result):
        assert result in (True, False, SAVED, GONE) or isinstance(result, Conflict)


@RUNNERS
def test_batches_in_opposite_order_never_deadlock(runner, own_server, without_deadlocks):
    """S12, S13: four stores, which represent four processes, write the same sessions."""

    async def check():
        records = [make_record() for _ in range(60 if runner is with_loop else 12)]
        stores = [store_at(own_server.url, timeout=10) for _ in range(4)]
        for record in records:
            await stores[0].create(record)
        disorders = [RandomOrder(store, records, seed) for seed, store in enumerate(stores)]
        if runner is with_loop:
            await asyncio.gather(*(each.in_tasks() for each in disorders))
        else:
            in_threads(*(each.in_threads for each in disorders))
        for store in stores:
            store.close()
        await tasks_end(runner)

    runner(check())


@pytest.mark.slow
@pytest.mark.parametrize("policy", [LimitPolicy.EVICT_OLDEST, LimitPolicy.EVICT_IDLEST])
def test_evictions_among_saves_never_deadlock(policy, own_server, without_deadlocks):
    """S12, S13: logins evict sessions that others save, touch and delete at the same time."""

    async def check():
        stores = [store_at(own_server.url, timeout=10) for _ in range(3)]
        known = []

        async def log_in(store, number):
            for n in range(20):
                record = login(None, "ada", at=1_000 * number + n)
                known.append(record)
                limit = SessionLimit(5, policy)
                result = await store.save_login(record, 0, limit=limit, now=now())
                assert isinstance(result, LoginSaved)

        async def disturb(store):
            for _ in range(30):
                recent = known[-20:]
                random.shuffle(recent)
                calls = [store.save(next_version(each), each.version) for each in recent]
                calls += [store.touch(each.with_seen_at(now())) for each in recent]
                calls += [store.delete(each.id) for each in recent[:2]]
                await asyncio.gather(*calls)

        await asyncio.gather(
            *(log_in(store, number) for number, store in enumerate(stores)),
            *map(disturb, stores),
        )
        assert len(await stores[0].list_by_index("user:ada")) <= 5
        for store in stores:
            store.close()

    with_loop(check())


# Purges


def test_two_purges_among_saves_remove_each_expired_session_once(own_server, without_deadlocks):
    """S8: neither waits for the other; no valid session is removed."""
    at = now()
    dead = [make_record(seen_at=at - 3 * HOUR, created_at=at - 3 * HOUR) for _ in range(2_000)]
    alive = [make_record() for _ in range(200)]
    stores = [store_at(own_server.url, timeout=5) for _ in range(3)]
    records = dead + alive
    random.shuffle(records)
    run(stores[0].create_many(records))
    counts, durations = queue.SimpleQueue(), []

    def purge(store):
        passes = 0
        while passes < 2:
            began = time.monotonic()
            removed, finished = run(store.purge(at, 50))
            durations.append(time.monotonic() - began)
            counts.put(removed)
            passes += finished

    def write():
        for version in range(1, 6):
            for record in alive[::10]:
                saved = run(stores[2].save(at_version(record, version + 1), version))
                assert saved is SAVED

    in_threads(lambda: purge(stores[0]), lambda: purge(stores[1]), write)
    removed = 0
    while not counts.empty():
        removed += counts.get()
    assert removed == len(dead)
    assert run(stores[0].count(at)) == len(alive)
    assert max(durations) < LATEST
    for store in stores:
        store.close()


# Broadcasts


@pytest.mark.slow
def test_subscription_is_restored_after_a_restart_of_the_server(own_server):
    """S17, S12: a gap is reported, later messages arrive, and close releases everything."""
    store, other = (store_at(own_server.url) for _ in range(2))
    received = queue.SimpleQueue()
    subscription = store.subscribe(received.put, lambda: received.put("gap"))
    assert received.get(timeout=10) == "gap"
    for mode in ("fast", "immediate"):
        own_server.restart(mode)
        assert received.get(timeout=10) == "gap"
        run(recovered(lambda: other.publish("revoked", b"1" * 16, reason="stolen")))
        began = time.monotonic()
        message = received.get(timeout=10)
        assert time.monotonic() - began < 1
        assert (message.kind, message.reason) == ("revoked", "stolen")
    subscription.close()
    store.close()
    other.close()


@pytest.mark.slow
def test_publish_to_an_unreachable_server_fails_within_the_deadline(own_server):
    """S12, S17: the caller gets the error."""

    async def check():
        store = store_at(own_server.url)
        await store.publish("revoked", b"1" * 16)
        with own_server.hanging():
            await fails_within(store.publish("revoked", b"1" * 16))
        await recovered(lambda: store.publish("revoked", b"1" * 16))
        store.close()
        await tasks_end(with_loop)

    with_loop(check())
