"""Record: the stored form of a session, and its encoding (format 2; format 1 is read).

A record contains only the SHA-256 of the verifier, so a stolen database grants no access (B-48).
Times are integer milliseconds since 1970 UTC; numbers are big-endian.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Mapping
from secrets import token_bytes
from typing import Final, TypeVar, cast
from uuid import UUID

import msgspec

T = TypeVar("T")

#: The format that is written. Format 1, which has no commit IDs, is read; records of any other
#: format are unreadable (law S9).
FORMAT: Final = 2

_FORMAT_1: Final = 1

#: Size of a session ID.
ID_BYTES: Final = 16

#: "No deadline": the largest integer that every store holds exactly, in milliseconds.
FOREVER: Final = 2**53 - 1

_PUBLIC_ID: Final = re.compile(r"[0-9a-f]{32}")

NO_VERIFIER: Final = bytes(32)

#: The smallest version of a record that stands for a session while it moves between two stores. A
#: session never reaches it, and every store holds larger ones exactly.
TRANSIT_VERSION: Final = 2**52

#: Size of the ID of one commit. It is random, so that a writer recognises its own commit (law A21).
COMMIT_ID_BYTES: Final = 4

#: Number of commits whose IDs a record contains.
MAX_COMMIT_IDS: Final = 4

#: The ID of a commit whose outcome is known at once.
NO_COMMIT_ID: Final = bytes(COMMIT_ID_BYTES)

#: The commit IDs of a record that was written without any.
NO_COMMIT_IDS: Final = bytes(COMMIT_ID_BYTES * MAX_COMMIT_IDS)

#: Labels under which sessions are indexed, beside their user: the session at an identity provider,
#: which a back-channel logout names (OpenID Connect Back-Channel Logout 1.0, 2.4).
INDEXED_LABELS: Final = ("idp_sid",)

#: Characters. The user becomes a key of an index.
_MAX_USER_LENGTH: Final = 255

_MSGPACK_NIL: Final = b"\xc0"

#: Raised for a damaged body; ``RecursionError`` for one that is nested too deeply (law S9).
_DECODE_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_CONFIRMED: Final = 0b01
_PERSISTENT: Final = 0b10
_REAUTHENTICATION_REQUIRED: Final = 0b100

KNOWN_FLAGS: Final = _CONFIRMED | _PERSISTENT | _REAUTHENTICATION_REQUIRED

#: From a header's known flags to ``(confirmed, persistent, reauthentication_required)``.
UNPACKED_FLAGS: Final = tuple(
    (bool(flags & _CONFIRMED), bool(flags & _PERSISTENT), bool(flags & _REAUTHENTICATION_REQUIRED))
    for flags in range(KNOWN_FLAGS + 1)
)

#: The inverse of ``UNPACKED_FLAGS``.
PACKED_FLAGS: Final = {fields: flags for flags, fields in enumerate(UNPACKED_FLAGS)}

# format, flags, version, seen, created, authenticated, absolute deadline, idle timeout,
# verifier hash, previous verifier hash, end of the grace period, IDs of the last four commits.
_HEADER: Final = struct.Struct(">BBQQQQQQ32s32sQ16s")
_HEADER_1: Final = struct.Struct(">BBQQQQQQ32s32sQ")

#: Byte ranges of two instants in an encoded record, for stores that compare them where they are.
CREATED_AT: Final = slice(18, 26)
AUTHENTICATED_AT: Final = slice(26, 34)


class UnreadableRecord(Exception):
    """Stored bytes are not a record of a known format: truncated, foreign or newer.

    A store raises it; the engine treats the record as absent and reports it (law S9).
    """


class Contents(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The decoded body of a record.

    Attributes:
        user: None before the first login.
        labels: short texts for lists and logs, such as the browser and the address.
        data: each key's encoded value.
    """

    user: str | None
    labels: dict[str, str]
    data: dict[str, bytes]


