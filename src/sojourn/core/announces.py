"""Announces: what a store can do that reaches every process at once.

What lives here: the capability, the message and the ear, written down in the core because both
``live/`` and the stores need them. What must not: a channel, a thread, and what a message means for
a socket (``live/announcer.py``). Authors of stores import it from ``stores/base.py``.

A message is a hint to look, never the truth: it may be lost, doubled, late or out of order (law
S17). The one exception is ``revoked``, which may be believed, because an ID that was revoked never
names a session again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

import msgspec

Kind = Literal["revoked", "rotated", "changed", "all-before"]


class Announcement(msgspec.Struct, frozen=True, array_like=True):
    """Something that happened to a session, as it is sent.

    Attributes:
        format: of this message, 1.
        kind: ``revoked`` it has ended; ``rotated`` its ticket was replaced, by a rotation or (with
            a reason) by a login; ``changed`` its data; ``all-before`` concerns every session that
            was created before an instant.
        session_id: 16 bytes; empty with ``all-before``.
        version: of the record, 0 where it is not known; with ``all-before`` the instant,
            milliseconds since 1970 UTC.
        reason: for whoever is closed.
    """

    format: int
    kind: Kind
    session_id: bytes
    version: int
    reason: str


Heard = Callable[[Announcement], object]


@runtime_checkable
class Announces(Protocol):
    """Can tell other processes, and hear of them.

    Revocations and rotations are told to everybody who listens, by ``announce``. Changes are told
    to those who watch a session, by the store itself and as part of each ``save``, so that they
    cost no call of their own; one that cannot do that for so little leaves it. A store without
    this capability is looked into instead, every ``recheck_interval``.
    """

    async def announce(
        self, kind: Kind, session_id: bytes, *, version: int = 0, reason: str = ""
    ) -> None:
        """Tell every process that listens; who is away is not waited for.

        Called from a thread of ours, where no event loop runs.

        Raises:
            StoreError: nobody can be told.
        """
        ...

    def listen(self, heard: Heard, gap: Callable[[], object]) -> Listening:
        """Begin to listen; may block for a moment.

        Args:
            heard: called with each message, in a thread of the store's; it must be quick.
            gap: called there whenever messages may have been missed, also at the beginning.
        """
        ...


class Listening(Protocol):
    """One process's ear; its calls do not wait for the server, and may come from any thread."""

    def watch(self, session_id: bytes) -> None:
        """Hear of changes of a session, too. Watching twice needs unwatching twice."""
        ...

    def unwatch(self, session_id: bytes) -> None:
        """Hear of its changes no more."""
        ...

    def close(self) -> None:
        """End it; nothing is heard any more once this has returned. May be repeated."""
        ...
