"""Plan: what a commit must write, decided without writing anything.

What lives here: the five possible answers and the function that picks one. What must not: I/O,
and how an answer is carried out (``engine.py``).

The decision depends on few things only: whether a record exists, whether the handler changed,
renewed or destroyed the session, whether the request failed, whether it brought the cookie, and
what the time is. ``tests/core/test_plan.py`` goes through the whole table.
"""

from __future__ import annotations

from dataclasses import dataclass

from sojourn.core.policy import Policy
from sojourn.core.record import Record


@dataclass(frozen=True, slots=True)
class Nothing:
    """There is nothing to write."""


@dataclass(frozen=True, slots=True)
class Touch:
    """Only ``seen_at`` moves, because the last time it did is too long ago."""


@dataclass(frozen=True, slots=True)
class Save:
    """Changes, or the confirmation of a new session, go into the existing record."""


@dataclass(frozen=True, slots=True)
class Create:
    """The first write of a visitor: a new record, and a cookie with it."""


@dataclass(frozen=True, slots=True)
class Remove:
    """The session was destroyed; ``create`` says that another begins in the same request."""

    create: bool


Write = Touch | Save | Create | Remove
Plan = Nothing | Write

NOTHING, TOUCH, SAVE, CREATE = Nothing(), Touch(), Save(), Create()
_REMOVE = (Remove(create=False), Remove(create=True))


def plan(
    record: Record | None,
    *,
    changed: bool,
    destroyed: bool,
    failed: bool,
    renewing: bool,
    upkeep: bool,
    returned: bool,
    now: int,
    policy: Policy,
) -> Plan:
    """Decide what a commit must write.

    Args:
        record: the loaded record, None where the session has none (any more).
        changed: the handler changed data.
        destroyed: the handler ended a stored session in this request.
        failed: the request ends 5xx or by an exception: data changes do not count, destroying
            does (law A10).
        renewing: a login or a rotation is due; who asks for it has looked whether it still may.
        upkeep: the header has something to note.
        returned: the visitor brought the session's cookie, which confirms it.
        now: milliseconds since 1970 UTC.
        policy: the installation's limits.
    """
    keep = renewing or (changed and not failed)
    if destroyed:
        return _REMOVE[keep]
    if record is None:
        return CREATE if keep else NOTHING
    if keep or upkeep or (returned and not record.confirmed):
        return SAVE
    return TOUCH if policy.touch_due(record, now) else NOTHING
