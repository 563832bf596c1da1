"""Announcements: what processes tell each other about sessions, and over which channels.

What lives here: the bytes of a message, its channel, and the commands that go with a channel. What
must not: the capability (``store.py``), who listens where (``listener.py``), and what a
message means for a socket (``live/``).

Ends and rotations are told on one channel that everybody hears, changes of a session on a channel
of its own. That one is published by the script that saves (``scripts.py``), in a cluster as a
sharded channel in the session's slot, so that only the nodes of this slot hear of it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from sojourn.store import BroadcastMessage, MessageKind
from sojourn.stores.redis.keys import Keys

#: The only form of a message there is; a reader passes over every other.
FORMAT: Final = 1


def channel_of(kind: MessageKind, session_id: bytes, keys: Keys) -> str:
    """Return where a message of a kind is told."""
    return keys.channel(session_id) if kind == "changed" else keys.events


def encode(kind: MessageKind, session_id: bytes, *, version: int, reason: str) -> bytes:
    """Return the bytes of a message."""
    return _encode(BroadcastMessage(FORMAT, kind, session_id, version, reason))


def decode(data: bytes) -> BroadcastMessage | None:
    """Return a message; None if it is none of ours, or of a later version: a hint is lost."""
    try:
        message = _decode(data)
    except _DAMAGE:
        return None
    return message if message.format == FORMAT else None


#: What foreign bytes make of the decoder, text that is none and endless nesting included.
_DAMAGE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(BroadcastMessage).decode
