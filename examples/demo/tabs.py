"""Notifies open tabs, over their WebSockets, that something which they show has changed.

``sessions.on(sojourn.Written, ...)`` reports the writes of this process. A tab whose WebSocket
belongs to another process reads a change with its next message, when it becomes visible, or when it
reconnects.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

import sojourn


class Tabs:
    """The WebSockets of each session in this process.

    Args:
        sessions: the installation whose events are reported.
    """

    def __init__(self, sessions: sojourn.Sessions[Any]) -> None:
        self._open: dict[str, set[WebSocket]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        sessions.on(sojourn.Written, self._on_written)
        # A login or a revocation changes the device list of another session.
        sessions.on(sojourn.Authenticated, self._on_devices_changed)
        sessions.on(sojourn.Revoked, self._on_devices_changed)

    @contextlib.contextmanager
    def subscribed(self, session_id: str, websocket: WebSocket) -> Iterator[None]:
        """Notify a WebSocket of changes while the ``with`` block runs."""
        websockets = self._open.setdefault(session_id, set())
        self.notify_all()  # all tabs show how many are open
        websockets.add(websocket)
        try:
            yield
        finally:
            websockets.discard(websocket)
            if not websockets:
                self._open.pop(session_id, None)
            self.notify_all()

    def count(self, session_id: str) -> int:
        """Return the number of open tabs of a session in this process."""
        return len(self._open.get(session_id, ()))

    def notify_all(self) -> None:
        """Notify the tabs of every session."""
        for session_id in self._open:
            self._notify(session_id)

    def _on_written(self, event: sojourn.Written) -> None:
        self._notify(event.session_id)

    def _on_devices_changed(self, _: sojourn.Authenticated | sojourn.Revoked) -> None:
        self.notify_all()

    def _notify(self, session_id: str) -> None:
        """Start a task for each WebSocket; the event loop holds only weak references to tasks."""
        for websocket in self._open.get(session_id, ()):
            task = asyncio.get_running_loop().create_task(_send(websocket))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _send(websocket: WebSocket) -> None:
    # Closed in the meantime, or the store is stopped: the tab finds out by itself.
    with contextlib.suppress(WebSocketDisconnect, RuntimeError, sojourn.errors.StoreError):
        await websocket.send_json({"changed": True})
