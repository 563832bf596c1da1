"""Logins for tests of stores that list users.

What lives here: making records that have a user, and calling a store with them. What must not:
laws (``listlaws.py``, ``loginlaws.py``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from sojourn._core.codec import encode
from sojourn.record import Record, pack_body
from sojourn.store import SaveLoginResult, SessionLimit
from sojourn.testing.records import make_record, next_version, now
from sojourn.testing.storekit import ListingStore, StoreKit


def another(suite: StoreKit, realm: str = "default") -> ListingStore:
    """Return one more store object, over the same server as the law's own."""
    return cast("ListingStore", suite.make_store(realm))


def make_body(user: str | None, idp_sid: str | None, **data: Any) -> bytes:
    """Return a body that names a user and, perhaps, a session at an identity provider."""
    labels = {} if idp_sid is None else {"browser": "Lynx", "idp_sid": idp_sid}
    return pack_body(user, labels, {key: encode(key, value) for key, value in data.items()})


def login(
    record: Record | None,
    user: str,
    *,
    at: int | None = None,
    idp_sid: str | None = None,
    **changes: Any,
) -> Record:
    """Return what a login makes of a record, or the record that begins with it."""
    fields = {
        "body": make_body(user, idp_sid, n=0),
        "authenticated_at": now() if at is None else at,
        **changes,
    }
    return make_record(**fields) if record is None else next_version(record, **fields)


async def save_login(
    store: ListingStore, record: Record, expected: int, *, limit: SessionLimit | None = None
) -> SaveLoginResult:
    """Bind at this moment."""
    return await store.save_login(record, expected, limit=limit, now=now())


async def purge_all(store: ListingStore, at: int) -> int:
    """Purge through the whole store, twice round, and return how many records went."""
    total = rounds = 0
    while rounds < 2:
        removed, finished = await store.purge(at, 500)
        total += removed
        rounds += finished
    return total


def by_id(records: Iterable[Record]) -> list[Record]:
    """Return records in an order that has nothing to do with their lists."""
    return sorted(records, key=lambda record: record.id)
