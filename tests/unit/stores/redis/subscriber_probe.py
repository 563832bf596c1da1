"""SubscriberProbe: records the messages and gaps of a subscription."""

import itertools
import queue
import time
from contextlib import suppress

from sojourn._core.concurrency import run
from sojourn.errors import StoreUnavailable

TIMEOUT = 20.0


class SubscriberProbe:
    """Records messages and gaps in order.

    Attributes:
        subscription: the subscription.
        received: messages, and "gap" for each gap, that were not read yet.
        gaps: when each gap was reported, by ``time.monotonic``.
    """

    def __init__(self, store):
        self.received = queue.SimpleQueue()
        self.gaps = []
        self.subscription = store.subscribe(self.received.put, self._on_gap)
        assert self.next() == "gap"

    def _on_gap(self):
        self.gaps.append(time.monotonic())
        self.received.put("gap")

    def next(self):
        """Return the next message or gap."""
        return self.received.get(timeout=TIMEOUT)

    def until(self, is_wanted):
        """Receive until a predicate of the item holds; return the items before it."""
        before = []
        while not is_wanted(found := self.next()):
            before.append(found)
        return before

    def until_watched(self, store, session_id):
        """Publish changes of a session until the latest arrives: subscriptions are not confirmed.

        An earlier one may arrive late, and would be taken for a message of the test.
        """
        for version in itertools.count(1):
            with suppress(StoreUnavailable):  # the publisher must also detect a failover
                run(store.publish("changed", session_id, version=version))
            with suppress(queue.Empty):
                while True:
                    found = self.received.get(timeout=0.1 * version)
                    if found != "gap" and (found.session_id, found.version) == (
                        session_id,
                        version,
                    ):
                        return
