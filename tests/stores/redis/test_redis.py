"""The laws over Redis itself, where one is installed: the second implementation of the protocol.

Debian's package `redis-server` brings it. Read next: ``test_store.py``.
"""

import shutil

import pytest
import redis

from tests.laws import test_applications as adapters
from tests.servers.valkey import Valkey
from tests.stores.redis.on_server import ApplicationOnServer
from tests.stores.redis.test_store import OnServer

BINARY = shutil.which("redis-server")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BINARY is None, reason="needs redis-server"),
]


@pytest.fixture(scope="module")
def shared_redis(tmp_path_factory):
    server = Valkey(tmp_path_factory.mktemp("redis"), binary=BINARY)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def valkey(shared_redis):
    with redis.Redis.from_url(shared_redis.url) as admin:
        admin.flushall()
    return shared_redis


class TestOnRedis(OnServer):
    """S1 to S16 and S18."""


class TestApplicationOnRedis(ApplicationOnServer, adapters.TestStarlette):
    """A1 to A20."""
