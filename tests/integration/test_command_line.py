"""The command `sojourn` with real stores: output, effects and exit codes."""

import datetime as dt
import math

import msgspec
import pytest
import redis

from sojourn._core.codec import encode
from sojourn._core.concurrency import complete
from sojourn.store import SAVED
from tests.integration.command_line_stores import (
    Installation,
    installation,
    on_stores,
    postgresql,
    shared_cluster,
    shared_postgresql,
    shared_valkey,
    valkey,
)
from tests.support.command_line import SECRET, run

__all__ = [
    "installation",
    "postgresql",
    "shared_cluster",
    "shared_postgresql",
    "shared_valkey",
    "valkey",
]

pytestmark = pytest.mark.timeout(180)

UNKNOWN = "0" * 31 + "1"


@on_stores("sqlite")
def test_sessions_are_listed_and_shown(installation):
    """A18: IDs, users and labels, with an option the data; never a ticket or verifier."""
    ada = installation.add("ada", browser="Firefox", address="203.0.113.1")
    other = installation.add("ada", browser="Chrome")
    visitor = installation.add(browser="Firefox")

    listed = installation.run("list", "--json")
    assert listed.code == 0
    assert {each["id"] for each in listed.document["sessions"]} == {ada, other, visitor}
    assert set(listed.document) == {"sessions", "cursor", "examined", "unreadable"}
    found = next(each for each in listed.document["sessions"] if each["id"] == ada)
    assert found["user"] == "ada"
    assert found["labels"] == {"browser": "Firefox", "address": "203.0.113.1"}
    assert "data" not in found

    filtered = installation.run("list", "--user", "ada", "--label", "browser=Firefox")
    (line,) = filtered.out.splitlines()
    assert line.split("\t")[:2] == [ada, "ada"]

    shown = installation.run("show", visitor, "--data", "--json")
    assert shown.document["session"]["data"] == {"cart": {"apple": 2}}
    record = complete(installation.sessions.store.load(bytes.fromhex(visitor)))
    assert record is not None
    assert record.verifier.hex() not in shown.out

    missing = installation.run("show", UNKNOWN)
    assert (missing.code, missing.out) == (1, "")
    assert missing.err == "There is no such session.\n"


@on_stores("sqlite")
def test_values_of_any_kind_are_shown(installation):
    """1.5.2, S9: what JSON or Python's digits cannot hold, and what another program has damaged."""
    with installation.sessions.open() as visit:
        session = visit.session
        session["long"] = [10**5_000]
        session["numbers"] = {"nan": float("nan"), "low": [-math.inf], "high": 10**30}
        session["damaged"] = dt.timedelta(days=1)
    store = installation.sessions.store
    record = complete(store.load(bytes.fromhex(session.id)))
    body = record.body.replace(encode("damaged", dt.timedelta(days=1)), b"\xc7\x03\x06xyz")
    changed = msgspec.structs.replace(record, version=record.version + 1, body=body)
    assert complete(store.save(changed, record.version)) is SAVED

    shown = installation.run("show", session.id, "--data", "--json")
    assert shown.code == 0
    assert shown.document["session"]["data"] == {
        "long": [hex(10**5_000)],
        "numbers": {"nan": "nan", "low": ["-inf"], "high": 10**30},
        "damaged": "<damaged>",
    }
    listed = installation.run("show", session.id, "--data")
    assert listed.code == 0
    assert "<list with an integer of too many digits to show>" in listed.out
    assert "{'nan': nan, 'low': [-inf]" in listed.out


@on_stores()
def test_sessions_are_revoked(installation):
    """S7: by ID, by user and all; several only with --yes; a missing one is exit code 1."""
    ids = [installation.add("ada") for _ in range(3)]
    visitor = installation.add()

    refused = installation.run("revoke", *ids[:2])
    assert (refused.code, refused.out) == (2, "")
    assert "--yes" in refused.err
    assert installation.sessions.get(ids[0]) is not None

    revoked = installation.run("revoke", ids[0], UNKNOWN, "--yes", "--reason", "stolen", "--json")
    assert revoked.code == 1
    assert revoked.document == {"revoked": [ids[0]], "not_found": [UNKNOWN], "remaining": []}
    ended = installation.run("show", ids[0], "--json")
    assert ended.document == {"session": None, "ended_reason": "stolen"}

    kept = installation.run("revoke-user", "ada", "--keep", ids[1], "--json")
    assert (kept.code, kept.document) == (0, {"user": "ada", "revoked": 1})
    assert [info.id for info in installation.sessions.list_user("ada")] == [ids[1]]

    assert installation.run("revoke-all").code == 2
    assert installation.sessions.get(visitor) is not None
    assert installation.run("revoke-all", "--yes").code == 0
    assert installation.sessions.get(visitor) is None
    assert installation.run("list").code == 1


