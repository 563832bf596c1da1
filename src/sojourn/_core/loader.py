"""Loader: from a ticket to the session that it opens.

What lives here: loading, the checks of a ticket against its record, and meeting a session that has
passed a limit. What must not: cookies (``web/``), sealing (``ticket.py``, ``sealing.py``), and any
change of a session that lives.

A ticket opens a session if its verifier is the record's, or was until a rotation a moment ago. One
that was replaced longer ago was issued by us and is used by somebody who should not have it any
more: that is reported, and by policy ends the session (law A9, security.md B-40).
"""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest
from typing import TYPE_CHECKING, Any

from sojourn._core.journal import Journal
from sojourn._core.login import GRACE, STRAGGLERS, Rotation
from sojourn._core.policy import expired
from sojourn._core.session import Session
from sojourn._core.working_copy import Client, CookieChange
from sojourn._crypto.tickets import Ticket
from sojourn.errors import StoreError
from sojourn.record import Record, UnreadableRecord

if TYPE_CHECKING:
    from sojourn._core.engine import Engine


class Loader:
    """Loads sessions for an engine.

    Args:
        engine: whose sessions they are.
        check_labels: labels that must not change during a session's life.
        revoke_reused: whether a replaced ticket that is used again ends its session.
    """

    __slots__ = ("_check_labels", "_clock", "_engine", "_journal", "_revoke_reused", "_rotates")

    def __init__(
        self, engine: Engine, *, check_labels: tuple[str, ...], revoke_reused: bool
    ) -> None:
        self._engine = engine
        self._journal: Journal = engine.journal
        self._clock: Callable[[], int] = engine.clock
        self._check_labels = check_labels
        self._revoke_reused = revoke_reused
        self._rotates = engine.policy.rotate_interval is not None

    async def load(self, ticket: Ticket | None, client: Client | None = None) -> Session[Any]:
        """Return the session that a ticket opens, an empty one for any other visitor.

        Raises:
            StoreUnavailable: the store failed; that is never an empty session (law A15).
        """
        engine = self._engine
        if ticket is None:
            return Session(engine, None, b"", client)
        try:
            record = await engine.store.load(ticket.session_id)
        except UnreadableRecord as damage:
            self._journal.unreadable(ticket.session_id, damage)
            return Session(engine, None, b"", client)
        except StoreError as error:
            self._journal.failed("load", ticket.session_id, error)
        if record is None:
            return await self._unknown(ticket, client)
        clock = self._clock  # fetched first: `self._clock()` looks for a method
        now = clock()
        if not compare_digest(record.verifier, ticket.digest):
            return await self._replaced(ticket, record, client, now)
        limit = expired(record, now)
        if limit is not None and await self.expire(record):
            return self._ended(f"expired ({limit})", client)
        # Not Session[Any](...): calling the alias costs more than making the session.
        session: Session[Any] = Session(engine, record, ticket.verifier, client)
        if self._check_labels and not self._labels_match(session, client):
            return self._reject(ticket, "labels", client)
        if self._rotates or record.previous_valid_until:
            self._look_after(session, record, now)
        self._journal.read(record)
        return session

    async def fetch(self, session_id: bytes) -> Record | None:
        """Load a record for a session that is open; None if it is gone or unreadable."""
        try:
            return await self._engine.store.load(session_id)
        except UnreadableRecord as damage:
            self._journal.unreadable(session_id, damage)
            return None
        except StoreError as error:
            self._journal.failed("load", session_id, error)

    # Tickets that open nothing, or not for long

    async def _unknown(self, ticket: Ticket, client: Client | None) -> Session[Any]:
        """Return an empty session that knows why the former one was ended, if somebody did."""
        try:
            reason = await self._engine.ender.reason(ticket.session_id)
        except StoreError as error:
            self._journal.failed("load", ticket.session_id, error)
        session = self._reject(ticket, "unknown" if reason is None else "revoked", client)
        session._reason = reason
        return session

    async def _replaced(
        self, ticket: Ticket, record: Record, client: Client | None, now: int
    ) -> Session[Any]:
        """Return what a ticket opens whose verifier is not the record's (any more)."""
        limit = expired(record, now)
        if limit is not None and await self.expire(record):
            return self._ended(f"expired ({limit})", client)
        former = compare_digest(record.previous_verifier, ticket.digest)
        heir = self._engine.chain.heir(record.id, ticket.verifier, hashed=record.verifier)
        if former and now < record.previous_valid_until:
            session: Session[Any] = Session(
                self._engine, record, ticket.verifier if heir is None else heir, client
            )
            if self._check_labels and not self._labels_match(session, client):
                return self._reject(ticket, "labels", client)
            if heir is not None:  # the answer with the new ticket may have been lost
                session._cookie = CookieChange.SEND
            self._journal.read(record)
            return session
        if heir is None and not former:
            return self._reject(ticket, "replaced", client)  # by a login, or by nothing of ours
        self._journal.reused(record.id)
        if self._revoke_reused:
            await self._engine.ender.end(record.id, "reused")
        return self._ended("reused", client)

    def _reject(self, ticket: Ticket, reason: str, client: Client | None) -> Session[Any]:
        self._journal.rejected(ticket.session_id, reason)
        return Session(self._engine, None, b"", client)

    def _ended(self, reason: str, client: Client | None) -> Session[Any]:
        session: Session[Any] = Session(self._engine, None, b"", client)
        session._reason = reason
        return session

    def _labels_match(self, session: Session[Any], client: Client | None) -> bool:
        session._open()
        noted = session._contents.labels if session._contents else {}
        present = {} if client is None else client.labels()
        return all(noted.get(name) == present.get(name) for name in self._check_labels)

    # Sessions that live

    def _look_after(self, session: Session[Any], record: Record, now: int) -> None:
        """Have the commit note that a new ticket was seen, or rotate."""
        policy = self._engine.policy
        if policy.rotation_due(record, now, grace=GRACE):
            verifier = self._engine.chain.following(record.id, session._verifier)
            session._renewal = Rotation(verifier, automatic=True)
        session._upkeep = record.previous_valid_until > now + STRAGGLERS

    async def expire(self, record: Record) -> bool:
        """Remove a record that has passed a limit; tell whether it had."""
        limit = expired(record, self._clock())
        if limit is None:
            return False
        try:
            await self._engine.store.delete(record.id)
        except StoreError as error:
            self._journal.failed("delete", record.id, error)
        self._journal.expired(record, limit)
        return True

    async def revisit(self, record: Record) -> bool:
        """Look whether others kept a session alive that has passed a limit as far as we know."""
        newest = await self.fetch(record.id)
        return newest is not None and not await self.expire(newest)
