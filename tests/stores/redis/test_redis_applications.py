"""The laws of requests with the sessions in a real server, and what a visitor sees when it fails.

The adapters are those of ``tests/laws/test_applications.py``; only the store is another one.
"""

import pytest
import redis

from sojourn.stores.redis.values import created_at, unpack
from sojourn.stores.url import open_store
from tests.laws import test_applications as adapters

WHOLE = "sojourn:default:"


class OnServer:
    """Gives each application a store in the emptied server, and looks into it."""

    @pytest.fixture(autouse=True)
    def server(self, valkey):
        self.valkey = valkey
        self.admin = redis.Redis.from_url(valkey.url)
        yield
        self.admin.close()

    def make_store(self):
        return open_store(self.valkey.url, realm="default", timeout=2.0)

    def stored(self, store):
        keys = list(self.admin.scan_iter(f"{WHOLE}s:*"))
        mark = self.admin.get(f"{WHOLE}void") or b""
        values = zip(keys, self.admin.mget(keys) if keys else [], strict=True)
        return [
            unpack(bytes.fromhex(key.decode().rpartition(":")[2]), value)
            for key, value in values
            if created_at(value) >= mark
        ]


class TestStarlette(OnServer, adapters.TestStarlette):
    """A1 to A20 through Starlette."""


class TestBareASGI(OnServer, adapters.TestBareASGI):
    """A1 to A20 through an ASGI callable."""


class TestBareWSGI(OnServer, adapters.TestBareWSGI):
    """A1 to A20 through a WSGI callable."""
