"""Broadcast messages between two stores in a cluster, over sharded channels that move."""

import itertools
import re
import threading
from contextlib import contextmanager

import pytest
import redis

from sojourn._core.concurrency import run
from sojourn.store import SAVED, BroadcastMessage
from sojourn.stores.redis import RedisStore
from sojourn.stores.redis.encoding import MESSAGE_FORMAT
from sojourn.stores.redis.keys import Keys
from sojourn.stores.redis.server_checks import has_sharded_channels
from sojourn.stores.urls import open_store
from sojourn.testing.records import make_record, next_version, now
from tests.integration.binaries import NEEDS_OLDEST, OLDEST_REDIS
from tests.integration.valkey import running
from tests.integration.valkey_groups import ValkeyCluster, until
from tests.unit.stores.redis.subscriber_probe import SubscriberProbe

pytestmark = [pytest.mark.timeout(120)]

KEYS = Keys("sojourn", "default", is_cluster=True)
IDS = [bytes([number]) * 16 for number in range(1, 200)]


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory):
    with running(ValkeyCluster(tmp_path_factory.mktemp("cluster"))) as made:
        yield made


@pytest.fixture
def cluster(shared_cluster):
    shared_cluster.flush()
    for node in shared_cluster.nodes:
        with shared_cluster.admin(node) as admin:
            admin.config_resetstat()
    return shared_cluster


@pytest.fixture
def stores(cluster):
    with opened(cluster) as made:
        yield made


@contextmanager
def opened(cluster):
    made = [open_store(cluster.url, realm="default", timeout=2.0) for _ in range(2)]
    try:
        yield made
    finally:
        for store in made:
            store.close()


def query_nodes(cluster, query):
    """Query each running node; return the replies by port."""
    answers = {}
    for node in cluster.nodes:
        if node.is_running:
            with cluster.admin(node) as admin:
                answers[node.port] = query(admin)
    return answers


def listeners(cluster):
    """Return how many connections each node has that listen."""
    return query_nodes(cluster, lambda admin: len(admin.client_list(_type="pubsub")))


def home(cluster):
    """Return the node of the broadcast connection."""
    name = KEYS.events
    found = query_nodes(cluster, lambda admin: admin.pubsub_numsub(name)[0][1])
    [port] = [port for port, number in found.items() if number]
    return node_at(cluster, port)


def node_at(cluster, port):
    [node] = [node for node in cluster.nodes if node.port == port]
    return node


def owned(cluster):
    """Return IDs by the port of the primary that has their slot."""
    found = {}
    with redis.RedisCluster(host="127.0.0.1", port=cluster.primaries()[0].port) as admin:
        for session_id in IDS:
            port = admin.get_node_from_key(KEYS.record(session_id)).port
            found.setdefault(port, []).append(session_id)
    return found


def one_for_each_primary(cluster):
    """Return IDs whose slots are at different primaries."""
    return [ids[0] for ids in owned(cluster).values()]


def shards(cluster):
    """Return all sharded channels with subscribers."""
    answers = query_nodes(cluster, lambda admin: admin.pubsub_shardchannels())
    return sorted(itertools.chain.from_iterable(answers.values()))


def test_a_save_notifies_subscribers_and_no_node_of_another_slot(cluster, stores):
    """S17, S18: in the command of the save; no message for a session that is not watched."""
    probe = SubscriberProbe(stores[1])
    one, two, three = one_for_each_primary(cluster)
    for session_id in (one, two, three):
        run(stores[0].create(make_record(id=session_id)))
    probe.subscription.watch(one)
    probe.until_watched(stores[0], one)
    before = query_nodes(cluster, passed_on)
    for session_id in (two, three, one):
        newer = next_version(make_record(id=session_id))
        assert run(stores[0].save(newer, 1)) is SAVED
    assert probe.next() == BroadcastMessage(MESSAGE_FORMAT, "changed", one, 2, "")
    run(stores[0].publish("revoked", two))
    assert probe.next().kind == "revoked", "two was not watched"
    until(
        lambda: sum(query_nodes(cluster, passed_on).values()) == sum(before.values()) + 3,
        "replicas",
    )
    assert all(count <= 1 for count in changes(before, query_nodes(cluster, passed_on)))


def passed_on(admin):
    """Return how many sharded messages a node received from the other nodes of its shard."""
    answer = admin.execute_command("CLUSTER INFO")
    if isinstance(answer, str):
        answer = dict(line.split(":", 1) for line in answer.splitlines() if ":" in line)
    return int(answer.get("cluster_stats_messages_publishshard_received", 0))


def changes(before, after):
    return [after[port] - count for port, count in before.items()]


