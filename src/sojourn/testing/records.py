"""Records for tests of stores.

Times are real ones, because a server that removes expired keys uses its own clock.
"""

from __future__ import annotations

import secrets
import time
from typing import Any, Final

import msgspec

from sojourn._core.codec import encode
from sojourn.record import Record, pack_body
from sojourn.store import SaveLoginResult, SessionLimit, Store, SupportsUserIndex

MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE


def now() -> int:
    """Return milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


def make_record(**changes: Any) -> Record:
    """Return a new session with one key and an idle timeout of 30 minutes.

    Args:
        changes: fields of ``Record`` that differ.
    """
    at = now()
    fields: dict[str, Any] = {
        "id": secrets.token_bytes(16),
        "version": 1,
        "seen_at": at,
        "created_at": at,
        "absolute_at": at + 12 * HOUR,
        "idle_timeout": 30 * MINUTE,
        "verifier": secrets.token_bytes(32),
        "body": make_body(n=0),
    }
    return Record(**{**fields, **changes})


def make_body(user: str | None = None, idp_sid: str | None = None, /, **data: Any) -> bytes:
    """Return the body of a record.

    Args:
        user: the user who is logged in, None if logged out.
        idp_sid: ID of the session at an identity provider.
        data: keys and values of the session.
    """
    labels = {} if idp_sid is None else {"browser": "Lynx", "idp_sid": idp_sid}
    return pack_body(user, labels, {key: encode(key, value) for key, value in data.items()})


def next_version(record: Record, **changes: Any) -> Record:
    """Return a record that ``save`` can replace the given one with."""
    return msgspec.structs.replace(record, version=record.version + 1, **changes)


def login(
    record: Record | None,
    user: str,
    *,
    at: int | None = None,
    idp_sid: str | None = None,
    **changes: Any,
) -> Record:
    """Return the record that a login writes.

    Args:
        record: the stored record; None for a login that creates the session.
        user: who logs in.
        at: ``authenticated_at`` in milliseconds since 1970 UTC; None for the current time.
        idp_sid: ID of the session at an identity provider.
        changes: fields of ``Record`` that differ.
    """
    fields = {
        "body": make_body(user, idp_sid, n=0),
        "authenticated_at": now() if at is None else at,
        **changes,
    }
    return make_record(**fields) if record is None else next_version(record, **fields)


async def save_login(
    store: SupportsUserIndex, record: Record, expected: int, *, limit: SessionLimit | None = None
) -> SaveLoginResult:
    """Call ``store.save_login`` with the present time."""
    return await store.save_login(record, expected, limit=limit, now=now())


async def purge_all(store: Store, at: int, *, limit: int = 500) -> int:
    """Purge the whole store twice and return how many records were removed.

    Args:
        store: the store.
        at: records expired at this time are removed; milliseconds since 1970 UTC.
        limit: of one call; a call that removes more fails the test.
    """
    removed = scans = calls = 0
    while scans < 2:
        count, finished = await store.purge(at, limit)
        assert count <= limit
        removed += count
        scans += finished
        calls += 1
        assert calls < 100_000, "purge never reports the end of the store"
    return removed
