"""Ear: one connection over which announcements come.

What lives here: saying that a channel is wanted or not, what was said and what was confirmed, and
whether the other side still lives. What must not: which server it is and what to do when it is lost
(``listener.py``).

It has a channel ``asked`` for until the server confirms it, then it is ``standing``. A server that
ends a standing subscription by itself gives the slot of the channel away.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from redis import exceptions

from sojourn.stores.redis.places import Address

#: Seconds between two questions whether the connection lives.
BREATH: Final = 5.0


class Ear:
    """A connection that is only listened to; used by one thread.

    Args:
        connection: of redis-py, blocking and connected.
        address: where it goes.

    Attributes:
        asked: channels for which it was asked, and no answer came yet.
        standing: channels that are heard.
        due: when it has been silent for too long, by ``time.monotonic``.
    """

    __slots__ = (
        "_number",
        "_pinged",
        "address",
        "asked",
        "connection",
        "due",
        "is_open",
        "standing",
    )

    def __init__(self, connection: Any, address: Address) -> None:
        self.connection: Any = connection
        self.address: Address = address
        self.asked: set[str] = set()
        self.standing: set[str] = set()
        self.is_open: bool = True
        # redis-py has no public way, and forgets it when the connection breaks.
        self._number: int = connection._sock.fileno()  # noqa: SLF001 - nothing public tells it
        self._pinged = False
        self.due: float = time.monotonic() + BREATH

    def fileno(self) -> int:
        """Return what a selector waits for."""
        return self._number

    def ask(self, verb: str, channels: Sequence[str]) -> None:
        """Say that channels are wanted, each for itself: a sharded one may be refused alone."""
        self.asked.update(channels)
        self._say([(verb, channel) for channel in channels])

    def leave(self, verb: str, channel: str) -> None:
        """Say that a channel is wanted no more."""
        self.asked.discard(channel)
        self.standing.discard(channel)
        self._say([(verb, channel)])

    def _say(self, lines: Sequence[tuple[str, ...]]) -> None:
        if not lines:
            return
        packed = self.connection.pack_commands(lines)
        self.connection.send_packed_command(packed, check_health=False)

    def replies(self) -> Iterator[Any]:
        """Return what came, as far as it is here; an error that the server answered is a reply."""
        while self.is_open and self.connection.can_read(timeout=0):
            self._pinged = False
            self.due = time.monotonic() + BREATH
            try:
                yield self.connection.read_response(disable_decoding=True)
            except exceptions.ResponseError as error:
                yield error

    def check(self) -> None:
        """Ask whether it lives, when it has been silent; raise TimeoutError the second time."""
        if self._pinged:
            raise TimeoutError("the server is silent")
        self._pinged = True
        self.due = time.monotonic() + BREATH
        self._say([("PING",)])
