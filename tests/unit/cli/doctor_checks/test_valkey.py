"""Problems of Valkey and Redis servers, planted in real servers."""

import contextlib
import socket
import subprocess

import pytest
import redis

from sojourn import Sessions
from sojourn.cli.doctor_checks import deep_check
from sojourn.cli.doctor_checks import valkey as checks
from sojourn.errors import StoreUnavailable
from sojourn.stores.redis import server_checks
from sojourn.stores.redis.errors import ConnectionLost
from sojourn.stores.redis.inspection import Inspector
from sojourn.stores.redis.store import RedisStore
from tests.integration.binaries import NEEDS_OLDEST, OLDEST_REDIS
from tests.integration.proxy import Proxy
from tests.integration.valkey import Valkey, full, running
from tests.integration.valkey_groups import ValkeyCluster, until
from tests.support.examination import SECRET, assert_healthy, codes, examined, found
from tests.support.fake_server import answering


@pytest.fixture
def admin(valkey):
    """The administrator of a server with persistence; every setting is restored."""
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        before = {
            name: client.config_get(name)[name]
            for name in ("save", "maxmemory", "maxmemory-policy", "requirepass")
        }
        client.config_set("save", "3600 1")
        yield client
        for name, value in before.items():
            client.config_set(name, value)
        for user in client.acl_users():
            if user != "default":
                client.acl_deluser(user)


def user_url(valkey, user):
    return f"redis://{user}:of-the-user@127.0.0.1:{valkey.port}/0"


def add_user(admin, name, *rules):
    admin.execute_command("ACL", "SETUSER", name, "on", ">of-the-user", *rules)


#: The rules of docs/valkey.md.
COMMANDS = (
    *("+mget", "+evalsha", "+eval", "+get", "+set", "+del", "+getrange", "+setrange", "+exists"),
    *("+pexpire", "+pttl", "+zadd", "+zrem", "+zrange", "+zscore", "+zcard", "+zrandmember"),
    *("+time", "+publish", "+subscribe", "+unsubscribe", "+ping", "+select", "+info"),
    *("+xadd", "+xrange", "+xrevrange", "+xdel"),
    "+client|setname",
)
RULES = ("resetkeys", "~sojourn:*", "resetchannels", "&sojourn:*", "-@all", *COMMANDS)


def test_a_healthy_server_has_no_findings_and_keeps_nothing(valkey, admin):
    with contextlib.closing(Sessions(store=valkey.url, secret=SECRET)) as sessions:
        with sessions.open() as visit:
            visit.session["a"] = 1
        before = sorted(admin.keys())
        report = examined(valkey.url)
    assert_healthy(report)
    assert report.server.startswith("Valkey ")
    assert sorted(admin.keys()) == before


def test_an_examination_registers_no_secret(valkey, admin):
    """B-48: the first application that uses a realm decides on its secret."""
    report = examined(valkey.url)
    assert_healthy(report)
    assert admin.keys() == []
    found(report, "realm-unused", "'default'", "correct --realm")


def test_a_misspelt_realm(valkey, admin):
    """S14: nothing is wrong with the store, but it is not that of the application."""
    with contextlib.closing(Sessions(store=valkey.url, secret=SECRET, realm="shop")) as sessions:
        sessions.ping()
    assert "realm-unused" not in codes(examined(valkey.url, realm="shop"))
    found(examined(valkey.url, realm="Shop"), "realm-unused", "'Shop'", "correct --realm")


def test_another_secret_than_the_applications(valkey, admin):
    """B-48."""
    with contextlib.closing(Sessions(store=valkey.url, secret=SECRET)) as sessions:
        sessions.ping()
    report = examined(valkey.url, secret_text="of-another-machine-3Gk9TzW5")
    found(report, "secret-other", "'default'", "give every process the same secret")
    assert_healthy(examined(valkey.url))


def test_a_wrong_password(valkey, admin):
    admin.config_set("requirepass", "correct-horse")
    url = f"redis://:wrong-battery@127.0.0.1:{valkey.port}/0"
    report = examined(url)
    found(report, "store-login", "WRONGPASS", "correct user and password in the URL")
    assert not report.reached
    assert "wrong-battery" not in repr(report)
    found(examined(valkey.url), "store-login", "NOAUTH")


