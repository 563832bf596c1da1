"""Fixtures: one real Valkey server for the tests of a process, emptied before each of them.

A ``conftest.py`` imports them.
"""

import pytest
import redis

from tests.integration.valkey import Valkey, running

__all__ = ["shared_valkey", "valkey"]


@pytest.fixture(scope="session")
def shared_valkey(tmp_path_factory):
    with running(Valkey(tmp_path_factory.mktemp("valkey"))) as server:
        yield server


@pytest.fixture
def valkey(shared_valkey):
    with redis.Redis.from_url(shared_valkey.url) as admin:
        admin.flushall()
    return shared_valkey
