"""The encoded form of broadcast messages."""

from typing import get_args

import msgspec
import pytest

from sojourn.store import BroadcastMessage, MessageKind
from sojourn.stores.broadcast_messages import MESSAGE_FORMAT, decode_message, encode_message

ONE = bytes(range(16))


@pytest.mark.parametrize("kind", get_args(MessageKind))
def test_a_message_is_decoded_as_it_was_encoded(kind):
    """S17."""
    data = encode_message(kind, ONE, version=2**53, reason='stolen "phone" ü')
    assert decode_message(data) == BroadcastMessage(
        MESSAGE_FORMAT, kind, ONE, 2**53, 'stolen "phone" ü'
    )


@pytest.mark.parametrize(
    "data",
    [
        None,
        "",
        b"",
        b"x",
        b"\x91" * 100_000,
        encode_message("revoked", ONE)[:-1],
        msgspec.msgpack.encode([MESSAGE_FORMAT, "other", ONE, 1, ""]),
        msgspec.msgpack.encode([MESSAGE_FORMAT, "revoked", ONE, 1, b"\xff"]),
        msgspec.msgpack.encode(BroadcastMessage(MESSAGE_FORMAT + 1, "revoked", ONE, 1, "")),
    ],
    ids=range(9),
)
def test_another_value_is_ignored(data):
    """S9, S17: foreign, damaged and newer messages, as during an upgrade of several processes."""
    assert decode_message(data) is None