def test_an_unreachable_server():
    report = examined("redis://127.0.0.1:1/0")
    found(report, "store-unreachable", "Connection refused", "start the server")
    assert not report.reached


def test_a_server_that_does_not_answer(valkey):
    with valkey.hanging():
        report = examined(valkey.url, timeout=0.2)
    found(report, "store-unreachable", "no answer in time")


def test_a_socket_that_does_not_exist(monkeypatch):
    """The search for TLS must not connect to another server, on the default port."""

    def fail(*_):
        raise AssertionError("connected by TCP")

    monkeypatch.setattr(socket, "create_connection", fail)
    report = examined("unix:///proc/absent/valkey.sock")  # for every user
    found(report, "store-unreachable", "No such file")


@pytest.mark.parametrize("answer", [b":1\r\n", b"$-1\r\n", b"*0\r\n"])
def test_another_server_with_the_same_protocol(answer):
    with answering(answer * 2) as port:
        report = examined(f"redis://127.0.0.1:{port}")
    assert codes(report) == {"store-failing"}
    found(report, "store-failing", "the reply to INFO")


def test_a_provider_that_replaces_fields_of_info():
    """Neither a version nor a number that cannot be read is a finding."""
    info = {"redis_version": "managed", "maxmemory": "hidden", "used_memory": ""}
    assert list(checks._check_info(info, "")) == []


def test_tls_where_the_server_has_none(valkey):
    report = examined(f"rediss://127.0.0.1:{valkey.port}/0", timeout=0.3)
    found(report, "store-tls", "enable TLS on the server")


def test_a_certificate_of_another_authority(valkey, authority):
    _, context = authority
    with contextlib.closing(Proxy(valkey.port, tls=context)) as proxy:
        report = examined(f"rediss://127.0.0.1:{proxy.port}/0")
        found(report, "store-certificate", "self-signed", "add ?ca=")
        report = examined(f"redis://127.0.0.1:{proxy.port}/0", timeout=2.0)
    found(report, "store-tls-expected", "write rediss://")


def test_a_database_that_does_not_exist(valkey):
    report = examined(f"redis://127.0.0.1:{valkey.port}/99")
    found(report, "store-database", "out of range", "correct the database in the URL")


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_evicts(valkey, admin, policy):
    admin.config_set("maxmemory", "100mb")
    admin.config_set("maxmemory-policy", policy)
    report = examined(valkey.url)
    found(report, "valkey-eviction", policy, "CONFIG SET maxmemory-policy noeviction")


def test_a_server_that_would_evict_with_a_limit(valkey, admin):
    admin.config_set("maxmemory-policy", "allkeys-lru")
    found(examined(valkey.url), "valkey-eviction-latent", "allkeys-lru", "CONFIG SET")


def test_a_server_without_persistence(valkey, admin):
    admin.config_set("save", "")
    found(examined(valkey.url), "valkey-persistence", "no save", "CONFIG SET appendonly yes")


def test_a_server_that_is_almost_full(valkey, admin):
    admin.config_set("maxmemory", int(admin.info("memory")["used_memory"] * 1.05))
    found(examined(valkey.url), "valkey-memory", "bytes are in use", "raise maxmemory")


def test_a_server_that_is_full(valkey, admin):
    """S12."""
    with full(admin):
        report = examined(valkey.url)
    found(report, "store-failing", "OOM", "give it more memory")
    assert "valkey-memory" in codes(report)


def test_a_server_that_cannot_write_its_disk(valkey, admin, tmp_path):
    name = admin.config_get("dbfilename")["dbfilename"]
    folder = admin.config_get("dir")["dir"]
    blocked = f"{folder}/{name}"
    subprocess.run(["mkdir", "-p", f"{blocked}/not-empty"], check=True)
    try:
        admin.set("key", "value")
        admin.bgsave()
        until(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "err", "failed")
        report = examined(valkey.url)
    finally:
        subprocess.run(["rm", "-r", blocked], check=True)
        admin.config_set("stop-writes-on-bgsave-error", "yes")
        admin.bgsave()
        until(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "ok", "saved")
    found(report, "valkey-disk", "rdb_last_bgsave_status", "disk is full")


