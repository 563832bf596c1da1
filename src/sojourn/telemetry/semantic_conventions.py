"""Attributes by the semantic conventions of OpenTelemetry: the store, an error, this library."""

from __future__ import annotations

from typing import Final

from sojourn.stores.migration.store import MigratingStore

#: Names of ``db.system.name`` that differ from the name of the class.
_SYSTEMS: Final = {"postgres": "postgresql"}


def system_name(store: object) -> str:
    """Return ``db.system.name``: the name of the store's class without "Store", lower case.

    For a migration, the name of the new store. Valkey is ``redis``, whose protocol it speaks.
    """
    if isinstance(store, MigratingStore):
        store = store.new
    name = type(store).__name__.removesuffix("Store").lower() or "store"
    return _SYSTEMS.get(name, name)


def error_type(error: BaseException) -> str:
    """Return ``error.type``: the qualified name of the class; never the message."""
    kind = type(error)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def version() -> str | None:
    """Return the version of this library; None if it is not installed."""
    from importlib.metadata import PackageNotFoundError  # here: every import would take 10 ms
    from importlib.metadata import version as version_of

    try:
        return version_of("sojourn")
    except PackageNotFoundError:
        return None
