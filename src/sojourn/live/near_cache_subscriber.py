"""NearCacheSubscriber: applies the messages of other processes to a near cache (laws N1, N2)."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable
from secrets import token_bytes
from typing import TYPE_CHECKING, Final

from sojourn._core.concurrency import run
from sojourn.errors import SojournError
from sojourn.live.near_cache import NearCache
from sojourn.record import ID_BYTES
from sojourn.store import BroadcastMessage, Subscription, SupportsBroadcast

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

logger: logging.Logger = logging.getLogger("sojourn")

#: Probes that may be under way; an older one counts as lost.
_MAX_PROBES: Final = 8


class NearCacheSubscriber:
    """Maintains the subscription of a near cache, and probes it while records are requested.

    A probe is a message about a session that does not exist. It is delivered as a revocation is:
    through the store to every subscriber, in order. When it returns to this process, every message
    that was published before it has arrived. A PING of the connection would prove less: after a
    fail-over, a former primary still answers it.

    The subscription begins with the first request and ends with ``close``.

    Args:
        store: publishes and subscribes.
        cache: requests confirmations.

    Attributes:
        gap_observer: see ``Broadcaster``.
    """

    def __init__(self, store: SupportsBroadcast, cache: NearCache) -> None:
        self._store = store
        self._cache = cache
        self._closed = False
        self.gap_observer: Callable[[], object] | None = None
        self._reset()
        cache.request_confirmation = self.request_confirmation
        _instances.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._subscription: Subscription | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._is_requested = False
        self._is_probing = False
        self._probes: dict[bytes, float] = {}  # in the order in which they were published

    def after_fork(self) -> None:
        """Start again in a child process, where neither thread nor subscription exist."""
        self._cache.reset()
        self._reset()

    def close(self) -> None:
        """End the subscription. Idempotent."""
        with self._lock:
            self._closed = True
            self._cache.request_confirmation = None
            self._cache.expire_confirmation()
            thread, self._thread = self._thread, None
            subscription, self._subscription = self._subscription, None
        if thread is not None:
            thread.shutdown(wait=False, cancel_futures=True)
        if subscription is not None:
            subscription.close()

    def request_confirmation(self) -> None:
        """Subscribe or send a probe, in a thread: both may wait for the server."""
        with self._lock:
            if self._closed:
                return
            self._is_requested = True
            if self._is_probing:
                return
            self._is_probing = True
            if self._thread is None:
                # Imported here: only installations with a near cache need it.
                from concurrent.futures import ThreadPoolExecutor

                self._thread = ThreadPoolExecutor(1, "sojourn-near-cache")
            thread = self._thread
        # Without the lock: the thread starts meanwhile, and needs it. Under gevent with a lock that
        # was made before its patches, this thread would not run again.
        try:
            thread.submit(self._send_probes)
        except RuntimeError:  # closed, the interpreter exits, or no thread can start
            with self._lock:
                self._is_probing = False

    def _send_probes(self) -> None:
        """Send probes while they are requested; runs in the thread."""
        while self._begin_probe():
            self.probe()

    def _begin_probe(self) -> bool:
        with self._lock:
            self._is_probing = self._is_requested and not self._closed
            self._is_requested = False
            return self._is_probing

    def probe(self) -> None:
        """Subscribe, or send a probe if there is a subscription; may wait for the server."""
        try:
            if self._subscription is None:
                self._subscribe()
            else:
                self._send_probe()
        except Exception as error:  # noqa: BLE001 - of any store; the next request tries again
            level = logging.DEBUG if isinstance(error, SojournError) else logging.WARNING
            logger.log(level, "the near cache cannot confirm its subscription: %s", error)

    def probes(self) -> int:
        """Return the number of probes that have not returned."""
        return len(self._probes)

    def _subscribe(self) -> None:
        subscription = self._store.subscribe(self._on_message, self._on_gap)
        with self._lock:
            if not self._closed:
                self._subscription = subscription
                return
        subscription.close()

    def _send_probe(self) -> None:
        probe = token_bytes(ID_BYTES)
        with self._lock:
            while len(self._probes) >= _MAX_PROBES:
                del self._probes[next(iter(self._probes))]
            self._probes[probe] = self._cache.monotonic()
        # Not "changed", which only reaches the subscribers that watch the session.
        run(self._store.publish("rotated", probe))

    # Called by the store's thread

    def _on_gap(self) -> None:
        """Discard every record, because a message about it may have been missed."""
        with self._lock:
            self._probes.clear()
            self._cache.expire_confirmation()
        self.request_confirmation()
        if self.gap_observer is not None:
            self.gap_observer()

    def _on_message(self, message: BroadcastMessage) -> None:
        """Apply a message, which may be late, duplicated, out of order or forged (law S17)."""
        if message.kind == "all-before":
            self._cache.clear()
            return
        if message.session_id in self._probes:
            self._confirm(message.session_id)
        else:
            self._cache.discard(message.session_id)

    def _confirm(self, probe: bytes) -> None:
        with self._lock:
            if probe not in self._probes:
                return
            while (earliest := next(iter(self._probes))) != probe:
                # An earlier probe did not return, so other messages may have been lost with it.
                del self._probes[earliest]
                self._cache.clear()
            self._cache.confirm(self._probes.pop(probe))


_instances: weakref.WeakSet[NearCacheSubscriber] = weakref.WeakSet()


def _after_fork() -> None:
    for subscriber in list(_instances):
        subscriber.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
