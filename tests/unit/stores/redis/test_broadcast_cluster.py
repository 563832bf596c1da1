"""Broadcast messages between two stores in a cluster, over sharded channels whose slots move."""

import itertools
import re
import threading
from contextlib import contextmanager

import pytest
import redis

from sojourn._core.concurrency import run
from sojourn.store import SAVED, BroadcastMessage
from sojourn.stores.broadcast_messages import MESSAGE_FORMAT
from sojourn.stores.redis import RedisStore
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


def count_subscribers(cluster):
    """Return the number of subscriber connections of each node."""
    return query_nodes(cluster, lambda admin: len(admin.client_list(_type="pubsub")))


def broadcast_node(cluster):
    """Return the node of the broadcast connection."""
    name = KEYS.events
    found = query_nodes(cluster, lambda admin: admin.pubsub_numsub(name)[0][1])
    [port] = [port for port, number in found.items() if number]
    return node_at(cluster, port)


def node_at(cluster, port):
    [node] = [node for node in cluster.nodes if node.port == port]
    return node


def ids_by_primary(cluster):
    """Return session IDs by the port of the primary that owns their slot."""
    found = {}
    with redis.RedisCluster(host="127.0.0.1", port=cluster.primaries()[0].port) as admin:
        for session_id in IDS:
            port = admin.get_node_from_key(KEYS.record(session_id)).port
            found.setdefault(port, []).append(session_id)
    return found


def one_id_for_each_primary(cluster):
    """Return one session ID for each primary."""
    return [ids[0] for ids in ids_by_primary(cluster).values()]


def sharded_channels(cluster):
    """Return all sharded channels with subscribers."""
    answers = query_nodes(cluster, lambda admin: admin.pubsub_shardchannels())
    return sorted(itertools.chain.from_iterable(answers.values()))


def test_a_save_notifies_subscribers_only_at_the_nodes_of_its_slot(cluster, stores):
    """S17, S18: in the command of the save, for watched sessions only."""
    probe = SubscriberProbe(stores[1])
    one, two, three = one_id_for_each_primary(cluster)
    for session_id in (one, two, three):
        run(stores[0].create(make_record(id=session_id)))
    probe.subscription.watch(one)
    probe.until_watched(stores[0], one)
    before = query_nodes(cluster, forwarded_messages)
    for session_id in (two, three, one):
        newer = next_version(make_record(id=session_id))
        assert run(stores[0].save(newer, 1)) is SAVED
    assert probe.next() == BroadcastMessage(MESSAGE_FORMAT, "changed", one, 2, "")
    run(stores[0].publish("revoked", two))
    assert probe.next().kind == "revoked", "two was not watched"
    until(
        lambda: sum(query_nodes(cluster, forwarded_messages).values()) == sum(before.values()) + 3,
        "replicas",
    )
    assert all(count <= 1 for count in changes(before, query_nodes(cluster, forwarded_messages)))


def forwarded_messages(admin):
    """Return how many sharded messages a node received from other nodes of its shard."""
    answer = admin.execute_command("CLUSTER INFO")
    if isinstance(answer, str):
        answer = dict(line.split(":", 1) for line in answer.splitlines() if ":" in line)
    return int(answer.get("cluster_stats_messages_publishshard_received", 0))


def changes(before, after):
    return [after[port] - count for port, count in before.items()]


def test_a_revocation_reaches_every_subscriber(cluster, stores):
    """S17: it is published at the node of its session, and all nodes forward it."""
    probes = [SubscriberProbe(store) for store in stores]
    ids = one_id_for_each_primary(cluster)
    for session_id in ids:
        run(stores[0].publish("revoked", session_id, version=7, reason="stolen phone"))
    run(stores[0].publish("all-before", b"", version=8, reason="break-in"))
    for probe in probes:
        received = [probe.next() for _ in range(4)]
        assert {each.session_id for each in received} == {*ids, b""}
        assert BroadcastMessage(MESSAGE_FORMAT, "revoked", ids[0], 7, "stolen phone") in received
    commands = query_nodes(cluster, lambda admin: admin.info("commandstats").get("cmdstat_publish"))
    assert sum(stats is not None for stats in commands.values()) == 3, "the load is shared"


