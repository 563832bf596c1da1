"""A PostgreSQL server that crashes under load, and one that is replaced by its replica: S11, S12.

docs/postgresql.md describes each durability.
"""

import asyncio
import itertools
import logging
import queue
import threading
import time

import pytest

from sojourn._core.concurrency import run
from sojourn.errors import StoreUnavailable
from sojourn.store import REVOKED, SAVED
from sojourn.testing.decorators import in_threads
from sojourn.testing.records import login, make_record, next_version, save_login
from tests.integration.postgresql import Postgres
from tests.integration.valkey import PATIENCE
from tests.support.postgresql_faults import (
    fails_within,
    leaving_nothing,
    recovered,
    store_at,
    tasks_end,
    with_loop,
)
from tests.support.write_load import under_load

CRASHES = 3

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def server():
    """A server that waits for its disk."""
    server = Postgres(durable=True)
    server.start()
    try:
        with leaving_nothing(server):
            yield server
    finally:
        server.remove()


def report(caplog, name, lost, saves):
    caplog.set_level(logging.INFO)
    logging.getLogger("tests").info("%s: %d of %d saves lost", name, lost, saves)


@pytest.mark.parametrize("durability", ["durable", "relaxed"])
def test_acknowledged_writes_survive_a_crash_of_the_server(durability, server, caplog):
    """S11, S12: `pg_ctl stop -m immediate` three times. Lost relaxed commits are logged."""
    store = store_at(f"{server.url}?durability={durability}")

    def disturb(_):
        for _ in range(CRASHES):
            time.sleep(1)  # some load between two crashes; relaxed commits reach the disk
            with server.refusing("immediate"):
                pass

    async def check():
        load = await under_load(store, disturb)
        lost = await recovered(load.lost)
        report(caplog, durability, lost, sum(load.acknowledged.values()))
        assert sum(load.acknowledged.values()) > 100
        assert load.failures
        assert lost == 0 or durability != "durable"
        await tasks_end(with_loop)
        store.close()

    asyncio.run(check())


@pytest.mark.parametrize("durability", ["durable", "relaxed"])
def test_revoked_sessions_are_not_restored_by_a_crash(durability, server):
    """S3, S8, S16: deletions and cutoffs are durable even if other commits do not wait."""
    server.query("ALTER SYSTEM SET wal_writer_delay = '10s'")  # no other writer
    server.query("SELECT pg_reload_conf()")
    store = store_at(f"{server.url}?durability={durability}")
    deleted, kept, rejected = make_record(), make_record(), login(None, "ada")
    for record in (deleted, kept):
        assert run(store.create(record))
    assert run(save_login(store, rejected, 0))
    assert run(store.delete(deleted.id))
    run(store.invalidate_logins("user:ada", rejected.authenticated_at + 1))
    with server.refusing("immediate"):
        pass
    assert run(recovered(lambda: store.load(deleted.id))) is None
    assert run(save_login(store, login(None, "ada", at=rejected.authenticated_at), 0)) is REVOKED
    before = make_record()
    assert run(store.create(before))
    run(store.invalidate_all(before.created_at + 1))
    with server.refusing("immediate"):
        pass
    assert run(recovered(lambda: store.load(before.id))) is None
    store.close()


def test_acknowledged_writes_of_threads_survive_a_crash_of_the_server(server):
    """S11, S12: creations and saves of eight threads, without an event loop."""
    store = store_at(server.url)
    acknowledged, ending = {}, threading.Event()

    def write(_):
        for n in itertools.count():
            if ending.is_set():
                return
            record = make_record()
            try:
                if run(store.create(record)):
                    acknowledged[record.id] = record
                if n % 2 and run(store.save(next_version(record), 1)) is SAVED:
                    acknowledged[record.id] = next_version(record)
            except StoreUnavailable:
                time.sleep(0.01)  # until the server is available

    def crash():
        for _ in range(CRASHES):
            time.sleep(0.5)  # some load between two crashes
            with server.refusing("immediate"):
                pass
        time.sleep(0.5)  # as above
        ending.set()

    run(recovered(lambda: store.count(0)))
    in_threads(crash, *(lambda n=n: write(n) for n in range(8)))
    assert len(acknowledged) > 100
    for record in acknowledged.values():
        found = run(recovered(lambda record=record: store.load(record.id)))
        # A save whose reply was lost may have been stored.
        assert found in (record, next_version(record))
    store.close()


@pytest.fixture
def pair(server):
    """A primary that waits for its replica, and the replica."""
    replica = server.make_replica()
    server.query("ALTER SYSTEM SET synchronous_standby_names = '*'")
    server.query("SELECT pg_reload_conf()")
    yield server, replica
    replica.remove()


def url_of(*servers):
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    return f"postgresql://postgres@{hosts}/postgres"


def test_a_promoted_replica_is_used_without_a_restart(pair, caplog):
    """S11, S12: under load; writes acknowledged by a synchronous replica are kept."""
    primary, replica = pair
    store = store_at(url_of(primary, replica))

    def disturb(_):
        time.sleep(0.5)  # some load before
        primary.stop("immediate")
        replica.promote()

    async def check():
        load = await under_load(store, disturb)
        lost = await recovered(load.lost)
        saves = sum(load.acknowledged.values())
        report(caplog, f"failover of {load.outage():.1f} s", lost, saves)
        assert saves > 100
        assert load.failures
        assert lost == 0
        assert load.outage() < 10
        await tasks_end(with_loop)
        store.close()

    asyncio.run(check())
    assert replica.connections() == 0
    primary.start()  # the fixture checks its connections


@pytest.mark.parametrize("first", ["the primary", "the replica"])
def test_primary_is_found_at_any_position_of_the_url(pair, first):
    """S12: a replica alone is unavailable for writes."""
    primary, replica = pair
    ordered = pair if first == "the primary" else reversed(pair)
    store = store_at(url_of(*ordered))
    record = make_record()
    assert run(store.create(record)) is True
    assert run(store.save(next_version(record), 1)) is SAVED
    store.close()
    primary.wait_for_replica()
    alone = store_at(replica.url)
    assert run(alone.load(record.id)) == next_version(record)
    run(fails_within(alone.save(next_version(next_version(record)), 2), match="primary"))
    alone.close()


@pytest.mark.parametrize("first", ["the primary", "the replica"])
def test_messages_arrive_from_the_primary_at_any_position_of_the_url(pair, first):
    """S17: after a failover, the former primary may come back as the first host, a replica."""
    ordered = pair if first == "the primary" else reversed(pair)
    store = store_at(url_of(*ordered))
    received = queue.Queue()
    subscription = store.subscribe(received.put, lambda: received.put("gap"))
    assert received.get(timeout=PATIENCE) == "gap"  # it listens
    run(store.publish("revoked", bytes(16), reason="stolen"))
    assert received.get(timeout=PATIENCE).reason == "stolen"
    subscription.close()
    store.close()


def test_store_fails_over_from_a_hanging_primary_to_the_promoted_replica(pair):
    """S12: its connections stay open, and it accepts new ones without replying."""
    primary, replica = pair
    store = store_at(url_of(primary, replica))
    record = make_record()
    assert run(store.create(record)) is True
    with primary.hanging():
        run(fails_within(store.save(next_version(record), 1)))
        replica.promote()
        began = time.monotonic()
        assert run(recovered(lambda: store.load(record.id))) == record
        assert run(recovered(lambda: store.save(next_version(record), 1))) is SAVED
        assert time.monotonic() - began < 5
        store.close()
    assert replica.connections() == 0
