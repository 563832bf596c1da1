"""Passing calls on: what the stores that stand before another one in tests have in common.

What lives here: ``Passing``, the calls of a store and of one that lists users, each handed to one
method. What must not: faults (``faults.py``) and pauses (``interleave.py``). A passing store has
the capability ``SupportsUserIndex`` exactly if the one behind it has; no other capability is passed on, so
nothing sweeps it in the background.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar, get_args

from sojourn.record import Record
from sojourn.store import (
    Purged,
    SaveLoginResult,
    SaveResult,
    SessionLimit,
    Store,
    SupportsUserIndex,
)

T = TypeVar("T")

Verb = Literal[
    "load",
    "create",
    "save",
    "touch",
    "delete",
    "purge",
    "save_login",
    "list_by_index",
    "invalidate_logins",
    "invalidate_all",
]
VERBS: tuple[Verb, ...] = get_args(Verb)


class Passing(ABC):
    """Hands each call, by its verb, to ``passed``.

    Args:
        store: the one behind.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        if isinstance(store, SupportsUserIndex):
            _add_lists(self, store)

    @abstractmethod
    async def passed(self, verb: Verb, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Make a call of the store behind, or not."""

    async def load(self, session_id: bytes) -> Record | None:
        """Return the record, None if there is none."""
        return await self.passed("load", lambda: self.store.load(session_id))

    async def create(self, record: Record) -> bool:
        """Insert a record; False if its ID is taken."""
        return await self.passed("create", lambda: self.store.create(record))

    async def save(self, record: Record, expected_version: int) -> SaveResult:
        """Replace the record whose version is the expected one."""
        return await self.passed("save", lambda: self.store.save(record, expected_version))

    async def touch(self, record: Record) -> bool:
        """Move ``seen_at`` forward, never backward."""
        return await self.passed("touch", lambda: self.store.touch(record))

    async def delete(self, session_id: bytes) -> bool:
        """Remove a record; tell whether there was one."""
        return await self.passed("delete", lambda: self.store.delete(session_id))

    async def purge(self, now: int, limit: int) -> Purged:
        """Remove up to ``limit`` records that are expired."""
        return await self.passed("purge", lambda: self.store.purge(now, limit))


def _add_lists(front: Any, store: SupportsUserIndex) -> None:
    """Give one object the four calls: a class cannot have them for some of its objects only."""

    async def save_login(
        record: Record, expected_version: int, *, limit: SessionLimit | None, now: int
    ) -> SaveLoginResult:
        answer: SaveLoginResult = await front.passed(
            "save_login", lambda: store.save_login(record, expected_version, limit=limit, now=now)
        )
        return answer

    async def list_by_index(name: str) -> list[Record]:
        found: list[Record] = await front.passed("list_by_index", lambda: store.list_by_index(name))
        return found

    async def invalidate_logins(name: str, before: int) -> None:
        await front.passed("invalidate_logins", lambda: store.invalidate_logins(name, before))

    async def invalidate_all(before: int) -> None:
        await front.passed("invalidate_all", lambda: store.invalidate_all(before))

    front.save_login, front.list_by_index = save_login, list_by_index
    front.invalidate_logins, front.invalidate_all = invalidate_logins, invalidate_all
