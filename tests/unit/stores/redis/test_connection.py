"""Connections over TLS: reuse, large transfers and failures. Plain ones: ``test_failures.py``."""

import asyncio
import time

import pytest

from sojourn.errors import StoreUnavailable
from sojourn.store import SAVED
from sojourn.stores.urls import open_store
from sojourn.testing.decorators import with_loop, without_loop
from sojourn.testing.records import make_body, make_record, next_version
from tests.integration.proxy import Proxy

RUNNERS = pytest.mark.parametrize("runner", [with_loop, without_loop], ids=["loop", "no loop"])


@pytest.fixture
def proxy(valkey, authority):
    made = Proxy(valkey.port, authority[1])
    yield made
    made.close()


@pytest.fixture
def store(proxy, authority):
    url = f"rediss://127.0.0.1:{proxy.port}/0?ca={authority[0]}"
    return open_store(url, realm="default", timeout=2.0)


async def pause_of(runner):
    if runner is with_loop:
        await asyncio.sleep(0.1)
    else:
        time.sleep(0.1)  # noqa: ASYNC251 - no loop runs here


@RUNNERS
def test_an_idle_tls_connection_is_used_again(runner, store, proxy):
    """TLS 1.3 sends session tickets after the handshake; they do not end the connection."""

    async def check():
        record = make_record()
        assert await store.create(record) is True
        for _ in range(3):
            await pause_of(runner)
            assert await store.load(record.id) == record
        assert proxy.opened == 1
        store.close()

    runner(check())


@RUNNERS
@pytest.mark.parametrize("how", ["cut", "half_close"])
def test_a_broken_tls_connection_is_replaced(runner, how, store, proxy):
    """S12: before it is used."""

    async def check():
        record = make_record()
        await store.create(record)
        getattr(proxy, how)()
        await pause_of(runner)
        assert await store.save(next_version(record), 1) is SAVED
        assert await store.load(record.id) == next_version(record)
        store.close()

    runner(check())


@RUNNERS
def test_a_record_larger_than_the_buffers_is_transferred_over_tls(runner, store):
    """It needs several writes and several reads."""

    async def check():
        record = make_record(body=make_body(n=b"x" * 8_000_000))
        assert await store.create(record) is True
        assert await store.load(record.id) == record
        store.close()

    runner(check())


@RUNNERS
def test_a_tls_connection_without_replies_costs_one_deadline(runner, store, proxy):
    """S12."""

    async def check():
        await store.create(make_record())
        proxy.swallow = True
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await store.load(bytes(16))
        assert 1.8 < time.monotonic() - began < 3.5  # two deadlines would be 4
        store.close()

    runner(check())
