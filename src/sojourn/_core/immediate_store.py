"""Decides whether ``peek`` and ``swap`` of a store may replace its ``load`` and ``save``."""

from __future__ import annotations

from sojourn.store import Store, SupportsImmediate


def immediate_store(store: Store) -> SupportsImmediate | None:
    """Return the store if its immediate methods stand for its coroutines, otherwise None.

    A subclass or an object that overrides ``load`` or ``save`` alone must not be bypassed, such as
    a ``MemoryStore`` that counts its calls.
    """
    if not isinstance(store, SupportsImmediate):
        return None
    for coroutine, method in (("load", "peek"), ("save", "swap")):
        if _depth(store, coroutine) < _depth(store, method):
            return None
    return store


def _depth(store: object, name: str) -> int:
    """Return where a method is defined.

    0 in the object, 1 in its class, more in base classes, most if ``__getattr__`` provides it.
    """
    if name in getattr(store, "__dict__", {}):
        return 0
    bases = type(store).__mro__
    defined = (n for n, cls in enumerate(bases, start=1) if name in vars(cls))
    return next(defined, len(bases) + 1)
