"""One real server for the tests of the Redis store, emptied before each of them.

What must not live here: clusters and Sentinels; their tests start their own.
"""

import pytest
import redis

from tests.integration.valkey import Valkey, running


@pytest.fixture(scope="session")
def shared_valkey(tmp_path_factory):
    with running(Valkey(tmp_path_factory.mktemp("valkey"))) as server:
        yield server


@pytest.fixture
def valkey(shared_valkey):
    with redis.Redis.from_url(shared_valkey.url) as admin:
        admin.flushall()
    return shared_valkey
