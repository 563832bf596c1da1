"""A sequential model of sessions, which checks the effects of store calls in their order.

It uses only constants of the engine, and predicts the session of each ticket.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sojourn._core.policy import IN_FLIGHT_PERIOD
from sojourn.record import FOREVER, Record

#: Milliseconds before each login and each revocation, so that their order is defined.
TICK = 10

#: The maximum duration of a round in milliseconds: the maximum age of a commit when it is saved.
MAX_ROUND = 10 * TICK

IDLE = 30_000
ABSOLUTE = 120_000

#: Operations that increment the counter.
COUNTING = frozenset({"write", "socket"})

Ticket = tuple[bytes, bytes]
"""A session's ID and the hash of a verifier."""


@dataclass(eq=False)
class Operation:
    """One operation of a history.

    Attributes:
        kind: see ``test_histories.py``.
        ticket: of the request; None if it has none.
        user: the one that logs in or is revoked.
        started_at: when the login or revocation was called.
        reuse: its ticket was no longer valid when the session was loaded.
    """

    kind: str
    ticket: Ticket | None
    user: str
    started_at: int = 0
    reuse: bool = False


@dataclass(eq=False)
class ModelSession:
    """The expected state of one session.

    Attributes:
        current: hash of the valid verifier.
        since_login: hashes of all verifiers since the last login.
        recent: hashes that were valid at some time of this round.
        previous, previous_until: the verifier that is valid during the grace period.
        login_started_at: of the last login, as in ``Operation``.
    """

    current: bytes
    seen_at: int
    absolute_at: int
    counter: int = 0
    user: str | None = None
    login_started_at: int = 0
    previous: bytes = b""
    previous_until: int = 0
    not_ended: bool = True
    since_login: set[bytes] = field(default_factory=set)
    recent: set[bytes] = field(default_factory=set)

    def is_live(self, now: int) -> bool:
        return self.not_ended and now < self.absolute_at and now < self.seen_at + IDLE

    def is_opened_by(self, verifier: bytes, now: int) -> bool:
        good = verifier == self.current or (verifier == self.previous and now < self.previous_until)
        return good and self.is_live(now)

    def set_seen_at(self, seen_at: int, now: int) -> None:
        assert seen_at == self.seen_at or now - MAX_ROUND < seen_at <= now + 1, (
            "A17: unexpected seen_at"
        )
        self.seen_at = max(self.seen_at, seen_at)

    def set_verifier(self, verifier: bytes) -> None:
        assert verifier not in self.recent | self.since_login, "A9: the verifier is not new"
        self.current = verifier
        self.since_login.add(verifier)
        self.recent.add(verifier)


class SessionModel:
    """All sessions of one history."""

    def __init__(self) -> None:
        self.sessions: dict[bytes, ModelSession] = {}

    def new_round(self) -> None:
        for session in self.sessions.values():
            session.recent = {session.current}

    # Effects of store calls

    def created(self, record: Record, operation: Operation, now: int) -> None:
        assert record.id not in self.sessions, "A7: an ended session was created again"
        self.sessions[record.id] = session = ModelSession(
            b"", record.created_at, record.created_at + ABSOLUTE
        )
        assert now - MAX_ROUND < record.created_at <= now + 1
        session.set_verifier(record.verifier)
        session.counter = int(operation.kind in COUNTING)

    def contents_after_login(self, record: Record, operation: Operation, now: int) -> None:
        if record.version == 1:
            self.created(record, operation, now)
        else:
            self._check_ticket(record, operation)
        session = self.sessions[record.id]
        assert now - MAX_ROUND < record.authenticated_at <= now
        session.user, session.login_started_at = operation.user, operation.started_at
        session.set_seen_at(record.seen_at, now)
        session.absolute_at = record.authenticated_at + ABSOLUTE
        session.previous, session.previous_until = b"", 0
        if record.version > 1:
            session.set_verifier(record.verifier)
        session.since_login = {record.verifier}

    def saved(self, record: Record, operation: Operation, now: int) -> None:
        session = self._check_ticket(record, operation)
        session.counter += operation.kind in COUNTING
        session.set_seen_at(record.seen_at, now)
        until, tolerance = session.previous_until, 0
        if record.verifier != session.current:
            session.previous, until = session.current, FOREVER
            session.set_verifier(record.verifier)
        elif operation.ticket == (record.id, session.current) and now + IN_FLIGHT_PERIOD < until:
            until, tolerance = now + IN_FLIGHT_PERIOD, MAX_ROUND
        assert until - tolerance <= record.previous_valid_until <= until, (
            "A9: unexpected grace period"
        )
        session.previous_until = record.previous_valid_until

    def loaded(self, operation: Operation, now: int) -> None:
        if operation.ticket is not None and operation.ticket[0] in self.sessions:
            session, used = self.sessions[operation.ticket[0]], operation.ticket[1]
            operation.reuse = used in session.since_login and not session.is_opened_by(used, now)

    def touched(self, record: Record, now: int) -> None:
        session = self.sessions[record.id]
        assert session.not_ended, "A7: an ended session was touched"
        session.set_seen_at(record.seen_at, now)

    def deleted(self, session_id: bytes, operation: Operation | None, now: int) -> None:
        session = self.sessions[session_id]
        assert session.not_ended, "A7: deleted twice"
        ordered = operation is not None and (
            operation.kind in ("revoke", "logout") or operation.reuse
        )
        assert ordered or not session.is_live(now), "A7: deleted without a reason"
        session.not_ended = False

    def _check_ticket(self, record: Record, operation: Operation) -> ModelSession:
        session = self.sessions[record.id]
        assert session.not_ended, f"A7: {operation.kind} after the end"
        assert operation.ticket is not None
        assert operation.ticket[0] == record.id
        assert operation.ticket[1] in session.since_login, (
            f"A9: {operation.kind} with a ticket from before the login"
        )
        return session

    # Predictions

    def check_revoked(self, operation: Operation) -> None:
        """Check that no earlier login survived the revocation (law S16)."""
        for session in self.sessions.values():
            late = (
                session.user == operation.user and session.login_started_at < operation.started_at
            )
            assert not (late and session.not_ended), "S16: an earlier login survived the revocation"

    def listed(self, user: str, now: int) -> set[str]:
        """Return the public IDs of a user's sessions (law S15)."""
        return {
            session_id.hex()
            for session_id, session in self.sessions.items()
            if session.user == user and session.is_live(now)
        }

    def expected(self, ticket: Ticket, now: int) -> tuple[str | None, int] | None:
        """Return the user and the counter of a ticket's session; None if the ticket is invalid."""
        session = self.sessions[ticket[0]]
        return (session.user, session.counter) if session.is_opened_by(ticket[1], now) else None

    def check_cookie(self, before: Ticket | None, after: Ticket | None) -> None:
        """Check a cookie that a response set or cleared (laws A7 and A9)."""
        if after is None:
            assert before is not None
            assert not self.sessions[before[0]].not_ended, (
                "A7: the cookie of a live session was cleared"
            )
        else:
            session = self.sessions[after[0]]
            assert after[1] in session.recent, "A7: an invalid ticket was sent"
