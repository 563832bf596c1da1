"""Hooks that close the connections of open stores before a fork and at the exit of the process."""

from __future__ import annotations

import atexit
import os
import weakref
from typing import Protocol


class ForkAware(Protocol):
    """A store with threads and connections."""

    def before_fork(self) -> None:
        """Close every connection and block calls until one of the two methods below."""
        ...

    def after_fork_in_parent(self) -> None:
        """Unblock calls in the process that forked."""
        ...

    def after_fork_in_child(self) -> None:
        """Start again in the child, which has none of the threads."""
        ...

    def close(self) -> None:
        """Close the store when the process exits."""
        ...


class ForkHooks:
    """The open stores of this process; installs its hooks with the first one.

    SQLite stores the locks of a process in its memory. A child that inherits this table assumes
    locks that it does not hold and corrupts the database. So every connection is closed before a
    fork (``gunicorn --preload``, ``multiprocessing``), and both processes open their own when they
    need one: https://sqlite.org/howtocorrupt.html#_carrying_an_open_database_across_a_fork_
    """

    def __init__(self) -> None:
        self._stores: weakref.WeakSet[ForkAware] = weakref.WeakSet()
        self._forking: list[ForkAware] = []
        self._installed = False

    def register(self, store: ForkAware) -> None:
        """Call the store's hooks until it is unregistered or collected."""
        if not self._installed:
            self._installed = True
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(
                    before=self._before,
                    after_in_parent=self._after_in_parent,
                    after_in_child=self._after_in_child,
                )
            atexit.register(self._at_exit)
        self._stores.add(store)

    def unregister(self, store: ForkAware) -> None:
        """Stop calling the store's hooks."""
        self._stores.discard(store)

    def _before(self) -> None:
        self._forking = list(self._stores)
        for store in self._forking:
            store.before_fork()

    def _after_in_parent(self) -> None:
        stores, self._forking = self._forking, []
        for store in stores:
            store.after_fork_in_parent()

    def _after_in_child(self) -> None:
        stores, self._forking = self._forking, []
        for store in stores:
            store.after_fork_in_child()

    def _at_exit(self) -> None:
        for store in list(self._stores):
            store.close()


fork_hooks: ForkHooks = ForkHooks()
