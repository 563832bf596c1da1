"""Mover: moves one session from the old store to the new one, and finds a session in both."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Final

from sojourn.errors import StoreError, StoreUnavailable
from sojourn.record import Record
from sojourn.store import GONE, SAVED, LoginSaved, Store, SupportsUserIndex
from sojourn.stores.migration.transit import (
    Moved,
    Pending,
    interpret,
    moved_record,
    new_token,
    pending,
    retired,
    withdrawn,
)

#: Attempts to move a session. One fails only because another process wrote the session meanwhile.
_MAX_ATTEMPTS: Final = 100


@dataclass(frozen=True, slots=True)
class InNew:
    """The session belongs to the new store."""

    record: Record


@dataclass(frozen=True, slots=True)
class InOld:
    """The session belongs to the old store.

    Attributes:
        record: of the session.
        other: what the new store holds under its ID; void.
    """

    record: Record
    other: Pending | Moved | None


@dataclass(frozen=True, slots=True)
class InTransit:
    """The session belongs to the new store, where it is still a pending copy."""

    pending: Pending
    moved: Moved

    @property
    def record(self) -> Record:
        """The session, with the activity that the old store recorded after it was copied."""
        return self.pending.record.with_seen_at(self.moved.stored.seen_at)


Location = InNew | InOld | InTransit | None
"""Where a session is; None if there is none."""


class Mover:
    """Moves sessions from one store to another.

    A session belongs to one store at any instant; compare-and-set on its old record decides which.
    First a pending copy with a random token is inserted into the new store. Then the old record is
    replaced by a moved record with this token, if its version is still the copied one: from here on
    the session belongs to the new store. Then the copy is replaced by the session, and the moved
    record by a retired one. A process may stop between any two writes; the next one recognises what
    it left. A copy whose token is not the moved record's is void, so a process that is late revives
    nothing.

    Args:
        old: the store that sessions leave.
        new: the store that they enter.
    """

    __slots__ = ("_new", "_old")

    def __init__(self, old: Store, new: Store) -> None:
        self._old = old
        self._new = new

    async def find(self, session_id: bytes) -> Location:
        """Return where a session is.

        The new store is read again after the old one: a session that was in neither may have moved
        in between.
        """
        new = interpret(await self._new.load(session_id))
        if isinstance(new, Record):
            return InNew(new)
        old = interpret(await self._old.load(session_id))
        if isinstance(old, Record):
            return InOld(old, new)
        new = interpret(await self._new.load(session_id))
        if isinstance(new, Record):
            return InNew(new)
        if isinstance(old, Moved) and isinstance(new, Pending) and old.token == new.token:
            return InTransit(new, old)
        if not isinstance(old, Pending):
            return None
        # It was on its way to this old store, before the direction was reversed.
        if isinstance(new, Moved) and old.token == new.token:
            return await self._return(InTransit(old, new))
        old = interpret(await self._old.load(session_id))
        return InOld(old, None) if isinstance(old, Record) else None

    async def _return(self, location: InTransit) -> Location:
        """Complete the move of a session in the other direction."""
        reverse = Mover(self._new, self._old)
        await reverse.complete(location)
        old = interpret(await self._old.load(location.record.id))
        return InOld(old, None) if isinstance(old, Record) else None

    async def move(self, session_id: bytes) -> bool:
        """Move a session to the new store unless it is there.

        Returns:
            False if there is no such session.

        Raises:
            StoreUnavailable: one of the stores failed.
            UnreadableRecord: the record is damaged.
        """
        for _ in range(_MAX_ATTEMPTS):
            location = await self.find(session_id)
            if location is None:
                return False
            if isinstance(location, InNew):
                return True
            if isinstance(location, InTransit):
                await self.complete(location)
            elif await self.move_record(location.record, location.other):
                return True
        raise StoreUnavailable(
            f"session {session_id.hex()} could not be moved to {self._new!r}: other processes "
            f"wrote it {_MAX_ATTEMPTS} times meanwhile. Try again later"
        )

    async def move_record(self, record: Record, other: Pending | Moved | None = None) -> bool:
        """Move a session that was found in the old store.

        Args:
            record: of the session, as it was found.
            other: what the new store holds under its ID, as far as it is known.

        Returns:
            False if the session has changed meanwhile; nothing has been lost.
        """
        token = await self._add_pending(record, other)
        if token is None:
            return False
        copy = Pending(pending(record, token), record, token)
        result = await self._old.save(moved_record(record, token), record.version)
        if result is GONE:
            # Left alone, the copy would count for the limit of its user until it expires.
            await self.withdraw(copy)
        if result is not SAVED:
            return False
        # The moved record has the latest activity: a touch does not change the version.
        found = interpret(await self._old.load(record.id))
        if not isinstance(found, Moved) or found.token != token:
            return False
        return await self.complete(InTransit(copy, found))

    async def _add_pending(self, record: Record, other: Pending | Moved | None) -> str | None:
        """Put a pending copy into the new store.

        Returns:
            Its token; None if another process was first, or deleted the session.
        """
        if isinstance(other, Pending) and other.record.version == record.version:
            # A copy of the same data, by a process that may still work or may have died.
            seen = other.stored.with_seen_at(record.seen_at)
            if seen is other.stored or await self._new.touch(seen):
                return other.token
            return None
        token = new_token()
        copy = pending(record, token)
        if other is None:
            added = await self._insert(copy)
        else:
            # No process can complete another copy: the record that it was made of has changed.
            added = await self._replace(copy, other.stored.version)
        return token if added else None

    async def _insert(self, copy: Record) -> bool:
        store = self._new
        if isinstance(store, SupportsUserIndex) and copy.index_names():
            result = await store.save_login(copy, 0, limit=None, now=copy.seen_at)
            return isinstance(result, LoginSaved)
        return await store.create(copy)

    async def _replace(self, copy: Record, expected_version: int) -> bool:
        store = self._new
        if isinstance(store, SupportsUserIndex):
            result = await store.save_login(copy, expected_version, limit=None, now=copy.seen_at)
            return isinstance(result, LoginSaved)
        return await store.save(copy, expected_version) is SAVED

    async def complete(self, location: InTransit) -> bool:
        """Make a pending copy the session.

        Returns:
            False if another process did so or deleted it.
        """
        result = await self._new.save(location.record, location.pending.stored.version)
        # The session has moved; a moved record that is left says so, and the next pass retires it.
        with contextlib.suppress(StoreError):
            await self.retire(location.moved)
        return result is SAVED

    async def retire(self, found: Moved) -> None:
        """Remove what the old store holds of a session that has moved or ended."""
        await self._old.save(retired(found), found.stored.version)

    async def withdraw(self, found: Pending) -> None:
        """Remove from the new store a copy whose session ended before it moved."""
        await self._new.save(withdrawn(found), found.stored.version)
