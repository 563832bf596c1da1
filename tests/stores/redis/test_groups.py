"""RedisStore over several servers: a cluster of six, and a primary that Sentinels watch.

All laws hold there, and after the death of a primary. Started once for the module; slow.
"""

import pytest
import redis

from sojourn.stores.redis.scripts import UNLISTED
from sojourn.stores.url import open_store
from sojourn.testing import StoreSuite
from tests.servers.valkey_groups import ValkeyCluster, Watched

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    made = ValkeyCluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    made = Watched(tmp_path_factory.mktemp("watched"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


class TestCluster(StoreSuite):
    """S1 to S16 over three primaries with three replicas."""

    @pytest.fixture(autouse=True)
    def servers(self, cluster):
        cluster.flush()
        self.cluster = cluster

    def make_store(self, realm):
        return open_store(self.cluster.url, realm=realm, timeout=2.0)

    def store_url(self):
        return self.cluster.url

    async def plant(self, store, session_id, data):
        digits = session_id.hex()
        key = f"sojourn:default:s:{{{digits[:3]}}}{digits[3:]}"
        with redis.RedisCluster(host="127.0.0.1", port=self.cluster.nodes[0].port) as admin:
            assert admin.exists(key)
            admin.set(key, bytes([UNLISTED]) + data)

    async def index_size(self, store):
        with redis.RedisCluster(host="127.0.0.1", port=self.cluster.nodes[0].port) as admin:
            return sum(admin.zcard(key) for key in admin.scan_iter("sojourn:default:u:*"))


class TestSentinel(StoreSuite):
    """S1 to S16 over a primary that is asked for."""

    @pytest.fixture(autouse=True)
    def servers(self, watched):
        self.watched = watched
        with redis.Redis(port=watched.primary.port) as admin:
            admin.flushall()

    def make_store(self, realm):
        return open_store(self.watched.url, realm=realm, timeout=2.0)

    def store_url(self):
        return self.watched.url

    async def plant(self, store, session_id, data):
        with redis.Redis(port=self.watched.primary.port) as admin:
            admin.set(f"sojourn:default:s:{session_id.hex()}", bytes([UNLISTED]) + data)

    async def index_size(self, store):
        with redis.Redis(port=self.watched.primary.port) as admin:
            return sum(admin.zcard(key) for key in admin.scan_iter("sojourn:default:u:*"))