def test_a_revocation_reaches_every_subscriber_from_every_node(cluster, stores):
    """S17: it is published at the node of its session, and all nodes forward it."""
    probes = [SubscriberProbe(store) for store in stores]
    ids = one_for_each_primary(cluster)
    for session_id in ids:
        run(stores[0].publish("revoked", session_id, version=7, reason="stolen phone"))
    run(stores[0].publish("all-before", b"", version=8, reason="break-in"))
    for probe in probes:
        received = [probe.next() for _ in range(4)]
        assert {each.session_id for each in received} == {*ids, b""}
        assert BroadcastMessage(MESSAGE_FORMAT, "revoked", ids[0], 7, "stolen phone") in received
    commands = query_nodes(cluster, lambda admin: admin.info("commandstats").get("cmdstat_publish"))
    assert sum(stats is not None for stats in commands.values()) == 3, "the load is shared"


def test_there_are_connections_only_where_something_is_watched(cluster, stores):
    """S18: one for a process, then one to each node that is needed, and a channel no longer."""
    probe = SubscriberProbe(stores[1])
    assert sum(listeners(cluster).values()) == 1
    watched = watch_everywhere(cluster, probe)
    assert max(listeners(cluster).values()) == 1
    assert sum(listeners(cluster).values()) in (3, 4), "one is at home, if that is a primary"
    for session_id in watched:
        probe.subscription.unwatch(session_id)
    until(lambda: shards(cluster) == [], "no channel is subscribed")
    assert probe.received.empty(), "nothing was missed"


@pytest.mark.slow
def test_a_connection_that_nothing_needs_is_closed(cluster, stores):
    """S18: after a while, since who reloads a page is back at once."""
    probe = SubscriberProbe(stores[1])
    for session_id in watch_everywhere(cluster, probe):
        probe.subscription.unwatch(session_id)
    until(lambda: shards(cluster) == [], "no channel is subscribed")
    needless = query_nodes(cluster, those_that_left)
    needless[home(cluster).port].clear()
    assert sum(map(len, needless.values())) >= 2

    def gone():
        there = query_nodes(cluster, lambda admin: {client["id"] for client in admin.client_list()})
        return all(there[port].isdisjoint(found) for port, found in needless.items())

    until(gone, "they are closed")
    assert sum(listeners(cluster).values()) == 1


def those_that_left(admin):
    """Return the connections that have left a channel last."""
    return {client["id"] for client in admin.client_list() if client["cmd"] == "sunsubscribe"}


def watch_everywhere(cluster, probe):
    ids = [session_id for ids in owned(cluster).values() for session_id in ids[:2]]
    for session_id in ids:
        probe.subscription.watch(session_id)
    wanted = sorted(KEYS.channel(session_id) for session_id in ids)
    until(lambda: shards(cluster) == wanted, "all channels are subscribed")
    return ids


def test_opening_and_closing_in_quick_turns_ends_as_it_should(cluster, stores):
    """S17: the watched sessions are subscribed at the end, the others are not; no gap."""
    probe = SubscriberProbe(stores[1])
    for _ in range(20):
        for session_id in IDS[:10]:
            probe.subscription.watch(session_id)
        for session_id in IDS[:10]:
            probe.subscription.unwatch(session_id)
    for session_id in IDS[:5]:
        probe.subscription.watch(session_id)
    wanted = sorted(KEYS.channel(session_id) for session_id in IDS[:5])
    until(lambda: shards(cluster) == wanted, "five channels are subscribed")
    for session_id in IDS[:5]:
        run(stores[0].publish("changed", session_id, version=9))
    received = [probe.next() for _ in range(5)]
    assert {each.session_id for each in received} == set(IDS[:5])


def test_nothing_is_left_of_a_listener(cluster):
    """Architecture: neither a thread nor a connection; closing twice is closing once."""
    before = threading.active_count()
    store = open_store(cluster.url, realm="default", timeout=2.0)
    probe = SubscriberProbe(store)
    for session_id in IDS[:20]:
        probe.subscription.watch(session_id)
    until(lambda: len(shards(cluster)) == 20, "all channels are subscribed")
    probe.subscription.close()
    probe.subscription.close()
    assert threading.active_count() == before
    until(lambda: sum(listeners(cluster).values()) == 0, "no connection is left")
    store.close()


def test_a_client_of_the_application_listens_and_stays_open(cluster):
    """Issue: its nodes and settings are used, and it is not ours to close."""
    with redis.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port) as client:
        store = RedisStore(client=client)
        probe = SubscriberProbe(store)
        probe.subscription.watch(IDS[0])
        probe.until_watched(store, IDS[0])
        store.close()
        assert client.ping()
    until(lambda: sum(listeners(cluster).values()) == 0, "no connection is left")


