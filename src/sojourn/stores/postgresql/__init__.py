"""PostgreSQL store; needs ``sojourn[postgresql]``."""

from sojourn.stores.postgresql.store import PostgresStore

__all__ = ["PostgresStore"]