class Metadata(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The part of a body that is never encrypted; decoding it skips the data."""

    user: str | None
    labels: dict[str, str]


class Record(msgspec.Struct, frozen=True, gc=False):
    """The stored form of a session. Immutable.

    Attributes:
        id: the session ID, 16 bytes.
        version: increases by one with each save; 0 for a tombstone.
        seen_at, created_at: milliseconds since 1970 UTC.
        absolute_at: the end of the absolute timeout; ``FOREVER`` for none.
        idle_timeout: milliseconds.
        verifier, previous_verifier: SHA-256 of the current and the replaced verifier, 32 bytes.
        body: msgpack of ``[user, labels, data]``.
        authenticated_at: the last login; 0 if there was none.
        previous_valid_until: end of the grace period of the replaced verifier; ``FOREVER`` until
            its successor was seen; 0 if there is none.
        confirmed: the client has sent the cookie back at least once.
        persistent: the cookie is kept when the browser is closed.
        reauthentication_required: only "remember me" keeps the session alive; the user logged in
            before the ordinary limits ended it (NIST SESS-05).
        commit_ids: the random IDs of the last four commits, newest first, 4 bytes each; zeros for
            commits that have none.
    """

    id: bytes
    version: int
    seen_at: int
    created_at: int
    absolute_at: int
    idle_timeout: int
    verifier: bytes
    body: bytes
    authenticated_at: int = 0
    previous_verifier: bytes = NO_VERIFIER
    previous_valid_until: int = 0
    confirmed: bool = True
    persistent: bool = False
    reauthentication_required: bool = False
    commit_ids: bytes = NO_COMMIT_IDS

    @property
    def expires_at(self) -> int:
        """When the session ends unless another request arrives. Derived, never stored."""
        return min(self.seen_at + self.idle_timeout, self.absolute_at)

    @property
    def in_transit(self) -> bool:
        """Whether it stands for a session that moves between stores; no ticket is valid for it."""
        return self.version >= TRANSIT_VERSION and self.verifier == NO_VERIFIER

    @property
    def session_id(self) -> str:
        """The public form of the ID: 32 hex digits."""
        return self.id.hex()

    def contents(self) -> Contents:
        """Decode the body; the values of ``data`` stay encoded.

        Raises:
            UnreadableRecord: the body is damaged.
        """
        return self._decode(_decode_contents)

    def metadata(self) -> Metadata:
        """Decode the user and the labels; possible also if the data is encrypted.

        Raises:
            UnreadableRecord: the body is damaged.
        """
        return self._decode(_decode_metadata)

    def _decode(self, decode: Callable[[bytes], T]) -> T:
        try:
            return decode(self.body)
        except _DECODE_ERRORS as error:
            raise UnreadableRecord(f"the body of record {self.session_id} is damaged") from error

    def index_names(self) -> tuple[str, ...]:
        """Return the names under which the session is indexed, such as ``user:ada``.

        Empty before the first login.

        Raises:
            UnreadableRecord: the body is damaged.
        """
        if self.body[1:2] == _MSGPACK_NIL:  # the first item is the user
            return ()
        metadata = self.metadata()
        names = [] if metadata.user is None else [user_index_name(metadata.user)]
        labels = metadata.labels
        names += [f"{label}:{labels[label]}" for label in INDEXED_LABELS if label in labels]
        return tuple(names)

    def with_seen_at(self, at: int) -> Record:
        """Return the record with ``seen_at`` moved forward, never backward (law S6)."""
        return msgspec.structs.replace(self, seen_at=at) if at > self.seen_at else self

    def commit_id(self, version: int) -> bytes | None:
        """Return the ID of the commit that wrote a version; None if it is not kept any more.

        Args:
            version: at most the record's.
        """
        position = (self.version - version) * COMMIT_ID_BYTES
        return self.commit_ids[position : position + COMMIT_ID_BYTES] or None

    def next_commit_ids(self, commit_id: bytes) -> bytes:
        """Return the ``commit_ids`` of the next version, which the commit ``commit_id`` writes."""
        return commit_id + self.commit_ids[:-COMMIT_ID_BYTES]

    def to_bytes(self) -> bytes:
        """Encode in format 2: a header of 138 bytes, then the body."""
        header = _HEADER.pack(
            FORMAT,
            PACKED_FLAGS[self.confirmed, self.persistent, self.reauthentication_required],
            self.version,
            self.seen_at,
            self.created_at,
            self.authenticated_at,
            self.absolute_at,
            self.idle_timeout,
            self.verifier,
            self.previous_verifier,
            self.previous_valid_until,
            self.commit_ids,
        )
        return header + self.body

    @classmethod
    def from_bytes(cls, session_id: bytes, data: bytes) -> Record:
        """Decode the bytes that ``to_bytes`` returned; the body is decoded later.

        Args:
            session_id: the key of the data, 16 bytes.
            data: the stored bytes.

        Raises:
            UnreadableRecord: the bytes are truncated, foreign or of a newer format.
        """
        if len(data) <= _HEADER.size or data[0] != FORMAT:
            return cls._from_format_1(session_id, data)
        (
            _,
            flags,
            version,
            seen_at,
            created_at,
            authenticated_at,
            absolute_at,
            idle_timeout,
            verifier,
            previous_verifier,
            previous_valid_until,
            commit_ids,
        ) = _HEADER.unpack_from(data)
        confirmed, persistent, reauthentication_required = UNPACKED_FLAGS[flags & KNOWN_FLAGS]
        return cls(  # positional arguments take half the time; every request decodes a record
            session_id,
            version,
            seen_at,
            created_at,
            absolute_at,
            idle_timeout,
            verifier,
            data[_HEADER.size :],
            authenticated_at,
            previous_verifier,
            previous_valid_until,
            confirmed,
            persistent,
            reauthentication_required,
            commit_ids,
        )

    @classmethod
    def _from_format_1(cls, session_id: bytes, data: bytes) -> Record:
        if len(data) <= _HEADER_1.size or data[0] != _FORMAT_1:
            raise UnreadableRecord(
                f"record {session_id.hex()}: expected format {FORMAT} and more than "
                f"{_HEADER.size} bytes, found {len(data)} bytes beginning with {data[:1].hex()!r}"
            )
        header, body = data[: _HEADER_1.size], data[_HEADER_1.size :]
        return cls.from_bytes(session_id, bytes([FORMAT]) + header[1:] + NO_COMMIT_IDS + body)


#: Random commit IDs for the next commits: one system call makes many.
_unused_commit_ids: list[bytes] = []
_COMMIT_IDS: Final = struct.Struct(f"{COMMIT_ID_BYTES}s" * 256)

if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_unused_commit_ids.clear)


def new_commit_id() -> bytes:
    """Return a random commit ID. It is no secret; it differs between processes after a fork."""
    try:
        return _unused_commit_ids.pop()
    except IndexError:
        commit_id: bytes
        commit_id, *others = _COMMIT_IDS.unpack(token_bytes(_COMMIT_IDS.size))
        _unused_commit_ids.extend(others)
        return commit_id


def plain_text(value: object) -> str | None:
    """Return the value as a plain ``str``, or None if it is not text that UTF-8 can encode.

    An instance of a subclass, such as a template's safe text, becomes a plain ``str``.
    """
    if not isinstance(value, str):
        return None
    text = str.__str__(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return text


def parse_session_id(text: object) -> bytes | None:
    """Return the 16 bytes of a public ID, 32 lower-case hex digits; None for anything else."""
    if not isinstance(text, str) or not _PUBLIC_ID.fullmatch(text):
        return None
    return bytes.fromhex(text)


def check_user(user: object) -> str:
    """Return a user as records store it: 1 to 255 characters; an integer or UUID becomes text.

    Raises:
        TypeError: it is something else, such as None or an anonymous user.
    """
    text = str(user) if type(user) is int or isinstance(user, UUID) else plain_text(user)
    if text is None or not 0 < len(text) <= _MAX_USER_LENGTH:
        found = f"{len(text)} characters" if text is not None else repr(user)
        raise TypeError(f"expected a user of 1 to {_MAX_USER_LENGTH} characters, found {found}")
    return text


def check_labels(labels: object) -> dict[str, str]:
    """Return labels as records store them; None stands for no labels.

    Raises:
        TypeError: they are no mapping from text to text, and a record with them is unreadable.
    """
    given = {} if labels is None else labels
    texts: dict[str | None, str | None] = {None: None}
    if isinstance(given, Mapping):
        texts = {plain_text(name): plain_text(text) for name, text in given.items()}
    if None in texts or None in texts.values():
        raise TypeError(f"labels expects a dict from text to text, found {labels!r}")
    return cast("dict[str, str]", texts)


def user_index_name(user: str) -> str:
    """Return the name under which a user's sessions are indexed."""
    return f"user:{user}"


def pack_instant(at: int) -> bytes:
    """Encode an instant as the header does: 8 bytes that sort as the numbers do."""
    return at.to_bytes(8, "big")


def pack_body(user: str | None, labels: dict[str, str], data: dict[str, bytes]) -> bytes:
    """Encode the body of a record."""
    return _encode_body((user, labels, data))


_encode_body: Final = msgspec.msgpack.Encoder().encode
_decode_contents: Final = msgspec.msgpack.Decoder(Contents).decode
_decode_metadata: Final = msgspec.msgpack.Decoder(Metadata).decode
