"""Memory stores with broadcast; messages can be lost, held, duplicated and reordered."""

import threading
import time

from sojourn.store import BroadcastMessage
from sojourn.testing.app_suite.base import _ListableStore
from sojourn.testing.faults import FaultyStore

#: Seconds to wait for a thread of the library.
_WAIT_TIMEOUT = 10.0


class Bus:
    """Delivers the messages of one store to its subscribers.

    Attributes:
        cut: messages are lost, and no gap is reported.
        held: messages that wait for ``release``; None to deliver each at once.
        copies: how often each message is delivered.
        published: every message.
    """

    def __init__(self):
        self.cut = False
        self.held = None
        self.copies = 1
        self.published = []
        self.subscriptions = []

    def publish(self, message):
        self.published.append(message)
        if self.cut:
            return
        if self.held is not None:
            self.held.append(message)
            return
        self.deliver(message)

    def deliver(self, message):
        for _ in range(self.copies):
            for subscription in list(self.subscriptions):
                subscription.on_message(message)

    def hold(self):
        self.held = []

    def release(self, order=lambda messages: messages):
        """Deliver the held messages, in the order that a function of them returns."""
        held, self.held = self.held, None
        for message in order(held):
            self.deliver(message)

    def reconnect(self):
        """Report a gap to every subscriber, as after a lost connection."""
        self.cut = False
        for subscription in list(self.subscriptions):
            subscription.on_gap()


class BusSubscription:
    def __init__(self, bus, on_message, on_gap):
        self.bus, self.on_message, self.on_gap = bus, on_message, on_gap
        bus.subscriptions.append(self)
        on_gap()

    def watch(self, session_id):
        """Do nothing: changes are not published."""

    def unwatch(self, session_id):
        """Do nothing, as ``watch``."""

    def close(self):
        if self in self.bus.subscriptions:
            self.bus.subscriptions.remove(self)


class BroadcastingStore(_ListableStore):
    """A memory store that only has coroutines, as one on a server."""

    def __init__(self):
        super().__init__()
        self.bus = Bus()

    async def load(self, session_id):
        return await super().load(session_id)

    async def save(self, record, expected_version):
        return await super().save(record, expected_version)

    async def publish(self, kind, *session_ids, version=0, reason=""):
        for session_id in session_ids:
            self.bus.publish(BroadcastMessage(1, kind, session_id, version, reason))

    def subscribe(self, on_message, on_gap):
        return BusSubscription(self.bus, on_message, on_gap)


class FaultyBroadcastingStore(FaultyStore):
    """A ``FaultyStore`` whose broadcast works."""

    def __init__(self, store=None):
        store = store or BroadcastingStore()
        super().__init__(store)
        del self.peek, self.swap
        self.publish, self.subscribe, self.bus = store.publish, store.subscribe, store.bus


def wait_until(condition):
    """Wait until a thread has made a condition true."""
    end = time.monotonic() + _WAIT_TIMEOUT
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        threading.Event().wait(0.001)  # polls another thread


def confirm(sessions):
    """Wait until the subscription of an installation's near cache is confirmed."""
    cache = sessions.engine.context.near_cache
    end = time.monotonic() + _WAIT_TIMEOUT
    while not cache.is_confirmed():
        assert time.monotonic() < end, "the subscription was not confirmed"
        cache.request_confirmation()
        threading.Event().wait(0.001)  # polls the thread of the subscriber
    return cache
