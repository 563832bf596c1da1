"""Revoker: ends sessions by ID, by user or label, or all of them, and records why."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from sojourn._core.concurrency import Deadline, shielded
from sojourn._core.context import CoreContext
from sojourn._crypto.tickets import mint_id
from sojourn.errors import ConfigurationError, RevocationIncomplete, StoreError
from sojourn.events import Revoked
from sojourn.record import (
    ID_BYTES,
    NO_VERIFIER,
    Record,
    UnreadableRecord,
    pack_body,
    plain_text,
)
from sojourn.store import REVOKED, IncompleteList, Store, SupportsBulk, SupportsUserIndex

#: How long the reason for the end of a session is available to its visitor, in milliseconds.
_TOMBSTONE_LIFETIME: Final = 86_400_000

#: The version of a tombstone; that of a session is 1 or more.
TOMBSTONE_VERSION: Final = 0

#: The label of a tombstone that holds the reason.
_REASON: Final = "reason"

#: How long a record remains of a check that was interrupted, in milliseconds.
_PROBE_LIFETIME: Final = 60_000

#: Reasons that need no tombstone: the visitor ended the session.
_OWN_REASONS: Final = frozenset({"destroyed", "logout"})


class Revoker:
    """Revokes sessions and records why.

    A revoked session leaves a tombstone for a day, so that its visitor can receive the reason at
    the next request. A tombstone is a record of version 0 under an ID derived from the session's.
    No ticket is valid for it, because no verifier has its hash.

    Args:
        context: of the engine.

    Attributes:
        not_before: no session starts and no login happens before this instant. It is set to each
            cutoff of this process, so that a login in the same millisecond is later than it.
    """

    __slots__ = ("_context", "_store", "not_before")

    def __init__(self, context: CoreContext) -> None:
        self._context = context
        self._store = context.store
        self.not_before: int = 0

    def use_store(self, store: Store) -> None:
        """Revoke in another store; see ``Engine.use_store``."""
        self._store = store

    def now(self) -> int:
        """Return the start instant of a session that is created now."""
        return max(self._context.clock(), self.not_before)

    async def revoke(
        self,
        session_id: bytes,
        reason: str,
        *,
        actor: str | None = None,
        record: Record | None = None,
    ) -> bool:
        """Delete a session, record why and close its connections.

        Continues to the end if the caller is cancelled, as do the other revocations (law A21).

        Args:
            session_id: 16 bytes.
            reason: for the event, the history, the connections and the visitor.
            actor: for the event and the history.
            record: of the session, for the history; None to load it if there is a history.

        Returns:
            False if there was no such session.

        Raises:
            TypeError: the reason is not a string.
            StoreUnavailable: the store failed; the session may have been deleted.
        """
        return await shielded(self._revoke(session_id, _check_reason(reason), actor, record))

    async def _revoke(
        self, session_id: bytes, reason: str, actor: str | None, record: Record | None
    ) -> bool:
        deadline = Deadline(self._context.config.store_timeout)
        await self._context.synchronize_clock_before(deadline, session_id)
        if record is None and self._context.history is not None:
            record = await self._context.history.load(session_id)
        try:
            existed = await self._store.delete(session_id)
        except StoreError as error:
            self._context.raise_store_error("delete", session_id, error)
        finally:  # also if another process has ended it and its message is late (law N2)
            self._context.discard_from_memory(session_id)
        if existed:
            records = {} if record is None else {session_id: record}
            await self.report([session_id], reason, actor=actor, records=records)
        return existed

    async def report(
        self,
        session_ids: Sequence[bytes],
        reason: str,
        *,
        actor: str | None = None,
        records: Mapping[bytes, Record] = {},
        user: str | None = None,
    ) -> None:
        """Close the connections of deleted sessions; add events, tombstones and history.

        Args:
            session_ids: 16 bytes each.
            reason: see ``revoke``.
            actor: see ``revoke``.
            records: see ``History.add``.
            user: see ``History.add``.
        """
        context = self._context
        context.connections.sessions_ended(session_ids, reason)
        now = context.clock()
        for session_id in session_ids:
            context.dispatcher.emit(Revoked(session_id.hex(), reason, actor, now))
        if reason not in _OWN_REASONS:
            await self._add_tombstones(session_ids, reason, now)
        if context.history is not None:
            await context.history.add(
                session_ids, reason, actor=actor, at=now, records=records, user=user
            )

    async def _add_tombstones(self, session_ids: Sequence[bytes], reason: str, now: int) -> None:
        tombstones = [
            Record(
                id=_tombstone_id(session_id),
                version=TOMBSTONE_VERSION,
                seen_at=now,
                created_at=self.now(),
                absolute_at=now + _TOMBSTONE_LIFETIME,
                idle_timeout=_TOMBSTONE_LIFETIME,
                verifier=NO_VERIFIER,
                body=pack_body(None, {_REASON: reason}, {}),
            )
            for session_id in session_ids
        ]
        try:
            if len(tombstones) > 1 and isinstance(self._store, SupportsBulk):
                await self._store.create_many(tombstones)
            else:
                for tombstone in tombstones:
                    await self._store.create(tombstone)
        except StoreError as error:  # the sessions have ended nevertheless
            self._context.report_store_error("add_tombstone", session_ids[0], error)

    async def reason(self, session_id: bytes) -> str | None:
        """Return why a session was revoked; None if it was not, or more than a day ago.

        Raises:
            StoreError: the store failed.
        """
        try:
            tombstone = await self._store.load(_tombstone_id(session_id))
            if tombstone is None or tombstone.expires_at <= self.now():  # not purged yet
                return None
            return tombstone.metadata().labels.get(_REASON)
        except UnreadableRecord:
            return None

    async def accepts_login(self, user: str, authenticated_at: int) -> bool:
        """Return whether neither the user nor all sessions were revoked since an instant.

        Compares with the cutoffs of the store: by a login to a session that does not exist, which
        is ``REVOKED`` or else ``GONE``, and by a record that is removed at once. True if the store
        has no cutoffs.

        Args:
            user: as the application names them.
            authenticated_at: milliseconds since 1970 UTC.

        Raises:
            StoreError: the store failed.
        """
        store = self._store
        if not isinstance(store, SupportsUserIndex):
            return True
        now = self.now()
        login = Record(
            id=mint_id(),
            version=2,
            seen_at=now,
            created_at=now,
            absolute_at=now + _PROBE_LIFETIME,
            idle_timeout=_PROBE_LIFETIME,
            verifier=NO_VERIFIER,
            body=pack_body(user, {}, {}),
            authenticated_at=authenticated_at,
        )
        if await store.save_login(login, 1, limit=None, now=now) is REVOKED:
            return False
        probe = msgspec.structs.replace(
            login,
            id=mint_id(),
            version=TOMBSTONE_VERSION,
            created_at=authenticated_at,
            authenticated_at=0,
            body=pack_body(None, {}, {}),
        )
        # Shielded, so that the record does not remain.
        return await shielded(self._exists(probe))

    async def _exists(self, probe: Record) -> bool:
        """Return whether a record that is created now can be found."""
        return await self._store.create(probe) and await self._store.delete(probe.id)

    async def revoke_indexed(
        self, name: str, reason: str, *, keep: bytes | None, actor: str | None
    ) -> int:
        """Revoke every session indexed under a name, also logins in progress (law S16).

        Costs a constant number of round trips on a store with ``SupportsBulk``.

        Args:
            name: such as ``user:ada``; see ``Record.index_names``.
            reason: see ``revoke``.
            keep: the ID of a session to keep, 16 bytes; None to keep none.
            actor: see ``revoke``.

        Returns:
            The number of sessions that were revoked.

        Raises:
            ConfigurationError: the store has no user index.
            RevocationIncomplete: the store failed; the error says what was done.
        """
        store, reason = indexed_store(self._store), _check_reason(reason)
        return await shielded(self._revoke_indexed(store, name, reason, keep, actor))

    async def _revoke_indexed(
        self,
        store: SupportsUserIndex,
        name: str,
        reason: str,
        keep: bytes | None,
        actor: str | None,
    ) -> int:
        records: dict[bytes, Record] = {}
        revoked: list[bytes] = []
        remaining: list[bytes] | None = None
        cutoff_set = False
        error: StoreError | None = None
        deadline = Deadline(self._context.config.store_timeout)
        try:
            await self._context.check_keys(deadline)
            before = await self._next_cutoff()
            refused = await self._invalidate_logins(store, name, before)
            if refused is not None and not deadline.remaining():
                raise refused  # the store does not answer
            cutoff_set = refused is None
            revoked, remaining, error = await self._revoke_listed(store, name, keep, records)
            if refused is not None:
                self._context.report_store_error("revoke", b"", refused)
                # A store that is full may have room now. The logins since the list was read are
                # listed by a second one, which follows the cutoff.
                await store.invalidate_logins(name, before)
                cutoff_set, remaining = True, None
                more, remaining, error = await self._revoke_listed(store, name, keep, records)
                revoked += more
        except StoreError as failed:
            error = failed
            self._context.report_store_error("revoke", b"", failed)
        finally:  # also of sessions that another process has ended: they are not listed (law N2)
            self._context.clear_memory()
        if revoked:
            await self.report(revoked, reason, actor=actor, records=records)
        if error is not None:
            raise _incomplete(revoked, remaining, cutoff_set=cutoff_set) from error
        return len(revoked)

    async def _invalidate_logins(
        self, store: SupportsUserIndex, name: str, before: int
    ) -> StoreError | None:
        """Set a cutoff; return the error if the store cannot, as a full one."""
        try:
            await store.invalidate_logins(name, before)
        except StoreError as error:
            return error
        return None

    async def _revoke_listed(
        self,
        store: SupportsUserIndex,
        name: str,
        keep: bytes | None,
        records: dict[bytes, Record],
    ) -> tuple[list[bytes], list[bytes] | None, StoreError | None]:
        """Delete the listed sessions, and add their records to ``records``.

        Returns:
            The IDs of the deleted and of the remaining ones, and why these remain; None for the
            remaining ones if they are unknown.
        """
        try:
            listed_records, incomplete = await store.list_by_index(name), None
        except IncompleteList as failed:  # what one of two stores has is revoked nevertheless
            listed_records, incomplete = list(failed.records), failed
        found = {record.id: record for record in listed_records}
        records.update(found)
        session_ids = [session_id for session_id in found if session_id != keep]
        try:
            deleted = await self._delete(session_ids)
        except StoreError as failed:
            error = failed
            self._context.report_store_error("revoke", b"", error)
        else:
            return deleted, [] if incomplete is None else None, incomplete
        if incomplete is not None:
            return [], None, error
        try:
            listed = {record.id for record in await store.list_by_index(name)}
        except StoreError:
            return [], session_ids, error
        return (
            [session_id for session_id in session_ids if session_id not in listed],
            [session_id for session_id in session_ids if session_id in listed],
            error,
        )

    async def _delete(self, session_ids: list[bytes]) -> list[bytes]:
        """Delete sessions and return the IDs of those that existed."""
        if not session_ids:
            return []
        if isinstance(self._store, SupportsBulk):
            existed = await self._store.delete_many(session_ids)
        else:
            existed = [await self._store.delete(session_id) for session_id in session_ids]
        return [each for each, found in zip(session_ids, existed, strict=True) if found]

    async def revoke_all(self, reason: str, *, actor: str | None) -> None:
        """Revoke every session with one write.

        Raises:
            ConfigurationError: the store does not support it.
            RevocationIncomplete: the store failed.
        """
        store, reason = indexed_store(self._store), _check_reason(reason)
        await shielded(self._revoke_all(store, reason, actor))

    async def _revoke_all(self, store: SupportsUserIndex, reason: str, actor: str | None) -> None:
        try:
            await self._context.check_keys(Deadline(self._context.config.store_timeout))
            before = await self._next_cutoff()
            await store.invalidate_all(before)
        except StoreError as error:
            self._context.report_store_error("revoke", b"", error)
            self._context.clear_memory()  # the cutoff may have been set
            raise _incomplete([], None, cutoff_set=False) from error
        self._context.connections.all_sessions_ended(before, reason)
        self._context.dispatcher.emit(Revoked("", reason, actor, before))
        if self._context.history is not None:
            await self._context.history.add([b""], reason, actor=actor, at=before)

    async def _next_cutoff(self) -> int:
        """Return an instant later than every login and session that has begun (law A22).

        Read from the server's clock at each revocation: the time that this process derives from an
        earlier reading may be late, and a cutoff of 3 ms ago would miss the sessions since then.

        Raises:
            StoreError: the server's clock could not be read.
        """
        server_clock = self._context.server_clock
        now = self._context.clock() if server_clock is None else await server_clock.read_server()
        self.not_before = max(now, self.not_before) + 1
        return self.not_before


def indexed_store(store: Store) -> SupportsUserIndex:
    """Return a store as one with a user index.

    Raises:
        ConfigurationError: it has none.
    """
    if not isinstance(store, SupportsUserIndex):
        raise ConfigurationError(
            f"{store!r} has no index of users; use a store with one, such as sqlite:/// or "
            "memory://"
        )
    return store


def _tombstone_id(session_id: bytes) -> bytes:
    # The prefix is part of the stored format.
    return hashlib.sha256(b"sojourn mark" + session_id).digest()[:ID_BYTES]


def _incomplete(
    revoked: Sequence[bytes], remaining: Sequence[bytes] | None, *, cutoff_set: bool
) -> RevocationIncomplete:
    return RevocationIncomplete(
        [session_id.hex() for session_id in revoked],
        None if remaining is None else [session_id.hex() for session_id in remaining],
        cutoff_set=cutoff_set,
    )


def _check_reason(reason: object) -> str:
    """Return a reason as a tombstone can store it; called before anything is revoked.

    Raises:
        TypeError: it is not a string, such as a lazy translation.
    """
    text = plain_text(reason)
    if text is None:
        raise TypeError(f"a reason is a text, found {reason!r}; use str(reason)")
    return text
