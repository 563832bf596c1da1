"""Registry: the open connections of each session in this process.

What lives here: who is open, and closing them when their session ends. What must not: sockets'
message formats; a connection is anything that can be told to end.
"""

from __future__ import annotations

import threading
from typing import Final, Protocol

from sojourn.events import Authenticated, Dispatcher, Expired, Revoked

#: Why whatever was opened before a login is closed.
LOGGED_IN: Final = "logged in anew"


class Connection(Protocol):
    """Something a session has open: a WebSocket, later a stream."""

    def end(self, reason: str) -> None:
        """Close, soon and without waiting; callable from any thread, more than once."""
        ...

    def recheck(self, reason: str) -> None:
        """Look, soon, whether the session lives, and close if not; as callable as ``end``.

        Args:
            reason: why it may have ended; empty where nobody said.
        """
        ...

    def outdated(self, version: int) -> None:
        """Take in, when it suits, what others wrote: the record has this version now."""
        ...


class Watcher(Protocol):
    """Somebody who must know which sessions have something open; called one at a time."""

    def opened(self, session_id: str) -> None:
        """The first connection of a session has opened; return at once."""
        ...

    def closed(self, session_id: str) -> None:
        """The last one has closed; return at once."""
        ...


class Registry:
    """Connections by session ID; listens to the events that end a session.

    Args:
        dispatcher: tells of ``Revoked``, ``Expired`` and ``Authenticated``.

    Attributes:
        watcher: set it before anything opens.
    """

    __slots__ = ("_connections", "_lock", "watcher")

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._connections: dict[str, tuple[Connection, ...]] = {}
        self._lock = threading.Lock()  # event loops in several threads may share an installation
        self.watcher: Watcher | None = None
        dispatcher.on(Revoked, self._on_revoked)
        dispatcher.on(Expired, self._on_expired)
        dispatcher.on(Authenticated, self._on_authenticated)

    def add(self, session_id: str, connection: Connection) -> None:
        """Note that a connection of a session is open."""
        with self._lock:
            known = self._connections.get(session_id, ())
            self._connections[session_id] = (*known, connection)
            if not known and self.watcher is not None:
                self.watcher.opened(session_id)

    def remove(self, session_id: str, connection: Connection) -> None:
        """Note that it is closed; it may have been before."""
        with self._lock:
            known = self._connections.get(session_id, ())
            left = tuple(c for c in known if c is not connection)
            if left:
                self._connections[session_id] = left
            elif known:
                del self._connections[session_id]
                if self.watcher is not None:
                    self.watcher.closed(session_id)

    def count(self, session_id: str) -> int:
        """Return how many connections of a session are open in this process."""
        return len(self._connections.get(session_id, ()))

    def total(self) -> int:
        """Return how many connections are open in this process."""
        return sum(map(len, list(self._connections.values())))

    # Telling them

    def end(self, session_id: str, reason: str) -> None:
        """Close what a session has open."""
        for connection in self._connections.get(session_id, ()):
            connection.end(reason)

    def recheck(self, session_id: str, reason: str) -> None:
        """Have what a session has open look whether it lives; see ``Connection.recheck``."""
        for connection in self._connections.get(session_id, ()):
            connection.recheck(reason)

    def recheck_all(self, reason: str) -> None:
        """Have everything that is open look."""
        for session_id in list(self._connections):
            self.recheck(session_id, reason)

    def outdated(self, session_id: str, version: int) -> None:
        """Have what a session has open take in what others wrote."""
        for connection in self._connections.get(session_id, ()):
            connection.outdated(version)

    def _on_revoked(self, event: Revoked) -> None:
        # Without an ID: every session there is.
        for session_id in [event.session_id] if event.session_id else list(self._connections):
            self.end(session_id, event.reason)

    def _on_authenticated(self, event: Authenticated) -> None:
        # What was opened with the ticket from before the login is its holder's, whoever that is.
        self.end(event.session_id, LOGGED_IN)

    def _on_expired(self, event: Expired) -> None:
        self.end(event.session_id, f"expired ({event.limit})")
