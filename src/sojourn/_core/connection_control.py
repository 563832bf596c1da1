"""ConnectionControl: how the core closes open connections of sessions in every process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class ConnectionControl(Protocol):
    """Closes the open connections (WebSockets, streams) of sessions, here and in other processes.

    Methods return without waiting and may be called from any thread.
    """

    def sessions_ended(self, session_ids: Sequence[bytes], reason: str) -> None:
        """Close the connections of sessions that were destroyed or revoked (law W4)."""
        ...

    def all_sessions_ended(self, before: int, reason: str) -> None:
        """Close the connections of every session created before an instant.

        Args:
            before: milliseconds since 1970 UTC.
            reason: sent with the close.
        """
        ...

    def session_expired(self, session_id: bytes, limit: str) -> None:
        """Close the connections of a session that passed a limit; other processes detect it."""
        ...

    def user_logged_in(self, session_id: bytes) -> None:
        """Close connections that were opened with the ticket from before a login (law A9)."""
        ...

    def verifier_rotated(self, session_id: bytes) -> None:
        """Have other processes check connections whose session has a new verifier (law W5)."""
        ...


class NoConnections:
    """A ``ConnectionControl`` for engines without a web layer, such as scripts and tests."""

    __slots__ = ()

    def sessions_ended(self, session_ids: Sequence[bytes], reason: str) -> None:
        """Do nothing."""

    def all_sessions_ended(self, before: int, reason: str) -> None:
        """Do nothing."""

    def session_expired(self, session_id: bytes, limit: str) -> None:
        """Do nothing."""

    def user_logged_in(self, session_id: bytes) -> None:
        """Do nothing."""

    def verifier_rotated(self, session_id: bytes) -> None:
        """Do nothing."""
