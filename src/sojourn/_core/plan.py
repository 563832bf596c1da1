"""Plan: what a commit must write, decided without writing anything.

What lives here: the possible answers and the function that picks one. What must not: I/O,
and how an answer is carried out (``engine.py``).

The decision depends on few things only: whether a record exists, whether there is something to
keep, whether the handler destroyed the session, whether the header has something to note, and what
the time is. ``tests/unit/core/test_plan.py`` goes through the whole table.
"""

from __future__ import annotations

from dataclasses import dataclass

from sojourn._core.policy import Policy
from sojourn.record import Record


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

#: What a commit writes; None for nothing.
Plan = Write | None

TOUCH, SAVE, CREATE = Touch(), Save(), Create()
_REMOVE = (Remove(create=False), Remove(create=True))


def plan(  # noqa: PLR0917 - by position, as every request comes this way
    record: Record | None,
    keep: bool,  # noqa: FBT001 - as above
    destroyed: bool,  # noqa: FBT001 - as above
    upkeep: bool,  # noqa: FBT001 - as above
    now: int,
    policy: Policy,
) -> Plan:
    """Decide what a commit must write.

    Args:
        record: the loaded record, None where the session has none (any more).
        keep: there is something to keep: the handler changed data and the request does not fail
            (law A10), or a login or a rotation is due.
        destroyed: the handler ended a stored session in this request.
        upkeep: the header has something to note, such as that the cookie came back.
        now: milliseconds since 1970 UTC.
        policy: the installation's limits.
    """
    if destroyed:
        return _REMOVE[keep]
    if record is None:
        return CREATE if keep else None
    if keep or upkeep:
        return SAVE
    return TOUCH if policy.touch_due(record, now) else None
