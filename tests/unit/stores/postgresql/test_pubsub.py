"""The subscriber of a channel, and the form of its messages: law S17."""

import logging
import os
import queue
import socket
import threading
import time

import msgspec
import psycopg
import pytest

from sojourn.errors import StoreUnavailable
from sojourn.store import BroadcastMessage
from sojourn.stores.postgresql import pubsub
from sojourn.stores.postgresql.pubsub import (
    MAX_PAYLOAD_BYTES,
    Subscriber,
    channel_of,
    decode_payload,
    encode_payload,
)
from tests.integration.postgresql import PgBouncer, Postgres
from tests.integration.postgresql_binaries import NEEDS_PGBOUNCER
from tests.integration.proxy import Proxy

ONE, TWO = b"1" * 16, b"2" * 16
CHANNEL = channel_of('public."sojourn_sessions"', "default")
TIMEOUT = 20.0


class SlowSender:
    """Sends with a delay: the thread of the subscriber may end first."""

    def __init__(self, sender):
        self._sender = sender
        self.fileno, self.close = sender.fileno, sender.close

    @classmethod
    def pair(cls, pair):
        receiver, sender = pair
        return receiver, cls(sender)

    def send(self, data):
        for thread in threading.enumerate():
            if thread.name == "sojourn-subscriber":
                thread.join(0.3)
        return self._sender.send(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def revoked(version):
    return BroadcastMessage(1, "revoked", ONE, version, "")


class Probe:
    """A subscriber over a port; it records messages and gaps in order."""

    def __init__(self, port, **parameters):
        self.received = queue.SimpleQueue()
        self.connections = []
        self._port = port
        self._parameters = {"connect_timeout": 2, "application_name": "subscriber", **parameters}
        self.subscriber = Subscriber(
            self.connect, CHANNEL, self.received.put, lambda: self.received.put("gap")
        )

    def connect(self):
        self.connections.append(
            psycopg.connect(
                f"postgresql://postgres@127.0.0.1:{self._port}/postgres",
                autocommit=True,
                **self._parameters,
            )
        )
        return self.connections[-1]

    def next(self):
        return self.received.get(timeout=TIMEOUT)


@pytest.fixture
def open_probe():
    """Return a function that opens a probe and waits for its first gap."""
    probes = []

    def open_probe(port, **parameters):
        probes.append(Probe(port, **parameters))
        assert probes[-1].next() == "gap"
        return probes[-1]

    yield open_probe
    for probe in probes:
        probe.subscriber.close()


@pytest.fixture
def proxy(postgresql):
    proxy = Proxy(postgresql.port)
    yield proxy
    proxy.close()


@pytest.fixture
def own_server():
    """A server of this test, which it can stop."""
    server = Postgres()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def short_probe_interval(monkeypatch):
    monkeypatch.setattr(pubsub, "_PROBE_INTERVAL", 0.2)


def notify(server, *payloads, channel=CHANNEL):
    with server.admin() as admin:
        for payload in payloads:
            admin.execute("SELECT pg_notify(%s, %s)", [channel, payload])


def publish(server, *versions):
    notify(server, *(encode_payload("revoked", ONE, version=version) for version in versions))


def publish_together(server, *versions):
    """Publish in one transaction, so that the messages arrive together."""
    payloads = [encode_payload("revoked", ONE, version=version) for version in versions]
    server.query(
        "SELECT pg_notify(%s, payload) FROM unnest(%s::text[]) AS payload", CHANNEL, payloads
    )


class TestMessages:
    @pytest.mark.parametrize("kind", ["revoked", "rotated", "changed", "all-before"])
    def test_a_message_is_restored_with_every_field(self, kind):
        """S17: with every field."""
        payload = encode_payload(kind, ONE, version=2**53, reason='stolen "phone" ü')
        assert decode_payload(payload) == BroadcastMessage(1, kind, ONE, 2**53, 'stolen "phone" ü')
        assert payload.isascii()

    @pytest.mark.parametrize("reason", ["x" * 100_000, "ü" * 5_000, "€" * 2_000, "x" * 4_999])
    def test_a_long_reason_is_truncated_to_the_largest_payload(self, postgresql, reason):
        """S17: NOTIFY rejects 8,000 bytes; a revocation must not fail because of its reason."""
        payload = encode_payload("revoked", ONE, version=2**63, reason=reason)
        assert len(payload) <= MAX_PAYLOAD_BYTES
        notify(postgresql, payload)
        cut = decode_payload(payload).reason
        assert len(cut) > 1_500
        assert reason.startswith(cut)

    def test_the_largest_payload_is_accepted_by_the_server(self, postgresql):
        notify(postgresql, "x" * MAX_PAYLOAD_BYTES)
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            notify(postgresql, "x" * (MAX_PAYLOAD_BYTES + 1))

    @pytest.mark.parametrize(
        "payload",
        ["", "x", "ü", "!!!!", "AAAA", "lQ==", b"\xff", encode_payload("revoked", ONE)[:-4]],
    )
    def test_foreign_and_damaged_payloads_are_ignored(self, payload):
        """S17."""
        assert decode_payload(payload) is None

    def test_a_message_of_a_later_format_is_ignored(self):
        """S17: during an upgrade of several processes."""
        later = msgspec.msgpack.encode(BroadcastMessage(2, "revoked", ONE, 1, ""))
        assert decode_payload(pubsub.base64.urlsafe_b64encode(later)) is None

    def test_channels_of_realms_and_tables_differ(self):
        """S14: every name is short enough for LISTEN."""
        pairs = [("a.t", "r"), ("a.t", "s"), ("b.t", "r"), ("a.t", "r" * 300), ("a.tr", "")]
        channels = {channel_of(*pair) for pair in pairs}
        assert len(channels) == len(pairs)
        assert all(len(channel.encode()) < 64 for channel in channels)


class TestDelivery:
    def test_messages_arrive_in_order_within_a_second(self, postgresql, open_probe):
        """S17, W4."""
        probe = open_probe(postgresql.port)
        start = time.monotonic()
        publish(postgresql, *range(100))
        assert [probe.next() for _ in range(100)] == [revoked(version) for version in range(100)]
        assert time.monotonic() - start < 1

    def test_many_messages_of_one_transaction_arrive(self, postgresql, open_probe):
        """S17: more than one read of the socket."""
        probe = open_probe(postgresql.port)
        publish_together(postgresql, *range(3_000))
        assert [probe.next() for _ in range(3_000)] == [revoked(n) for n in range(3_000)]

    def test_messages_of_other_channels_and_formats_are_ignored(self, postgresql, open_probe):
        """S17: the subscription continues."""
        probe = open_probe(postgresql.port)
        notify(postgresql, "", "x", "!!!!")
        notify(postgresql, encode_payload("revoked", TWO), channel=CHANNEL + "x")
        publish(postgresql, 1)
        assert probe.next() == revoked(1)

    def test_changes_are_delivered_for_watched_sessions_only(self, postgresql, open_probe):
        """S17: two calls of watch need two calls of unwatch."""
        probe = open_probe(postgresql.port)

        def next_after_a_change():
            notify(postgresql, encode_payload("changed", ONE, version=3))
            publish(postgresql, 1)
            return probe.next()

        assert next_after_a_change() == revoked(1)
        for change in (probe.subscriber.watch, probe.subscriber.watch, probe.subscriber.unwatch):
            change(ONE)
        assert next_after_a_change() == BroadcastMessage(1, "changed", ONE, 3, "")
        assert probe.next() == revoked(1)
        probe.subscriber.unwatch(ONE)
        assert next_after_a_change() == revoked(1)
        assert not probe.subscriber._watched

    def test_a_handler_that_raises_loses_no_other_message(self, postgresql, caplog):
        """S17: the connection is kept."""
        received = queue.SimpleQueue()

        def on_message(message):
            received.put(message)
            raise ValueError("a fault of the application")

        probe = Probe(postgresql.port)
        assert probe.next() == "gap"
        probe.subscriber._on_message = on_message
        publish(postgresql, 1, 2)
        assert [received.get(timeout=TIMEOUT) for _ in range(2)] == [revoked(1), revoked(2)]
        probe.subscriber.close()
        assert len(probe.connections) == 1
        assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


class TestInterruptions:
    def test_each_interruption_is_reported_as_a_gap(self, postgresql, proxy, open_probe):
        """S17: it reconnects, and receives messages that are published after the gap."""
        probe = open_probe(proxy.port)
        for version in range(1, 4):
            proxy.cut()
            assert probe.next() == "gap"
            publish(postgresql, version)
            assert probe.next() == revoked(version)

    def test_a_blackholed_connection_is_replaced(
        self, postgresql, proxy, open_probe, short_probe_interval
    ):
        """S17: no packet arrives, not even the end of the connection."""
        probe = open_probe(proxy.port)
        proxy.swallow = True
        publish(postgresql, 1)
        while probe.connections[0].closed is False:
            time.sleep(0.02)  # only the log shows what the thread does
        proxy.swallow = False
        assert probe.next() == "gap"
        publish(postgresql, 2)
        assert probe.next() == revoked(2)

    @pytest.mark.slow
    def test_a_connection_to_a_hanging_server_is_replaced(
        self, own_server, open_probe, short_probe_interval
    ):
        """S17: it accepts connections and does not answer; then it continues."""
        probe = open_probe(own_server.port)
        with own_server.hanging():
            while probe.connections[0].closed is False:
                time.sleep(0.02)  # only the log shows what the thread does
        assert probe.next() == "gap"
        publish(own_server, 2)
        assert probe.next() == revoked(2)

    def test_an_idle_connection_is_kept(self, postgresql, open_probe, short_probe_interval):
        """S17: the server answers the probes."""
        probe = open_probe(postgresql.port)
        time.sleep(1)  # several probes
        publish(postgresql, 1)
        assert probe.next() == revoked(1)
        assert len(probe.connections) == 1

    def test_messages_that_arrive_during_a_probe_are_kept(self, postgresql, proxy, open_probe):
        """S17: a slow server delivers them before its answer."""
        probe = open_probe(proxy.port)
        proxy.delay = 0.3
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pubsub, "_PROBE_INTERVAL", 0.2)
            for version in range(10):
                publish(postgresql, version)
        proxy.delay = 0
        messages = []
        while not {revoked(9), "gap"} & set(messages):  # messages before a gap may be lost
            messages.append(probe.next())
        if "gap" not in messages:
            assert messages == [revoked(version) for version in range(10)]

    @pytest.mark.slow
    def test_an_outage_is_logged_once(self, own_server, open_probe, caplog):
        """S12: retries are logged at DEBUG; the next outage is a warning again."""
        probe = open_probe(own_server.port)
        for _ in range(2):
            caplog.clear()
            with caplog.at_level(logging.DEBUG, logger="sojourn"), own_server.refusing():
                while len(caplog.records) < 3:
                    time.sleep(0.02)  # only the log shows what the thread does
            assert probe.next() == "gap"
            tries = [record.levelname for record in caplog.records]
            assert 1 <= tries.count("WARNING") <= 3, "it shut down, and reconnecting failed"
            assert "DEBUG" in tries
            assert all("\n" not in record.getMessage() for record in caplog.records)
        publish(own_server, 1)
        assert probe.next() == revoked(1)

    @pytest.mark.parametrize("error", [StoreUnavailable("away"), OSError("away")])
    def test_a_failed_connection_attempt_is_retried(self, postgresql, error, caplog):
        """S12: with increasing delays."""
        probe = Probe(postgresql.port)
        assert probe.next() == "gap"
        connect, failures, delays = probe.connect, [], []

        def fail_three_times():
            if len(failures) < 3:
                failures.append(time.monotonic())
                delays.append(probe.subscriber._delay)  # the time itself may be longer
                raise error
            return connect()

        probe.subscriber._connect = fail_three_times
        postgresql.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'subscriber'"
        )
        assert probe.next() == "gap"
        probe.subscriber.close()
        assert delays[0] < delays[1] < delays[2]
        assert failures[2] - failures[1] >= delays[2]
        assert "away" in caplog.text

    @NEEDS_PGBOUNCER
    def test_a_pooler_in_transaction_mode_is_refused_with_advice(self, postgresql, caplog):
        """S17: PgBouncer accepts LISTEN and delivers no notification."""
        bouncer = PgBouncer(postgresql)
        bouncer.start()
        probe = Probe(bouncer.port)
        while "add listen_url=postgresql://" not in caplog.text:
            time.sleep(0.02)  # only the log shows what the thread does
        probe.subscriber.close()
        bouncer.stop()
        assert probe.received.empty()


