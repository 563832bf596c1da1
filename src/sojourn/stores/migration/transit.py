"""Records of a session in transit: a pending copy in the new store, a moved record in the old one.

No ticket is valid for them: no verifier has the hash ``NO_VERIFIER``.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import Final

import msgspec

from sojourn.record import (
    FOREVER,
    INDEXED_LABELS,
    NO_COMMIT_IDS,
    NO_VERIFIER,
    TRANSIT_VERSION,
    Record,
    UnreadableRecord,
    pack_body,
)

#: The keys of the data.
_ATTEMPT: Final = "transit attempt"
_RECORD: Final = "transit record"

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_text: Final = msgspec.msgpack.Decoder(str).decode


class Pending(msgspec.Struct, frozen=True):
    """A copy of a session in the new store, not valid yet.

    Attributes:
        stored: the record that holds the copy.
        record: the copy.
        token: names the attempt that made it.
    """

    stored: Record
    record: Record
    token: str


class Moved(msgspec.Struct, frozen=True):
    """Replaces a session in the old store once it belongs to the new one.

    Attributes:
        stored: the record that replaces the session's.
        token: of the pending copy; empty once the copy has become the session.
    """

    stored: Record
    token: str

    @property
    def is_retired(self) -> bool:
        """Whether the copy has become the session, so that no process needs this record."""
        return not self.token


Found = Record | Pending | Moved | None
"""What a store holds under an ID."""


def interpret(stored: Record | None) -> Found:
    """Return what a stored record is: a session or tombstone, or one of a session in transit."""
    if stored is None or not stored.in_transit:
        return stored
    try:
        data = stored.contents().data
        token = _decode_text(data[_ATTEMPT])
        if _RECORD not in data:
            return Moved(stored, token)
        copy = base64.b64decode(_decode_text(data[_RECORD]), validate=True)
        return Pending(stored, Record.from_bytes(stored.id, copy), token)
    except (KeyError, msgspec.MsgspecError, binascii.Error) as error:
        raise UnreadableRecord(
            f"record {stored.session_id} is in transit between stores and damaged"
        ) from error


def new_token() -> str:
    """Return a token that no other attempt has."""
    return secrets.token_hex(16)


def _version_of(token: str) -> int:
    """Return the version of an attempt's records: 48 random bits above those of sessions.

    So no save of a session replaces such a record, and no compare-and-set of one attempt replaces a
    record of another.
    """
    return TRANSIT_VERSION + int(token[:12], 16)


def pending(record: Record, token: str) -> Record:
    """Return the pending copy of a record.

    It has the names of the record, so that a store can index it, and passes every cutoff of logins.

    Raises:
        UnreadableRecord: the body of the record is damaged.
    """
    metadata = record.metadata()
    labels = {name: metadata.labels[name] for name in INDEXED_LABELS if name in metadata.labels}
    # Text: a store of JSON cannot hold bytes.
    copy = _encode(base64.b64encode(record.to_bytes()).decode())
    return msgspec.structs.replace(
        record,
        version=_version_of(token),
        verifier=NO_VERIFIER,
        previous_verifier=NO_VERIFIER,
        previous_valid_until=0,
        authenticated_at=FOREVER,
        commit_ids=NO_COMMIT_IDS,
        body=pack_body(metadata.user, labels, {_ATTEMPT: _encode(token), _RECORD: copy}),
    )


def moved_record(record: Record, token: str) -> Record:
    """Return the moved record that replaces the record of a session."""
    return msgspec.structs.replace(
        record,
        version=_version_of(token),
        verifier=NO_VERIFIER,
        previous_verifier=NO_VERIFIER,
        previous_valid_until=0,
        commit_ids=NO_COMMIT_IDS,
        body=pack_body(None, {}, {_ATTEMPT: _encode(token)}),
    )


def retired(found: Moved) -> Record:
    """Return the record that replaces a moved record once the move is complete.

    It has expired, so ``purge`` removes it. Removing it at once would announce a revocation, which
    closes the session's connections.
    """
    return _expired(found.stored)


def withdrawn(found: Pending) -> Record:
    """Return the record that replaces a void copy: it has expired, so no limit counts it."""
    return _expired(found.stored)


def _expired(stored: Record) -> Record:
    return msgspec.structs.replace(
        stored,
        version=stored.version + 1,
        absolute_at=0,
        idle_timeout=0,
        body=pack_body(None, {}, {_ATTEMPT: _encode("")}),
    )
