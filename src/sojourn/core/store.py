"""Store: what the core asks of wherever records live.

What lives here: the protocol with its whole contract, and the answers of ``save``. What must not:
a store. ``stores/base.py`` says what a store may do beyond this; ``sojourn.testing.StoreSuite``
checks every law named here on yours.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol, runtime_checkable

from sojourn.core.record import Record


class Answer(enum.Enum):
    """How a save ended, other than in a conflict."""

    SAVED = "saved"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Conflict:
    """The stored version was another one; nothing was written. ``newer`` is what is stored."""

    newer: Record


class Purged(NamedTuple):
    """What one call of ``purge`` did: how many it removed, and whether its walk is at the end."""

    removed: int
    finished: bool


SAVED: Final = Answer.SAVED
GONE: Final = Answer.GONE

SaveResult = Literal[Answer.SAVED, Answer.GONE] | Conflict


@runtime_checkable
class Store(Protocol):
    """Six calls that keep records by session ID, 16 bytes each.

    Absence is an answer, never an exception (law S1). A store that cannot answer raises
    ``StoreUnavailable`` within its deadline, having changed nothing (S12). One caller's
    cancellation never harms another's call (S13). Expiry is decided above: a store returns what it
    has, and forgets only what ``purge`` finds expired.

    Methods are coroutines; one that never suspends also serves WSGI and threads (``drive.py``).
    """

    async def load(self, session_id: bytes) -> Record | None:
        """Return the record, None if there is none.

        Raises:
            UnreadableRecord: there are bytes, but no record of ours (law S9).
        """
        ...

    async def create(self, record: Record) -> bool:
        """Insert a record; False, and nothing changed, if its ID is taken (law S2)."""
        ...

    async def save(self, record: Record, expected_version: int) -> SaveResult:
        """Replace the record whose version is ``expected_version`` (laws S3 to S6).

        Args:
            record: the new one, with version ``expected_version + 1``.
            expected_version: what must be stored for anything to happen.

        Returns:
            ``SAVED``; ``Conflict`` with the stored record if its version is another; ``GONE`` if
            there is none. The larger ``seen_at`` of the two records is kept.
        """
        ...

    async def touch(self, record: Record) -> bool:
        """Move ``seen_at`` (and with it the expiry) forward to the given record's, never backward.

        Data and version stay as they are stored. False, and nothing created, if there is no such
        record (laws S5, S6).
        """
        ...

    async def delete(self, session_id: bytes) -> bool:
        """Remove a record; tell whether there was one. May be repeated (law S7)."""
        ...

    async def purge(self, now: int, limit: int) -> Purged:
        """Remove up to ``limit`` records that are expired at ``now`` (milliseconds since 1970).

        One call looks at no more than ten times ``limit`` records, so that none blocks others for
        long; the next continues where it stopped, and repeated calls come to the end (law S8).
        """
        ...


@runtime_checkable
class NeedsLoop(Protocol):
    """Some stores wait for an event loop: those whose client is an asyncio one."""

    def needs_loop(self) -> str | None:
        """Return what to use where no loop runs (WSGI, threads), None if this store will do.

        Asked when a WSGI middleware is built, so that no request finds it out. The answer is
        advice for the developer, such as "use redis:// through its blocking client".
        """
        ...
