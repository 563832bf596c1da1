"""Broadcaster: tells other processes what ended here, and has what is open here hear of theirs.

What lives here: from events to announcements and from announcements to connections, for stores that
can announce. What must not: channels and bytes (the store's), and how a socket ends
(``ending.py``).

Whoever ends a session does not wait for it to be told: one thread tells, in order, and it ends what
it was given before the process does. What cannot be told is counted, and found out elsewhere by the
re-check. A process listens from the first moment it has something open, over one subscription; one
that never has anything open never does.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sojourn._core.concurrency import run
from sojourn._core.engine import Engine
from sojourn._crypto.tickets import ID_BYTES
from sojourn.errors import SojournError
from sojourn.events import Authenticated, Dispatcher, Revoked, Rotated
from sojourn.live.connections import LOGGED_IN, Registry
from sojourn.store import BroadcastMessage, MessageKind, Subscription, SupportsBroadcast

logger: logging.Logger = logging.getLogger("sojourn")


class Broadcaster:
    """Connects one installation with its likes in other processes; a ``Watcher`` of its registry.

    Args:
        store: tells and hears.
        engine: of the installation.
        registry: what is open here.
        dispatcher: tells what happens here.
    """

    __slots__ = (
        "_closed",
        "_engine",
        "_listening",
        "_lock",
        "_open",
        "_process",
        "_registry",
        "_store",
        "_thread",
    )

    def __init__(
        self, store: SupportsBroadcast, engine: Engine, registry: Registry, dispatcher: Dispatcher
    ) -> None:
        self._store = store
        self._engine = engine
        self._registry = registry
        self._closed = False
        self._open: set[str] = set()
        self._begin()
        registry.watcher = self
        dispatcher.on(Revoked, self._on_revoked)
        dispatcher.on(Authenticated, self._on_authenticated)
        dispatcher.on(Rotated, self._on_rotated)

    def _begin(self) -> None:
        """Have neither a thread nor an ear, as at the start and after a fork."""
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._listening: Subscription | None = None
        # The library's, because the interpreter waits at its end for what such a thread still does.
        self._thread = ThreadPoolExecutor(1, "sojourn-announcer")

    def _do(self, work: Callable[[], None]) -> None:
        """Have the thread do something, now or when it has done the rest."""
        if self._process != os.getpid():
            self._begin()
        try:
            self._thread.submit(work)
        except RuntimeError as error:  # closed, or the interpreter ends
            self._engine.journal.untold("", error)

    def close(self) -> None:
        """Tell what is still to be told, and hear no more. May be repeated."""
        self._closed = True
        if self._process == os.getpid():
            self._thread.shutdown()
            if self._listening is not None:
                self._listening.close()

    # Telling

    def _on_revoked(self, event: Revoked) -> None:
        if event.session_id:
            self._tell("revoked", event.session_id, reason=event.reason)
        else:
            before = self._engine.ender.floor
            self._tell("all-before", "", version=before, reason=event.reason)

    def _on_authenticated(self, event: Authenticated) -> None:
        # No revocation: what is opened with the new ticket has the same session.
        self._tell("rotated", event.session_id, reason=LOGGED_IN)

    def _on_rotated(self, event: Rotated) -> None:
        self._tell("rotated", event.session_id)

    def _tell(
        self, kind: MessageKind, session_id: str, *, version: int = 0, reason: str = ""
    ) -> None:
        def work() -> None:
            raw = bytes.fromhex(session_id)
            try:
                run(self._store.publish(kind, raw, version=version, reason=reason))
            except SojournError as error:
                self._engine.journal.untold(session_id, error)

        self._do(work)

    # Hearing

    def opened(self, session_id: str) -> None:
        """Hear of the changes of a session that has something open now."""
        if self._process != os.getpid():
            self._begin()
        with self._lock:
            self._open.add(session_id)
            if self._listening is not None:
                self._listening.watch(bytes.fromhex(session_id))
                return
        self._do(self._listen)

    def closed(self, session_id: str) -> None:
        """Hear of them no more."""
        with self._lock:
            self._open.discard(session_id)
            if self._listening is not None:
                self._listening.unwatch(bytes.fromhex(session_id))

    def _listen(self) -> None:
        """Begin to listen, in the thread, because a store may have to connect for it."""
        if self._listening is not None or self._closed:
            return
        try:
            listening = self._store.subscribe(self._heard, self._missed)
        except Exception:
            # The next connection that opens tries again; meanwhile the re-check finds out.
            logger.exception("announcements of other processes cannot be heard")
            return
        with self._lock:
            for session_id in self._open:
                listening.watch(bytes.fromhex(session_id))
            self._listening = listening

    def _missed(self) -> None:
        self._registry.recheck_all("")

    def _heard(self, message: BroadcastMessage) -> None:
        """Carry out what a message asks for; it may be lost, doubled, late or false (law S17)."""
        if message.kind == "all-before":
            self._registry.recheck_all(message.reason)
            return
        if len(message.session_id) != ID_BYTES:
            return
        session_id = message.session_id.hex()
        if message.kind == "revoked":
            self._registry.end(session_id, message.reason or "revoked")
        elif message.kind == "rotated":
            # Without its reason: a look sees a login by itself, and a late message of one must not
            # explain what ended the session after it.
            self._registry.recheck(session_id, "")
        else:
            self._registry.outdated(session_id, message.version)
