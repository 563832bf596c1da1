"""Registry: the open connections of each session in this process.

What lives here: who is open, and closing them when their session ends. What must not: sockets'
message formats; a connection is anything that can be told to end.
"""

from __future__ import annotations

import threading
from typing import Protocol

from sojourn.events import Authenticated, Dispatcher, Expired, Revoked


class Connection(Protocol):
    """Something a session has open: a WebSocket, later a stream."""

    def end(self, reason: str) -> None:
        """Close, soon and without waiting; callable from any thread, more than once."""
        ...


class Registry:
    """Connections by session ID; listens to the events that end a session.

    Args:
        dispatcher: tells of ``Revoked``, ``Expired`` and ``Authenticated``.
    """

    __slots__ = ("_connections", "_lock")

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._connections: dict[str, tuple[Connection, ...]] = {}
        self._lock = threading.Lock()  # event loops in several threads may share an installation
        dispatcher.on(Revoked, self._on_revoked)
        dispatcher.on(Expired, self._on_expired)
        dispatcher.on(Authenticated, self._on_authenticated)

    def add(self, session_id: str, connection: Connection) -> None:
        """Note that a connection of a session is open."""
        with self._lock:
            self._connections[session_id] = (*self._connections.get(session_id, ()), connection)

    def remove(self, session_id: str, connection: Connection) -> None:
        """Note that it is closed."""
        with self._lock:
            left = tuple(c for c in self._connections.get(session_id, ()) if c is not connection)
            if left:
                self._connections[session_id] = left
            else:
                self._connections.pop(session_id, None)

    def count(self, session_id: str) -> int:
        """Return how many connections of a session are open in this process."""
        return len(self._connections.get(session_id, ()))

    def total(self) -> int:
        """Return how many connections are open in this process."""
        return sum(map(len, list(self._connections.values())))

    def _on_revoked(self, event: Revoked) -> None:
        self._end(event.session_id, event.reason)

    def _on_authenticated(self, event: Authenticated) -> None:
        # What was opened with the ticket from before the login is its holder's, whoever that is.
        self._end(event.session_id, "logged in anew")

    def _on_expired(self, event: Expired) -> None:
        self._end(event.session_id, f"expired ({event.limit})")

    def _end(self, session_id: str, reason: str) -> None:
        sessions = [session_id] if session_id else list(self._connections)  # none: every one
        for each in sessions:
            for connection in self._connections.get(each, ()):
                connection.end(reason)
