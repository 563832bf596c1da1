"""A primary that is killed under load, and its replica that takes over: losses and duration.

Replication is asynchronous, so acknowledged writes can be missing afterwards. Writes that the
replica had confirmed (WAIT) when the primary was killed must not be missing.
"""

import asyncio
import logging
import time
from contextlib import contextmanager

import pytest
import redis

from sojourn.stores.urls import open_store
from tests.integration.proxy import Proxy
from tests.integration.valkey_groups import SentinelServers, ValkeyCluster, until
from tests.support.write_load import under_load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

#: Seconds of load before the server is killed.
BEFORE = 1.5


class SentinelGroup:
    """A primary and a replica, watched by three Sentinels."""

    def __init__(self, folder):
        self._servers = SentinelServers(folder)
        self._servers.start()
        self.url, self.stop = self._servers.url, self._servers.stop
        self.primary, self.replica = self._servers.primary, self._servers.replica


class ClusterGroup:
    """One of three primaries, and its replica."""

    def __init__(self, folder):
        self._servers = ValkeyCluster(folder)
        self._servers.start()
        self.url, self.stop = self._servers.url, self._servers.stop
        self.primary, self.replica = self._servers.nodes[0], self._servers.nodes[3]


@contextmanager
def lagging(group, seconds):
    """Delay the replica; Sentinels would reconfigure it after some seconds."""
    if not seconds:
        yield
        return
    proxy = Proxy(group.primary.port)
    with redis.Redis(port=group.replica.port) as admin:
        admin.replicaof("127.0.0.1", proxy.port)
        until(lambda: admin.info("replication").get("master_link_status") == "up", "synced")
    proxy.delay = seconds
    try:
        yield
    finally:
        proxy.close()


class Confirmed:
    """Versions that the replica has confirmed.

    Attributes:
        versions: by session, those that were acknowledged before a mark.
        at: when the mark was set, by ``time.monotonic``.
    """

    def __init__(self, load, port):
        self.versions = {}
        self.at = time.monotonic()
        self._load = load
        self._port = port

    def collect(self, seconds):
        """Repeatedly set a mark and wait until the replica has it (WAIT 1)."""
        until_then = time.monotonic() + seconds
        with redis.Redis(port=self._port) as admin, admin.client() as one:
            while time.monotonic() < until_then:
                before, at = dict(self._load.acknowledged), time.monotonic()
                self._mark(one)
                if one.execute_command("WAIT", 1, 2000) >= 1:
                    self.versions, self.at = before, at

    def _mark(self, one):
        # A node of a cluster accepts only keys of its slots; any such key is sufficient.
        for number in range(100):
            try:
                one.set(f"mark:{number}", "x")
            except redis.exceptions.ResponseError:
                continue
            return


@pytest.mark.parametrize(
    ("kind", "lag"),
    [(SentinelGroup, 0.0), (SentinelGroup, 0.2), (ClusterGroup, 0.0)],
    ids=["Sentinel", "Sentinel, replica behind", "cluster"],
)
def test_no_write_that_the_replica_confirmed_is_lost_with_the_primary(kind, lag, tmp_path, caplog):
    """S10, S12: kill -9 under load; other losses and the length of the outage are logged."""
    caplog.set_level(logging.INFO)
    group = kind(tmp_path)
    confirmed, age = None, 0.0

    def disturb(load):
        nonlocal confirmed, age
        confirmed = Confirmed(load, group.primary.port)
        with lagging(group, lag):
            confirmed.collect(BEFORE)
            age = time.monotonic() - confirmed.at
            group.primary.stop()  # SIGKILL
        with redis.Redis(port=group.replica.port) as admin:
            until(lambda: admin.info("replication")["role"] == "master", "a new primary")

    async def check():
        store = open_store(group.url, realm="default", timeout=1.0)
        load = await under_load(store, disturb)
        lost = await load.lost()
        logging.getLogger("tests").info(
            "%s: %d of %d acknowledged saves lost, all later than the replica's last confirmation "
            "%.2f s before the death; an outage of %.1f s",
            *(kind.__name__, lost, sum(load.acknowledged.values()) + lost, age, load.outage()),
        )
        assert load.failures
        assert load.outage() < 15
        assert min(confirmed.versions.values()) > 1, "the replica confirmed nothing"
        for session_id, version in load.lowest.items():
            assert version >= confirmed.versions[session_id]
        assert lost == sum(load.rolled_back.values()), "the new primary has lost something itself"
        assert lost > 0 or not lag, "a replica that is behind loses nothing: is it behind?"
        assert len(asyncio.all_tasks()) == 1
        store.close()

    try:
        asyncio.run(check())
    finally:
        group.stop()
