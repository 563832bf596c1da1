"""Counts and lists in Valkey and a cluster with keys of other realms and of other applications."""

import asyncio
import contextlib
import secrets

import pytest
import redis
from redis.cluster import RedisCluster

from sojourn import Sessions
from sojourn.testing.records import make_record
from sojourn.testing.store_suite.counting import check_estimate
from tests.integration.valkey import Valkey, running
from tests.integration.valkey_groups import ValkeyCluster
from tests.support.million_sessions import fill
from tests.support.slow_commands import without_slow_command

SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


class Servers:
    """One server or the nodes of a cluster, with a client for keys of other applications."""

    def __init__(self, url, ports, client):
        self.url = url
        self.client = client
        self.ports = ports

    def add_foreign_keys(self, number):
        """Add keys of another application, with and without hash tags."""
        for start in range(0, number, 10_000):
            pipeline = self.client.pipeline()
            for each in range(start, min(start + 10_000, number)):
                name = f"cache:{{{each % 97}}}:{each}" if each % 10 == 0 else f"cache:{each}"
                pipeline.set(name, secrets.token_hex(8))
            pipeline.execute()


@pytest.fixture(params=["valkey", "cluster"])
def servers(request, tmp_path):
    with contextlib.ExitStack() as stack:
        if request.param == "valkey":
            server = stack.enter_context(running(Valkey(tmp_path)))
            made = Servers(server.url, [server.port], redis.Redis(port=server.port))
        else:
            cluster = stack.enter_context(running(ValkeyCluster(tmp_path, steady=True)))
            ports = [node.port for node in cluster.nodes]
            made = Servers(cluster.url, ports, RedisCluster(host="127.0.0.1", port=ports[0]))
        stack.callback(made.client.close)
        yield made


def test_estimated_count_is_within_ten_percent(servers):
    """Among 200,000 keys of two realms, ended sessions, indexes and another application."""
    fill(servers.url, 50_000, ended=20_000, users=1_000)
    fill(servers.url, 80_000, realm="other", seed=1, users=1_000)
    servers.add_foreign_keys(70_000)

    async def work():
        first = Sessions(store=servers.url, secret=SECRET)
        other = Sessions(store=servers.url, secret=SECRET, realm="other")
        none = Sessions(store=servers.url, secret=SECRET, realm="none")
        for _ in range(3):
            check_estimate(await without_slow_command(servers.ports, first.acount), 30_000)
            check_estimate(await without_slow_command(servers.ports, other.acount), 80_000)
        assert await without_slow_command(servers.ports, none.acount) == 0
        await first.arevoke_all()
        assert await first.acount() == 0
        for sessions in (first, other, none):
            sessions.close()

    asyncio.run(work())


def test_few_sessions_among_many_keys_are_listed(servers):
    """Each once; a page examines further keys if SCAN finds no session."""
    fill(servers.url, 120, users=10)
    servers.add_foreign_keys(100_000)

    async def work():
        sessions = Sessions(store=servers.url, secret=SECRET)

        async def list_all():
            found, pages, cursor, is_last = [], 0, "", False
            while not is_last:
                page = await sessions.alist_page(cursor, 50)
                found += [info.id for info in page.sessions]
                pages, cursor, is_last = pages + 1, page.cursor, not page.cursor
            return found, pages

        result = await without_slow_command(servers.ports, list_all)
        sessions.close()
        return result

    found, pages = asyncio.run(work())
    assert len(found) == len(set(found)) == 120
    assert pages < 30


def test_listing_large_sessions_blocks_no_server(servers):
    """1,000 sessions of 64 KiB are read in commands of at most 256 keys."""

    async def work():
        sessions = Sessions(store=servers.url, secret=SECRET)
        body = b"\x93\xc0\x80\x81\xa1n\xc6" + (65_000).to_bytes(4) + bytes(65_000)
        for _ in range(50):
            await sessions.store.create_many([make_record(body=body) for _ in range(20)])
        page = await without_slow_command(servers.ports, lambda: sessions.alist_page(limit=1000))
        count = await without_slow_command(servers.ports, sessions.acount)
        sessions.close()
        return page, count

    page, count = asyncio.run(work())
    assert (len(page.sessions), page.unreadable) == (1_000, 0)
    assert (count, count.is_exact) == (1_000, True)
