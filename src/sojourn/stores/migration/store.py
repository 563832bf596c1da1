"""MigratingStore: serves sessions from a new store while an old one is read.

Where a session is, and how it moves, is decided by ``mover.py``.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeVar

import msgspec

from sojourn._core.concurrency import Deadline, running_loop
from sojourn.errors import StoreError, StoreUnavailable
from sojourn.record import ID_BYTES, NO_VERIFIER, Record, UnreadableRecord, pack_body
from sojourn.store import (
    GONE,
    REVOKED,
    SAVED,
    BatchObserver,
    Closeable,
    Conflict,
    LoginSaved,
    Purged,
    RequiresEventLoop,
    SaveLoginResult,
    SaveResult,
    Store,
    SupportsBatchObservers,
    SupportsBulk,
    SupportsTimeout,
    SupportsUserIndex,
    ValueCheck,
    value_check,
)
from sojourn.stores.migration.mover import InNew, InOld, Mover
from sojourn.stores.migration.transit import Moved, Pending, interpret

T = TypeVar("T")

#: Milliseconds that a record remains of a check that was interrupted.
_PROBE_LIFETIME: Final = 60_000

#: Attempts of a write. One fails only because another process moves the session meanwhile.
MAX_ATTEMPTS: Final = 10


class MigratingStore:
    """Serves sessions from a new store and from an old one.

    ``migrating`` makes it, with the capabilities that both stores have.

    Args:
        old: the store that sessions leave.
        new: the store that they enter.
        prepare: write to the old store; read sessions that other processes have moved.

    Attributes:
        old: as given.
        new: as given.
        prepare: as given.
        mover: of the two stores.
    """

    def __init__(self, old: Store, new: Store, *, prepare: bool) -> None:
        self.old: Store = old
        self.new: Store = new
        self.prepare: bool = prepare
        self.mover: Mover = Mover(old, new)
        self._timeout = 2.0
        self._purges_new = False
        # Without a user index in the old store, the core logs in by `save`; the new store needs the
        # names nevertheless, because later it lists the sessions.
        self._indexes_saves = isinstance(new, SupportsUserIndex) and not isinstance(
            old, SupportsUserIndex
        )

    def __repr__(self) -> str:
        """Show both stores."""
        step = ", prepare=True" if self.prepare else ""
        return f"migrating({self.old!r}, {self.new!r}{step})"

    # Store

    async def load(self, session_id: bytes) -> Record | None:
        """Return the record of the store that the session belongs to."""
        first = self.old if self.prepare else self.new
        stored = interpret(await first.load(session_id))
        if isinstance(stored, Record):
            return stored
        location = await self.bounded(self.mover.find(session_id))
        return None if location is None else location.record

    async def create(self, record: Record) -> bool:
        """Insert a record: into the old store while preparing, afterwards into the new one."""
        return await self.bounded(self._create(record))

    async def _create(self, record: Record) -> bool:
        if not await self.is_valid_in_old(record):
            return False
        store, other = (self.old, self.new) if self.prepare else (self.new, self.old)
        for _ in range(MAX_ATTEMPTS):
            if await self._insert(store, record):
                # The ID is free in both stores. Of two processes that insert it at the same time,
                # one into each store, at most one succeeds, because each checks after its insert.
                if not await self._is_id_in_use(other, record.id):
                    return True
                await store.delete(record.id)
                return False
            if not await self.free(store, record.id):
                return False
        return False

    async def _insert(self, store: Store, record: Record) -> bool:
        names = record.index_names() if self._indexes_saves and store is self.new else ()
        if names and isinstance(store, SupportsUserIndex):
            result = await store.save_login(record, 0, limit=None, now=record.seen_at)
            return isinstance(result, LoginSaved)
        return await store.create(record)

    async def _is_id_in_use(self, store: Store, session_id: bytes) -> bool:
        """Return whether a store has a session or tombstone with an ID, readable or not."""
        try:
            return isinstance(interpret(await store.load(session_id)), Record)
        except UnreadableRecord:
            return True

    async def free(self, store: Store, session_id: bytes) -> bool:
        """Remove what a store holds of a session that ended in transit, or moved and ended.

        Returns:
            Whether there was something and no session has the ID.
        """
        found = interpret(await store.load(session_id))
        if found is not None and not isinstance(found, Pending | Moved):
            return False
        if await self.mover.find(session_id) is not None:
            return False
        return found is None or await store.delete(session_id)

    async def is_valid_in_old(self, record: Record) -> bool:
        """Return whether a new record is younger than the old store's cutoff of all sessions.

        A record that begins now is: a cutoff is set in both stores. One that is dated back, as of a
        login that began earlier, is compared by a record that is removed at once.
        """
        old = self.old
        if record.created_at >= record.seen_at or not isinstance(old, SupportsUserIndex):
            return True
        probe = Record(
            id=secrets.token_bytes(ID_BYTES),
            version=0,
            seen_at=record.seen_at,
            created_at=record.created_at,
            absolute_at=record.seen_at + _PROBE_LIFETIME,
            idle_timeout=_PROBE_LIFETIME,
            verifier=NO_VERIFIER,
            body=pack_body(None, {}, {}),
        )
        return await old.create(probe) and await old.delete(probe.id)

    async def save(self, record: Record, expected_version: int) -> SaveResult:
        """Save a record where its session is; move the session first unless preparing."""
        store = self.old if self.prepare else self.new
        result = await self._save(store, record, expected_version)
        if is_final(result):
            return result
        return await self.bounded(self._save_found(record, expected_version))

    async def _save_found(self, record: Record, expected_version: int) -> SaveResult:
        for _ in range(MAX_ATTEMPTS):
            store = await self.settle(record.id)
            if store is None:
                return GONE
            result = await self._save(store, record, expected_version)
            if is_final(result):
                return result
        raise self._moved_too_often(record.id)

    async def _save(self, store: Store, record: Record, expected_version: int) -> SaveResult:
        names = record.index_names() if self._indexes_saves and store is self.new else ()
        if not names or not isinstance(store, SupportsUserIndex):
            return await store.save(record, expected_version)
        result = await store.save_login(record, expected_version, limit=None, now=record.seen_at)
        if isinstance(result, Conflict):
            return result
        # Only processes that use the new store alone can have set a cutoff.
        return SAVED if isinstance(result, LoginSaved) else GONE

    async def settle(self, session_id: bytes) -> Store | None:
        """Return the store in which a session can be written; None if there is no such session.

        Completes the move of a session in transit. Unless preparing, moves one in the old store.
        """
        if not self.prepare:
            return self.new if await self.mover.move(session_id) else None
        for _ in range(MAX_ATTEMPTS):
            location = await self.mover.find(session_id)
            if location is None:
                return None
            if isinstance(location, InOld):
                return self.old
            if isinstance(location, InNew):
                return self.new
            await self.mover.complete(location)
        raise self._moved_too_often(session_id)

    async def touch(self, record: Record) -> bool:
        """Record activity where the session is; move the session first unless preparing."""
        return await self.bounded(self._touch(record))

    async def _touch(self, record: Record) -> bool:
        for _ in range(MAX_ATTEMPTS):
            store = await self.settle(record.id)
            if store is None:
                return False
            touched = await store.touch(record)
            if not self.prepare:
                return touched
            # A moved record can be touched, too: it replaces the session's at any instant. One that
            # is retired has no session, and a touch of it has no effect.
            if isinstance(interpret(await store.load(record.id)), Record):
                return True
        raise self._moved_too_often(record.id)

    async def delete(self, session_id: bytes) -> bool:
        """Remove a session from both stores.

        From the old one first: what is not there cannot be moved, and a pending copy without its
        moved record is void. While preparing, the old one is looked at again after the new one,
        because other processes may roll the migration back. A failure of one store does not keep
        the session in the other.
        """
        existed = await self.delete_each([session_id])
        return existed[0]

    async def delete_each(self, session_ids: Sequence[bytes]) -> list[bool]:
        """Remove sessions from both stores; return whether each existed.

        Each store gets an equal part of the time, so that one that hangs does not keep the session
        in the other. Without an event loop a store bounds its calls by itself.
        """
        old, new = self._delete_from_old, self._delete_from_new
        existed = [False] * len(session_ids)
        error: StoreError | None = None
        steps = (old, new, old) if self.prepare else (old, new)
        deadline = Deadline(self._timeout)
        for number, delete in enumerate(steps):
            work = delete(session_ids)
            if running_loop() is not None:
                work = deadline.share(len(steps) - number).bound(work)
            try:
                deleted = await work
            except StoreError as failed:
                error = error or failed
            else:
                existed = [one or other for one, other in zip(existed, deleted, strict=True)]
        if error is not None:
            raise error
        return existed

    async def _delete_from_old(self, session_ids: Sequence[bytes]) -> list[bool]:
        """Remove what the old store holds of sessions, except for retired moved records."""
        held = await each([self._is_held_by_old(session_id) for session_id in session_ids])
        chosen = [one for one, is_held in zip(session_ids, held, strict=True) if is_held]
        deleted = iter(await delete_from(self.old, chosen))
        return [is_held and next(deleted) for is_held in held]

    async def _delete_from_new(self, session_ids: Sequence[bytes]) -> list[bool]:
        return await delete_from(self.new, session_ids)

    async def _is_held_by_old(self, session_id: bytes) -> bool:
        """Return whether the old store holds a record of a session that is not a retired one."""
        try:
            found = interpret(await self.old.load(session_id))
        except UnreadableRecord:
            return True
        return found is not None and not (isinstance(found, Moved) and found.is_retired)

    async def purge(self, now: int, limit: int) -> Purged:
        """Purge the old store, then the new one; see ``Store.purge``."""
        if not self._purges_new:
            removed, finished = await self.old.purge(now, limit)
            self._purges_new = finished
            return Purged(removed, finished=False)
        removed, finished = await self.new.purge(now, limit)
        self._purges_new = not finished
        return Purged(removed, finished=finished)

    # Capabilities that need no more than one of the stores

    def add_batch_observer(self, observer: BatchObserver) -> None:
        """Report the batches of both stores; see ``SupportsBatchObservers``."""
        for store in (self.old, self.new):
            if isinstance(store, SupportsBatchObservers):
                store.add_batch_observer(observer)

    def remove_batch_observer(self, observer: BatchObserver) -> None:
        """Stop reporting batches."""
        for store in (self.old, self.new):
            if isinstance(store, SupportsBatchObservers):
                store.remove_batch_observer(observer)

    def set_timeout(self, seconds: float) -> None:
        """Set the deadline of every call; see ``SupportsTimeout``."""
        self._timeout = seconds
        for store in (self.old, self.new):
            if isinstance(store, SupportsTimeout):
                store.set_timeout(seconds)

    def requires_event_loop(self) -> str | None:
        """Return the advice of the store that requires one; see ``RequiresEventLoop``."""
        for store in (self.new, self.old):
            if isinstance(store, RequiresEventLoop):
                advice = store.requires_event_loop()
                if advice is not None:
                    return advice
        return None

    def value_check(self) -> ValueCheck | None:
        """Return the check of the new store, and of the old one while it is written."""
        stores = (self.new, self.old) if self.prepare else (self.new,)
        checks = [check for store in stores if (check := value_check(store)) is not None]
        if not checks:
            return None

        def check_each(key: str, value: object) -> None:
            for check in checks:
                check(key, value)

        return check_each

    def close(self) -> None:
        """Close both stores."""
        for store in (self.old, self.new):
            if isinstance(store, Closeable):
                store.close()

    # For the capabilities

    async def bounded(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await a verb that calls both stores within the deadline of one."""
        return await Deadline(self._timeout).bound(coroutine)

    async def is_rejected_by_old(self, record: Record, now: int) -> bool:
        """Return whether a cutoff of the old store rejects a login.

        Tries a login to a session that does not exist, which changes nothing.
        """
        old = self.old
        if not isinstance(old, SupportsUserIndex):
            return False
        probe = msgspec.structs.replace(record, id=secrets.token_bytes(ID_BYTES), version=2)
        return await old.save_login(probe, 1, limit=None, now=now) is REVOKED

    def _moved_too_often(self, session_id: bytes) -> StoreUnavailable:
        return StoreUnavailable(
            f"session {session_id.hex()} was moved between stores {MAX_ATTEMPTS} times during one "
            "call. Try again later"
        )


def is_final(result: SaveResult | SaveLoginResult) -> bool:
    """Return whether a save or login met the session, and not what a move leaves in its place."""
    if isinstance(result, Conflict):
        return isinstance(interpret(result.newer), Record)
    return result is not GONE


async def each(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Await coroutines: together under an event loop, so that stores join them, else in turn."""
    if running_loop() is None:
        return [await coroutine for coroutine in coroutines]
    return list(await asyncio.gather(*coroutines))


async def delete_from(store: Store, session_ids: Sequence[bytes]) -> list[bool]:
    """Remove sessions from one store; return whether each was there."""
    if len(session_ids) > 1 and isinstance(store, SupportsBulk):
        return await store.delete_many(session_ids)
    return [await store.delete(session_id) for session_id in session_ids]
