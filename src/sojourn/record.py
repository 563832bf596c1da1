"""Record: what a store keeps of one session, and its bytes.

What lives here: the record and format 1 of its stored form. What must not: when a record expires
(``policy.py``) and what a handler may put into it (``codec.py``).

A record is found by its session ID and holds no ticket: only the SHA-256 of the verifier, so a
stolen database opens nothing (security.md B-48). Times are integer milliseconds since 1970 UTC,
numbers big-endian. Read next: ``store.py`` for what a store does with it.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

#: The only stored form there is; a reader refuses every other (law S9).
FORMAT: Final = 1

#: "No deadline": the largest integer that every store keeps exactly (2**53 - 1 milliseconds).
FOREVER: Final = 2**53 - 1

NO_VERIFIER: Final = bytes(32)

#: Labels by which sessions are found, besides their user: the session at an identity provider,
#: which a back-channel logout names (OpenID Connect Back-Channel Logout 1.0, 2.4).
FINDABLE: Final = ("idp_sid",)

#: Of a user's name, characters: it becomes part of an index.
_MAX_USER: Final = 255

_NIL: Final = b"\xc0"  # msgpack

#: What reading a damaged body raises; the last for one that is nested without end (law S9).
_DAMAGE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_CONFIRMED: Final = 0b01
_PERSISTENT: Final = 0b10
_REAUTHENTICATION_REQUIRED: Final = 0b100

KNOWN_FLAGS: Final = _CONFIRMED | _PERSISTENT | _REAUTHENTICATION_REQUIRED

#: What the known flags of a header say: whether it is confirmed, persistent, needs a login.
FLAGS: Final = tuple(
    (bool(flags & _CONFIRMED), bool(flags & _PERSISTENT), bool(flags & _REAUTHENTICATION_REQUIRED))
    for flags in range(KNOWN_FLAGS + 1)
)

#: The other way round.
BITS: Final = {facts: flags for flags, facts in enumerate(FLAGS)}

# format, flags, version, seen, created, authenticated, absolute deadline, idle timeout,
# verifier hash, previous verifier hash, end of the grace period.
_HEADER: Final = struct.Struct(">BBQQQQQQ32s32sQ")

#: Where two instants of the header stand, for stores that compare stored bytes among themselves.
CREATED_AT: Final = slice(18, 26)
AUTHENTICATED_AT: Final = slice(26, 34)


class UnreadableRecord(Exception):
    """Stored bytes that are no record of ours: truncated, foreign, or of a newer format.

    A store lets it pass; the engine treats the record as absent and reports it (law S9).
    """


class Contents(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The decoded body of a record.

    Attributes:
        user: whose session it is, None while nobody has logged in.
        labels: short texts for lists and logs, such as the browser and the address.
        data: each key's own encoded value (``codec.encode``).
    """

    user: str | None
    labels: dict[str, str]
    data: dict[str, bytes]