def test_the_user_of_the_documentation_is_enough(valkey, admin):
    add_user(admin, "web", *RULES)
    report = examined(user_url(valkey, "web"))
    found(report, "valkey-unknown", "CONFIG GET", "check maxmemory-policy")
    found(report, "records-not-listed", "'scan'", "add +scan")
    assert codes(report) == {"valkey-unknown", "records-not-listed", "realm-unused"}


@pytest.mark.parametrize("command", ["eval", "mget", "set", "zadd", "time", "exists"])
def test_a_user_without_a_command(valkey, admin, command):
    add_user(admin, "web", *RULES, f"-{command}")
    report = examined(user_url(valkey, "web"))
    found(report, "valkey-acl", command, "ACL SETUSER")


@pytest.mark.parametrize("command", ["xadd", "xrange", "xrevrange", "xdel"])
def test_a_user_without_a_command_of_the_history(valkey, admin, command):
    """Without an application the doctor does not know whether the option history is set."""
    add_user(admin, "web", *RULES, f"-{command}")
    url = user_url(valkey, "web")
    report = examined(url)
    found(report, "valkey-acl-history", f"refused: {command}", "+xadd +xrange +xrevrange +xdel")
    assert "deep check" not in {each.name for each in report.checks if each.state == "skipped"}


@pytest.mark.parametrize(("history", "code"), [("30 days", {"valkey-acl"}), (None, set())])
def test_the_history_of_an_application_needs_its_commands(valkey, admin, history, code):
    add_user(admin, "web", *RULES, "-xadd")
    url = user_url(valkey, "web")
    with contextlib.closing(Sessions(store=url, secret=SECRET, history=history)) as sessions:
        report = examined(store=sessions.store, config=sessions.config)
    assert codes(report) & {"valkey-acl", "valkey-acl-history"} == code


def test_a_user_of_other_keys(valkey, admin):
    add_user(admin, "web", *RULES, "resetkeys", "~cache:*")
    found(examined(user_url(valkey, "web")), "valkey-acl", "refused: get", "docs/valkey.md")


def test_a_user_without_info(valkey, admin):
    add_user(admin, "web", *RULES, "-info")
    found(examined(user_url(valkey, "web")), "valkey-unknown", "INFO", "run the doctor once")


@pytest.mark.parametrize(
    ("rules", "word"),
    [
        (["-publish"], "PUBLISH"),
        (["-subscribe"], "SUBSCRIBE"),
    ],
)
def test_a_user_without_pubsub(valkey, admin, rules, word, monkeypatch):
    """S17: messages that are not sent or received make revocations reach sockets late."""
    monkeypatch.setattr(deep_check, "_MAX_SUBSCRIBING", 0.2)
    add_user(admin, "web", *RULES, *rules)
    report = examined(user_url(valkey, "web"))
    found(report, "valkey-pubsub", word, "resetchannels &sojourn:*")


def test_a_user_without_channels(valkey, admin, monkeypatch):
    monkeypatch.setattr(deep_check, "_MAX_SUBSCRIBING", 0.2)
    add_user(admin, "web", *RULES, "resetchannels")
    report = examined(user_url(valkey, "web"))
    texts = [each.found for each in report.findings if each.code == "valkey-pubsub"]
    assert [text.partition(":")[0] for text in texts] == ["PUBLISH", "SUBSCRIBE"]
    found(report, "broadcast-lost", "did not begin", "let the user subscribe")


def test_an_old_server(valkey, monkeypatch):
    """No package has a server that is too old, so this release expects a newer one."""
    monkeypatch.setitem(server_checks._OLDEST, "valkey", (99, 0))
    found(examined(valkey.url), "valkey-version", "Valkey ", "upgrade the server")


@pytest.fixture
def replica(valkey, admin, tmp_path):
    admin.config_set("repl-diskless-sync-delay", 0)
    with running(Valkey(tmp_path, "--replicaof", f"127.0.0.1 {valkey.port}")) as server:
        with redis.Redis(port=server.port) as client:
            until(lambda: client.info("replication")["master_link_status"] == "up", "synced")
        yield server


@pytest.mark.slow
def test_a_replica(replica):
    report = examined(replica.url)
    found(report, "valkey-replica", "a replica of 127.0.0.1", "the address of the primary")
    assert "deep check" in {each.name for each in report.checks if each.state == "skipped"}


