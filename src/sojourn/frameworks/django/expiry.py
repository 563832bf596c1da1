"""RecordLimits: the limits that ``set_expiry`` gives to a session, enforced by its record."""
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec
from django.utils import timezone

from sojourn._core.codec import decode
from sojourn._core.policy import Policy
from sojourn.record import FOREVER, Contents, Record

#: The key in which Django stores the argument of ``set_expiry``.
EXPIRY: Final = "_session_expiry"


class RecordLimits:
    """Returns the record of a session with the limits of ``set_expiry``.

    A number is the longest inactivity in seconds, a date is the end of the session, 0 and None are
    the limits of the installation.

    Args:
        policy: of the installation.
        idle_bounded: ``set_expiry`` cannot extend the longest inactivity of the policy.
        absolute_bounded: ``set_expiry`` cannot extend the longest lifetime of the policy.
    """

    def __init__(self, policy: Policy, *, idle_bounded: bool, absolute_bounded: bool) -> None:
        self._policy = policy
        self._idle_bounded = idle_bounded
        self._absolute_bounded = absolute_bounded

    def __call__(self, record: Record, contents: Contents) -> Record:
        """Return the record with its limits."""
        encoded = contents.data.get(EXPIRY)
        started = max(record.created_at, record.authenticated_at)
        limits = self._policy.limits(contents.user, record.persistent)
        absolute_at = min(limits.absolute_at(started), FOREVER)
        if encoded is None:
            if record.absolute_at == absolute_at:
                return record
            return msgspec.structs.replace(record, absolute_at=absolute_at)
        idle_timeout = record.idle_timeout
        value: Any = decode(encoded)
        if isinstance(value, str):
            ends_at = round(_to_datetime(value).timestamp() * 1000)
            absolute_at = self._bound(ends_at, absolute_at)
            if not self._idle_bounded:
                idle_timeout = max(idle_timeout, absolute_at - record.seen_at, 1)
        elif value:
            given = round(value * 1000)
            idle_timeout = max(1, min(given, idle_timeout) if self._idle_bounded else given)
            if given <= 0:
                absolute_at = min(absolute_at, record.seen_at)
            elif not self._absolute_bounded:
                absolute_at = max(absolute_at, min(started + idle_timeout, FOREVER))
        return msgspec.structs.replace(
            record, idle_timeout=min(idle_timeout, FOREVER), absolute_at=max(absolute_at, 1)
        )

    def _bound(self, ends_at: int, absolute_at: int) -> int:
        return min(ends_at, absolute_at) if self._absolute_bounded else ends_at


def _to_datetime(value: str) -> datetime:
    """Return the instant that ``set_expiry`` has stored as ISO 8601; naive ones as Django does."""
    moment = datetime.fromisoformat(value)
    return timezone.make_aware(moment) if timezone.is_naive(moment) else moment