class TestClosing:
    def test_close_ends_the_thread_and_the_connection(self, postgresql):
        """S17: it is idempotent."""
        probe = Probe(postgresql.port)
        assert probe.next() == "gap"
        start = time.monotonic()
        probe.subscriber.close()
        probe.subscriber.close()
        assert time.monotonic() - start < 1
        assert not probe.subscriber._thread.is_alive()
        assert probe.connections[0].closed
        publish(postgresql, 1)
        assert probe.received.empty()

    def test_close_during_an_outage_does_not_wait(self, postgresql):
        """S17: neither for a retry nor for a server that does not answer."""
        proxy = Proxy(postgresql.port)
        probe = Probe(proxy.port)
        assert probe.next() == "gap"
        proxy.swallow = True
        proxy.cut()
        start = time.monotonic()
        probe.subscriber.close()
        assert time.monotonic() - start < 3
        proxy.close()

    def test_close_between_two_attempts_leaves_no_socket_open(self, monkeypatch):
        """S17: an open socket would raise a ResourceWarning."""
        attempted = threading.Event()
        pair = SlowSender.pair(socket.socketpair())
        monkeypatch.setattr(pubsub.socket, "socketpair", lambda: pair)

        def fail():
            attempted.set()
            raise OSError("the server is down")

        subscriber = Subscriber(fail, CHANNEL, print, print)
        assert attempted.wait(TIMEOUT)
        subscriber.close()
        assert [each.fileno() for each in pair] == [-1, -1]

    def test_a_handler_can_close_the_subscription(self, postgresql):
        """S17: no handler is called afterwards."""
        probe = Probe(postgresql.port)
        assert probe.next() == "gap"

        def on_message(message):
            probe.received.put(message)
            probe.subscriber.close()

        probe.subscriber._on_message = on_message
        publish_together(postgresql, 1, 2, 3)
        assert probe.next() == revoked(1)
        probe.subscriber._thread.join(TIMEOUT)
        assert not probe.subscriber._thread.is_alive()
        assert probe.received.empty()

    def test_no_handler_is_called_after_close(self, postgresql):
        """S17: also if messages arrive constantly."""
        probe = Probe(postgresql.port)
        stop = threading.Event()

        def publish_constantly():
            with postgresql.admin() as admin:
                while not stop.is_set():
                    admin.execute("SELECT pg_notify(%s, %s)", [CHANNEL, PAYLOAD])

        thread = threading.Thread(target=publish_constantly)
        thread.start()
        for _ in range(20):
            probe.next()
        probe.subscriber.close()
        count = probe.received.qsize()
        stop.set()
        thread.join(TIMEOUT)
        assert probe.received.qsize() == count

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_a_forked_child_does_not_use_the_connection(self, postgresql, open_probe):
        """S17: it closes its copy of the store; the parent still receives."""
        probe = open_probe(postgresql.port)
        child = os.fork()
        if not child:
            probe.subscriber.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        publish(postgresql, 1)
        assert probe.next() == revoked(1)
        assert len(probe.connections) == 1


PAYLOAD = encode_payload("revoked", ONE, version=1)
