"""BroadcastTests pass for a correct store and fail for each faulty one (S17)."""

import queue
import threading
import time
from contextlib import contextmanager

import pytest

from sojourn.errors import StoreUnavailable
from sojourn.store import SAVED, BroadcastMessage
from sojourn.stores.memory import MemoryStore
from sojourn.testing.store_suite import broadcast
from sojourn.testing.store_suite.broadcast import BroadcastTests

#: Seconds that a test waits for a message that a faulty store does not send.
WAIT_TIMEOUT = 0.5


class Server:
    """The state that the store objects of one test share."""

    def __init__(self):
        self.records = {}
        self.subscriptions = []
        self.threads = []
        self.is_down = False

    @contextmanager
    def outage(self):
        self.is_down = True
        yield
        self.is_down = False
        for subscription in self.subscriptions:
            subscription.reconnect()

    def stop(self):
        for tasks in self.threads:
            tasks.put(None)


class Subscription:
    """One thread, which calls the handlers."""

    def __init__(self, server, realm, on_message, on_gap):
        self.server, self.realm, self.on_message, self.on_gap = server, realm, on_message, on_gap
        self.tasks = queue.SimpleQueue()
        self.watched = {}
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        server.threads.append(self.tasks)
        server.subscriptions.append(self)
        self.begin()

    def run(self):
        while (task := self.tasks.get()) is not None:
            task()

    def begin(self):
        self.tasks.put(self.on_gap)

    def reconnect(self):
        self.tasks.put(self.on_gap)

    def deliver(self, realm, message):
        watched = message.kind != "changed" or self.watched.get(message.session_id, 0) > 0
        if realm == self.realm and watched:
            self.tasks.put(lambda: self.on_message(message))

    def watch(self, session_id):
        self.watched[session_id] = self.watched.get(session_id, 0) + 1

    def unwatch(self, session_id):
        self.watched[session_id] -= 1

    def close(self):
        if self in self.server.subscriptions:
            self.server.subscriptions.remove(self)
            self.tasks.put(None)
            self.thread.join()


class Store:
    """A memory store with broadcast."""

    subscription = Subscription

    def __init__(self, server, realm):
        self.server = server
        self.realm = realm
        self.records = server.records.setdefault(realm, MemoryStore())

    def __getattr__(self, name):
        return getattr(self.records, name)

    async def save(self, record, expected_version):
        answer = await self.records.save(record, expected_version)
        if answer is SAVED:
            self.send("changed", record.id, record.version, "")
        return answer

    async def publish(self, kind, *session_ids, version=0, reason=""):
        if self.server.is_down:
            raise StoreUnavailable("the server is down. Try again later")
        for session_id in session_ids:
            self.send(kind, session_id, version, reason)

    def send(self, *what):
        for subscription in list(self.server.subscriptions):
            subscription.deliver(self.realm, BroadcastMessage(1, *what))

    def subscribe(self, on_message, on_gap):
        return self.subscription(self.server, self.realm, on_message, on_gap)


class Suite(BroadcastTests):
    """The suite over a given store class."""

    deadline = 1.0

    def __init__(self, store=Store):
        self.store = store
        self.server = Server()

    def make_store(self, realm):
        return self.store(self.server, realm)

    def outage(self, kind):
        return self.server.outage()


TESTS = [name for name in dir(BroadcastTests) if name.startswith("test_")]


@pytest.mark.parametrize("test", TESTS)
def test_a_correct_store_passes(test):
    """S17."""
    suite = Suite()
    getattr(suite, test)()
    suite.server.stop()


# Faults of a store


class NeverPublishes(Store):
    def send(self, *what):
        pass


class DropsReason(Store):
    def send(self, kind, session_id, version, reason):
        super().send(kind, session_id, version, "")


class IgnoresRealms(Store):
    def send(self, *what):
        for subscription in list(self.server.subscriptions):
            subscription.deliver(subscription.realm, BroadcastMessage(1, *what))


class DeletesOnRevoked(Store):
    async def publish(self, kind, *session_ids, version=0, reason=""):
        await super().publish(kind, *session_ids, version=version, reason=reason)
        for session_id in session_ids if kind == "revoked" else ():
            await self.records.delete(session_id)


class PublishesOnlyTheFirst(Store):
    async def publish(self, kind, *session_ids, version=0, reason=""):
        await super().publish(kind, *session_ids[:1], version=version, reason=reason)


class PublishesBeforeSave(Store):
    async def save(self, record, expected_version):
        self.send("changed", record.id, record.version, "")
        return await self.records.save(record, expected_version)


class HidesSaves(Store):
    async def save(self, record, expected_version):
        return await self.records.save(record, expected_version)


class IgnoresOutage(Store):
    async def publish(self, kind, *session_ids, version=0, reason=""):
        if not self.server.is_down:
            await super().publish(kind, *session_ids, version=version, reason=reason)


# Faults of a subscription


class NoGapAtStart(Subscription):
    def begin(self):
        pass


class IgnoresWatch(Subscription):
    def deliver(self, realm, message):
        if realm == self.realm:
            self.tasks.put(lambda: self.on_message(message))


class UnwatchesAtOnce(Subscription):
    def unwatch(self, session_id):
        self.watched[session_id] = 0


class NeverUnwatches(Subscription):
    def unwatch(self, session_id):
        pass


class NeverCloses(Subscription):
    def close(self):
        pass


class LeavesThread(Subscription):
    def close(self):
        if self in self.server.subscriptions:
            self.server.subscriptions.remove(self)


class NoGapAfterOutage(Subscription):
    def reconnect(self):
        pass


class ForgetsWatched(Subscription):
    def reconnect(self):
        self.watched.clear()
        super().reconnect()


class BlocksInWatch(Subscription):
    def watch(self, session_id):
        super().watch(session_id)
        if self.server.is_down:
            time.sleep(0.6)  # the fault


RECEIVED = "test_every_subscriber_receives_a_message"
CHANGE = "test_a_save_is_published_to_watching_subscribers"
UNWATCHED = "test_unwatch_ends_the_messages_about_a_session"
GAP = "test_a_disconnected_subscriber_receives_a_gap"


@pytest.mark.parametrize(
    ("test", "fault"),
    [
        (RECEIVED, NeverPublishes),
        (RECEIVED, DropsReason),
        (RECEIVED, NoGapAtStart),
        ("test_messages_of_realms_are_isolated", IgnoresRealms),
        ("test_a_message_changes_no_record", DeletesOnRevoked),
        ("test_one_call_publishes_a_message_for_each_session", PublishesOnlyTheFirst),
        (CHANGE, HidesSaves),
        (CHANGE, PublishesBeforeSave),
        (CHANGE, IgnoresWatch),
        (UNWATCHED, UnwatchesAtOnce),
        (UNWATCHED, NeverUnwatches),
        ("test_a_closed_subscription_receives_nothing", NeverCloses),
        ("test_closed_subscriptions_leave_no_thread", LeavesThread),
        (GAP, IgnoresOutage),
        (GAP, NoGapAfterOutage),
        (GAP, ForgetsWatched),
        (GAP, BlocksInWatch),
    ],
)
def test_a_faulty_store_fails(test, fault, monkeypatch):
    """S17: each test fails for a store or a subscription with a fault that it must detect."""
    monkeypatch.setattr(broadcast, "WAIT_TIMEOUT", WAIT_TIMEOUT)
    store = fault
    if issubclass(fault, Subscription):
        store = type(fault.__name__, (Store,), {"subscription": fault})
    suite = Suite(store)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        getattr(suite, test)()
    suite.server.stop()
