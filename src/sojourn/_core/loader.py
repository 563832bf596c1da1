"""Loader: from a ticket to the working copy of its session."""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest

from sojourn._core.concurrency import Deadline, monotonic, shielded
from sojourn._core.context import CoreContext, error_in_transit
from sojourn._core.immediate_store import immediate_store
from sojourn._core.login import Rotation, end_of_grace_period
from sojourn._core.policy import expired
from sojourn._core.record_cache import RecordCache
from sojourn._core.revocation import Revoker
from sojourn._core.working_copy import Client, CookieChange, WorkingCopy
from sojourn._crypto.tickets import Ticket
from sojourn.errors import StoreError
from sojourn.events import Expired, Read, Reused
from sojourn.record import Record, UnreadableRecord
from sojourn.store import Store


class Loader:
    """Loads sessions for an engine.

    A ticket is valid if its verifier is the record's, or the previous one during its grace period.
    Use of a ticket that was replaced earlier is reported as theft and by policy revokes the session
    (law A9, security.md B-40).

    Args:
        context: of the engine.
        revoker: revokes sessions whose previous ticket is reused.
    """

    __slots__ = (
        "_checks_labels",
        "_clock",
        "_context",
        "_coroutine_needed",
        "_near_cache",
        "_peek",
        "_revoker",
        "_rotates",
        "_server_clock",
        "_store",
    )

    def __init__(self, context: CoreContext, revoker: Revoker) -> None:
        self._context = context
        self._revoker = revoker
        self._clock: Callable[[], int] = context.clock
        self._rotates = context.config.policy.rotate_interval is not None
        self._checks_labels = bool(context.config.check_labels)
        self._near_cache = context.near_cache
        self._server_clock = context.server_clock
        self._coroutine_needed = (
            self._rotates or self._checks_labels or self._server_clock is not None
        )
        self.use_store(context.store)

    def use_store(self, store: Store) -> None:
        """Load from another store; see ``Engine.use_store``."""
        self._store = store
        self._peek: Callable[[bytes], Record | None] | None = None
        immediate = immediate_store(store)
        if immediate is not None and not self._coroutine_needed:
            self._peek = immediate.peek

    def load_immediately(self, ticket: Ticket, client: Client | None) -> WorkingCopy | None:
        """Load the ordinary session without a coroutine; return None if ``load`` has to do it.

        Ordinary means: the store answers at once, the verifier is the record's, there is no
        previous one, and the session has not expired.
        """
        peek = self._peek
        if peek is None:
            return None
        record = peek(ticket.session_id)
        if record is None:
            return None
        clock = self._clock
        now = clock()
        if (
            record.previous_valid_until
            or not compare_digest(record.verifier, ticket.digest)
            or now >= record.absolute_at
            or now >= record.seen_at + record.idle_timeout
        ):
            return None
        context = self._context
        dispatcher = context.dispatcher
        if Read in dispatcher.listeners:
            context.report_read(record)
        else:  # as `report_read` does
            dispatcher.counts[Read] += 1
        return WorkingCopy(context, record, ticket.verifier, client)

    def load_from_memory(self, ticket: Ticket, client: Client | None) -> WorkingCopy | None:
        """Load the ordinary session from the near cache; None if the store has to be called.

        Whatever is unusual is decided on the store's record: a ticket that is not the current one,
        a session that has expired, a rotation that is due or in its grace period (law N1).
        """
        near_cache = self._near_cache
        record = None if near_cache is None else near_cache.get(ticket.session_id)
        if record is None:
            return None
        context = self._context
        now = self._reading()
        if (
            now is None
            or not compare_digest(record.verifier, ticket.digest)
            or not record.confirmed
            or expired(record, now) is not None
            or now < record.previous_valid_until
            or context.config.policy.rotation_due(record, now)
        ):
            return None
        copy = WorkingCopy(context, record, ticket.verifier, client)
        if self._checks_labels and not self._labels_match(copy, client):
            return None
        context.report_read(record)
        return copy

    async def _load_record(self, near_cache: RecordCache, session_id: bytes) -> Record | None:
        """Load a record, and store it in the near cache."""
        reservation = near_cache.reserve(session_id)
        record = None
        try:
            record = await self._store.load(session_id)
        finally:
            near_cache.put(reservation, record)
        return record

    async def load(  # noqa: C901 - the exits of a load, top to bottom
        self, ticket: Ticket | None, client: Client | None = None
    ) -> WorkingCopy:
        """Load the session of a ticket; return an empty session if there is none.

        Raises:
            StoreUnavailable: the store failed; that is never an empty session (law A15).
        """
        context = self._context
        if ticket is None:
            return WorkingCopy(context, None, b"", client)
        started = monotonic()
        try:
            record = await (
                self._store.load(ticket.session_id)
                if self._near_cache is None
                else self._load_record(self._near_cache, ticket.session_id)
            )
        except UnreadableRecord as error:
            context.report_unreadable(ticket.session_id, error)
            return WorkingCopy(context, None, b"", client)
        except StoreError as error:
            context.raise_store_error("load", ticket.session_id, error)
        if record is None:
            return await self._deadline(started).bound(self._load_unknown(ticket, client))
        server_clock = self._server_clock  # `_reading`, inlined: on the path of every request
        now = self._clock() if server_clock is None else server_clock.reading()
        if now is None:
            await context.synchronize_clock(ticket.session_id, self._deadline(started))
            now = self._clock()
        if not compare_digest(record.verifier, ticket.digest):
            return await self._deadline(started).bound(
                self._load_with_previous_ticket(ticket, record, client, now)
            )
        if (
            now >= record.absolute_at or now >= record.seen_at + record.idle_timeout  # as `expired`
        ) and await self._deadline(started).bound(self.expire(record)):
            return self._ended(f"expired ({expired(record, now)})", client)
        copy = WorkingCopy(context, record, ticket.verifier, client)
        if self._checks_labels and not self._labels_match(copy, client):
            return self._reject(ticket, "labels", client)
        if self._rotates or record.previous_valid_until:
            self._maintain_verifier(copy, record, now)
        dispatcher = context.dispatcher
        if Read in dispatcher.listeners:
            context.report_read(record)
        else:  # as `report_read` does
            dispatcher.counts[Read] += 1
        return copy

    async def fetch(self, session_id: bytes) -> Record | None:
        """Load the newest record of an open session; None if it is gone or unreadable.

        Args:
            session_id: 16 bytes.
        """
        started = monotonic()
        try:
            record = await (
                self._store.load(session_id)
                if self._near_cache is None
                # So that no request is served an older record afterwards, or a session that ended.
                else self._load_record(self._near_cache, session_id)
            )
        except UnreadableRecord as error:
            self._context.report_unreadable(session_id, error)
            return None
        except StoreError as error:
            self._context.raise_store_error("load", session_id, error)
        if record is not None and record.in_transit:
            self._context.raise_store_error("load", session_id, error_in_transit(record))
        if self._reading() is None:
            await self._context.synchronize_clock(session_id, self._deadline(started))
        return record

    def _deadline(self, started: float) -> Deadline:
        """Return the deadline of a load that started at an instant of ``monotonic``."""
        return Deadline(self._context.config.store_timeout, started)

    def _reading(self) -> int | None:
        """Return the time for a decision; None if the server's time must be measured first."""
        server_clock = self._server_clock
        return self._clock() if server_clock is None else server_clock.reading()

    # Tickets that are not the current one

    async def _load_unknown(self, ticket: Ticket, client: Client | None) -> WorkingCopy:
        """Return an empty session, with the reason if the previous one was revoked."""
        try:
            reason = await self._revoker.reason(ticket.session_id)
        except StoreError as error:
            self._context.raise_store_error("load", ticket.session_id, error)
        copy = self._reject(ticket, "unknown" if reason is None else "revoked", client)
        copy.ended_reason = reason
        return copy

    async def _load_with_previous_ticket(
        self, ticket: Ticket, record: Record, client: Client | None, now: int
    ) -> WorkingCopy:
        """Return the session of a ticket whose verifier is not the record's current one."""
        context = self._context
        if record.in_transit:
            context.raise_store_error("load", record.id, error_in_transit(record))
        limit = expired(record, now)
        if limit is not None and await self.expire(record):
            return self._ended(f"expired ({limit})", client)
        is_previous = compare_digest(record.previous_verifier, ticket.digest)
        current = context.rotation.descendant(record.id, ticket.verifier, hashed=record.verifier)
        if is_previous and now < record.previous_valid_until:
            copy = WorkingCopy(
                context, record, ticket.verifier if current is None else current, client
            )
            if self._checks_labels and not self._labels_match(copy, client):
                return self._reject(ticket, "labels", client)
            if current is not None:  # the response with the new ticket may have been lost
                copy.cookie_change = CookieChange.SEND
                # Until then no further rotation can have replaced it.
                copy.send_cookie_until = end_of_grace_period(record, now)
            context.report_read(record)
            return copy
        if current is None and not is_previous:
            return self._reject(ticket, "replaced", client)  # by a login, or never issued
        context.dispatcher.emit(Reused(record.session_id))
        if context.config.revoke_reused:
            await self._revoker.revoke(record.id, "reused", record=record)
        return self._ended("reused", client)

    def _reject(self, ticket: Ticket, reason: str, client: Client | None) -> WorkingCopy:
        self._context.report_rejected(ticket.session_id, reason)
        return WorkingCopy(self._context, None, b"", client)

    def _ended(self, reason: str, client: Client | None) -> WorkingCopy:
        copy = WorkingCopy(self._context, None, b"", client)
        copy.ended_reason = reason
        return copy

    def _labels_match(self, copy: WorkingCopy, client: Client | None) -> bool:
        copy.decode()
        stored = copy.contents.labels if copy.contents else {}
        present = {} if client is None else client.labels()
        return all(
            stored.get(name) == present.get(name) for name in self._context.config.check_labels
        )

    # Maintenance

    def _maintain_verifier(self, copy: WorkingCopy, record: Record, now: int) -> None:
        """Have the commit record that a new ticket was seen, or rotate the verifier if due."""
        context = self._context
        if context.config.policy.rotation_due(record, now):
            verifier = context.rotation.next_verifier(record.id, copy.verifier)
            copy.renewal = Rotation(verifier, automatic=True)
        copy.header_dirty = end_of_grace_period(record, now) < record.previous_valid_until

    async def expire(self, record: Record) -> bool:
        """Delete a record if it has passed a limit; return whether it had."""
        limit = expired(record, self._clock())
        if limit is None:
            return False
        await shielded(self._expire(record, limit))  # its connections have to be closed
        return True

    async def _expire(self, record: Record, limit: str) -> None:
        context = self._context
        try:
            existed = await self._store.delete(record.id)
        except StoreError as error:
            context.raise_store_error("delete", record.id, error)
        context.connections.session_expired(record.id, limit)
        context.dispatcher.emit(Expired(record.session_id, limit))
        if existed and context.history is not None:  # one entry, of the process that removed it
            await context.history.add(
                [record.id],
                f"expired: {limit}",
                at=self._clock(),
                records={record.id: record},
            )

    async def still_alive(self, record: Record) -> bool:
        """Return whether another request has extended a session that seems to have expired."""
        newest = await self.fetch(record.id)
        return newest is not None and not await self.expire(newest)
