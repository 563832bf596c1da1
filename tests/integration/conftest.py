"""One PostgreSQL server for the tests of a process."""

from tests.support.postgresql_fixtures import postgresql, shared_postgresql

__all__ = ["postgresql", "shared_postgresql"]
