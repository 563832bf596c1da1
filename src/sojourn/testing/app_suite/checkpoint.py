"""Checkpoint: holds a handler until the test releases it."""

from __future__ import annotations

import threading

from sojourn._core.concurrency import ThreadFuture, wake_all
from sojourn.testing.decorators import WAIT_TIMEOUT


class Checkpoint:
    """A point in a handler, which may run in a task or a thread.

    Args:
        released: let handlers pass from the start.
    """

    def __init__(self, *, released: bool = False) -> None:
        self._reached: ThreadFuture[None] = ThreadFuture()
        self._lock = threading.Lock()
        self._released = released
        self._waiting: list[ThreadFuture[None]] = []

    async def wait(self) -> None:
        """Wait in the handler until ``release`` is called."""
        waiting: ThreadFuture[None] = ThreadFuture()
        with self._lock:
            held = not self._released
            if held:
                self._waiting.append(waiting)
        wake_all([self._reached])
        if held:
            await waiting.wait(WAIT_TIMEOUT)

    async def reached(self) -> None:
        """Wait in the test until a handler has reached the checkpoint."""
        await self._reached.wait(WAIT_TIMEOUT)

    def release(self) -> None:
        """Release all handlers, also later ones."""
        with self._lock:
            self._released = True
            waiting = list(self._waiting)
        wake_all(waiting)
