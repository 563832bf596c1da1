"""The SQLite store: one file for all workers of a machine."""

from sojourn.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
