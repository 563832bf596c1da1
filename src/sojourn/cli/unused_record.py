"""A record for a measurement or a check of a store."""

from __future__ import annotations

import secrets

from sojourn.record import ID_BYTES, NO_VERIFIER, Record, pack_body


def unused_record(now: int, lifetime: int, body: bytes | None = None) -> Record:
    """Return a new record that no ticket is valid for.

    Args:
        now: milliseconds since 1970 UTC.
        lifetime: milliseconds until it expires, if it is not deleted before.
        body: encoded; None for an empty one.
    """
    return Record(
        id=secrets.token_bytes(ID_BYTES),
        version=1,
        seen_at=now,
        created_at=now,
        absolute_at=now + lifetime,
        idle_timeout=lifetime,
        verifier=NO_VERIFIER,
        body=pack_body(None, {}, {}) if body is None else body,
    )
