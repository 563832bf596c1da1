"""Broadcast between two processes over a cluster whose slots migrate and whose nodes fail.

Two real servers share a cluster of six, and a real client has WebSockets open at the second one.
"""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from tests.integration.test_broadcast import ENDS, User, close_of, pair_over, receive
from tests.integration.valkey import running
from tests.integration.valkey_groups import ValkeyCluster
from tests.support.servers import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with running(ValkeyCluster(tmp_path_factory.mktemp("cluster"))) as made:
        yield made


@pytest.fixture(scope="module")
def pair(cluster, tmp_path_factory):
    """Two processes; a test ends before their first recheck."""
    a, b = pair_over(cluster.url, tmp_path_factory.mktemp("pair"), recheck_interval="1 hour")
    with a, b:
        yield a, b


async def watched(cluster, user, *, still=True):
    """Wait until a node has a subscriber for a user's session, or until none has one."""
    digits = user.id
    channel = f"sojourn:default:c:{{{digits[:3]}}}{digits[3:]}"

    async def has_subscriber():
        found = []
        for node in cluster.nodes:
            if node.is_running:
                with cluster.admin(node) as admin:
                    found += admin.pubsub_shardchannels()
        return channel in found

    await eventually(has_subscriber, lambda found: found is still)


@pytest.mark.parametrize(("what", "reason"), ENDS)
async def test_ended_session_closes_sockets_of_the_other_process_within_a_second(
    cluster, pair, what, reason
):
    """W4, S17, B-41: with 4401 and the reason; the subscription is removed."""
    async with User(*pair) as user:
        async with user.socket() as ws:
            await receive(ws)
            await watched(cluster, user)
            started = time.monotonic()
            await user.do(what)
            assert await close_of(ws) == (4401, reason)
            assert time.monotonic() - started < 1
        await watched(cluster, user, still=False)


async def test_pushing_socket_of_the_other_process_sees_a_change(cluster, pair):
    """W5, S17: without a message of the client and without a recheck."""
    async with User(*pair) as user, user.socket("/push") as pushed:
        await receive(pushed)
        await watched(cluster, user)
        await user.do("put?colour=red")
        await seen(pushed, colour="red")


async def seen(pushed, **wanted):
    """Read pushed messages until one has the expected data."""
    async with asyncio.timeout(20):
        while json.loads(await pushed.recv()) != wanted:
            pass


async def test_sockets_survive_the_failover_of_a_primary(tmp_path):
    """S17, W4: changes and revocations during the outage are detected afterwards."""
    cluster = ValkeyCluster(tmp_path)
    try:
        cluster.start()
        a, b = pair_over(cluster.url, tmp_path, recheck_interval="1 hour")
        with a, b:
            async with User(a, b) as user, user.socket("/push") as pushed, user.socket() as ws:
                await receive(ws)
                await receive(pushed)
                await watched(cluster, user)
                victim = owner(cluster, user)
                victim.stop()
                await eventually(lambda: put(user, "blue"), lambda status: status == 200)
                await seen(pushed, colour="blue")
                await watched(cluster, user)
                await user.do("put?colour=green")
                await seen(pushed, colour="green")
                started = time.monotonic()
                await user.do("revoke?id={id}")
                assert await close_of(ws) == (4401, "stolen phone")
                assert time.monotonic() - started < 1
    finally:
        cluster.stop()


async def put(user, colour):
    answer = await user.http.get(f"/do/put?colour={colour}")
    return answer.status_code


def owner(cluster, user):
    """Return the primary that has the record of a user's session."""
    for node in cluster.primaries():
        with cluster.admin(node) as admin:
            if admin.keys(f"sojourn:default:s:*{user.id[3:]}"):
                return node
    raise AssertionError(user.id)
