"""One PostgreSQL server for all tests of this folder."""

from tests.support.postgresql_fixtures import postgresql, shared_postgresql

__all__ = ["postgresql", "shared_postgresql"]
