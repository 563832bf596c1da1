"""History: adds an entry to the history of the store for each session that ends."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final, cast

from sojourn._core.concurrency import Deadline
from sojourn.errors import StoreError
from sojourn.events import Dispatcher, StoreFailed
from sojourn.record import Metadata, Record, UnreadableRecord, plain_text
from sojourn.store import HistoryEntry, Store, SupportsHistory

logger: logging.Logger = logging.getLogger("sojourn")

#: The part of ``store_timeout`` that one call may take: the rest of the deadline belongs to the
#: request or the revocation that has ended the session.
_DEADLINE_SHARE: Final = 0.25

_NO_METADATA: Final = Metadata(None, {})


class History:
    """Adds entries for ended sessions.

    It is called after a session has ended, so a failure is reported and never raised.

    Args:
        store: holds the sessions.
        history: stores the entries; the same object.
        dispatcher: receives ``StoreFailed``.
        lifetime: of an entry, in milliseconds.
        store_timeout: of the installation, in seconds.
    """

    __slots__ = ("_dispatcher", "_history", "_lifetime", "_lost", "_store", "_timeout")

    def __init__(
        self,
        store: Store,
        history: SupportsHistory,
        dispatcher: Dispatcher,
        *,
        lifetime: int,
        store_timeout: float,
    ) -> None:
        self._store = store
        self._history = history
        self._dispatcher = dispatcher
        self._lifetime = lifetime
        self._timeout = store_timeout * _DEADLINE_SHARE
        self._lost = 0  # entries that could not be added since the failure began

    def use_store(self, store: Store) -> None:
        """Add entries to another store; see ``Engine.use_store``."""
        self._store = store
        self._history = cast("SupportsHistory", store)

    async def load(self, session_id: bytes) -> Record | None:
        """Return the record of a session that is about to end, for its entry; None if unknown.

        Args:
            session_id: 16 bytes.
        """
        try:
            return await Deadline(self._timeout).bound(self._store.load(session_id))
        except (StoreError, UnreadableRecord):
            return None

    async def add(
        self,
        session_ids: Sequence[bytes],
        reason: str,
        *,
        actor: str | None = None,
        at: int,
        records: Mapping[bytes, Record] = {},
        user: str | None = None,
    ) -> None:
        """Add an entry for each session, with one call.

        Args:
            session_ids: 16 bytes each; empty for the entry of all sessions.
            reason: why they ended.
            actor: who revoked them; None if not given.
            at: when they ended, milliseconds since 1970 UTC.
            records: the last known records, by ID.
            user: of those without a record; None if unknown.
        """
        actor = None if actor is None else _to_text(actor)
        entries = [
            _entry(session_id, at, reason, actor, records.get(session_id), user)
            for session_id in session_ids
        ]
        try:
            await Deadline(self._timeout).bound(self._history.add_history(entries, self._lifetime))
        except StoreError as error:
            self._report_lost(entries, error)
        else:
            if self._lost:
                logger.warning(
                    "the history of ended sessions is written again; %d entries are missing",
                    self._lost,
                )
                self._lost = 0

    def _report_lost(self, entries: Sequence[HistoryEntry], error: StoreError) -> None:
        """Emit an event for each call that failed; log the first one of an outage."""
        self._dispatcher.emit(StoreFailed(entries[0].session_id.hex(), "add_history", str(error)))
        if not self._lost:
            logger.warning(
                "the history of ended sessions cannot be written, entries are missing until it "
                "can; the sessions have ended nevertheless: %s",
                error,
            )
        self._lost += len(entries)


def _entry(  # noqa: PLR0917 - the fields of an entry, in their order
    session_id: bytes,
    at: int,
    reason: str,
    actor: str | None,
    record: Record | None,
    user: str | None,
) -> HistoryEntry:
    if record is None:
        return HistoryEntry(session_id, at, reason, actor, user)
    metadata = _metadata(record)
    return HistoryEntry(
        session_id, at, reason, actor, metadata.user or user, record.created_at, metadata.labels
    )


def _metadata(record: Record) -> Metadata:
    """Return the user and the labels of a record; none if its body is damaged."""
    try:
        return record.metadata()
    except UnreadableRecord:
        return _NO_METADATA


def _to_text(actor: object) -> str:
    """Return an actor as UTF-8 can encode it: applications may pass a number or a surrogate."""
    text = plain_text(actor)
    return str(actor).encode(errors="backslashreplace").decode() if text is None else text
