"""Fixtures: one Valkey server and one PostgreSQL server."""

from tests.support.postgresql_fixtures import postgresql, shared_postgresql
from tests.support.valkey_fixtures import shared_valkey, valkey

__all__ = ["postgresql", "shared_postgresql", "shared_valkey", "valkey"]
