"""The sequential model of sessions' lives that random histories are checked against.

What lives here: ``Model``, which is told each effect that a store call had, in their order, says at
once what must not be, and foretells what a ticket opens. What must not: anything of the engine but
its constants; nothing here decides by a stored record what that record should be.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sojourn._core.login import GRACE, STRAGGLERS
from sojourn.record import Record

#: Milliseconds that pass before each login and each order to revoke, so that one is the earlier.
TICK = 10

#: At most so many pass in a round: what a commit takes for now may be so old when it is written.
ROUND = 10 * TICK

IDLE = 30_000
LONGEST = 120_000

#: What these operations write is one more than there was.
COUNTING = frozenset({"write", "socket"})

Ticket = tuple[bytes, bytes]
"""A session's ID and the hash of a verifier."""


@dataclass(eq=False)
class Operation:
    """What somebody does in a history.

    Attributes:
        kind: see ``test_histories.py``.
        ticket: brought along, None if there was none.
        user: who logs in or is revoked.
        began: when its login was called, or the order to revoke came, in the order of all such.
        alarming: its ticket was replaced by a rotation, as it found when it loaded the session.
    """

    kind: str
    ticket: Ticket | None
    user: str
    began: int = 0
    alarming: bool = False


@dataclass(eq=False)
class Life:
    """One session as it must be.

    Attributes:
        current: the hash of the verifier that is good.
        since_login: those that were given since the last login.
        recent: those that were current at some time of this round.
        former, former_until: the one that is good for a while.
        began: of the login, as in ``Operation``.
    """

    current: bytes
    seen_at: int
    absolute_at: int
    number: int = 0
    user: str | None = None
    began: int = 0
    former: bytes = b""
    former_until: int = 0
    alive: bool = True
    since_login: set[bytes] = field(default_factory=set)
    recent: set[bytes] = field(default_factory=set)

    def lives(self, now: int) -> bool:
        return self.alive and now < self.absolute_at and now < self.seen_at + IDLE

    def opens(self, verifier: bytes, now: int) -> bool:
        good = verifier == self.current or (verifier == self.former and now < self.former_until)
        return good and self.lives(now)

    def see(self, seen_at: int, now: int) -> None:
        assert seen_at == self.seen_at or now - ROUND < seen_at <= now + 1, "A17: another activity"
        self.seen_at = max(self.seen_at, seen_at)

    def give(self, verifier: bytes) -> None:
        assert verifier not in self.recent | self.since_login, "A9: a verifier that is not new"
        self.current = verifier
        self.since_login.add(verifier)
        self.recent.add(verifier)


class Model:
    """All sessions of one history."""

    def __init__(self) -> None:
        self.lives: dict[bytes, Life] = {}

    def new_round(self) -> None:
        for life in self.lives.values():
            life.recent = {life.current}

    # What happened

    def created(self, record: Record, operation: Operation, now: int) -> None:
        assert record.id not in self.lives, "A7: a session that was there before begins again"
        self.lives[record.id] = life = Life(b"", record.created_at, record.created_at + LONGEST)
        assert now - ROUND < record.created_at <= now + 1
        life.give(record.verifier)
        life.number = int(operation.kind in COUNTING)

    def logged_in(self, record: Record, operation: Operation, now: int) -> None:
        if record.version == 1:
            self.created(record, operation, now)
        else:
            self._must_be_good(record, operation)
        life = self.lives[record.id]
        assert now - ROUND < record.authenticated_at <= now
        life.user, life.began = operation.user, operation.began
        life.see(record.seen_at, now)
        life.absolute_at = record.authenticated_at + LONGEST
        life.former, life.former_until = b"", 0
        if record.version > 1:
            life.give(record.verifier)
        life.since_login = {record.verifier}

    def saved(self, record: Record, operation: Operation, now: int) -> None:
        life = self._must_be_good(record, operation)
        life.number += operation.kind in COUNTING
        life.see(record.seen_at, now)
        until, slack = life.former_until, 0
        if record.verifier != life.current:
            life.former, until, slack = life.current, now + GRACE, ROUND
            life.give(record.verifier)
        elif operation.ticket == (record.id, life.current) and now + STRAGGLERS < until:
            until, slack = now + STRAGGLERS, ROUND
        assert until - slack <= record.previous_valid_until <= until, "A9: another grace"
        life.former_until = record.previous_valid_until

    def loaded(self, operation: Operation, now: int) -> None:
        if operation.ticket is not None and operation.ticket[0] in self.lives:
            life, used = self.lives[operation.ticket[0]], operation.ticket[1]
            operation.alarming = used in life.since_login and not life.opens(used, now)

    def touched(self, record: Record, now: int) -> None:
        life = self.lives[record.id]
        assert life.alive, "A7: a touch of what has ended"
        life.see(record.seen_at, now)

    def deleted(self, session_id: bytes, operation: Operation | None, now: int) -> None:
        life = self.lives[session_id]
        assert life.alive, "A7: ended twice"
        ordered = operation is not None and (
            operation.kind in ("revoke", "logout") or operation.alarming
        )
        assert ordered or not life.lives(now), "A7: ended by nobody's order"
        life.alive = False

    def _must_be_good(self, record: Record, operation: Operation) -> Life:
        life = self.lives[record.id]
        assert life.alive, f"A7: a {operation.kind} after the end"
        assert operation.ticket is not None
        assert operation.ticket[0] == record.id
        assert operation.ticket[1] in life.since_login, f"A9: a {operation.kind} after a login"
        return life

    # What must be

    def check_revoked(self, operation: Operation) -> None:
        """Check that no login of before the order has outlived it (law S16)."""
        for life in self.lives.values():
            late = life.user == operation.user and life.began < operation.began
            assert not (late and life.alive), "S16: a login of before the order is good after it"

    def listed(self, user: str, now: int) -> set[str]:
        """Return the public IDs of a user's sessions (law S15)."""
        return {
            session_id.hex()
            for session_id, life in self.lives.items()
            if life.user == user and life.lives(now)
        }

    def expected(self, ticket: Ticket, now: int) -> tuple[str | None, int] | None:
        """Return the user and the number that a ticket shows, None if it opens nothing."""
        life = self.lives[ticket[0]]
        return (life.user, life.number) if life.opens(ticket[1], now) else None

    def check_cookie(self, before: Ticket | None, after: Ticket | None) -> None:
        """Check a cookie that an answer has set or cleared (laws A7 and A9)."""
        if after is None:
            assert before is not None
            assert not self.lives[before[0]].alive, "A7: a cookie is cleared whose session lives"
        else:
            life = self.lives[after[0]]
            assert after[1] in life.recent, "A7: a ticket is sent that was dead before"
