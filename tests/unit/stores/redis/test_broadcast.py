"""Broadcast messages between two stores, which represent two processes."""

import asyncio
import logging
import threading
import time

import pytest
import redis

from sojourn._core.concurrency import run
from sojourn.errors import ConfigurationError
from sojourn.store import SAVED, BroadcastMessage, SupportsBroadcast
from sojourn.stores.broadcast_messages import MESSAGE_FORMAT, encode_message
from sojourn.stores.redis import RedisStore
from sojourn.stores.urls import open_store
from sojourn.testing.records import make_record, next_version
from tests.integration.proxy import Proxy
from tests.integration.valkey import Valkey
from tests.unit.stores.redis.subscriber_probe import SubscriberProbe

ONE, TWO = b"1" * 16, b"2" * 16


@pytest.fixture
def stores(valkey):
    made = [open_store(valkey.url, realm="default", timeout=2.0) for _ in range(2)]
    yield made
    for store in made:
        store.close()


def test_the_store_has_the_capability(stores):
    assert isinstance(stores[0], SupportsBroadcast)


def test_every_subscriber_receives_a_revocation(stores):
    """S17: with session, version and reason; the publisher's own subscriber too."""
    probes = [SubscriberProbe(store) for store in stores]
    run(stores[0].publish("revoked", ONE, version=7, reason="stolen phone"))
    for probe in probes:
        assert probe.next() == BroadcastMessage(MESSAGE_FORMAT, "revoked", ONE, 7, "stolen phone")


def test_changes_are_delivered_for_watched_sessions_only(stores):
    """S17: two calls of watch need two calls of unwatch."""
    probe = SubscriberProbe(stores[1])
    for _ in range(2):
        probe.subscription.watch(ONE)
    probe.subscription.unwatch(ONE)
    probe.until_watched(stores[0], ONE)
    run(stores[0].publish("changed", TWO, version=2))
    run(stores[0].publish("changed", ONE, version=3))
    assert probe.next() == BroadcastMessage(MESSAGE_FORMAT, "changed", ONE, 3, "")
    probe.subscription.unwatch(ONE)
    probe.subscription.watch(TWO)
    probe.until_watched(stores[0], TWO)
    run(stores[0].publish("changed", ONE, version=4))
    run(stores[0].publish("revoked", TWO))
    assert probe.next().kind == "revoked"


def test_a_save_publishes_its_change(valkey, stores):
    """S17, S18: with the new version, in the same command; a rejected save publishes nothing."""
    probe = SubscriberProbe(stores[1])
    probe.subscription.watch(ONE)
    probe.until_watched(stores[0], ONE)
    first = make_record(id=ONE)
    run(stores[0].create(first))
    newer = next_version(first)
    with redis.Redis.from_url(valkey.url) as admin:
        admin.config_resetstat()
        assert run(stores[0].save(newer, 1)) is SAVED
        assert run(stores[0].save(newer, 1)) is not SAVED
        run(stores[0].touch(newer))
        calls = {name: stats["calls"] for name, stats in admin.info("commandstats").items()}
    assert probe.next() == BroadcastMessage(MESSAGE_FORMAT, "changed", ONE, 2, "")
    assert calls.get("cmdstat_publish", 0) <= 1
    run(stores[0].publish("revoked", TWO))
    assert probe.next().kind == "revoked", "only the save that happened was published"


def test_two_realms_receive_only_their_own_messages(valkey, stores):
    """S14: one server, two installations."""
    other = open_store(valkey.url, realm="other", timeout=2.0)
    probe = SubscriberProbe(stores[0])
    run(other.publish("revoked", ONE))
    run(stores[1].publish("revoked", TWO))
    assert probe.next().session_id == TWO
    other.close()


def test_foreign_messages_are_ignored(valkey, stores):
    """S17: damaged ones and those of a later format too; the subscription continues."""
    probe = SubscriberProbe(stores[0])
    with redis.Redis.from_url(valkey.url) as admin:
        for foreign in (b"", b"\xff", b"\x01", b"\x95\x02\xa7revoked\xc4\x01x\x01\xa0"):
            admin.publish("sojourn:default:events", foreign)
        good = encode_message("revoked", ONE, version=1, reason="")
        for _ in range(2):
            admin.publish("sojourn:default:events", good)
    assert [probe.next(), probe.next()] == [
        BroadcastMessage(MESSAGE_FORMAT, "revoked", ONE, 1, "")
    ] * 2


def test_a_reconnected_subscriber_reports_a_gap(valkey, caplog):
    """S17: it reconnects and subscribes to its watched sessions again."""
    proxy = Proxy(valkey.port)
    store = open_store(proxy.url, realm="default", timeout=2.0)
    publisher = open_store(valkey.url, realm="default", timeout=2.0)
    probe = SubscriberProbe(store)
    probe.subscription.watch(ONE)
    for _ in range(2):
        proxy.cut()
        assert probe.next() == "gap"
        run(publisher.publish("changed", ONE, version=5))
        assert probe.next().version == 5
    store.close()
    publisher.close()
    proxy.close()


@pytest.fixture
def own_valkey(tmp_path):
    """A server of this test, which it can stop."""
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.stop()


def test_an_outage_is_logged_once(own_valkey, caplog):
    """S12: retries are logged at DEBUG; the next outage is a warning again."""
    store = open_store(own_valkey.url, realm="default", timeout=2.0)
    probe = SubscriberProbe(store)
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.DEBUG, logger="sojourn"), own_valkey.refusing():
            while len(caplog.records) < 3:
                time.sleep(0.02)  # only the log shows what the thread does
        assert probe.next() == "gap"
        tries = [record.levelname for record in caplog.records]
        assert 1 <= tries.count("WARNING") <= 2, "the connection broke, and reconnecting failed"
        assert "DEBUG" in tries
    store.close()


def test_close_ends_the_thread_and_the_connection(valkey, stores):
    """No thread and no connection of a subscriber is left."""
    others = set(threading.enumerate())
    probe = SubscriberProbe(stores[0])
    probe.subscription.close()
    probe.subscription.close()
    found = set(threading.enumerate()) - others
    assert [t for t in found if t.name == "sojourn-subscriber"] == []
    with redis.Redis.from_url(valkey.url) as admin:
        assert admin.pubsub_numsub("sojourn:default:events") == [(b"sojourn:default:events", 0)]


def test_publishing_shares_the_batch_of_the_tick(stores):
    """S18: it is one more command of the batch."""
    probe = SubscriberProbe(stores[1])

    async def publish():
        store = stores[0]
        await asyncio.gather(store.publish("revoked", ONE), store.load(TWO))
        store.close()

    asyncio.run(publish())
    assert probe.next().session_id == ONE


def test_an_asyncio_client_cannot_subscribe(valkey):
    store = RedisStore(client=redis.asyncio.Redis.from_url(valkey.url))
    with pytest.raises(ConfigurationError, match="give RedisStore a URL"):
        store.subscribe(print, print)
