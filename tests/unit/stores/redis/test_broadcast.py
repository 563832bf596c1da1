"""What one process tells, another hears; what is missed is known to be missed.

Two stores stand for two processes: they share nothing but the server.
"""

import asyncio
import logging
import threading
import time

import pytest
import redis

from sojourn._core.concurrency import run
from sojourn.errors import ConfigurationError
from sojourn.store import SAVED, BroadcastMessage, SupportsBroadcast
from sojourn.stores.redis import RedisStore
from sojourn.stores.redis.encoding import MESSAGE_FORMAT, encode_message
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


def test_a_revocation_is_heard_by_everybody(stores):
    """S17: with the session, the version and the reason; by who told it, too."""
    probes = [SubscriberProbe(store) for store in stores]
    run(stores[0].publish("revoked", ONE, version=7, reason="stolen phone"))
    for probe in probes:
        assert probe.next() == BroadcastMessage(MESSAGE_FORMAT, "revoked", ONE, 7, "stolen phone")


def test_changes_are_heard_only_of_sessions_that_are_watched(stores):
    """S17: a process hears of those it has open, and of as many openings as were closed."""
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


def test_a_save_tells_who_watches_in_its_own_step(valkey, stores):
    """S17, S18: with the new version; what did not happen is not told, and nothing costs a call."""
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
        calls = {name: told["calls"] for name, told in admin.info("commandstats").items()}
    assert probe.next() == BroadcastMessage(MESSAGE_FORMAT, "changed", ONE, 2, "")
    assert calls.get("cmdstat_publish", 0) <= 1
    run(stores[0].publish("revoked", TWO))
    assert probe.next().kind == "revoked", "only the save that happened was told"


def test_two_realms_do_not_hear_each_other(valkey, stores):
    """S14: one server, two installations."""
    other = open_store(valkey.url, realm="other", timeout=2.0)
    probe = SubscriberProbe(stores[0])
    run(other.publish("revoked", ONE))
    run(stores[1].publish("revoked", TWO))
    assert probe.next().session_id == TWO
    other.close()


def test_noise_is_passed_over(valkey, stores):
    """S17: what is none of ours, or of a later version, is not heard and ends nothing."""
    probe = SubscriberProbe(stores[0])
    with redis.Redis.from_url(valkey.url) as admin:
        for noise in (b"", b"\xff", b"\x01", b"\x95\x02\xa7revoked\xc4\x01x\x01\xa0"):
            admin.publish("sojourn:default:events", noise)
        good = encode_message("revoked", ONE, version=1, reason="")
        for _ in range(2):
            admin.publish("sojourn:default:events", good)
    assert [probe.next(), probe.next()] == [
        BroadcastMessage(MESSAGE_FORMAT, "revoked", ONE, 1, "")
    ] * 2


def test_a_listener_that_was_away_is_told_of_the_gap(valkey, caplog):
    """S17: it connects again by itself, and hears what it watched before."""
    proxy = Proxy(valkey.port)
    store = open_store(proxy.url, realm="default", timeout=2.0)
    teller = open_store(valkey.url, realm="default", timeout=2.0)
    probe = SubscriberProbe(store)
    probe.subscription.watch(ONE)
    for _ in range(2):
        proxy.cut()
        assert probe.next() == "gap"
        run(teller.publish("changed", ONE, version=5))
        assert probe.next().version == 5
    store.close()
    teller.close()
    proxy.close()


@pytest.fixture
def own_valkey(tmp_path):
    """A server of the test's own, which may be away."""
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.stop()


def test_an_outage_is_told_once_however_often_it_is_tried_again(own_valkey, caplog):
    """S12: the log stays readable; the next outage is told again."""
    store = open_store(own_valkey.url, realm="default", timeout=2.0)
    probe = SubscriberProbe(store)
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.DEBUG, logger="sojourn"), own_valkey.refusing():
            while len(caplog.records) < 3:
                time.sleep(0.02)  # a thread tries, and says so nowhere but here
        assert probe.next() == "gap"
        tries = [record.levelname for record in caplog.records]
        assert 1 <= tries.count("WARNING") <= 2, "that it broke, and that it cannot be made anew"
        assert "DEBUG" in tries
    store.close()


def test_closing_ends_the_thread_and_the_connection(valkey, stores):
    """Architecture: nothing is left of a listener."""
    probe = SubscriberProbe(stores[0])
    probe.subscription.close()
    probe.subscription.close()
    assert [t for t in threading.enumerate() if t.name == "sojourn-subscriber"] == []
    with redis.Redis.from_url(valkey.url) as admin:
        assert admin.pubsub_numsub("sojourn:default:events") == [(b"sojourn:default:events", 0)]


def test_announcing_under_a_loop_joins_the_other_calls_of_the_tick(stores):
    """S18: it is one more command of the batch."""
    probe = SubscriberProbe(stores[1])

    async def tell():
        store = stores[0]
        await asyncio.gather(store.publish("revoked", ONE), store.load(TWO))
        store.close()

    asyncio.run(tell())
    assert probe.next().session_id == ONE


def test_an_asyncio_client_cannot_listen_and_says_so(valkey):
    store = RedisStore(client=redis.asyncio.Redis.from_url(valkey.url))
    with pytest.raises(ConfigurationError, match="give RedisStore a URL"):
        store.subscribe(print, print)