class Owner(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The part of a body that says whose it is; the data is passed over."""

    user: str | None
    labels: dict[str, str]


class Record(msgspec.Struct, frozen=True, gc=False):
    """One session as a store keeps it; never changed, only replaced.

    Attributes:
        id: 16 bytes, the session ID.
        version: grows by one with each save.
        seen_at, created_at: milliseconds since 1970 UTC.
        authenticated_at: the last login, 0 if there was none.
        absolute_at: when the session ends however active it is; ``FOREVER`` for never.
        idle_timeout: the longest silence in milliseconds.
        verifier, previous_verifier: SHA-256 of the current and the replaced verifier, 32 bytes.
        previous_valid_until: end of the grace period of the replaced verifier; 0 if there is none.
        confirmed: the cookie came back at least once.
        persistent: the cookie outlives the browser.
        reauthentication_required: only "remember me" keeps the session alive; the user logged in
            before the ordinary limits ended it (NIST SESS-05).
        body: msgpack of ``[user, labels, data]``.
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

    @property
    def expires_at(self) -> int:
        """When the session ends if nobody comes back: derived, never stored as truth."""
        return min(self.seen_at + self.idle_timeout, self.absolute_at)

    @property
    def session_id(self) -> str:
        """The ID as people see it: 32 hex digits."""
        return self.id.hex()

    def contents(self) -> Contents:
        """Decode the body; the values inside stay encoded.

        Raises:
            UnreadableRecord: the body is damaged.
        """
        try:
            return _decode_body(self.body)
        except _DAMAGE as error:
            raise UnreadableRecord(f"the body of record {self.session_id} is damaged") from error

    def owner(self) -> Owner:
        """Return whose the record is, also where its data is sealed.

        Raises:
            UnreadableRecord: the body is damaged.
        """
        try:
            return _decode_owner(self.body)
        except _DAMAGE as error:
            raise UnreadableRecord(f"the body of record {self.session_id} is damaged") from error

    def names(self) -> tuple[str, ...]:
        """Return what the record is listed under, such as ``user:ada``; nothing while anonymous.

        Raises:
            UnreadableRecord: the body is damaged.
        """
        if self.body[1:2] == _NIL:  # the user is first: nobody has logged in, nothing to decode
            return ()
        owner = self.owner()
        found = [] if owner.user is None else [user_name(owner.user)]
        found += [f"{label}:{owner.labels[label]}" for label in FINDABLE if label in owner.labels]
        return tuple(found)

    def seen(self, at: int) -> Record:
        """Return the record with ``seen_at`` moved forward, never backward (law S6)."""
        return msgspec.structs.replace(self, seen_at=at) if at > self.seen_at else self

    def to_bytes(self) -> bytes:
        """Encode as format 1: a header of 122 bytes, then the body."""
        header = _HEADER.pack(
            FORMAT,
            BITS[self.confirmed, self.persistent, self.reauthentication_required],
            self.version,
            self.seen_at,
            self.created_at,
            self.authenticated_at,
            self.absolute_at,
            self.idle_timeout,
            self.verifier,
            self.previous_verifier,
            self.previous_valid_until,
        )
        return header + self.body

    @classmethod
    def from_bytes(cls, session_id: bytes, data: bytes) -> Record:
        """Decode what ``to_bytes`` wrote.

        Args:
            session_id: 16 bytes, under which the data was found.
            data: the stored bytes.

        Raises:
            UnreadableRecord: truncated, foreign or newer bytes; nothing of them is used.
        """
        if len(data) <= _HEADER.size or data[0] != FORMAT:
            raise UnreadableRecord(
                f"record {session_id.hex()}: expected format {FORMAT} and more than "
                f"{_HEADER.size} bytes, found {len(data)} bytes beginning with {data[:1].hex()!r}"
            )
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
        ) = _HEADER.unpack_from(data)
        confirmed, persistent, reauthentication_required = FLAGS[flags & KNOWN_FLAGS]
        return cls(  # by position, at half the price: this is on the way of every request
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
        )


def plain_text(value: object) -> str | None:
    """Return text as records keep it, None for what is no text or cannot be encoded.

    Of a subclass, such as a template's safe text, only what it says is taken.
    """
    if not isinstance(value, str):
        return None
    text = str.__str__(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return text


def check_user(user: object) -> str:
    """Return a user's name as records keep it.

    Raises:
        TypeError: it is none, such as an ID that is a number, or somebody who has not logged in.
    """
    name = plain_text(user)
    if name is None or not 0 < len(name) <= _MAX_USER:
        found = f"{len(name)} characters" if name is not None else repr(user)
        raise TypeError(f"a user is a text of 1 to {_MAX_USER} characters, found {found}")
    return name


def user_name(user: str) -> str:
    """Return the name under which a user's sessions are listed."""
    return f"user:{user}"


def pack_instant(at: int) -> bytes:
    """Encode an instant as the header does: 8 bytes that compare as the numbers do."""
    return at.to_bytes(8, "big")


def pack_body(user: str | None, labels: dict[str, str], data: dict[str, bytes]) -> bytes:
    """Encode the body of a record."""
    return _encode_body((user, labels, data))


_encode_body: Final = msgspec.msgpack.Encoder().encode
_decode_body: Final = msgspec.msgpack.Decoder(Contents).decode
_decode_owner: Final = msgspec.msgpack.Decoder(Owner).decode
