"""A near cache in real processes over Valkey; a proxy breaks, drops or delays its subscription."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager

import httpx
import pytest

from tests.integration.proxy import Proxy
from tests.integration.test_broadcast import SECRET
from tests.integration.valkey import Valkey, running
from tests.support.servers import uvicorn

pytestmark = pytest.mark.anyio

#: Seconds for a message of a process to arrive on a busy machine.
ARRIVAL = 2.0

#: Seconds for a request on a busy machine, which may have started before the measured event.
REQUEST = 1.0


class SubscriptionProxy(Proxy):
    """A proxy with faults for subscriptions only.

    Attributes:
        silent: drop messages of subscriptions, like a network that loses packets.
        late: seconds by which messages are delayed.
    """

    silent = False
    late = 0.0

    def altering(self):
        is_subscription = False

        def alter(data):
            nonlocal is_subscription
            is_subscription = is_subscription or b"subscribe" in data
            if is_subscription and self.late:
                time.sleep(self.late)  # the configured delay
            return b"" if is_subscription and self.silent else data

        return alter


@pytest.fixture(scope="module")
def valkey(tmp_path_factory):
    with running(Valkey(tmp_path_factory.mktemp("valkey"))) as server:
        yield server


@contextmanager
def pair(valkey, folder, near_cache):
    """Run two servers; the second one reaches Valkey through a proxy."""
    proxy = SubscriptionProxy(valkey.port)
    servers = []
    for name, url in (("a", valkey.url), ("b", proxy.url)):
        (folder / name).mkdir()
        options = {"store": url, "secret": SECRET, "near_cache": near_cache}
        servers.append(uvicorn("accounts", folder / name, options=options))
    with servers[0] as a, servers[1] as b:
        yield a, b, proxy
    proxy.close()


@pytest.fixture(scope="module")
def long(valkey, tmp_path_factory):
    """Servers with ``near_cache`` of ten seconds, so that a fast effect is due to a message."""
    with pair(valkey, tmp_path_factory.mktemp("long"), "10 seconds") as made:
        yield made


@pytest.fixture(scope="module")
def short(valkey, tmp_path_factory):
    with pair(valkey, tmp_path_factory.mktemp("short"), "1 second") as made:
        yield made


class Visitor:
    """A browser that sends each request to a given server."""

    def __init__(self):
        self.http = httpx.AsyncClient(timeout=10)
        self.id = ""

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.http.aclose()

    async def get(self, server, path="/"):
        answer = await self.http.get(server.url + path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def begin(self, server, user="ada"):
        self.id = (await self.get(server, f"/login?user={user}"))["id"]

    async def is_alive(self, server):
        return (await self.get(server))["id"] == self.id

    async def warm(self, server):
        """Read until the subscription is confirmed and the record is in memory."""
        end = time.monotonic() + 1.2  # a probe is sent each second
        while time.monotonic() < end:
            assert await self.is_alive(server)
            await asyncio.sleep(0.05)  # a browser that polls

    async def refused_after(self, server, limit):
        """Return after how many seconds the server refuses the ticket and keeps refusing it."""
        started = time.monotonic()
        refused_at = None
        while refused_at is None or time.monotonic() < refused_at + 0.5:
            sent_at = time.monotonic()
            if await self.is_alive(server):
                refused_at = None
                assert sent_at < started + limit, f"it is accepted after {limit} seconds"
            elif refused_at is None:
                refused_at = sent_at
            await asyncio.sleep(0.02)  # a browser that polls
        return refused_at - started


ENDS = ["revoke?id={id}", "revoke_user?user=ada", "revoke_all"]


@pytest.mark.slow  # like the other tests with this pair: two more servers
@pytest.mark.parametrize("end", ENDS)
async def test_message_invalidates_a_record_before_its_maximum_age(long, end):
    """N2: within the delay of the message."""
    a, b, _ = long
    async with Visitor() as visitor, Visitor() as administrator:
        await visitor.begin(a)
        await visitor.warm(b)
        await administrator.get(a, "/do/" + end.format(id=visitor.id))
        assert not await visitor.is_alive(a)
        assert await visitor.refused_after(b, 2 * ARRIVAL) < ARRIVAL


@pytest.mark.slow  # as above
async def test_late_message_invalidates_the_record_when_it_arrives(long):
    """N2: until then the older record is served."""
    a, b, proxy = long
    async with Visitor() as visitor, Visitor() as administrator:
        await visitor.begin(a)
        await visitor.warm(b)
        proxy.late = 0.5
        try:
            await administrator.get(a, f"/do/revoke?id={visitor.id}")
            assert await visitor.is_alive(b)
            assert 0.2 < await visitor.refused_after(b, 2 * ARRIVAL) < ARRIVAL
        finally:
            proxy.late = 0.0


@pytest.mark.slow  # ten seconds
async def test_silent_subscription_is_detected_before_the_maximum_age(long):
    """N1, N2: within three seconds; the cache is used again when messages arrive."""
    a, b, proxy = long
    async with Visitor() as visitor, Visitor() as administrator:
        await visitor.begin(a)
        await visitor.warm(b)
        proxy.silent = True
        try:
            await administrator.get(a, f"/do/revoke?id={visitor.id}")
            assert await visitor.is_alive(b)
            assert 0.5 < await visitor.refused_after(b, 4) < 3 + REQUEST
        finally:
            proxy.silent = False
            proxy.cut()
        await visitor.begin(a)
        await visitor.warm(b)
        await administrator.get(a, f"/do/revoke?id={visitor.id}")
        assert await visitor.refused_after(b, 2 * ARRIVAL) < ARRIVAL


async def test_lost_message_delays_a_revocation_by_the_stated_time(short):
    """N2: the subscription is silent; the maximum age is one second."""
    a, b, proxy = short
    async with Visitor() as visitor, Visitor() as administrator:
        await visitor.begin(a)
        await visitor.warm(b)
        proxy.silent = True
        try:
            await administrator.get(a, f"/do/revoke?id={visitor.id}")
            assert await visitor.refused_after(b, 2.5) < 1 + REQUEST
        finally:
            proxy.silent = False
            proxy.cut()


async def test_a_second_revocation_takes_effect_in_its_own_process(long):
    """N2: the message of the first one, in another process, is late."""
    a, b, proxy = long
    async with Visitor() as visitor, Visitor() as administrator:
        await visitor.begin(a)
        await visitor.warm(b)
        proxy.silent = True
        try:
            await administrator.get(a, f"/do/revoke?id={visitor.id}")
            assert await visitor.is_alive(b)
            await administrator.get(b, f"/do/revoke?id={visitor.id}")
            assert not await visitor.is_alive(b)
        finally:
            proxy.silent = False
            proxy.cut()


@pytest.mark.slow  # eight seconds
async def test_broken_subscription_delays_a_revocation_by_the_stated_time(short):
    """N2: the connections break while the message is published."""
    a, b, proxy = short
    async with Visitor() as visitor, Visitor() as administrator:
        await visitor.begin(a)
        await visitor.warm(b)
        for _ in range(3):
            proxy.cut()
            await administrator.get(a, f"/do/revoke?id={visitor.id}")
            assert await visitor.refused_after(b, 2) < 1 + REQUEST
            await visitor.begin(a)
            assert await visitor.is_alive(b)


async def test_redirect_to_another_process_shows_the_write(short):
    """N3, A5: both processes have the record in memory."""
    servers = short[:2]
    async with Visitor() as visitor:
        await visitor.begin(servers[0])
        for server in servers:
            await visitor.warm(server)
        for number in range(50):
            await visitor.get(servers[number % 2], f"/do/put?number={number}")
            for server in (servers[(number + 1) % 2], servers[number % 2]):
                assert (await visitor.get(server))["number"] == str(number)


@pytest.mark.slow  # four seconds
async def test_no_write_is_lost(short):
    """N4, A6: clients without the cookie write different keys through both processes."""
    servers = short[:2]
    async with Visitor() as visitor:
        await visitor.begin(servers[0])
        await visitor.warm(servers[1])
        name, value = next(
            (n, v) for n, v in visitor.http.cookies.items() if not n.endswith("-written")
        )

        async def write(number):
            async with httpx.AsyncClient(timeout=10, cookies={name: value}) as client:
                for part in range(5):
                    key = f"key_{number}_{part}"
                    answer = await client.get(f"{servers[part % 2].url}/do/put?{key}=1")
                    assert answer.status_code == 200
                    client.cookies.clear()
                    client.cookies.set(name, value)

        await asyncio.gather(*map(write, range(8)))
        await asyncio.sleep(1)  # the maximum age of records that another process wrote
        found = await visitor.get(servers[0])
        assert sum(key.startswith("key_") for key in found) == 40
