"""One real server for the tests of the Redis store, emptied before each of them."""

from tests.support.certificates import authority
from tests.support.valkey_fixtures import shared_valkey, valkey

__all__ = ["authority", "shared_valkey", "valkey"]
