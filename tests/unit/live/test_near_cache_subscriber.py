"""NearCacheSubscriber: subscribes, probes, and applies messages to the near cache."""

import concurrent.futures
import os
import threading

import pytest

from sojourn.errors import StoreUnavailable
from sojourn.live.near_cache import NearCache
from sojourn.live.near_cache_subscriber import NearCacheSubscriber
from sojourn.store import BroadcastMessage
from sojourn.testing.records import make_record
from tests.support.broadcast_store import BroadcastingStore, wait_until
from tests.support.near_cache_process import Time


class Harness:
    """A subscriber over a bus, which works in the calling thread."""

    def __init__(self):
        self.time = Time()
        self.store = BroadcastingStore()
        self.bus = self.store.bus
        self.cache = NearCache(1.0, 10_000, monotonic=self.time.monotonic, wall=self.time.wall)
        self.subscriber = NearCacheSubscriber(self.store, self.cache)
        self.threaded = self.cache.request_confirmation
        self.gaps = 0
        self.subscriber.request_confirmation = self.count_gap
        self.cache.request_confirmation = lambda: None

    def count_gap(self):
        self.gaps += 1

    def load(self):
        record = make_record()
        self.cache.put(self.cache.reserve(record.id), record)
        return record

    def send(self, kind, session_id=b"", version=0):
        self.bus.deliver(BroadcastMessage(1, kind, session_id, version, ""))


@pytest.fixture
def near():
    harness = Harness()
    yield harness
    harness.subscriber.close()


@pytest.fixture
def confirmed(near):
    near.subscriber.probe()  # subscribes
    near.subscriber.probe()
    assert near.cache.is_confirmed()
    return near


def test_a_probe_that_returns_confirms_the_subscription(near):
    """N1: from the instant at which it was sent."""
    near.subscriber.probe()
    assert not near.cache.is_confirmed()
    near.bus.hold()
    near.subscriber.probe()
    near.time.now += 2.5
    near.bus.release()
    assert near.cache.is_confirmed()
    near.time.now += 0.5
    assert not near.cache.is_confirmed()


@pytest.mark.parametrize("kind", ["revoked", "rotated", "changed"])
def test_a_message_removes_its_session(confirmed, kind):
    """N2, S17: once or several times, and only its session."""
    record, other = confirmed.load(), confirmed.load()
    confirmed.bus.copies = 3
    confirmed.send(kind, record.id)
    assert confirmed.cache.get(record.id) is None
    assert confirmed.cache.get(other.id) is other


def test_a_message_about_all_sessions_empties_the_memory(confirmed):
    """N2: revoke_all."""
    records = [confirmed.load() for _ in range(3)]
    confirmed.send("all-before", version=1)
    assert [confirmed.cache.get(record.id) for record in records] == [None] * 3
    assert confirmed.cache.is_confirmed()


def test_a_gap_empties_the_memory_until_a_probe_has_returned(confirmed):
    """N1, N2: a message may have been missed."""
    record = confirmed.load()
    confirmed.bus.reconnect()
    assert confirmed.gaps == 2  # one at the start; each requests a probe
    assert confirmed.cache.get(record.id) is None
    again = confirmed.load()
    assert confirmed.cache.get(again.id) is None
    confirmed.subscriber.probe()
    assert confirmed.cache.get(again.id) is again


def test_a_probe_from_before_a_gap_confirms_nothing(confirmed):
    """N1: it was published before messages were missed."""
    confirmed.bus.hold()
    confirmed.subscriber.probe()
    old = list(confirmed.bus.held)
    confirmed.bus.reconnect()
    for message in old:
        confirmed.bus.deliver(message)
    assert not confirmed.cache.is_confirmed()


def test_a_missing_probe_empties_the_memory(confirmed):
    """N2: what was published between two probes may be lost, too, without a gap."""
    record = confirmed.load()
    confirmed.bus.cut = True
    confirmed.subscriber.probe()
    confirmed.bus.cut = False
    assert confirmed.cache.get(record.id) is record
    confirmed.subscriber.probe()
    assert confirmed.cache.get(record.id) is None
    assert confirmed.cache.is_confirmed()


def test_a_broken_subscription_is_detected_within_three_seconds(confirmed):
    """N1: although nothing reports it."""
    confirmed.bus.cut = True
    confirmed.cache.request_confirmation = confirmed.subscriber.probe
    for _ in range(30):
        confirmed.time.now += 0.1
        confirmed.cache.get(b"1" * 16)
    assert confirmed.cache.get(confirmed.load().id) is None
    assert len(confirmed.bus.published) < 10


