"""The pure decision what a commit writes."""

from __future__ import annotations

import msgspec

from sojourn._core.policy import Policy
from sojourn.record import Record


class Touch:
    """Only ``seen_at`` is updated."""

    __slots__ = ()


class Save:
    """The existing record is updated."""

    __slots__ = ()


class Create:
    """The first write of a visitor: a new record and a cookie."""

    __slots__ = ()


class Remove(msgspec.Struct, frozen=True):
    """The session was destroyed; ``create``: a new one begins in the same request."""

    create: bool


Write = Touch | Save | Create | Remove

#: The write of a commit; None for no write.
Plan = Write | None

TOUCH, SAVE, CREATE = Touch(), Save(), Create()
_REMOVE = (Remove(create=False), Remove(create=True))


def plan(  # noqa: PLR0917 - positional: called for every request
    record: Record | None,
    keep: bool,  # noqa: FBT001 - a keyword would cost each request
    destroyed: bool,  # noqa: FBT001 - a keyword would cost each request
    header_dirty: bool,  # noqa: FBT001 - a keyword would cost each request
    now: int,
    policy: Policy,
) -> Plan:
    """Decide what a commit must write.

    Args:
        record: the loaded record; None if the session has no record, or none any more.
        keep: the handler changed data and the request did not fail (law A10), or a login or a
            rotation is due.
        destroyed: the handler destroyed a stored session in this request.
        header_dirty: a header field of the record has changed, such as ``confirmed``.
        now: milliseconds since 1970 UTC.
        policy: the installation's limits.
    """
    if destroyed:
        return _REMOVE[keep]
    if record is None:
        return CREATE if keep else None
    if keep or header_dirty:
        return SAVE
    return TOUCH if policy.touch_due(record, now) else None
