"""A million sessions expire, and neither the server nor the application keeps their memory.

Takes two minutes: the server keeps a record for a minute after its expiry.
"""

import asyncio
import time

import msgspec
import pytest
import redis

from sojourn.stores.redis.scripts import TTL_MARGIN
from sojourn.stores.urls import open_store
from sojourn.testing.records import make_body, make_record, now
from tests.integration.valkey import Valkey

MANY = 1_000_000
BATCH = 500


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_memory_of_a_million_expired_sessions_is_released(tmp_path):
    """S8: the server removes them, and returns its memory."""
    server = Valkey(tmp_path)
    server.start()
    admin = redis.Redis.from_url(server.url)

    async def fill():
        store = open_store(server.url, realm="default", timeout=20.0)
        pattern = make_record(body=make_body(n=b"x" * 150), idle_timeout=1)
        last = pattern
        for start in range(0, MANY, BATCH):
            at = now()
            records = [
                msgspec.structs.replace(
                    pattern, id=number.to_bytes(16), seen_at=at, absolute_at=at + 1
                )
                for number in range(start, start + BATCH)
            ]
            assert all(await asyncio.gather(*(store.create(record) for record in records)))
            last = records[-1]
        assert await store.load(last.id) == last
        store.close()

    try:
        before = admin.info("memory")["used_memory"]
        began = time.monotonic()
        asyncio.run(fill())
        took = time.monotonic() - began
        if took < TTL_MARGIN / 1000:  # on a slow machine the first may have been removed already
            assert admin.dbsize() == MANY
        deadline = time.monotonic() + 3 * TTL_MARGIN / 1000
        while admin.dbsize():
            assert time.monotonic() < deadline, f"{admin.dbsize()} keys are still stored"
            time.sleep(1)  # the server expires keys by its own clock
        assert admin.info("memory")["used_memory"] < before + 20_000_000
        assert admin.info("clients")["connected_clients"] == 1
    finally:
        admin.close()
        server.stop()
