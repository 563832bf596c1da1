"""Journal: counts and announces what happens to sessions.

What lives here: the counters behind ``sessions.usage()``, and turning what happened into events.
What must not: deciding anything. An event that nobody listens for is never built where that would
cost every request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from sojourn.errors import StoreError
from sojourn.events import (
    Authenticated,
    Conflicted,
    Created,
    Dispatcher,
    Expired,
    Read,
    Rejected,
    Reused,
    Revoked,
    Rotated,
    StoreFailed,
    Written,
)
from sojourn.record import Record, UnreadableRecord


@dataclass(slots=True)
class Counters:
    """How often each thing happened since the start of this process."""

    reads: int = 0
    writes: int = 0
    creates: int = 0
    touches: int = 0
    removes: int = 0
    logins: int = 0
    rotations: int = 0
    conflicts: int = 0
    rejected: int = 0
    failures: int = 0


class Journal:
    """Counts what the engine does and tells whoever listens.

    Args:
        dispatcher: hands events to their listeners.
    """

    __slots__ = ("_dispatcher", "counters")

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self.counters: Counters = Counters()

    def read(self, record: Record) -> None:
        """A record was loaded for a request or a message."""
        self.counters.reads += 1
        if Read in self._dispatcher.listeners:
            self._dispatcher.emit(Read(record.session_id, record.version))

    def created(self, record: Record) -> None:
        """A record was created."""
        self.counters.creates += 1
        self._dispatcher.emit(Created(record.session_id))

    def written(self, record: Record, *, attempts: int) -> None:
        """Changes were saved after ``attempts`` conflicts."""
        self.counters.writes += 1
        if attempts:
            self.counters.conflicts += attempts
            self._dispatcher.emit(Conflicted(record.session_id, attempts))
        if Written in self._dispatcher.listeners:
            self._dispatcher.emit(Written(record.session_id, record.version))

    def touched(self) -> None:
        """A record was marked as seen."""
        self.counters.touches += 1

    def authenticated(self, record: Record, user: str, methods: tuple[str, ...]) -> None:
        """Somebody logged in."""
        self.counters.logins += 1
        self._dispatcher.emit(Authenticated(record.session_id, user, methods))

    def rotated(self, record: Record) -> None:
        """A verifier was replaced."""
        self.counters.rotations += 1
        self._dispatcher.emit(Rotated(record.session_id))

    def reused(self, session_id: bytes) -> None:
        """A ticket that a rotation had replaced was used after its grace."""
        self.counters.rejected += 1
        self._dispatcher.emit(Reused(session_id.hex()))

    def revoked(self, session_id: bytes, reason: str, actor: str | None) -> None:
        """A session was ended on purpose, or every one (no ID)."""
        self.counters.removes += 1
        self._dispatcher.emit(Revoked(session_id.hex(), reason, actor))

    def unnoted(self, session_id: bytes, error: StoreError) -> None:
        """A session was ended, and the reason could not be kept for its visitor."""
        self.counters.failures += 1
        self._dispatcher.emit(StoreFailed(session_id.hex(), "note", str(error)))

    def untold(self, session_id: str, error: Exception) -> None:
        """Other processes could not be told of something: they find out by themselves."""
        self.counters.failures += 1
        self._dispatcher.emit(StoreFailed(session_id, "announce", str(error)))

    def expired(self, record: Record, limit: str) -> None:
        """A session was met after one of its limits."""
        self._dispatcher.emit(Expired(record.session_id, limit))

    def rejected(self, session_id: bytes, reason: str) -> None:
        """A ticket opened nothing, or a session in use turned out to have ended."""
        self.counters.rejected += 1
        self._dispatcher.emit(Rejected(session_id.hex(), reason))

    def unreadable(self, session_id: bytes, damage: UnreadableRecord) -> None:
        """A record cannot be read and counts as absent (law S9)."""
        self.rejected(session_id, f"unreadable: {damage}")

    def failed(self, operation: str, session_id: bytes, error: StoreError) -> NoReturn:
        """A store call failed: tell, and raise the error on."""
        self.counters.failures += 1
        self._dispatcher.emit(StoreFailed(session_id.hex(), operation, str(error)))
        raise error
