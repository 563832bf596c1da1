"""Describes a session and this process as JSON, without secrets."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import sojourn
from examples.demo.store_switch import StoreSwitch
from examples.demo.tabs import Tabs


class Reporter:
    """Describes the sessions of one installation.

    Args:
        sessions: the installation.
        tabs: the open tabs.
        switch: of the store.
    """

    def __init__(self, sessions: sojourn.Sessions[Any], tabs: Tabs, switch: StoreSwitch) -> None:
        self._sessions = sessions
        self._tabs = tabs
        self._switch = switch

    async def describe(self, session: sojourn.Session[Any]) -> dict[str, Any]:
        """Return the session as JSON; times are ISO 8601 in UTC, sizes are bytes."""
        config = self._sessions.config
        shown: dict[str, Any] = {
            "exists": not session.new,
            "now": datetime.now(UTC).isoformat(),
            "store": self._switch.url.partition(":")[0],
            "store_running": self._switch.running,
            "usage": asdict(self._sessions.usage()),
        }
        if session.new:
            return {**shown, "ended_reason": session.ended_reason}
        record = await self._sessions.store.load(bytes.fromhex(session.id))
        return {
            **shown,
            "id": session.id,
            "created_at": _iso(session.created_at),
            "seen_at": _iso(session.seen_at),
            "expires_at": _iso(session.expires_at),
            "idle_seconds": 0 if record is None else record.idle_timeout / 1000,
            "persistent": record is not None and record.persistent,
            "labels": dict(session.labels),
            "bytes": 0 if record is None else len(record.to_bytes()),
            "max_bytes": config.core.max_bytes,
            "tabs": self._tabs.count(session.id),
            "user": session.user,
            "devices": await self._describe_devices(session),
            "data": dict(session),
            "state": {"size": session.state.size},
        }

    async def _describe_devices(self, session: sojourn.Session[Any]) -> list[dict[str, Any]]:
        """Return the sessions of the user, newest login first; none without a login."""
        if session.user is None:
            return []
        return [
            {
                "id": info.id,
                "this": info.id == session.id,
                "labels": dict(info.labels),
                "authenticated_at": _iso(info.authenticated_at),
                "tabs": self._tabs.count(info.id),
            }
            for info in await self._sessions.alist_user(session.user)
        ]


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()
