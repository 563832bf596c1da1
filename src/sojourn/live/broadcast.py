"""Broadcaster: publishes revocations and changes, and applies the messages of other processes."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Final

from sojourn._core.concurrency import run
from sojourn.errors import SojournError
from sojourn.events import Dispatcher, StoreFailed
from sojourn.live.connections import ConnectionRegistry
from sojourn.record import ID_BYTES
from sojourn.store import BroadcastMessage, MessageKind, Subscription, SupportsBroadcast

logger: logging.Logger = logging.getLogger("sojourn")

#: Seconds after the last connection was closed until the subscription ends: a page that is loaded
#: again opens a connection in between, which needs no new subscription.
_UNSUBSCRIBE_DELAY: Final = 1.0


class Broadcaster:
    """Connects an installation with those of other processes on the same store.

    One thread publishes in order, so that a revocation does not wait for it; pending messages are
    published before the process exits. The first open connection subscribes, and the subscription
    ends with the last one, because a subscribed process polls its store or holds a connection to
    it. Connections whose message is lost are closed by the re-check.

    It is the ``RegistryObserver`` of its registry.

    Args:
        store: publishes and subscribes.
        registry: the connections of this process.
        dispatcher: emits an event for messages that could not be published.

    Attributes:
        gap_observer: called when messages may have been missed, also at the start of a
            subscription; None for none.
    """

    __slots__ = (
        "_closed",
        "_dispatcher",
        "_lock",
        "_process_id",
        "_registry",
        "_store",
        "_subscription",
        "_thread",
        "_timer",
        "_watched",
        "gap_observer",
    )

    def __init__(
        self, store: SupportsBroadcast, registry: ConnectionRegistry, dispatcher: Dispatcher
    ) -> None:
        self._store = store
        self._registry = registry
        self._dispatcher = dispatcher
        self._closed = False
        self.gap_observer: Callable[[], object] | None = None
        self._reset()
        registry.observer = self

    def _reset(self) -> None:
        """Start without a thread and a subscription: at first, and in a child after a fork."""
        self._process_id = os.getpid()
        self._lock = threading.Lock()
        self._watched: set[str] = set()
        self._subscription: Subscription | None = None
        self._timer: threading.Timer | None = None
        # An executor, because the interpreter waits at exit for its pending work. Imported here:
        # only stores with a broadcast need it.
        from concurrent.futures import ThreadPoolExecutor

        self._thread = ThreadPoolExecutor(1, "sojourn-broadcaster")

    def _submit(self, work: Callable[[], None]) -> None:
        """Run a function in the thread, after the work that was submitted before."""
        if self._process_id != os.getpid():
            self._reset()
        try:
            self._thread.submit(work)
        except RuntimeError as error:  # closed, or the interpreter exits
            self._report_unpublished(b"", error)

    def close(self) -> None:
        """Publish what is pending and end the subscription. Idempotent."""
        self._closed = True
        if self._process_id == os.getpid():
            self._thread.shutdown()
            with self._lock:
                self._cancel_timer()
                subscription, self._subscription = self._subscription, None
            if subscription is not None:
                subscription.close()

    # Publishing

    def publish(
        self,
        kind: MessageKind,
        session_ids: Sequence[bytes],
        *,
        version: int = 0,
        reason: str = "",
    ) -> None:
        """Publish a message for each session, in the background; see ``BroadcastMessage``."""

        def work() -> None:
            try:
                run(self._store.publish(kind, *session_ids, version=version, reason=reason))
            except SojournError as error:
                for session_id in session_ids:
                    self._report_unpublished(session_id, error)

        self._submit(work)

    def _report_unpublished(self, session_id: bytes, error: Exception) -> None:
        self._dispatcher.emit(StoreFailed(session_id.hex(), "publish", str(error)))

    # Subscribing

    def opened(self, session_id: str) -> None:
        """Receive the changes of a session that has an open connection."""
        if self._process_id != os.getpid():
            self._reset()
        with self._lock:
            self._cancel_timer()
            self._watched.add(session_id)
            if self._subscription is not None:
                self._subscription.watch(bytes.fromhex(session_id))
                return
        self._submit(self._subscribe)

    def closed(self, session_id: str) -> None:
        """Stop receiving the changes of a session."""
        with self._lock:
            self._watched.discard(session_id)
            if self._subscription is not None:
                self._subscription.unwatch(bytes.fromhex(session_id))
                if not self._watched and not self._closed:
                    self._start_timer()

    def _start_timer(self) -> None:
        """Unsubscribe after a delay; ``_lock`` must be held."""
        self._cancel_timer()
        self._timer = threading.Timer(_UNSUBSCRIBE_DELAY, self._submit, [self._unsubscribe])
        self._timer.name = "sojourn-unsubscribe"
        self._timer.daemon = True
        self._timer.start()

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _unsubscribe(self) -> None:
        """End the subscription unless a connection was opened; runs in the thread."""
        with self._lock:
            if self._watched:
                return
            subscription, self._subscription = self._subscription, None
        # Without the lock: a handler that runs now may need it.
        if subscription is not None:
            subscription.close()

    def _subscribe(self) -> None:
        """Subscribe; runs in the thread, because a store may have to connect for it."""
        if self._subscription is not None or self._closed:
            return
        try:
            subscription = self._store.subscribe(self._on_message, self._on_gap)
        except Exception:
            # The next connection tries again; until then the re-check detects ended sessions.
            logger.exception("cannot subscribe to the messages of other processes")
            return
        with self._lock:
            for session_id in self._watched:
                subscription.watch(bytes.fromhex(session_id))
            self._subscription = subscription
            if not self._watched:  # closed while the store was connecting
                self._start_timer()

    def _on_gap(self) -> None:
        self._registry.recheck_all("")
        if self.gap_observer is not None:
            self.gap_observer()

    def _on_message(self, message: BroadcastMessage) -> None:
        """Apply a message, which may be late, duplicated or forged (law S17)."""
        if message.kind == "all-before":
            self._registry.recheck_all(message.reason)
            return
        if len(message.session_id) != ID_BYTES:
            return
        session_id = message.session_id.hex()
        if message.kind == "revoked":
            self._registry.end(session_id, message.reason or "revoked")
        elif message.kind == "rotated":
            # Without the reason: the check detects a login by itself, and a late message of a login
            # must not explain what ended the session after it.
            self._registry.recheck(session_id, "")
        else:
            self._registry.mark_outdated(session_id, message.version)
