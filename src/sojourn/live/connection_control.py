"""LiveControl: closes the connections of ended sessions in every process."""

from __future__ import annotations

from collections.abc import Sequence

from sojourn.live.broadcast import Broadcaster
from sojourn.live.connections import LOGGED_IN, ConnectionRegistry
from sojourn.live.near_cache import NearCache


class LiveControl:
    """The ``ConnectionControl`` of an installation.

    Args:
        registry: the connections of this process.
        broadcaster: reaches other processes; None if the store does not support it. Connections
            there detect the end of their session within the re-check interval.
        near_cache: of this process; None for none. Others are reached by the broadcaster.
    """

    __slots__ = ("_broadcaster", "_near_cache", "_registry")

    def __init__(
        self,
        registry: ConnectionRegistry,
        broadcaster: Broadcaster | None,
        near_cache: NearCache | None = None,
    ) -> None:
        self._registry = registry
        self._broadcaster = broadcaster
        self._near_cache = near_cache

    def sessions_ended(self, session_ids: Sequence[bytes], reason: str) -> None:
        """Close the connections of sessions in every process."""
        for session_id in session_ids:
            self._discard(session_id)
            self._registry.end(session_id.hex(), reason)
        if self._broadcaster is not None:
            self._broadcaster.publish("revoked", session_ids, reason=reason)

    def all_sessions_ended(self, before: int, reason: str) -> None:
        """Close every connection of this process; have other processes check theirs."""
        if self._near_cache is not None:
            self._near_cache.clear()
        self._registry.end_all(reason)
        if self._broadcaster is not None:
            self._broadcaster.publish("all-before", [b""], version=before, reason=reason)

    def session_expired(self, session_id: bytes, limit: str) -> None:
        """Close the connections of a session in this process."""
        self._discard(session_id)
        self._registry.end(session_id.hex(), f"expired ({limit})")

    def user_logged_in(self, session_id: bytes) -> None:
        """Close connections that were opened with the previous ticket in every process."""
        self._discard(session_id)
        self._registry.end(session_id.hex(), LOGGED_IN)
        if self._broadcaster is not None:
            # Not "revoked": connections opened with the new ticket have the same session.
            self._broadcaster.publish("rotated", [session_id], reason=LOGGED_IN)

    def verifier_rotated(self, session_id: bytes) -> None:
        """Have other processes check the connections of a session."""
        self._discard(session_id)
        if self._broadcaster is not None:
            self._broadcaster.publish("rotated", [session_id])

    def _discard(self, session_id: bytes) -> None:
        if self._near_cache is not None:
            self._near_cache.discard(session_id)
