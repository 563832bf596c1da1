"""ConnectionRegistry: the open connections of each session in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Protocol

from sojourn._core.concurrency import replace_locks_after_fork

#: The reason with which connections from before a login are closed.
LOGGED_IN: Final = "logged in again"


class Connection(Protocol):
    """An open connection of a session: a WebSocket.

    Methods return without waiting and may be called from any thread, more than once.
    """

    def end(self, reason: str) -> None:
        """Close the connection because its session has ended."""
        ...

    def recheck(self, reason: str) -> None:
        """Load the session, and close the connection if it has ended.

        Args:
            reason: why it may have ended; empty if unknown.
        """
        ...

    def mark_outdated(self, version: int) -> None:
        """Refresh the session before the next message.

        Args:
            version: of the newest record.
        """
        ...


class RegistryObserver(Protocol):
    """Notified which sessions have open connections; methods must not block."""

    def opened(self, session_id: str) -> None:
        """The first connection of a session was added."""
        ...

    def closed(self, session_id: str) -> None:
        """The last connection of a session was removed."""
        ...


class ConnectionRegistry:
    """The open connections of this process, by session ID (32 hex digits).

    Attributes:
        observer: notified which sessions have connections; set before the first one is added.
        count_observer: called with 1 for a connection that was added and -1 for one that was
            removed; None for none.
        lock: held while connections are added and removed; a child process has a new one.
    """

    __slots__ = ("__weakref__", "_connections", "count_observer", "lock", "observer")

    def __init__(self) -> None:
        self.after_fork()
        replace_locks_after_fork(self)
        self.observer: RegistryObserver | None = None
        self.count_observer: Callable[[int], object] | None = None

    def after_fork(self) -> None:
        """Start without connections in a child process: those of the parent are not its own."""
        self._connections: dict[str, tuple[Connection, ...]] = {}
        # event loops of several threads may share an installation
        self.lock: threading.Lock = threading.Lock()

    def add(self, session_id: str, connection: Connection) -> None:
        """Add an open connection of a session."""
        with self.lock:
            known = self._connections.get(session_id, ())
            self._connections[session_id] = (*known, connection)
            if not known and self.observer is not None:
                self.observer.opened(session_id)
            if self.count_observer is not None:
                self.count_observer(1)

    def remove(self, session_id: str, connection: Connection) -> None:
        """Remove a connection. Idempotent."""
        with self.lock:
            known = self._connections.get(session_id, ())
            left = tuple(c for c in known if c is not connection)
            if left:
                self._connections[session_id] = left
            elif known:
                del self._connections[session_id]
                if self.observer is not None:
                    self.observer.closed(session_id)
            if self.count_observer is not None and len(left) < len(known):
                self.count_observer(-1)

    def count(self, session_id: str) -> int:
        """Return how many connections of a session are open in this process."""
        return len(self._connections.get(session_id, ()))

    def total(self) -> int:
        """Return how many connections are open in this process."""
        return sum(map(len, list(self._connections.values())))

    def end(self, session_id: str, reason: str) -> None:
        """Close the connections of a session."""
        for connection in self._connections.get(session_id, ()):
            connection.end(reason)

    def end_all(self, reason: str) -> None:
        """Close every connection."""
        for session_id in list(self._connections):
            self.end(session_id, reason)

    def recheck(self, session_id: str, reason: str) -> None:
        """Have the connections of a session checked; see ``Connection.recheck``."""
        for connection in self._connections.get(session_id, ()):
            connection.recheck(reason)

    def recheck_all(self, reason: str) -> None:
        """Have every connection checked."""
        for session_id in list(self._connections):
            self.recheck(session_id, reason)

    def mark_outdated(self, session_id: str, version: int) -> None:
        """Have the connections of a session refresh it before the next message."""
        for connection in self._connections.get(session_id, ()):
            connection.mark_outdated(version)
