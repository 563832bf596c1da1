"""Sessions in PostgreSQL; the client is an optional package."""

from sojourn.stores.postgresql.schema import schema_sql
from sojourn.stores.postgresql.store import Durability, PostgresStore

__all__ = ["Durability", "PostgresStore", "schema_sql"]
