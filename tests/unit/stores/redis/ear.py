"""A listener of a store for tests, which notes what it hears.

What must not live here: which server it is, and what must be heard.
"""

import queue
import time
from contextlib import suppress

from sojourn._core.concurrency import run
from sojourn.errors import StoreUnavailable

PATIENCE = 20.0


class Ear:
    """A listener that notes what it hears, and each gap, in order.

    Attributes:
        gaps: when it was told of each, by ``time.monotonic``.
    """

    def __init__(self, store):
        self.heard = queue.SimpleQueue()
        self.gaps = []
        self.listening = store.subscribe(self.heard.put, self._gap)
        assert self.next() == "gap"

    def _gap(self):
        self.gaps.append(time.monotonic())
        self.heard.put("gap")

    def next(self):
        return self.heard.get(timeout=PATIENCE)

    def until(self, wanted):
        """Hear until something fits; return all that came before it."""
        before = []
        while not wanted(found := self.next()):
            before.append(found)
        return before

    def until_watched(self, store, session_id):
        """Have a session told of until it is heard: nobody announces that one is subscribed."""
        while True:
            with suppress(StoreUnavailable):  # it finds out in its turn who has died
                run(store.publish("changed", session_id, version=1))
            try:
                found = self.heard.get(timeout=0.1)
            except queue.Empty:
                continue
            if found != "gap" and found.session_id == session_id:
                break
        while not self.heard.empty():
            self.heard.get()
