"""Passing calls on: what the stores that stand before another one in tests have in common.

What lives here: ``Passing``, the calls of a store and of one that lists users, each handed to one
method. What must not: faults (``faults.py``) and pauses (``interleave.py``). A passing store has
the capability ``ListsUsers`` exactly if the one behind it has; no other capability is passed on, so
nothing sweeps it in the background.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar, get_args

from sojourn.core.record import Record
from sojourn.core.store import BindResult, Limit, ListsUsers, Purged, SaveResult, Store

T = TypeVar("T")

Verb = Literal[
    "load", "create", "save", "touch", "delete", "purge", "bind", "find", "void", "void_all"
]
VERBS: tuple[Verb, ...] = get_args(Verb)


class Passing(ABC):
    """Hands each call, by its verb, to ``passed``.

    Args:
        store: the one behind.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        if isinstance(store, ListsUsers):
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


def _add_lists(front: Any, store: ListsUsers) -> None:
    """Give one object the four calls: a class cannot have them for some of its objects only."""

    async def bind(
        record: Record, expected_version: int, *, limit: Limit | None, now: int
    ) -> BindResult:
        answer: BindResult = await front.passed(
            "bind", lambda: store.bind(record, expected_version, limit=limit, now=now)
        )
        return answer

    async def find(name: str) -> list[Record]:
        found: list[Record] = await front.passed("find", lambda: store.find(name))
        return found

    async def void(name: str, before: int) -> None:
        await front.passed("void", lambda: store.void(name, before))

    async def void_all(before: int) -> None:
        await front.passed("void_all", lambda: store.void_all(before))

    front.bind, front.find, front.void, front.void_all = bind, find, void, void_all