@pytest.fixture
def lonely_node(tmp_path):
    """A cluster of one node that serves one slot of a thousand."""
    options = ("--cluster-enabled", "yes", "--cluster-config-file", str(tmp_path / "nodes.conf"))
    with running(Valkey(tmp_path, *options)) as server:
        with redis.Redis(port=server.port) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 15_999)
        yield server


def test_a_cluster_with_slots_that_no_node_serves(lonely_node):
    report = examined(f"redis+cluster://127.0.0.1:{lonely_node.port}")
    found(report, "valkey-slots", "16000 of 16384", "cluster fix")
    nodes = {"host": "127.0.0.1", "port": lonely_node.port, "require_full_coverage": False}
    with (
        redis.RedisCluster(**nodes) as client,
        contextlib.closing(RedisStore(client=client)) as store,
    ):
        report = examined(store=store)
    found(report, "valkey-slots", "384 of 16384 slots", "cluster fix")


def test_the_url_of_a_single_server_for_a_cluster(lonely_node):
    report = examined(lonely_node.url)
    found(report, "valkey-is-cluster", "node of a cluster", "write redis+cluster://")


def test_the_url_of_a_cluster_for_a_single_server(valkey):
    report = examined(f"redis+cluster://127.0.0.1:{valkey.port}")
    found(report, "valkey-no-cluster", "write redis://")


def test_a_user_who_may_not_read_the_slots(lonely_node):
    """redis-py reports it as a server without cluster mode."""
    with redis.Redis(port=lonely_node.port) as client:
        add_user(client, "web", *RULES)
    report = examined(f"redis+cluster://web:of-the-user@127.0.0.1:{lonely_node.port}")
    found(report, "valkey-acl", "ACL SETUSER")
    assert "valkey-no-cluster" not in codes(report)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["spublish", "ssubscribe"])
def test_a_user_without_sharded_pubsub(lonely_node, command):
    """S17."""
    with redis.Redis(port=lonely_node.port) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 16_000, 16_383)
        until(lambda: client.cluster("info")["cluster_state"] == "ok", "all slots are served")
        of_cluster = ("+cluster|slots", "+command", "+asking", "+sunsubscribe")
        both = ("+spublish", "+ssubscribe", f"-{command}")
        add_user(client, "web", *RULES, *of_cluster, *both)
    report = examined(f"redis+cluster://web:of-the-user@127.0.0.1:{lonely_node.port}")
    found(report, "valkey-pubsub", command.upper(), "+spublish +ssubscribe +sunsubscribe")


def test_the_url_of_a_sentinel():
    info = b"redis_version:7.2.4\r\nredis_mode:sentinel\r\n"
    with answering(b"+OK\r\n$%d\r\n%s\r\n" % (len(info), info)) as port:
        report = examined(f"redis://127.0.0.1:{port}")
    found(report, "valkey-is-sentinel", "is a Sentinel", "write redis+sentinel://")


def test_a_url_of_sentinels_for_a_server(valkey):
    report = examined(f"redis+sentinel://127.0.0.1:{valkey.port}/sessions/0")
    found(report, "store-unreachable", "SENTINEL", "for a server without Sentinels write redis://")


@pytest.mark.parametrize("lost", ["INFO", "CONFIG"])
def test_a_connection_that_is_lost_is_no_denied_command(valkey, admin, monkeypatch, lost):
    call = Inspector.call

    async def losing(self, *lines, keys=()):
        if lines[0][0] == lost:
            return [ConnectionLost("the node is away")]
        return await call(self, *lines, keys=keys)

    monkeypatch.setattr(Inspector, "call", losing)
    report = examined(valkey.url)
    found(report, "store-failing", "server settings: the node is away")
    assert "valkey-unknown" not in codes(report)


def test_a_list_that_fails_is_no_missing_privilege(valkey, admin, monkeypatch):
    async def fail(*_):
        raise StoreUnavailable("the node is away")

    monkeypatch.setattr(RedisStore, "list_page", fail)
    report = examined(valkey.url)
    found(report, "store-failing", "records: the node is away")
    assert "records-not-listed" not in codes(report)