@pytest.mark.parametrize("where", ["from its home", "to its home"])
def test_a_slot_that_moves_is_followed_while_changes_flow(cluster, stores, where):
    """S17: messages during the move may be lost, which is a gap; later ones arrive."""
    probe = SubscriberProbe(stores[1])
    base = home(cluster)
    primaries = cluster.primaries()
    if base not in primaries:  # it is a replica: one of its primary's slots is at home, too
        base = primary_of(cluster, base)
    other = next(node for node in primaries if node is not base)
    source, target = (base, other) if where == "from its home" else (other, base)
    moving, staying = owned(cluster)[source.port][:2]
    record = make_record(id=moving)
    run(stores[0].create(record))
    for session_id in (moving, staying):
        probe.subscription.watch(session_id)
        probe.until_watched(stores[0], session_id)
    stop, versions = threading.Event(), [1]

    def write():
        newest = record
        while not stop.is_set():
            newest, expected = next_version(newest), newest.version
            assert run(stores[0].save(newest, expected)) is SAVED
            versions.append(newest.version)
            stop.wait(0.005)  # a typing user, not a machine

    writer = threading.Thread(target=write)
    writer.start()
    try:
        move(cluster, moving, source, target)
        probe.until(lambda found: found == "gap")
        received_version = versions[-1]
        probe.until(lambda found: found != "gap" and found.version > received_version)
    finally:
        stop.set()
        writer.join()
    for session_id in (moving, staying):
        run(stores[0].publish("changed", session_id, version=1_000_000))
        probe.until(lambda found: found != "gap" and found.version == 1_000_000)
    assert moving in owned(cluster)[target.port]
    move(cluster, moving, target, source)


def test_gaps_in_quick_succession_are_one(cluster, stores):
    """S17, S18: each gap rechecks every connection, and a resharding moves thousands of slots."""
    probe = SubscriberProbe(stores[1])
    source, target = cluster.primaries()[:2]
    ids = owned(cluster)[source.port][:4]
    for session_id in ids:
        probe.subscription.watch(session_id)
        probe.until_watched(stores[0], session_id)
    for session_id in ids:
        move(cluster, session_id, source, target)
    until(lambda: len(probe.gaps) > 1, "they were missed")
    for session_id in ids:  # published repeatedly: one gap may stand for several channels
        probe.until_watched(stores[0], session_id)
    assert min(later - earlier for earlier, later in itertools.pairwise(probe.gaps)) > 0.99
    for session_id in ids:
        move(cluster, session_id, target, source)


def primary_of(cluster, replica):
    with cluster.admin(replica) as admin:
        return node_at(cluster, admin.info("replication")["master_port"])


def move(cluster, session_id, source, target):
    """Give the slot of a session to another primary, with its keys."""
    with cluster.admin(source) as giver, cluster.admin(target) as taker:
        ids = [admin.execute_command("CLUSTER", "MYID") for admin in (giver, taker)]
        slot = giver.execute_command("CLUSTER", "KEYSLOT", KEYS.record(session_id))
        taker.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        giver.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        while keys := giver.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            for key in keys:
                giver.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        for admin in (taker, giver):
            admin.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
        until(lambda: session_id in owned(cluster)[target.port], "others know of it")


def test_an_acl_user_needs_what_the_documentation_lists(cluster, repository, monkeypatch):
    """docs/valkey.md: the rules for a cluster suffice to save, publish and subscribe."""
    page = (repository / "docs" / "valkey.md").read_text("utf-8")
    [rule] = re.findall(r"ACL SETUSER (web on >password(?:.|\n)*?)\n```", page)
    [more] = re.findall(r"A user of a cluster needs\s+`([^`]+)`", page)
    query_nodes(
        cluster, lambda a: a.execute_command("ACL", "SETUSER", *rule.split(), *more.split())
    )
    try:
        url = cluster.url.replace("://", "://web:password@")
        stores = [open_store(url, realm="default", timeout=2.0) for _ in range(2)]
        probe = SubscriberProbe(stores[1])
        for session_id in one_for_each_primary(cluster):
            run(stores[0].create(make_record(id=session_id)))
            probe.subscription.watch(session_id)
            probe.until_watched(stores[0], session_id)
            assert run(stores[0].save(next_version(make_record(id=session_id)), 1)) is SAVED
            assert probe.next() == BroadcastMessage(MESSAGE_FORMAT, "changed", session_id, 2, "")
            run(stores[0].publish("revoked", session_id))
            assert probe.next().kind == "revoked"
        [counting] = re.findall(r"`sojourn count` need\s+`([^`]+)`", page)
        [in_cluster] = re.findall(r"in a cluster also\s+`([^`]+)`", page)
        allowed = (*counting.split(), *in_cluster.split())
        query_nodes(cluster, lambda a: a.execute_command("ACL", "SETUSER", "web", *allowed))
        monkeypatch.setattr("sojourn.stores.redis.counting._MAX_COUNTED", 0)
        assert run(stores[0].count(now())) == 3
        assert len(run(stores[0].list_page("", 1000)).records) <= 3
        for store in stores:
            store.close()
    finally:
        query_nodes(cluster, lambda admin: admin.execute_command("ACL", "DELUSER", "web"))


