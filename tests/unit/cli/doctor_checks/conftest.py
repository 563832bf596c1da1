"""Real servers for the checks of the doctor."""

from tests.support.certificates import authority
from tests.support.postgresql_fixtures import shared_postgresql
from tests.support.valkey_fixtures import shared_valkey, valkey

__all__ = ["authority", "shared_postgresql", "shared_valkey", "valkey"]
