"""Link: one way to the server for one caller at a time, whichever client is behind it.

What lives here: what ``courier.py`` needs of a connection, and the error for one that broke. What
must not: a client; ``pools.py`` (redis-py), ``cluster.py`` (redis-py's cluster) and ``wires.py``
(a socket and hiredis) have theirs.

Methods are coroutines; those of a blocking client never suspend (``_core/concurrency.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sojourn.stores.redis.requests import Command


class Broken(Exception):
    """The connection could not be made, or broke.

    Attributes:
        late: because the server said nothing until the deadline.
    """

    def __init__(self, text: str, *, late: bool = False) -> None:
        super().__init__(text)
        self.late: bool = late


class Link(Protocol):
    """A connection that is made when it is needed and made anew when it broke."""

    async def exchange(
        self, commands: Sequence[Command], deadline: float, *, whole: bool = False
    ) -> list[Any]:
        """Send commands and return their replies in order; a ``Refusal`` is a reply.

        Args:
            commands: at least one.
            deadline: of ``time.monotonic``; the connection is dropped when it passes.
            whole: send scripts with their text.

        Raises:
            Broken: no connection, or no more; what was sent may have been carried out.
        """
        ...

    async def probe(self, deadline: float) -> dict[str, str]:
        """Connect anew and return what the server says of itself (INFO).

        Raises:
            Broken, Refusal: it does not answer, or refuses.
        """
        ...

    def drop(self) -> None:
        """Let go of the connection, whatever it does; the next exchange makes another."""
        ...

    def close(self) -> None:
        """Let go of everything for good."""
        ...


def probe_failed(error: BaseException) -> Broken:
    """Return what a failed attempt to connect is to the courier."""
    if isinstance(error, TimeoutError):
        return Broken("it could not be reached in time", late=True)
    return Broken(f"it could not be reached ({error})")
