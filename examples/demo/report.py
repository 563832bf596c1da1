"""Describes a session and this process as JSON, without secrets."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import sojourn
from examples.demo.tabs import Tabs


class Reporter:
    """Describes the sessions of one installation.

    Args:
        sessions: the installation.
        tabs: the open tabs.
    """

    def __init__(self, sessions: sojourn.Sessions[Any], tabs: Tabs) -> None:
        self._sessions = sessions
        self._tabs = tabs

    async def describe(self, session: sojourn.Session[Any]) -> dict[str, Any]:
        """Return the session as JSON; times are ISO 8601 in UTC, sizes are bytes."""
        config = self._sessions.config
        shown: dict[str, Any] = {
            "exists": not session.new,
            "now": datetime.now(UTC).isoformat(),
            "store": config.store_name.removesuffix("://"),
            "usage": asdict(self._sessions.usage()),
        }
        if session.new:
            return shown
        record = await self._sessions.store.load(bytes.fromhex(session.id))
        return {
            **shown,
            "id": session.id,
            "created_at": _iso(session.created_at),
            "seen_at": _iso(session.seen_at),
            "expires_at": _iso(session.expires_at),
            "idle_seconds": config.core.policy.authenticated.idle_timeout / 1000,
            "labels": dict(session.labels),
            "bytes": 0 if record is None else len(record.to_bytes()),
            "max_bytes": config.core.max_bytes,
            "tabs": self._tabs.count(session.id),
            "data": dict(session),
            "state": {"size": session.state.size},
        }


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()
