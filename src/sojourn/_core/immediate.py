"""Decides whether ``peek`` and ``swap`` of a store may replace its ``load`` and ``save``."""

from __future__ import annotations

from sojourn.store import Store, SupportsImmediate


def immediate_store(store: Store) -> SupportsImmediate | None:
    """Return the store if its immediate methods belong to its coroutines, otherwise None.

    A subclass or an object that overrides ``load`` or ``save`` alone must not be bypassed, such as
    a ``MemoryStore`` that counts its calls.
    """
    if not isinstance(store, SupportsImmediate):
        return None
    for coroutine, method in (("load", "peek"), ("save", "swap")):
        if _definition(store, coroutine) is not _definition(store, method):
            return None
    return store


def _definition(store: object, name: str) -> object:
    """Return the object or class that defines a method."""
    if name in getattr(store, "__dict__", {}):
        return store
    return next((cls for cls in type(store).__mro__ if name in vars(cls)), None)