def test_connections_exist_only_to_nodes_of_watched_sessions(cluster, stores):
    """S18: one for the process, and one to each node with a watched session."""
    probe = SubscriberProbe(stores[1])
    assert sum(count_subscribers(cluster).values()) == 1
    watched = watch_everywhere(cluster, probe)
    assert max(count_subscribers(cluster).values()) == 1
    assert sum(count_subscribers(cluster).values()) in (3, 4), (
        "one is at the broadcast node, if that is a primary"
    )
    for session_id in watched:
        probe.subscription.unwatch(session_id)
    until(lambda: sharded_channels(cluster) == [], "no channel is subscribed")
    assert probe.received.empty(), "nothing was missed"


@pytest.mark.slow
def test_an_unused_connection_is_closed_after_a_while(cluster, stores):
    """S18: not at once, because a reloaded page watches its session again."""
    probe = SubscriberProbe(stores[1])
    for session_id in watch_everywhere(cluster, probe):
        probe.subscription.unwatch(session_id)
    until(lambda: sharded_channels(cluster) == [], "no channel is subscribed")
    needless = query_nodes(cluster, unsubscribed_connections)
    needless[broadcast_node(cluster).port].clear()
    assert sum(map(len, needless.values())) >= 2

    def gone():
        there = query_nodes(cluster, lambda admin: {client["id"] for client in admin.client_list()})
        return all(there[port].isdisjoint(found) for port, found in needless.items())

    until(gone, "they are closed")
    assert sum(count_subscribers(cluster).values()) == 1


def unsubscribed_connections(admin):
    """Return the connections whose last command was SUNSUBSCRIBE."""
    return {client["id"] for client in admin.client_list() if client["cmd"] == "sunsubscribe"}


def watch_everywhere(cluster, probe):
    ids = [session_id for ids in ids_by_primary(cluster).values() for session_id in ids[:2]]
    for session_id in ids:
        probe.subscription.watch(session_id)
    wanted = sorted(KEYS.channel(session_id) for session_id in ids)
    until(lambda: sharded_channels(cluster) == wanted, "all channels are subscribed")
    return ids


def test_watching_and_unwatching_repeatedly_subscribes_to_the_watched_sessions(cluster, stores):
    """S17: and to no others, without a gap."""
    probe = SubscriberProbe(stores[1])
    for _ in range(20):
        for session_id in IDS[:10]:
            probe.subscription.watch(session_id)
        for session_id in IDS[:10]:
            probe.subscription.unwatch(session_id)
    for session_id in IDS[:5]:
        probe.subscription.watch(session_id)
    wanted = sorted(KEYS.channel(session_id) for session_id in IDS[:5])
    until(lambda: sharded_channels(cluster) == wanted, "five channels are subscribed")
    for session_id in IDS[:5]:
        run(stores[0].publish("changed", session_id, version=9))
    received = [probe.next() for _ in range(5)]
    assert {each.session_id for each in received} == set(IDS[:5])


def test_close_ends_the_thread_and_all_connections(cluster):
    """It is idempotent."""
    before = set(threading.enumerate())  # threads of other tests may end meanwhile
    store = open_store(cluster.url, realm="default", timeout=2.0)
    probe = SubscriberProbe(store)
    for session_id in IDS[:20]:
        probe.subscription.watch(session_id)
    until(lambda: len(sharded_channels(cluster)) == 20, "all channels are subscribed")
    assert set(threading.enumerate()) - before
    probe.subscription.close()
    probe.subscription.close()
    assert not set(threading.enumerate()) - before
    until(lambda: sum(count_subscribers(cluster).values()) == 0, "no connection is left")
    store.close()


def test_the_cluster_client_of_the_application_is_used_and_not_closed(cluster):
    """Its nodes and settings are used."""
    with redis.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port) as client:
        store = RedisStore(client=client)
        probe = SubscriberProbe(store)
        probe.subscription.watch(IDS[0])
        probe.until_watched(store, IDS[0])
        store.close()
        assert client.ping()
    until(lambda: sum(count_subscribers(cluster).values()) == 0, "no connection is left")


