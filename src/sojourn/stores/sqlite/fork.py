"""What happens to open stores when their process forks or ends.

What lives here: the hooks, for all stores of the process. What must not: what a store does then.

SQLite knows the locks of a process from a table in its memory. A child that inherits the table
believes to hold locks which it does not, and damages the database: so every connection is closed
before a fork (``gunicorn --preload``, ``multiprocessing``), and both sides open their own again
when they need them. https://sqlite.org/howtocorrupt.html#_carrying_an_open_database_across_a_fork_
"""

from __future__ import annotations

import atexit
import os
import weakref
from typing import Protocol


class Lives(Protocol):
    """A store with threads and connections."""

    def pause(self) -> None:
        """Close every connection and let none be opened until ``resume`` or ``restart``."""
        ...

    def resume(self) -> None:
        """Go on, in the process that forked."""
        ...

    def restart(self) -> None:
        """Begin anew, in the child, where none of the threads is."""
        ...

    def close(self) -> None:
        """End, with the process."""
        ...


class _Process:
    """The stores that are open in this process; the hooks are set with the first."""

    def __init__(self) -> None:
        self._stores: weakref.WeakSet[Lives] = weakref.WeakSet()
        self._paused: list[Lives] = []
        self._hooked = False

    def join(self, store: Lives) -> None:
        """Call a store, from now until it is collected, when the process forks or ends."""
        if not self._hooked:
            self._hooked = True
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(
                    before=self._before_fork,
                    after_in_parent=self._after_in_parent,
                    after_in_child=self._after_in_child,
                )
            atexit.register(self._end)
        self._stores.add(store)

    def leave(self, store: Lives) -> None:
        """Forget a store that is closed."""
        self._stores.discard(store)

    def _before_fork(self) -> None:
        self._paused = list(self._stores)
        for store in self._paused:
            store.pause()

    def _after_in_parent(self) -> None:
        paused, self._paused = self._paused, []
        for store in paused:
            store.resume()

    def _after_in_child(self) -> None:
        paused, self._paused = self._paused, []
        for store in paused:
            store.restart()

    def _end(self) -> None:
        for store in list(self._stores):
            store.close()


process: _Process = _Process()
