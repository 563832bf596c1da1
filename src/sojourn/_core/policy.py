"""Limits and timeouts: when sessions expire, and when touch and rotation are due.

Times and durations are integer milliseconds; the current time is always an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from sojourn.record import FOREVER, Record

#: Milliseconds for which the previous verifier stays valid after its successor was seen: requests
#: sent earlier may still be under way (law A9).
IN_FLIGHT_PERIOD: Final = 2_000


class Limits(msgspec.Struct, frozen=True):
    """The limits of one kind of session, in milliseconds.

    Attributes:
        idle_timeout: longest inactivity.
        absolute_timeout: longest lifetime; None for no limit, which must be given (ASVS 7.1.1).
    """

    idle_timeout: int
    absolute_timeout: int | None

    def absolute_at(self, now: int) -> int:
        """Return when a session that is created or logs in at ``now`` must end."""
        return FOREVER if self.absolute_timeout is None else now + self.absolute_timeout


_MINUTE, _HOUR, _DAY = 60_000, 3_600_000, 86_400_000

#: NIST SP 800-63B-4 2.1.3, 2.2.3, 2.3.3: overall and inactivity timeouts, in milliseconds.
PRESETS: Final[Mapping[str, Limits]] = {
    "aal1": Limits(30 * _DAY, 30 * _DAY),
    "aal2": Limits(_HOUR, _DAY),
    "aal3": Limits(15 * _MINUTE, 12 * _HOUR),
}


class Policy(msgspec.Struct, frozen=True):
    """The limits of one installation, in milliseconds.

    The server enforces them independently of the cookie's age (NIST SP 800-63B-4 SESS-06, COOK-05).

    Attributes:
        authenticated: limits after a login.
        anonymous: limits before a login.
        remembered: limits of a persistent session, such as after ``login(remember=True)``.
        touch_interval: how old ``seen_at`` may become before a read writes it again.
        unconfirmed_timeout: lifetime of a new session until its cookie comes back once; None for no
            such limit.
        rotate_interval: age at which a verifier is replaced; None for no limit.
    """

    authenticated: Limits
    anonymous: Limits
    remembered: Limits
    touch_interval: int
    unconfirmed_timeout: int | None = None
    rotate_interval: int | None = None

    def limits(self, user: str | None, persistent: bool) -> Limits:  # noqa: FBT001 - two facts of a record
        """Return the limits for a session of this kind."""
        if persistent:
            return self.remembered
        return self.anonymous if user is None else self.authenticated

    def initial_idle_timeout(self) -> int:
        """Return the idle timeout of a session whose cookie has not come back yet."""
        if self.unconfirmed_timeout is None:
            return self.anonymous.idle_timeout
        return min(self.anonymous.idle_timeout, self.unconfirmed_timeout)

    def reauthentication_required(self, record: Record, now: int) -> bool:
        """Return whether a session at ``now`` lives on only because of ``remember=True``.

        It is past the limits of an ordinary login, so the login no longer counts as recent (NIST
        SP 800-63B-4 SESS-05).
        """
        return (
            record.persistent
            and record.authenticated_at > 0
            and (
                now >= record.seen_at + self.authenticated.idle_timeout
                or now >= self.authenticated.absolute_at(record.authenticated_at)
            )
        )

    def rotation_due(self, record: Record, now: int) -> bool:
        """Return whether the verifier of a record is old enough at ``now`` to be replaced.

        Its age counts from the creation or the login, or after a rotation from its first use, which
        follows from the end of the grace period. No rotation is due during that period: the client
        may not have received the present verifier, and requests with the previous one may be in
        flight (law A9).

        Args:
            record: as stored.
            now: milliseconds since 1970 UTC.
        """
        if self.rotate_interval is None or now < record.previous_valid_until:
            return False
        first_use = record.previous_valid_until - IN_FLIGHT_PERIOD
        in_use_since = max(first_use, record.authenticated_at, record.created_at)
        return now - in_use_since >= self.rotate_interval

    def touch_due(self, record: Record, now: int) -> bool:
        """Return whether a read at ``now`` should write ``seen_at``.

        The record's own idle timeout counts too: it may have been written under shorter limits.
        """
        inactivity = now - record.seen_at
        return inactivity >= self.touch_interval or 2 * inactivity >= record.idle_timeout


def expired(record: Record, now: int) -> str | None:
    """Return the limit that a record has passed at ``now``: "absolute", "idle" or "unconfirmed".

    None while it is alive. A record has expired from the millisecond of its deadline on.
    """
    if now >= record.absolute_at:
        return "absolute"
    if now >= record.seen_at + record.idle_timeout:
        return "idle" if record.confirmed else "unconfirmed"
    return None