def test_many_lost_probes_take_no_memory_and_are_not_forgotten(confirmed):
    """N2, N5: the first that returns empties the memory."""
    confirmed.bus.cut = True
    for _ in range(100):
        confirmed.subscriber.probe()
    record = confirmed.load()
    confirmed.bus.cut = False
    assert confirmed.subscriber.probes() <= 8
    confirmed.subscriber.probe()
    assert confirmed.cache.get(record.id) is None


def test_probes_of_other_processes_do_not_confirm(confirmed):
    """N1, S17: nor does a forged message, nor a second copy of an own one."""
    confirmed.time.now += 10
    for message in list(confirmed.bus.published):
        confirmed.bus.deliver(message)
    confirmed.send("rotated", b"p" * 16)
    assert not confirmed.cache.is_confirmed()


def test_a_store_that_fails_is_called_again(near):
    """N1: nothing is served meanwhile."""
    subscribe, near.store.subscribe = near.store.subscribe, None
    near.subscriber.probe()

    async def fail(*_, **__):
        raise StoreUnavailable("down")

    near.store.subscribe = subscribe
    near.store.publish = fail
    near.subscriber.probe()
    near.subscriber.probe()
    assert not near.cache.is_confirmed()
    del near.store.publish
    near.subscriber.probe()
    assert near.cache.is_confirmed()


def test_requests_do_not_wait_for_the_subscription(near):
    """N1: a thread subscribes and sends probes; one is enough for many requests."""
    release, entered = threading.Event(), threading.Event()
    publish, threads = near.store.publish, set()

    async def slow(*arguments, **options):
        threads.add(threading.current_thread().name)
        entered.set()
        assert release.wait(10)
        await publish(*arguments, **options)

    near.store.publish = slow
    del near.subscriber.request_confirmation  # the method
    near.threaded()
    assert entered.wait(10)  # subscribing has reported a gap, which requests a probe
    for _ in range(50):
        near.threaded()
    release.set()
    wait_until(near.cache.is_confirmed)
    near.subscriber.close()
    assert len(threads) == 1
    assert len(near.bus.published) <= 3


class EagerExecutor:
    """An executor whose ``submit`` returns when the work is done, as it may under gevent."""

    def __init__(self, *_):
        self.threads = []

    def submit(self, function):
        self.threads.append(threading.Thread(target=function, daemon=True))
        self.threads[-1].start()
        self.threads[-1].join(5)
        assert not self.threads[-1].is_alive(), "the work waits for the caller"

    def shutdown(self, *, wait, cancel_futures):
        assert not any(thread.is_alive() for thread in self.threads)


def test_a_request_holds_no_lock_while_the_thread_starts(near, monkeypatch):
    """N1: gevent runs the new thread at once, and patches locks after a fork or an import."""
    monkeypatch.setattr(concurrent.futures, "ThreadPoolExecutor", EagerExecutor)
    del near.subscriber.request_confirmation  # the method
    near.threaded()
    near.threaded()
    assert near.cache.is_confirmed()


def test_a_thread_that_cannot_start_is_started_by_a_later_request(near, monkeypatch):
    """N1: the system has no thread left for a while."""
    submit = EagerExecutor.submit
    del near.subscriber.request_confirmation  # the method

    def refuse(self, function):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(concurrent.futures, "ThreadPoolExecutor", EagerExecutor)
    monkeypatch.setattr(EagerExecutor, "submit", refuse)
    near.threaded()
    monkeypatch.setattr(EagerExecutor, "submit", submit)
    near.threaded()
    near.threaded()
    assert near.cache.is_confirmed()


def test_a_closed_subscriber_serves_and_sends_nothing(confirmed):
    """N1: later messages and requests change nothing."""
    record = confirmed.load()
    confirmed.subscriber.close()
    confirmed.subscriber.close()
    assert confirmed.cache.get(record.id) is None
    assert confirmed.bus.subscriptions == []
    confirmed.threaded()
    assert not confirmed.cache.is_confirmed()


def test_a_subscription_that_is_made_while_the_subscriber_closes_is_closed(near):
    """N1: no thread and no connection is left behind."""
    subscribe = near.store.subscribe

    def slow(*arguments):
        near.subscriber.close()
        return subscribe(*arguments)

    near.store.subscribe = slow
    near.subscriber.probe()
    assert near.bus.subscriptions == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_subscribes_by_itself(confirmed):
    """N5, N2: it serves nothing of the parent's, whose messages it does not receive."""
    record = confirmed.load()
    assert confirmed.cache.get(record.id) is record
    child = os.fork()
    if not child:
        kept = confirmed.cache.get(record.id) is not None or confirmed.cache.is_confirmed()
        confirmed.subscriber.probe()
        os._exit(1 if kept or len(confirmed.bus.subscriptions) != 2 else 0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert confirmed.cache.get(record.id) is record