@pytest.mark.slow
def test_a_slow_server(valkey, admin):
    with contextlib.closing(Proxy(valkey.port)) as proxy:
        proxy.delay = 0.03
        found(examined(proxy.url), "store-slow", "median of", "nearer to the server")


def test_unreadable_records(valkey, admin):
    """S9."""
    admin.set("sojourn:default:s:" + "ab" * 16, b"\x00of another program")
    report = examined(valkey.url)
    found(report, "records-unreadable", "1 of 1 records", "its own prefix")


def test_a_client_of_the_application(valkey, admin):
    with (
        redis.Redis.from_url(valkey.url) as client,
        contextlib.closing(RedisStore(client=client)) as store,
    ):
        assert_healthy(examined(store=store))


def test_an_asyncio_client_of_the_application(valkey, admin):
    client = redis.asyncio.Redis.from_url(valkey.url)
    with contextlib.closing(RedisStore(client=client)) as store:
        report = examined(store=store)
    assert report.reached
    assert codes(report) == {"broadcast-not-checked", "realm-unused"}
    found(report, "broadcast-not-checked", "blocking client")


@pytest.mark.slow
def test_a_healthy_cluster(tmp_path):
    with running(ValkeyCluster(tmp_path, steady=True)) as cluster:
        for node in cluster.nodes:
            with redis.Redis(port=node.port) as client:
                client.config_set("save", "3600 1")
        assert_healthy(examined(cluster.url))
        second, third = cluster.nodes[1:3]
        with redis.Redis(port=second.port) as client:
            client.config_set("maxmemory", "100mb")
            client.config_set("maxmemory-policy", "allkeys-lfu")
        with redis.Redis(port=third.port) as client:
            client.config_set("save", "")
        report = examined(cluster.url)
        found(report, "valkey-eviction", f"127.0.0.1:{second.port}: ", "allkeys-lfu")
        found(report, "valkey-persistence", f"127.0.0.1:{third.port}: ")


def reports_failure(node: Valkey) -> bool:
    """Return whether a node of a cluster lists a failed one; "fail?" is only a suspicion."""
    with redis.Redis(port=node.port, decode_responses=True) as client:
        nodes = client.execute_command("CLUSTER NODES")
    return any("fail" in each["flags"].split(",") for each in nodes.values())


@pytest.mark.slow
def test_a_cluster_whose_replica_has_failed(tmp_path):
    """The cluster serves everything until the primary fails, too."""
    with running(ValkeyCluster(tmp_path)) as cluster:
        primary, replica = cluster.nodes[0], cluster.nodes[3]
        replica.stop()
        for node in cluster.nodes:
            if node is not replica:
                until(lambda node=node: reports_failure(node), f"{node.port} reports the failure")
        report = examined(cluster.url)
        found(
            report,
            "valkey-replica-missing",
            f"127.0.0.1:{primary.port} has no connected replica",
            f"failed nodes: 127.0.0.1:{replica.port}",
            "CLUSTER FORGET",
        )
        assert report.reached


def test_a_cluster_without_replicas_and_with_clocks_that_differ(lonely_node, monkeypatch):
    with redis.Redis(port=lonely_node.port) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 16_000, 16_383)
        until(lambda: client.cluster("info")["cluster_state"] == "ok", "all slots are served")

    async def times(*_):
        return [(10_000, "10.0.0.1:6379"), (3_000, "10.0.0.2:6379"), (9_000, "10.0.0.3:6379")]

    monkeypatch.setattr(Inspector, "times", times)
    report = examined(f"redis+cluster://127.0.0.1:{lonely_node.port}")
    where = f"port {lonely_node.port}"  # it has met no other node, so it does not know its host
    found(report, "valkey-replica-missing", f"{where} has no connected replica")
    text = "the clock of 10.0.0.1:6379 is 7.0 s ahead of that of 10.0.0.2:6379"
    found(report, "valkey-clocks", text, "NTP")


@pytest.mark.slow
@NEEDS_OLDEST
def test_the_oldest_redis_is_healthy(tmp_path):
    with running(Valkey(tmp_path, "--appendonly", "yes", binary=OLDEST_REDIS)) as server:
        assert_healthy(examined(server.url))
