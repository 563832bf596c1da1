"""Decodes session data: JSON and msgpack; never pickle, which would run what it contains (B-10)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Final

import msgspec

logger: logging.Logger = logging.getLogger("sojourn")

#: Bytes of a record; larger ones are refused before they are decoded.
MAX_RECORD_BYTES: Final = 4_194_304

#: The first byte of pickle protocol 2 to 5, and the last byte of every pickle.
_PICKLE_PROTOCOL: Final = b"\x80"
_PICKLE_PROTOCOLS: Final = frozenset({2, 3, 4, 5})
_PICKLE_STOP: Final = b"."

_reported: Final[set[str]] = set()


def decode_json(data: bytes, source: str) -> Mapping[str, Any] | None:
    """Return the object in JSON; None if it is something else, which is logged once.

    Args:
        data: of a session.
        source: names the reader in the log.
    """
    if len(data) <= MAX_RECORD_BYTES and not is_pickle(data):
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            return found
    report_refused(data, source)
    return None


def decode_json_or_msgpack(data: bytes, source: str) -> Mapping[str, Any] | None:
    """Return the object in JSON or msgpack; None if it is something else, which is logged once."""
    if data[:1] == b"{":
        return decode_json(data, source)
    if len(data) <= MAX_RECORD_BYTES and not is_pickle(data):
        try:
            found = msgspec.msgpack.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            return found
    report_refused(data, source)
    return None


def is_pickle(data: bytes) -> bool:
    """Return whether data looks like a pickle of protocol 2 or later.

    An empty dict in msgpack is the byte 0x80 alone.
    """
    return (
        data[:1] == _PICKLE_PROTOCOL
        and data[1:2] != b""
        and data[1] in _PICKLE_PROTOCOLS
        and data.endswith(_PICKLE_STOP)
    )


def report_refused(data: bytes, source: str) -> None:
    """Log that a session cannot be read: once for each reader, without its content."""
    if source in _reported:
        return
    _reported.add(source)
    if is_pickle(data):
        logger.warning(
            "%s: found a pickled session, which is not read, because a pickle can run code. Its "
            "visitor starts a new session. Let the old library write JSON or msgpack before the "
            "switch",
            source,
        )
    else:
        logger.warning(
            "%s: found a session of %d bytes that is neither JSON nor msgpack, or too large; its "
            "visitor starts a new session",
            source,
            len(data),
        )
