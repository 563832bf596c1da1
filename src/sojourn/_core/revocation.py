"""Revoker: ends sessions on somebody's order: one, all of a user, or everybody's.

What lives here: removing records for good and telling why. What must not: what a visitor does with
its own session (``engine.py``), and when to end one (limits are ``policy.py``).

A record that was ended on purpose leaves a mark for a day, found under an ID that follows from its
own, so that its visitor can be told the reason at the next request. A mark is a record of version 0
that no ticket opens, because nobody knows a verifier with its hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from sojourn._core.journal import Journal
from sojourn._crypto.tickets import ID_BYTES
from sojourn.errors import ConfigurationError, StoreError
from sojourn.record import (
    NO_VERIFIER,
    Record,
    UnreadableRecord,
    pack_body,
    plain_text,
)
from sojourn.store import Store, SupportsUserIndex

#: How long a visitor can learn why its session ended, in milliseconds.
_REMEMBERED: Final = 86_400_000

#: The version of a mark; a session's is 1 or more.
MARK: Final = 0

#: The label of a mark.
_REASON: Final = "reason"

#: Reasons that the visitor knows, having ended the session itself.
_OWN: Final = frozenset({"destroyed", "logout"})


class Revoker:
    """Ends sessions and notes why.

    Args:
        store: where records live.
        clock: milliseconds since 1970 UTC.
        journal: is told.
    """

    __slots__ = ("_clock", "_journal", "_store", "floor")

    def __init__(self, store: Store, *, clock: Callable[[], int], journal: Journal) -> None:
        self._store = store
        self._clock = clock
        self._journal = journal
        #: No session begins and nobody logs in before this instant: what was voided in this process
        #: lies before it, so that a new login in the same millisecond is not taken for an old one.
        self.floor: int = 0

    def now(self) -> int:
        """Return the instant at which a session that begins now begins."""
        return max(self._clock(), self.floor)

    async def end(self, session_id: bytes, reason: str, *, actor: str | None = None) -> bool:
        """Remove a session and tell whoever has something of it open; False if it was gone."""
        reason = _check(reason)
        try:
            existed = await self._store.delete(session_id)
        except StoreError as error:
            self._journal.failed("delete", session_id, error)
        if existed:
            await self.note(session_id, reason, actor=actor)
        return existed

    async def note(self, session_id: bytes, reason: str, *, actor: str | None = None) -> None:
        """Tell that a session was removed, now and at its visitor's next request."""
        self._journal.revoked(session_id, reason, actor)
        if reason in _OWN:
            return
        now = self._clock()
        mark = Record(
            id=_mark_id(session_id),
            version=MARK,
            seen_at=now,
            created_at=self.now(),
            absolute_at=now + _REMEMBERED,
            idle_timeout=_REMEMBERED,
            verifier=NO_VERIFIER,
            body=pack_body(None, {_REASON: reason}, {}),
        )
        try:
            await self._store.create(mark)
        except StoreError as error:
            self._journal.unnoted(session_id, error)  # it has ended all the same

    async def reason(self, session_id: bytes) -> str | None:
        """Return why a session was ended, None if nobody ended it on purpose within a day.

        Raises:
            StoreError: the store failed.
        """
        try:
            mark = await self._store.load(_mark_id(session_id))
            return None if mark is None else mark.metadata().labels.get(_REASON)
        except UnreadableRecord:
            return None

    async def end_named(
        self, name: str, reason: str, *, keep: bytes | None, actor: str | None
    ) -> int:
        """End every session listed under a name, also those that are just logging in (law S16).

        Returns:
            How many there were.

        Raises:
            ConfigurationError: the store keeps no lists.
        """
        store, reason = self.lists(), _check(reason)
        try:
            before = self.floor = self.now() + 1
            await store.invalidate_logins(name, before)
            listed = await store.list_by_index(name)
        except StoreError as error:
            self._journal.failed("revoke", b"", error)
        ended = 0
        for record in listed:
            if record.id != keep:
                ended += await self.end(record.id, reason, actor=actor)
        return ended

    async def end_all(self, reason: str, *, actor: str | None) -> None:
        """End every session there is, at the cost of one write.

        Raises:
            ConfigurationError: the store cannot.
        """
        store, reason = self.lists(), _check(reason)
        try:
            before = self.floor = self.now() + 1
            await store.invalidate_all(before)
        except StoreError as error:
            self._journal.failed("revoke", b"", error)
        self._journal.revoked(b"", reason, actor)

    def lists(self) -> SupportsUserIndex:
        """Return the store as one that keeps lists.

        Raises:
            ConfigurationError: it keeps none.
        """
        if not isinstance(self._store, SupportsUserIndex):
            raise ConfigurationError(
                f"{self._store!r} keeps no lists of users; use a store that does, such as "
                "sqlite:/// or memory://"
            )
        return self._store


def _mark_id(session_id: bytes) -> bytes:
    return hashlib.sha256(b"sojourn mark" + session_id).digest()[:ID_BYTES]


def _check(reason: object) -> str:
    """Return a reason as a mark can keep it; asked before anything ends, so that all end or none.

    Raises:
        TypeError: it is no text, such as one that is yet to be translated.
    """
    text = plain_text(reason)
    if text is None:
        raise TypeError(f"a reason is a text, found {reason!r}")
    return text
