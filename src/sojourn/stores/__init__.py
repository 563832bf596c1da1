"""Stores: one module or package for each backend, and the migration between two of them."""

import typing

if typing.TYPE_CHECKING:
    from sojourn.stores.migration import MigrationProgress, amigrate, migrate, migrating

__all__ = ["MigrationProgress", "amigrate", "migrate", "migrating"]

# Type checkers see the imports above; with this function they would accept every name.
if not typing.TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a public name at its first use (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module("sojourn.stores.migration"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        """List the public names, also those that are not imported yet."""
        return sorted({*globals(), *__all__})
