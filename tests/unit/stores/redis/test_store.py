"""RedisStore keeps every law of stores (S), over TCP and a Unix socket, with and without a loop."""

import pytest
import redis

from sojourn.stores.redis.scripts import NO_NAMES
from sojourn.stores.urls import open_store
from tests.contract.store_suite import StoreSuite

#: Commands that a batch consists of; those called by scripts are no round trips. A new connection
#: sends CLIENT SETNAME together with INFO.
SENT = ("evalsha", "eval", "mget", "xrevrange", "auth", "select", "hello", "info")


class OnServer(StoreSuite):
    """Parts that the tests share: a server that they can inspect."""

    lists_by_id = False

    timeout = 2.0

    @pytest.fixture(autouse=True)
    def server(self, valkey):
        self.valkey = valkey
        self.admin = redis.Redis.from_url(valkey.url)
        yield
        self.admin.close()

    def make_store(self, realm):
        return open_store(self.store_url(), realm=realm, timeout=self.timeout)

    def store_url(self):
        return self.valkey.url

    async def overwrite(self, store, session_id, data):
        key = f"sojourn:default:s:{session_id.hex()}"
        assert self.admin.exists(key)
        self.admin.set(key, bytes([NO_NAMES]) + data)

    async def add_raw_history(self, store, data):
        fields = {b"e": data, b"x": b"9999999999999"}
        self.admin.xadd("sojourn:default:history", fields)

    def outage(self, kind):
        return self.valkey.refusing() if kind == "refuse" else self.valkey.hanging()

    def round_trips(self, store):
        counted = self.admin.info("commandstats")
        return (
            sum(
                counted[f"cmdstat_{name}"]["calls"] for name in SENT if f"cmdstat_{name}" in counted
            )
            - self._own()
        )

    def _own(self):
        self.looks = getattr(self, "looks", 0) + 1
        return self.looks

    async def index_size(self, store):
        return sum(self.admin.zcard(key) for key in self.admin.scan_iter("sojourn:default:u:*"))


class TestOverTCP(OnServer):
    """S1 to S18."""


class TestOverUnixSocket(OnServer):
    """The laws of stores, over a Unix socket."""

    def store_url(self):
        return f"unix://{self.valkey.socket}"
