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
    """How a save or a bind ended, other than in a conflict."""

    SAVED = "saved"
    GONE = "gone"
    VOID = "void"
    FULL = "full"


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
VOID: Final = Answer.VOID
FULL: Final = Answer.FULL

#: Milliseconds after which nobody is still logging in, so that what voids logins may be forgotten.
LONGEST_LOGIN: Final = 24 * 60 * 60 * 1000

SaveResult = Literal[Answer.SAVED, Answer.GONE] | Conflict


class Evict(enum.StrEnum):
    """Which session of a user goes when one too many begins; ``REFUSE`` lets none begin."""

    OLDEST = "evict_oldest"
    IDLEST = "evict_idlest"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``most`` sessions of one user live at once."""

    most: int
    evict: Evict


@dataclass(frozen=True, slots=True)
class Bound:
    """The record is stored and listed. ``evicted`` are the IDs that had to go for it."""

    evicted: tuple[bytes, ...]


BindResult = Bound | Conflict | Literal[Answer.GONE, Answer.VOID, Answer.FULL]


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
class ListsUsers(Protocol):
    """Can find sessions by ``Record.names``: their user, or their identity provider's session.

    A record gets its names by ``bind`` and keeps them until it ends; ``save`` and ``touch`` never
    change them. A list holds no session that has ended, and none is missing (law S15).
    """

    async def bind(
        self, record: Record, expected_version: int, *, limit: Limit | None, now: int
    ) -> BindResult:
        """Save a record that has a user from now on, and list it under its names, in one step.

        Args:
            record: the new one, with version ``expected_version + 1``.
            expected_version: what must be stored, as in ``save``; 0 to insert, as in ``create``.
            limit: how many sessions the user may have, this one included; None for any number.
                Sessions expired at ``now`` do not count. This one never goes: of the others, as
                many as are too many, those with the smallest ``authenticated_at`` (``OLDEST``) or
                ``seen_at`` (``IDLEST``).
            now: milliseconds since 1970 UTC.

        Returns:
            ``Bound`` if it is done; the larger ``seen_at`` is kept, as in ``save``. Otherwise
            nothing has changed: ``Conflict`` and ``GONE`` as in ``save`` (``Conflict`` also where
            an ID to insert is taken); ``VOID`` if one of the names was voided before an instant
            later than ``record.authenticated_at`` (law S16); ``FULL`` if the limit is reached and
            refuses.

        Raises:
            UnreadableRecord: the record's body is damaged, so that it has no names.
        """
        ...

    async def find(self, name: str) -> list[Record]:
        """Return the records listed under a name, newest login first.

        Expired ones may be in it. One that cannot be read opens nothing and is left out.
        """
        ...

    async def void(self, name: str, before: int) -> None:
        """Let no login that began before an instant be bound to a name any more (law S16).

        Records that are listed already stay; the caller finds and deletes them afterwards. Of
        several instants the latest counts. The mark may be forgotten ``LONGEST_LOGIN`` after it.
        """
        ...

    async def void_all(self, before: int) -> None:
        """Make every record that was created before an instant absent from all calls, for ever.

        Costs one write however many there are; ``purge`` removes them like expired ones, and
        until then their IDs may stay taken. Of several instants the latest counts.
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
