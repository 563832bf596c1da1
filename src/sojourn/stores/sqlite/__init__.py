"""The SQLite store: records in one file, shared by all processes of a machine."""

from sojourn.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
