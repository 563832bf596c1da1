"""`sojourn` with 1,000,000 sessions: a first page in 100 ms; no command blocks the server."""

import contextlib
import json
import re
import sys

import pytest
import redis

import sojourn
from tests.integration.command_line_stores import (
    postgresql,
    shared_cluster,
    shared_postgresql,
    shared_valkey,
    valkey,
)
from tests.support.command_line import SECRET, run
from tests.support.million_sessions import MILLION, fill

__all__ = ["postgresql", "shared_cluster", "shared_postgresql", "shared_valkey", "valkey"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ENDED = 100_000

#: Milliseconds for the first page, on an idle machine.
MAX_FIRST_PAGE = 100.0

#: Runs a command after the modules were imported, and prints its duration.
TIMED = """
import sys, time
from sojourn.cli import count, listing, main
import sojourn.sessions, {store}
from sojourn.frameworks.install import get
started = time.perf_counter()
try:
    main.run(get)
finally:
    print(f"took {{(time.perf_counter() - started) * 1000:.1f}} ms", file=sys.stderr)
"""

STORES = {
    "sqlite": "sojourn.stores.sqlite.store",
    "valkey": "sojourn.stores.redis.urls",
    "cluster": "sojourn.stores.redis.urls",
    "postgresql": "sojourn.stores.postgresql.urls",
}


@pytest.fixture(params=STORES)
def filled(request, tmp_path):
    """The name and the URL of a store with a million sessions, and the ports of its servers."""
    ports = []
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/sessions.db"
    elif request.param == "cluster":
        cluster = request.getfixturevalue("shared_cluster")
        cluster.flush()
        url, ports = cluster.url, [node.port for node in cluster.primaries()]
    else:
        server = request.getfixturevalue(request.param)
        url, ports = server.url, [server.port] if request.param == "valkey" else []
    fill(url, MILLION - ENDED)
    fill(url, ENDED, ended=ENDED, seed=1)  # among the others, because IDs are random
    first_contact = sojourn.Sessions(store=url, secret=SECRET, store_timeout="60 seconds")
    first_contact.ping()  # waits for the disk, which has to write a million records
    first_contact.close()
    yield request.param, url, ports
    if request.param == "cluster":
        cluster.flush()


@contextlib.contextmanager
def without_slow_calls(ports):
    """Fail if a server was busy with one command for 10 ms or more inside the block."""
    admins = [redis.Redis(port=port) for port in ports]
    for admin in admins:
        admin.config_set("slowlog-log-slower-than", 10_000)
        admin.slowlog_reset()
    yield
    for admin in admins:
        slow = [(each["duration"], each["command"][:80]) for each in admin.slowlog_get()]
        admin.close()
        assert slow == []


def test_commands_with_a_million_sessions_take_bounded_time(filled):
    """The first page, the count, numbers, a rare label, and a purge of 100,000 sessions."""
    name, url, ports = filled
    environ = {"SOJOURN_STORE": url, "SOJOURN_SECRET": SECRET}
    timed = (sys.executable, "-c", TIMED.format(store=STORES[name]))
    figures: dict[str, float] = {}
    with without_slow_calls(ports):
        for command in ("list", "list", "list", "count", "stats", "top"):
            answer = run(command, "--json", program=timed, environ=environ)
            assert answer.code == 0, answer.err
            json.loads(answer.out)
            (took,) = re.findall(r"took ([\d.]+) ms", answer.err)
            figures[command] = min(float(took), figures.get(command, float("inf")))
        counted = run("count", "--json", environ=environ).document
        assert abs(counted["sessions"] - (MILLION - ENDED)) <= MILLION * 0.03
        stats = run("stats", "--json", environ=environ).document
        assert abs(stats["live"] - (MILLION - ENDED)) <= MILLION * 0.05
        of_user = run("list", "--user", "user-49999", "--json", environ=environ).document
        assert {each["user"] for each in of_user["sessions"]} == {"user-49999"}
        rare = run(
            "list", "--label", "tenant=tenant-999", "--limit", "3", "--json", environ=environ
        )
        assert len(rare.document["sessions"]) == 3
        purged = run("purge", "--json", environ=environ)
        assert purged.code == 0, purged.err
    sys.stdout.write(f"{name}: {figures}\n")
    assert figures["list"] <= MAX_FIRST_PAGE