@on_stores()
def test_count_top_purge_and_bench(installation):
    """Counts by state, a snapshot of `top`, a purge, and a benchmark that deletes its sessions."""
    for user in ("ada", "eve", None, None, None):
        installation.add(user)
    installation.sessions.revoke(installation.add("eve"), reason="stolen")

    assert installation.run("count", "--json").document == {"sessions": 5, "estimated": False}
    stats = installation.run("stats", "--json").document
    assert (stats["live"], stats["logged_in"], stats["anonymous"]) == (5, 2, 3)
    assert (stats["tombstones"], stats["expired"], stats["estimated"]) == (1, 0, False)
    top = installation.run("top", "--json").document
    assert (top["live"], top["created_per_minute"], top["logins_per_minute"]) == (5, 5, 2)
    assert top["round_trip_ms"] > 0
    assert len(top["recent"]) == 5

    measured = installation.run("bench", "--count", "20", "--json").document
    assert set(measured["calls"]) == {"create", "load", "save", "touch", "batch", "delete"}
    assert all(figures["median_ms"] > 0 for figures in measured["calls"].values())
    assert installation.run("stats", "--json").document["live"] == 5
    assert installation.run("purge", "--json").document["removed"] >= 0


def test_unavailable_store_prints_one_line_and_returns_3():
    """B-49: without the password of the URL."""
    url = "redis://operator:hunter2@127.0.0.1:1/0"
    answer = run("--store", url, "list", "--json", environ={"SOJOURN_SECRET": SECRET})
    assert (answer.code, answer.out) == (3, "")
    assert answer.err.count("\n") == 1
    assert answer.err.startswith("Error: ")
    assert "hunter2" not in answer.err


def test_incomplete_revocation_returns_4(valkey):
    """S16, B-49: the cutoff is set and one session remains; the password is not printed."""
    made = Installation(valkey.url)
    made.add("ada")
    with redis.Redis.from_url(valkey.url) as admin:
        admin.execute_command("ACL", "SETUSER", "weak", "on", ">hunter2", "~*", "&*", "+@all")
        admin.execute_command("ACL", "SETUSER", "weak", "-del", "-unlink", "-getdel")
        url = valkey.url.replace("://", "://weak:hunter2@")
        answer = run("revoke-user", "ada", environ={**made.environ, "SOJOURN_STORE": url})
        admin.execute_command("ACL", "DELUSER", "weak")
    made.sessions.close()
    assert answer.code == 4
    assert answer.err.count("\n") == 1
    assert "Revoke again" in answer.err
    assert "hunter2" not in answer.err


@pytest.mark.slow
def test_another_secret_is_refused(valkey):
    """A command with the secret of another application would act on the wrong sessions."""
    made = Installation(valkey.url)
    made.add("ada")
    made.sessions.close()
    answer = run("list", environ={**made.environ, "SOJOURN_SECRET": SECRET[::-1]})
    assert (answer.code, answer.out) == (2, "")
    assert SECRET[::-1] not in answer.err


@pytest.mark.slow
def test_first_command_on_a_cluster_does_not_load_the_command_table(shared_cluster):
    """The table has 200 KB and would double the time of a first page."""
    shared_cluster.flush()
    made = Installation(shared_cluster.url)
    made.add("ada")
    admins = [redis.Redis(port=node.port) for node in shared_cluster.primaries()]
    for admin in admins:
        admin.config_resetstat()
    assert made.run("list").code == 0
    made.sessions.close()
    for admin in admins:
        assert "cmdstat_command" not in admin.info("commandstats")
        admin.close()


def test_revocation_is_published_to_other_processes(valkey):
    """S17: the command exits after the message was sent."""
    import threading

    made = Installation(valkey.url)
    session_id = made.add("ada")
    messages, ready, arrived = [], threading.Event(), threading.Event()

    def receive(message):
        if message.kind == "revoked":  # the login is published in the background
            messages.append(message)
            arrived.set()

    subscription = made.sessions.store.subscribe(receive, ready.set)
    try:
        assert ready.wait(20)
        assert made.run("revoke", session_id, "--reason", "stolen").code == 0
        assert arrived.wait(20)
        assert messages[0].reason == "stolen"
        assert messages[0].session_id.hex() == session_id
    finally:
        subscription.close()
        made.sessions.close()
