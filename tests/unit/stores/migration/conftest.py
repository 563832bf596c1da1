"""Fixtures: one Valkey server."""

from tests.support.valkey_fixtures import shared_valkey, valkey

__all__ = ["shared_valkey", "valkey"]
