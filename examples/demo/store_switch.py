"""A store that a visitor of the demo stops and starts, to show what an outage does."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, cast

from sojourn.errors import StoreUnavailable
from sojourn.store import Store
from sojourn.stores.urls import open_store


class StoreSwitch:
    """Opens the store of a URL so that its calls fail while it is stopped.

    A stopped store raises before it does anything, as one whose server is down.

    Args:
        url: of the store.

    Attributes:
        running: whether calls reach the store.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.running = True

    def open(self, *, realm: str, timeout: float) -> Store:
        """Return the store; called when ``Sessions`` is built."""
        store = open_store(self.url, realm=realm, timeout=timeout)
        return cast("Store", _stoppable_class(type(store), self)(store))


def _stoppable_class(kind: type, switch: StoreSwitch) -> Callable[[Store], object]:
    """Return a class with the public members of a store's class, so with its capabilities."""
    members: dict[str, Any] = {"__init__": _initialize, "__repr__": lambda self: repr(self.store)}
    for name in dir(kind):
        if not name.startswith("_"):
            members[name] = _forward(name, inspect.getattr_static(kind, name), switch)
    # The methods of `SupportsImmediate` decline; the coroutines that are called instead raise.
    for name, declined in (("peek", None), ("swap", False)):
        if name in members:
            members[name] = _forward_immediate(name, declined, switch)
    return type(kind.__name__, (), members)


def _initialize(self: Any, store: Store) -> None:
    self.store = store


def _forward(name: str, member: object, switch: StoreSwitch) -> Any:
    if isinstance(member, property):
        return property(lambda self: getattr(self.store, name))
    if not callable(member):
        return member
    if not inspect.iscoroutinefunction(member):
        return lambda self, *args, **kwargs: getattr(self.store, name)(*args, **kwargs)

    @functools.wraps(member)
    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not switch.running:
            raise StoreUnavailable("the store was stopped on the demo page")
        return await getattr(self.store, name)(*args, **kwargs)

    return call


def _forward_immediate(name: str, declined: object, switch: StoreSwitch) -> Any:
    return lambda self, *args: getattr(self.store, name)(*args) if switch.running else declined
