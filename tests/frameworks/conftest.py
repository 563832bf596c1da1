"""Fixtures of the tests of frameworks."""

from tests.support.valkey_fixtures import shared_valkey, valkey

__all__ = ["shared_valkey", "valkey"]
