"""ForwardingStore: base of test stores that wrap another store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal, TypeVar, get_args

from sojourn.record import Record
from sojourn.store import (
    Purged,
    SaveLoginResult,
    SaveResult,
    SessionLimit,
    Store,
    SupportsBulk,
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
    "delete_many",
    "create_many",
]
VERBS: tuple[Verb, ...] = get_args(Verb)


class ForwardingStore(ABC):
    """Hands every call of a store to ``forward``.

    It has ``SupportsUserIndex`` and ``SupportsBulk`` if the wrapped store has them. Other
    capabilities are hidden, so no background purge runs.

    Args:
        store: the wrapped store.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        if isinstance(store, SupportsUserIndex):
            _add_user_index(self, store)
        if isinstance(store, SupportsBulk):
            _add_bulk(self, store)

    @abstractmethod
    async def forward(self, verb: Verb, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Perform ``call``, which calls the method ``verb`` of the wrapped store."""

    async def load(self, session_id: bytes) -> Record | None:
        """Forward ``load``."""
        return await self.forward("load", lambda: self.store.load(session_id))

    async def create(self, record: Record) -> bool:
        """Forward ``create``."""
        return await self.forward("create", lambda: self.store.create(record))

    async def save(self, record: Record, expected_version: int) -> SaveResult:
        """Forward ``save``."""
        return await self.forward("save", lambda: self.store.save(record, expected_version))

    async def touch(self, record: Record) -> bool:
        """Forward ``touch``."""
        return await self.forward("touch", lambda: self.store.touch(record))

    async def delete(self, session_id: bytes) -> bool:
        """Forward ``delete``."""
        return await self.forward("delete", lambda: self.store.delete(session_id))

    async def purge(self, now: int, limit: int) -> Purged:
        """Forward ``purge``."""
        return await self.forward("purge", lambda: self.store.purge(now, limit))


# Methods of capabilities are set on the object: the class must not have them for every store.


def _add_user_index(wrapper: Any, store: SupportsUserIndex) -> None:
    async def save_login(
        record: Record, expected_version: int, *, limit: SessionLimit | None, now: int
    ) -> SaveLoginResult:
        result: SaveLoginResult = await wrapper.forward(
            "save_login", lambda: store.save_login(record, expected_version, limit=limit, now=now)
        )
        return result

    async def list_by_index(name: str) -> list[Record]:
        found: list[Record] = await wrapper.forward(
            "list_by_index", lambda: store.list_by_index(name)
        )
        return found

    async def invalidate_logins(name: str, before: int) -> None:
        await wrapper.forward("invalidate_logins", lambda: store.invalidate_logins(name, before))

    async def invalidate_all(before: int) -> None:
        await wrapper.forward("invalidate_all", lambda: store.invalidate_all(before))

    wrapper.save_login, wrapper.list_by_index = save_login, list_by_index
    wrapper.invalidate_logins, wrapper.invalidate_all = invalidate_logins, invalidate_all


def _add_bulk(wrapper: Any, store: SupportsBulk) -> None:
    async def delete_many(session_ids: Sequence[bytes]) -> list[bool]:
        results: list[bool] = await wrapper.forward(
            "delete_many", lambda: store.delete_many(session_ids)
        )
        return results

    async def create_many(records: Sequence[Record]) -> list[bool]:
        results: list[bool] = await wrapper.forward(
            "create_many", lambda: store.create_many(records)
        )
        return results

    wrapper.delete_many, wrapper.create_many = delete_many, create_many
