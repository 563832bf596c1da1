"""Real servers for the checks of the doctor, emptied before each test."""

from tests.support.certificates import authority
from tests.support.postgresql_fixtures import postgresql, shared_postgresql
from tests.support.valkey_fixtures import shared_valkey, valkey

__all__ = ["authority", "postgresql", "shared_postgresql", "shared_valkey", "valkey"]