@pytest.mark.parametrize("where", ["from the broadcast node", "to the broadcast node"])
def test_a_slot_that_moves_is_followed_while_changes_are_published(cluster, stores, where):
    """S17: messages during the move may be lost, which is a gap; later ones arrive."""
    probe = SubscriberProbe(stores[1])
    base = broadcast_node(cluster)
    primaries = cluster.primaries()
    if base not in primaries:  # a replica: take its primary, whose slots it has
        base = primary_of(cluster, base)
    other = next(node for node in primaries if node is not base)
    source, target = (base, other) if where == "from the broadcast node" else (other, base)
    moving, staying = ids_by_primary(cluster)[source.port][:2]
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
            stop.wait(0.005)  # the rate of a typing user

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
    assert moving in ids_by_primary(cluster)[target.port]
    move(cluster, moving, target, source)


def test_gaps_in_quick_succession_are_reported_once(cluster, stores):
    """S17, S18: each gap rechecks every connection, and a resharding moves thousands of slots."""
    probe = SubscriberProbe(stores[1])
    source, target = cluster.primaries()[:2]
    ids = ids_by_primary(cluster)[source.port][:4]
    for session_id in ids:
        probe.subscription.watch(session_id)
        probe.until_watched(stores[0], session_id)
    for session_id in ids:
        move(cluster, session_id, source, target)
    until(lambda: len(probe.gaps) > 1, "gaps are reported")
    for session_id in ids:  # published repeatedly: one gap may stand for several channels
        probe.until_watched(stores[0], session_id)
    assert min(later - earlier for earlier, later in itertools.pairwise(probe.gaps)) > 0.99
    for session_id in ids:
        move(cluster, session_id, target, source)


def primary_of(cluster, replica):
    with cluster.admin(replica) as admin:
        return node_at(cluster, admin.info("replication")["master_port"])


def move(cluster, session_id, source, target):
    """Move the slot of a session with its keys to another primary."""
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
        until(
            lambda: session_id in ids_by_primary(cluster)[target.port],
            "the other nodes know the new owner",
        )


def test_the_acl_rules_in_the_documentation_are_sufficient(cluster, repository, monkeypatch):
    """docs/valkey.md: for a cluster, to save, publish, subscribe and count."""
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
        for session_id in one_id_for_each_primary(cluster):
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


def test_sharded_channels_are_detected_by_the_version():
    """Redis 6.2 has none; a server that hides its version is taken for a current one."""
    assert not has_sharded_channels({"redis_version": "6.2.14"})
    assert has_sharded_channels({"redis_version": "7.0.0"})
    assert has_sharded_channels({"redis_version": "7.2.4", "valkey_version": "9.1.2"})
    assert has_sharded_channels({})


class TestOldestServer:
    """S17: the oldest supported cluster, over channels that all nodes forward."""

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
    def test_without_sharded_channels_changes_and_revocations_are_delivered(self, cluster):
        """S17: no refused command is sent, neither by a save nor by a probe."""
        with opened(cluster) as stores:
            probe = SubscriberProbe(stores[1])
            for port, [session_id, *_] in ids_by_primary(cluster).items():
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
            assert sum(count_subscribers(cluster).values()) == 1


@pytest.mark.slow
class TestFailover:
    """S17: a primary is killed; lost messages are a gap; its replica delivers later ones."""

    @pytest.fixture
    def cluster(self, tmp_path):
        made = ValkeyCluster(tmp_path)
        try:
            made.start()
            yield made
        finally:
            made.stop()

    def test_a_killed_primary_of_a_watched_session_is_reported_as_a_gap(self, cluster):
        """S17, W4: revocations of other sessions still arrive."""
        with opened(cluster) as stores:
            probe = SubscriberProbe(stores[1])
            base = broadcast_node(cluster)
            victim = next(node for node in cluster.primaries() if node is not base)
            ids = ids_by_primary(cluster)
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

    def test_a_killed_node_of_the_broadcast_connection_is_reported_as_a_gap(self, cluster):
        """S17: another node returns the new topology."""
        with opened(cluster) as stores:
            probe = SubscriberProbe(stores[1])
            ids = one_id_for_each_primary(cluster)
            for session_id in ids:
                probe.subscription.watch(session_id)
                probe.until_watched(stores[0], session_id)
            victim = broadcast_node(cluster)
            was_primary = victim in cluster.primaries()
            victim.stop()
            assert probe.next() == "gap"
            assert broadcast_node(cluster) is not victim
            if was_primary:
                probe.until(lambda found: found == "gap")
            for session_id in ids:
                probe.until_watched(stores[0], session_id)
            run(stores[0].publish("revoked", ids[0]))
            probe.until(lambda found: found != "gap" and found.kind == "revoked")
