"""Records for tests of stores.

What lives here: making records that look like those of an application. What must not: stores. Times
are real ones, because a server that forgets by itself does so by its own clock.
"""

from __future__ import annotations

import secrets
import time
from typing import Any, Final

import msgspec

from sojourn._core.codec import encode
from sojourn.record import Record, pack_body

MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE


def now() -> int:
    """Return milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


def make_record(**changes: Any) -> Record:
    """Return a new session of half an hour with one key; ``changes`` are fields of ``Record``."""
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


def make_body(user: str | None = None, **data: Any) -> bytes:
    """Return the body of a record that holds these keys."""
    return pack_body(user, {}, {key: encode(key, value) for key, value in data.items()})


def next_version(record: Record, **changes: Any) -> Record:
    """Return what a save would replace a record with."""
    return msgspec.structs.replace(record, version=record.version + 1, **changes)
