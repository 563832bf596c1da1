"""EngineObserver: what an engine calls around its loads and commits while it is observed."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeAlias, TypeVar

from sojourn._core.working_copy import Client, WorkingCopy
from sojourn._crypto.tickets import Ticket
from sojourn.record import Record

T = TypeVar("T")

Load: TypeAlias = Callable[..., Coroutine[Any, Any, WorkingCopy]]
ImmediateLoad: TypeAlias = Callable[[Ticket, Client | None], WorkingCopy | None]
Swap: TypeAlias = Callable[[Record, int], bool]


class EngineObserver(Protocol):
    """Wraps the loads and commits of an engine; see ``Engine.observe``.

    A wrapper calls what it wraps exactly once, and returns its result or raises its error.
    """

    def observed_load(self, load: Load) -> Load:
        """Wrap the function that loads the session of a ticket, as ``Engine.load``."""
        ...

    def observed_immediate_load(self, load: ImmediateLoad) -> ImmediateLoad:
        """Wrap a function that returns None if ``load`` has to be called."""
        ...

    def observed_swap(self, swap: Swap) -> Swap:
        """Wrap the commit of an ordinary change: it returns False if ``save`` has to be called."""
        ...

    def observed_commit(
        self, copy: WorkingCopy, writing: Coroutine[Any, Any, T]
    ) -> Coroutine[Any, Any, T]:
        """Wrap a coroutine that writes what a request has changed.

        Args:
            copy: of the request; a session that is created has its ID afterwards.
            writing: the commit.
        """
        ...
