"""What a store must do, and what it may do beyond that.

What lives here: one protocol for each capability, and, under the name that authors of stores
import, those that the core needs and has: ``Store`` and ``ListsUsers`` (``core/store.py``) and
``Announces`` (``core/announces.py``). What must not: a store.

Capabilities are looked for when ``Sessions`` is built, so that a set-up which cannot work is
refused then and never by an exception at request time. To write a store, implement ``Store``,
inherit ``sojourn.testing.StoreSuite`` in a test, and register an entry point (``docs/stores.md``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from sojourn.core.announces import Announcement, Announces, Heard, Kind, Listening
from sojourn.core.record import Record, UnreadableRecord
from sojourn.core.store import (
    FULL,
    GONE,
    SAVED,
    VOID,
    BindResult,
    Bound,
    Conflict,
    Evict,
    Limit,
    ListsUsers,
    NeedsLoop,
    Purged,
    SaveResult,
    Store,
)

__all__ = [
    "FULL",
    "GONE",
    "SAVED",
    "VOID",
    "Announcement",
    "Announces",
    "BindResult",
    "Bound",
    "Closes",
    "Conflict",
    "Counts",
    "Embedded",
    "Evict",
    "Heard",
    "Kind",
    "Limit",
    "Listening",
    "ListsUsers",
    "NeedsLoop",
    "Purged",
    "Record",
    "SaveResult",
    "Store",
    "Sweeps",
    "UnreadableRecord",
    "Waits",
]


@runtime_checkable
class Counts(Protocol):
    """Can tell how many sessions are alive."""

    async def count(self, now: int) -> int:
        """Return the number of records not expired at ``now`` (milliseconds since 1970 UTC).

        Those of version 0 do not count: they are marks of sessions that were ended.
        """
        ...


@runtime_checkable
class Embedded(Protocol):
    """Belongs to this machine, so that a generated secret can be kept beside it."""

    def secret_path(self) -> Path | None:
        """Return the file for the secret; None if the sessions do not outlive the process."""
        ...


@runtime_checkable
class Sweeps(Protocol):
    """Does not forget expired records by itself: ``purge`` must be called now and then."""

    @property
    def purge_interval(self) -> float:
        """Seconds between two rounds of ``purge``."""
        ...


@runtime_checkable
class Closes(Protocol):
    """Holds files, threads or connections."""

    def close(self) -> None:
        """Let go of them; further calls of the store are errors. May be repeated."""
        ...


@runtime_checkable
class Waits(Protocol):
    """Is made by the developer, yet keeps the installation's ``store_timeout``."""

    def set_timeout(self, seconds: float) -> None:
        """Take the deadline of every call; called once, when ``Sessions`` is built."""
        ...
