"""An application over a real server, for the laws of requests."""

import pytest
import redis

from sojourn.stores.redis.encoding import created_at, decode_value
from sojourn.stores.urls import open_store

WHOLE = "sojourn:default:"


class ApplicationOnServer:
    """Gives each application a store in the emptied server, and looks into it."""

    timeout = 2.0

    @pytest.fixture(autouse=True)
    def server(self, valkey):
        self.valkey = valkey
        self.admin = redis.Redis.from_url(valkey.url)
        yield
        self.admin.close()

    def make_store(self):
        return open_store(self.valkey.url, realm="default", timeout=self.timeout)

    def stored(self, store):
        keys = list(self.admin.scan_iter(f"{WHOLE}s:*"))
        mark = self.admin.get(f"{WHOLE}void") or b""
        values = zip(keys, self.admin.mget(keys) if keys else [], strict=True)
        return [
            decode_value(bytes.fromhex(key.decode().rpartition(":")[2]), value)
            for key, value in values
            if created_at(value) >= mark
        ]