def test_a_server_without_sharded_channels_is_known_by_its_version():
    """Issue: Redis 6.2 has none; who hides what it is, is of today."""
    assert not has_sharded_channels({"redis_version": "6.2.14"})
    assert has_sharded_channels({"redis_version": "7.0.0"})
    assert has_sharded_channels({"redis_version": "7.2.4", "valkey_version": "9.1.2"})
    assert has_sharded_channels({})


class TestOtherServers:
    """S17: the oldest cluster that is promised to work, over channels that all nodes pass on."""

    @pytest.fixture
    def cluster(self, tmp_path):
        made = ValkeyCluster(tmp_path, OLDEST_REDIS)
        try:
            made.start()
            yield made
        finally:
            made.stop()

    @pytest.mark.slow
    @NEEDS_OLDEST
    def test_without_sharded_channels_changes_and_revocations_are_received(self, cluster):
        """S17: and no command is refused for it, neither with a save nor with a probe."""
        with opened(cluster) as stores:
            probe = SubscriberProbe(stores[1])
            for port, [session_id, *_] in owned(cluster).items():
                run(stores[0].create(make_record(id=session_id)))
                probe.subscription.watch(session_id)
                probe.until_watched(stores[0], session_id)
                newer = next_version(make_record(id=session_id))
                with cluster.admin(node_at(cluster, port)) as admin:
                    before = admin.info("errorstats")
                    assert run(stores[0].save(newer, 1)) is SAVED
                    assert admin.info("errorstats") == before
                assert probe.next() == BroadcastMessage(
                    MESSAGE_FORMAT, "changed", session_id, 2, ""
                )
                run(stores[0].publish("revoked", session_id))
                assert probe.next() == BroadcastMessage(
                    MESSAGE_FORMAT, "revoked", session_id, 0, ""
                )
            assert sum(listeners(cluster).values()) == 1


@pytest.mark.slow
class TestFailOver:
    """S17: a primary is killed; lost messages are a gap; its replica delivers later ones."""

    @pytest.fixture
    def cluster(self, tmp_path):
        made = ValkeyCluster(tmp_path)
        try:
            made.start()
            yield made
        finally:
            made.stop()

    def test_the_primary_that_carries_a_watched_session_dies(self, cluster):
        """S17, W4: revocations of other sessions arrive all the time."""
        with opened(cluster) as stores:
            probe = SubscriberProbe(stores[1])
            base = home(cluster)
            victim = next(node for node in cluster.primaries() if node is not base)
            ids = owned(cluster)
            [watched, *_], [other, *_] = ids.pop(victim.port), ids.popitem()[1]
            probe.subscription.watch(watched)
            probe.until_watched(stores[0], watched)
            victim.stop()
            run(stores[0].publish("revoked", other))
            assert probe.next().kind == "revoked"
            assert probe.next() == "gap"
            assert victim not in cluster.primaries()
            # The publisher may still use the dead primary, and a message may be sent twice.
            run(stores[0].publish("revoked", watched))
            probe.until(lambda found: found != "gap" and found.session_id == watched)
            probe.until_watched(stores[0], watched)

    def test_the_home_dies(self, cluster):
        """S17: another node returns the new topology."""
        with opened(cluster) as stores:
            probe = SubscriberProbe(stores[1])
            ids = one_for_each_primary(cluster)
            for session_id in ids:
                probe.subscription.watch(session_id)
                probe.until_watched(stores[0], session_id)
            victim = home(cluster)
            was_primary = victim in cluster.primaries()
            victim.stop()
            assert probe.next() == "gap"
            assert home(cluster) is not victim
            if was_primary:
                probe.until(lambda found: found == "gap")
            for session_id in ids:
                probe.until_watched(stores[0], session_id)
            run(stores[0].publish("revoked", ids[0]))
            probe.until(lambda found: found != "gap" and found.kind == "revoked")
