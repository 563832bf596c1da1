"""The encoded form of broadcast messages, for stores with ``SupportsBroadcast``."""

from __future__ import annotations

from typing import Final

import msgspec

from sojourn.store import BroadcastMessage, MessageKind

#: The only known format; messages of other formats are ignored.
MESSAGE_FORMAT: Final = 1

#: Raised for foreign bytes; ``RecursionError`` for those that are nested too deeply.
_DECODING_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(BroadcastMessage).decode


def encode_message(
    kind: MessageKind, session_id: bytes, *, version: int = 0, reason: str = ""
) -> bytes:
    """Return a message as msgpack; see ``BroadcastMessage``."""
    return _encode(BroadcastMessage(MESSAGE_FORMAT, kind, session_id, version, reason))


def decode_message(data: object) -> BroadcastMessage | None:
    """Return a message; None if it is foreign, damaged or of another format."""
    if type(data) is not bytes:
        return None
    try:
        message = _decode(data)
    except _DECODING_ERRORS:
        return None
    return message if message.format == MESSAGE_FORMAT else None
