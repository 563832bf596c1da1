"""Tabs: tells the open tabs of a session that something has changed.

What lives here: which sockets follow which session in this process, and the hint they get. What
must not: the session's values; a hint says "look", and the look itself reads the session afresh.

How live is this, honestly? ``sessions.on(sojourn.Written, ...)`` speaks of writes in this process.
A tab whose socket is held by another process finds out at its next message, when it comes to the
front, or when it reconnects, because each of those reads the store. No socket polls.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

import sojourn


class Tabs:
    """The sockets of each session in this process.

    Args:
        sessions: tells of writes.
    """

    def __init__(self, sessions: sojourn.Sessions[Any]) -> None:
        self._open: dict[str, set[WebSocket]] = {}
        self._hints: set[asyncio.Task[None]] = set()
        sessions.on(sojourn.Written, self._on_written)

    @contextlib.contextmanager
    def following(self, session_id: str, websocket: WebSocket) -> Iterator[None]:
        """Send hints to a socket for the length of a ``with`` block."""
        others = self._open.setdefault(session_id, set())
        self._hint(session_id)
        others.add(websocket)
        try:
            yield
        finally:
            others.discard(websocket)
            if not others:
                self._open.pop(session_id, None)
            self._hint(session_id)

    def count(self, session_id: str) -> int:
        """Return how many tabs follow a session in this process."""
        return len(self._open.get(session_id, ()))

    def _on_written(self, event: sojourn.Written) -> None:
        self._hint(event.session_id)

    def _hint(self, session_id: str) -> None:
        """Start a hint for each socket; the loop keeps no strong reference to tasks, we do."""
        for websocket in self._open.get(session_id, ()):
            task = asyncio.get_running_loop().create_task(_send(websocket))
            self._hints.add(task)
            task.add_done_callback(self._hints.discard)


async def _send(websocket: WebSocket) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it closed meanwhile
        await websocket.send_json({"changed": True})
