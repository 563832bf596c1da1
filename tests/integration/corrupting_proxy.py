"""A proxy that drops, duplicates or reorders pub/sub messages of a Valkey server.

It parses RESP2 and RESP3. Replies to commands are passed on unchanged.
"""

from collections.abc import Callable, Iterator
from typing import Literal

from tests.integration.proxy import Proxy

Fault = Literal["drop", "double", "swap"]

#: Aggregate reply types with the elements per counted item, and bulk reply types.
_NESTED = {b"*": 1, b">": 1, b"~": 1, b"%": 2}
_BULK = b"$=!"


class CorruptingProxy(Proxy):
    """Forwards everything unchanged, except pub/sub messages: ``fault`` applies to them.

    Attributes:
        fault: the corruption; None forwards messages too. ``swap`` holds each message for the next.
        seen: number of corrupted messages.
    """

    def __init__(self, port: int) -> None:
        self.fault: Fault | None = None
        self.seen = 0
        super().__init__(port)

    def altering(self) -> Callable[[bytes], bytes]:
        """Return a function that corrupts the data of one connection's replies."""
        rest = held = b""

        def alter(data: bytes) -> bytes:
            nonlocal rest, held
            out = b""
            *replies, rest = _replies(rest + data)
            for reply in replies:
                fault = self.fault if _is_message(reply) else None
                self.seen += fault is not None
                if fault == "double":
                    out += reply + reply
                elif fault == "swap":
                    out, held = (out + reply + held, b"") if held else (out, reply)
                elif fault is None:
                    out += reply
            return out

        return alter


def _is_message(reply: bytes) -> bool:
    kind = reply.split(b"\r\n", 3)
    return kind[0] in (b"*3", b">3") and kind[2] in (b"message", b"smessage")


def _replies(data: bytes) -> Iterator[bytes]:
    """Return the complete replies and the rest, which is an incomplete reply."""
    at = 0
    while (end := _end(data, at)) is not None:
        yield data[at:end]
        at = end
    yield data[at:]


def _end(data: bytes, at: int) -> int | None:
    """Return the end of the reply that starts at an offset; None if it is incomplete."""
    line = data.find(b"\r\n", at)
    if line < 0:
        return None
    kind, after = data[at : at + 1], line + 2
    if kind in _NESTED:
        for _ in range(_NESTED[kind] * int(data[at + 1 : line])):
            end = _end(data, after)
            if end is None:
                return None
            after = end
    elif kind in _BULK and (length := int(data[at + 1 : line])) >= 0:
        after += length + 2
    return after if after <= len(data) else None
