"""Problems of Sentinels: their answers, and those of real ones."""

import contextlib
import socket

import pytest
import redis
from redis.sentinel import Sentinel

from sojourn.cli.doctor_checks.sentinel import check_answers
from sojourn.stores.redis.connection import ServerAddress
from sojourn.stores.redis.sentinel_inspection import SentinelAnswer, query_sentinels
from sojourn.stores.redis.store import RedisStore
from tests.integration.valkey import running
from tests.integration.valkey_groups import SentinelServers, until
from tests.support.examination import assert_healthy, codes, examined, found
from tests.support.fake_server import answering

PRIMARY = "10.0.0.1:6379"


def answer(number=1, **fields):
    """Return the answer of a Sentinel that finds no fault."""
    known = {"primary": PRIMARY, "replicas": 1, "sentinels": 3, **fields}
    return SentinelAnswer(f"10.0.1.{number}:26379", **known)


def findings(*answers):
    return {finding.code: finding.found for finding in check_answers(answers)}


def test_three_sentinels_that_agree():
    assert findings(answer(1), answer(2), answer(3)) == {}


def test_a_sentinel_that_does_not_answer():
    silent = SentinelAnswer("10.0.1.2:26379", failure="no answer in time")
    assert findings(answer(1), silent) == {
        "sentinel-unreachable": "10.0.1.2:26379: no answer in time"
    }


def test_a_sentinel_that_does_not_monitor_the_service():
    unaware = SentinelAnswer("10.0.1.2:26379", service_error="ERR No such master with that name")
    assert findings(answer(1), unaware) == {
        "sentinel-service": "10.0.1.2:26379: ERR No such master with that name"
    }


def test_sentinels_that_report_different_primaries():
    text = findings(answer(1), answer(2, primary="10.0.0.2:6379"))["sentinel-disagreement"]
    assert text == f"10.0.1.1:26379: reports {PRIMARY}; 10.0.1.2:26379: reports 10.0.0.2:6379"


def test_sentinels_without_a_quorum():
    reason = "NOQUORUM 1 usable Sentinels"
    assert findings(answer(1, quorum_error=reason)) == {
        "sentinel-quorum": f"10.0.1.1:26379: {reason}"
    }


@pytest.mark.parametrize(("number", "text"), [(1, "1 Sentinel"), (2, "2 Sentinels")])
def test_fewer_than_three_sentinels(number, text):
    assert findings(answer(sentinels=number)) == {"sentinel-few": text}


FIELDS = (b"ip", b"10.0.0.1", b"port", b"6379", b"num-slaves", b"2", b"num-other-sentinels", b"4")
MONITORED = b"*%d\r\n" % len(FIELDS) + b"".join(b"$%d\r\n%s\r\n" % (len(f), f) for f in FIELDS)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (
            MONITORED + b"+OK 5 usable Sentinels\r\n",
            {"primary": PRIMARY, "replicas": 2, "sentinels": 5},
        ),
        (
            MONITORED + b"-NOQUORUM 1 usable Sentinels\r\n",
            {
                "primary": PRIMARY,
                "replicas": 2,
                "sentinels": 5,
                "quorum_error": "NOQUORUM 1 usable Sentinels",
            },
        ),
        (
            MONITORED + b"-NOPERM no permissions to run 'sentinel|ckquorum'\r\n",
            {"primary": PRIMARY, "replicas": 2, "sentinels": 5},
        ),
        (
            b"-NOPERM no permissions to run 'sentinel|master'\r\n-NOPERM no\r\n",
            {"failure": "NOPERM no permissions to run 'sentinel|master'"},
        ),
        (
            b"-ERR No such master with that name\r\n-ERR No such master with that name\r\n",
            {"service_error": "ERR No such master with that name"},
        ),
    ],
)
def test_the_replies_of_a_sentinel(reply, expected):
    with answering(reply, greeting=b"+OK\r\n$0\r\n\r\n") as port:
        address = ServerAddress("127.0.0.1", port)
        (found_answer,) = query_sentinels([address], "sessions", 5.0)
    assert found_answer == SentinelAnswer(f"127.0.0.1:{port}", **expected)


def test_sentinels_that_are_all_away():
    """Each is named, so that a wrong address is seen; the message has no settings of a client."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ports = (1, silent.getsockname()[1])
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        report = examined(
            f"redis+sentinel://{hosts}/sessions/0?sentinel_password=of-the-sentinels", timeout=0.3
        )
    found(report, "sentinel-unreachable", *(f"127.0.0.1:{port}: " for port in ports))
    text = found(report, "store-unreachable", "no Sentinel that answers", "'sessions'").found
    assert "connection_pool" not in text
    assert "of-the-sentinels" not in str(report)
    assert codes(report) == {"sentinel-unreachable", "store-unreachable"}


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    with running(SentinelServers(tmp_path_factory.mktemp("watched"))) as made:
        for server in (made.primary, made.replica):
            with redis.Redis(port=server.port) as client:
                client.config_set("save", "3600 1")
        yield made


@pytest.mark.slow
def test_healthy_sentinels(watched):
    report = examined(watched.url)
    assert_healthy(report)
    assert {"Sentinels", "replicas"} <= {each.name for each in report.checks}


@pytest.mark.slow
def test_the_sentinels_of_a_client(watched):
    """A client of the application, whose pool queries the Sentinels; one of them is away."""
    hosts = [("127.0.0.1", sentinel.port) for sentinel in watched.sentinels]
    client = Sentinel(hosts).master_for("sessions")
    with contextlib.closing(client), contextlib.closing(RedisStore(client=client)) as store:
        assert_healthy(examined(store=store))
    client = Sentinel([*hosts, ("127.0.0.1", 1)]).master_for("sessions")
    with contextlib.closing(client), contextlib.closing(RedisStore(client=client)) as store:
        found(examined(store=store), "sentinel-unreachable", "127.0.0.1:1: ")


@pytest.mark.slow
def test_another_service_and_one_sentinel_that_is_away(watched):
    first = watched.sentinels[0].port
    found(
        examined(f"redis+sentinel://127.0.0.1:{first}/orders/0"),
        "sentinel-service",
        "No such master",
        "SENTINEL MASTERS",
    )
    report = examined(f"redis+sentinel://127.0.0.1:{first},127.0.0.1:1/sessions/0")
    found(report, "sentinel-unreachable", "127.0.0.1:1: ", "sentinel_password=")
    assert report.reached


@pytest.mark.slow
def test_sentinels_and_a_replica_that_are_stopped(tmp_path):
    """Nothing fails yet; with the primary, everything would."""
    with running(SentinelServers(tmp_path)) as watched:
        watched.replica.stop()
        for sentinel in watched.sentinels[1:]:
            sentinel.stop()
        first = watched.sentinels[0].port
        with redis.Redis(port=first) as client:

            def has_no_quorum():
                try:
                    client.execute_command("SENTINEL", "CKQUORUM", "sessions")
                except redis.ResponseError:
                    return True
                return False

            until(has_no_quorum, "the others are taken for dead")
        report = examined(watched.url)
        found(report, "sentinel-quorum", f"127.0.0.1:{first}: NOQUORUM")
        found(report, "sentinel-unreachable", *(str(each.port) for each in watched.sentinels[1:]))
        found(report, "valkey-replica-missing", "the primary has no connected replica")
        assert report.reached
