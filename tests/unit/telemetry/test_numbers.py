"""The numbers of Prometheus and OpenTelemetry, of one installation without a server."""

import gc
import logging
import weakref

import pytest
from prometheus_client import CollectorRegistry

import sojourn
from sojourn import Sessions, telemetry
from sojourn.errors import ConfigurationError, StoreUnavailable
from sojourn.stores.memory import MemoryStore
from sojourn.telemetry.instrumented_store import InstrumentedStore
from sojourn.testing import FakeClock, FaultyStore
from sojourn.testing.app_suite.served_app import SECRET
from tests.support.broadcast_store import BroadcastingStore, FaultyBroadcastingStore, wait_until
from tests.support.telemetry import Exporters


@pytest.fixture
def exporters():
    with Exporters() as made:
        yield made


class Visitor:
    """A client of one installation that keeps its cookie."""

    def __init__(self, sessions, labels=None):
        self.sessions = sessions
        self.labels = labels
        self.cookie = None

    def visit(self, change=lambda session: None):
        """Make a request; return the session afterwards."""
        opened = self.sessions.open(cookies=self.cookie, labels=self.labels)
        with opened:
            change(opened.session)
        for name, value in opened.response_headers():
            if name.lower() == "set-cookie":
                cookie, _, attributes = value.partition(";")
                self.cookie = None if "max-age=0" in attributes.lower() else cookie
        return opened.session


def increment(session):
    session.increment("n")


def test_operations_are_counted_by_kind_and_result(exporters):
    """One create, then a load and a save for each request; an unknown ticket loads nothing."""
    sessions = Sessions(store="memory://")
    exporters.prometheus(sessions)
    exporters.opentelemetry(sessions)
    visitor = Visitor(sessions)
    for _ in range(4):
        visitor.visit(increment)
    visitor.visit(lambda session: session.get("n"))
    visitor.visit(lambda session: session.destroy())
    assert exporters.calls("create") == 1
    assert exporters.calls("load") == 5
    assert exporters.calls("save") == 3
    assert exporters.calls("delete") == 1
    assert exporters.sample("sojourn_creations_total") == 1
    points = exporters.points("db.client.operation.duration")
    assert points[("db.operation.name", "load"), ("sojourn.result", "ok")] == 5
    assert points[("db.operation.name", "save"), ("sojourn.result", "ok")] == 3
    assert points[("db.operation.name", "delete"), ("sojourn.result", "ok")] == 1
    assert exporters.points("sojourn.creations") == {(): 1}


def test_logins_rotations_and_revocations_are_counted(exporters):
    sessions = Sessions(store="memory://")
    exporters.prometheus(sessions)
    exporters.opentelemetry(sessions)
    visitors = [Visitor(sessions) for _ in range(5)]
    for visitor in visitors:
        visitor.visit(lambda session: session.login("alice"))
    visitors[0].visit(lambda session: session.rotate())
    visitors[0].visit(lambda session: session.logout())
    sessions.revoke(visitors[1].visit().id)
    sessions.revoke(visitors[2].visit().id, reason="she has left the company")
    sessions.credentials_changed("alice")
    assert exporters.sample("sojourn_logins_total") == 5
    assert exporters.sample("sojourn_rotations_total") == 1
    by_reason = {
        reason: exporters.sample("sojourn_revocations_total", reason=reason)
        for reason in ("destroyed", "revoked", "other", "credentials changed")
    }
    assert by_reason == {"destroyed": 1, "revoked": 1, "other": 1, "credentials changed": 2}
    assert exporters.points("sojourn.logins") == {(): 5}
    assert exporters.points("sojourn.rotations") == {(): 1}
    assert exporters.points("sojourn.revocations") == {
        (("sojourn.reason", reason),): number for reason, number in by_reason.items()
    }


def test_rejections_are_counted_by_reason(exporters):
    """A8: a forged ticket, what is no ticket, and that of a session that was revoked."""
    sessions = Sessions(store="memory://")
    exporters.prometheus(sessions)
    exporters.opentelemetry(sessions)
    thief, visitor = Visitor(sessions), Visitor(sessions)
    visitor.visit(increment)
    name = visitor.cookie.partition("=")[0]
    for value in ("A" * 66, "short"):
        thief.cookie = f"{name}={value}"
        thief.visit()
    thief.cookie = visitor.cookie
    sessions.revoke(visitor.visit().id)
    thief.visit()
    assert exporters.sample("sojourn_rejections_total", reason="forged") == 1
    assert exporters.sample("sojourn_rejections_total", reason="malformed") == 1
    assert exporters.sample("sojourn_rejections_total", reason="revoked") == 1
    assert exporters.points("sojourn.rejections") == {
        (("sojourn.reason", "forged"),): 1,
        (("sojourn.reason", "malformed"),): 1,
        (("sojourn.reason", "revoked"),): 1,
    }


def test_a_reused_ticket_is_counted(exporters):
    """A9: five minutes after its successor was seen."""
    clock = FakeClock()
    sessions = Sessions(store="memory://", clock=clock)
    exporters.prometheus(sessions)
    exporters.opentelemetry(sessions)
    visitor, thief = Visitor(sessions), Visitor(sessions)
    visitor.visit(increment)
    thief.cookie = visitor.cookie
    visitor.visit(lambda session: session.rotate())
    visitor.visit(increment)
    clock.advance(300)
    thief.visit()
    assert exporters.sample("sojourn_reuses_total") == 1
    assert exporters.sample("sojourn_revocations_total", reason="reused") == 1
    assert exporters.points("sojourn.reuses") == {(): 1}


def test_an_expired_session_is_counted_by_its_limit(exporters):
    clock = FakeClock()
    sessions = Sessions(store="memory://", clock=clock, timeout="10 minutes")
    exporters.prometheus(sessions)
    exporters.opentelemetry(sessions)
    visitor = Visitor(sessions)
    visitor.visit(increment)
    visitor.visit()
    clock.advance(3600)
    visitor.visit()
    assert exporters.sample("sojourn_expirations_total", limit="idle") == 1
    assert exporters.points("sojourn.expirations") == {(("sojourn.limit", "idle"),): 1}


def test_conflicts_and_their_attempts_are_counted(exporters):
    """A6: a request that meets two newer records is one conflict with two attempts."""
    store = FaultyStore(MemoryStore())
    sessions = Sessions(store=store, secret=SECRET)
    exporters.prometheus(sessions)
    exporters.opentelemetry(sessions)
    visitor = Visitor(sessions)
    visitor.visit(increment)
    visitor.visit(increment)
    elsewhere = Sessions(store=store.store, secret=SECRET)

    async def other_request():
        async with elsewhere.open(cookies=visitor.cookie) as opened:
            opened.session.increment("n")

    store.meanwhile("save", other_request)
    store.meanwhile("save", other_request)
    visitor.visit(increment)
    assert visitor.visit()["n"] == 5
    assert exporters.sample("sojourn_conflicts_total") == 1
    assert exporters.sample("sojourn_conflict_attempts_total") == 2
    assert exporters.calls("save", "conflict") == 2
    assert exporters.points("sojourn.conflicts") == {(): 1}
    assert exporters.points("sojourn.conflict.attempts") == {(): 2}


def test_an_outage_is_visible(exporters):
    """A15: each failed request, and the duration of the failed calls."""
    store = FaultyStore(MemoryStore())
    sessions = Sessions(store=store, secret=SECRET)
    exporters.prometheus(sessions)
    exporters.opentelemetry(sessions)
    visitor = Visitor(sessions)
    visitor.visit(increment)
    store.fail("load")
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            visitor.visit()
    store.heal()
    visitor.visit()
    assert exporters.calls("load", "error") == 3
    assert exporters.calls("load") == 1
    assert exporters.sample("sojourn_store_failures_total", operation="load") == 3
    points = exporters.points("db.client.operation.duration")
    failed = [
        (dict(attributes), number)
        for attributes, number in points.items()
        if ("sojourn.result", "error") in attributes
    ]
    assert failed == [
        (
            {
                "db.operation.name": "load",
                "sojourn.result": "error",
                "error.type": "sojourn.errors.StoreUnavailable",
            },
            3,
        )
    ]
    assert exporters.points("sojourn.store.failures") == {(("db.operation.name", "load"),): 3}


def test_open_connections_are_counted_from_any_moment(exporters):
    class Socket:
        def end(self, reason): ...
        def recheck(self, reason): ...
        def mark_outdated(self, version): ...

    sessions = Sessions(store="memory://")
    first, second = Socket(), Socket()
    sessions.connections.add("a", first)
    started = exporters.prometheus(sessions)
    exporters.opentelemetry(sessions)
    assert exporters.sample("sojourn_open_connections") == 1
    sessions.connections.add("a", second)
    sessions.connections.add("b", second)
    assert exporters.sample("sojourn_open_connections") == 3
    assert exporters.points("sojourn.open_connections") == {(): 3}
    sessions.connections.remove("a", first)
    sessions.connections.remove("a", first)  # idempotent
    assert exporters.sample("sojourn_open_connections") == 2
    started.close()
    assert exporters.sample("sojourn_open_connections") == 0
    sessions.connections.remove("b", second)
    assert exporters.points("sojourn.open_connections") == {(): 1}


def test_gaps_of_the_broadcast_are_counted(exporters):
    store = FaultyBroadcastingStore(BroadcastingStore())
    sessions = Sessions(store=store, secret=SECRET, near_cache="1 second")
    exporters.prometheus(sessions)
    exporters.opentelemetry(sessions)
    sessions.near_cache_subscriber.probe()  # subscribes, which begins with a gap
    wait_until(lambda: exporters.sample("sojourn_broadcast_gaps_total") >= 1)
    sessions.close()
    assert exporters.points("sojourn.broadcast.gaps") == {
        (): exporters.sample("sojourn_broadcast_gaps_total")
    }


def test_the_purge_is_visible(exporters):
    clock = FakeClock()
    sessions = Sessions(store="memory://", clock=clock)
    exporters.prometheus(sessions)
    exporters.opentelemetry(sessions)
    began = exporters.sample("sojourn_last_purge_timestamp_seconds")
    assert began > 0
    for _ in range(3):
        Visitor(sessions).visit(increment)
    clock.advance(10**7)
    # The first one completes the scan that began before the sessions were created.
    assert [sessions.purger.purge_expired() for _ in range(2)] == [0, 3]
    assert exporters.sample("sojourn_last_purge_timestamp_seconds") > began
    assert exporters.sample("sojourn_purged_records_total") == 3
    assert exporters.points("sojourn.purged_records") == {(): 3}
    assert 0 <= exporters.points("sojourn.purge.lag")[()] < 60
    sessions.close()


def test_live_sessions_are_counted_in_the_background(exporters):
    sessions = Sessions(store="memory://")
    for _ in range(3):
        Visitor(sessions).visit(increment)
    exporters.prometheus(sessions, count_interval=0.05)
    exporters.opentelemetry(sessions, count_interval=60)
    wait_until(lambda: exporters.sample("sojourn_live_sessions") == 3)
    wait_until(lambda: exporters.points("sojourn.live_sessions") == {(): 3})
    Visitor(sessions).visit(increment)
    wait_until(lambda: exporters.sample("sojourn_live_sessions") == 4)
    sessions.close()


def test_the_count_goes_on_if_nothing_keeps_the_result(exporters):
    sessions = Sessions(store="memory://")
    started = telemetry.prometheus(sessions, registry=exporters.registry, count_interval=0.05)
    del started
    gc.collect()
    wait_until(lambda: exporters.sample("sojourn_live_sessions") == 0)
    Visitor(sessions).visit(increment)
    wait_until(lambda: exporters.sample("sojourn_live_sessions") == 1)
    for counter in sessions.engine.store.owner.counters:
        counter.stop()


def test_without_an_interval_nothing_counts(exporters):
    sessions = Sessions(store="memory://")
    exporters.prometheus(sessions)
    exporters.opentelemetry(sessions)
    assert exporters.sample("sojourn_live_sessions") is None
    assert exporters.points("sojourn.live_sessions") == {}


def test_an_outage_does_not_end_the_count(exporters, caplog):
    """The first failure of an outage is logged, and the count goes on."""
    store = FaultyStore(MemoryStore())
    store.count = store.store.count
    failing = [True]

    async def count(now):
        if failing[0]:
            raise StoreUnavailable("a test has planned this failure")
        return 7

    store.count = count
    sessions = Sessions(store=store, secret=SECRET)
    exporters.prometheus(sessions, count_interval=0.01)
    wait_until(lambda: "cannot be counted" in caplog.text)
    failing[0] = False
    wait_until(lambda: exporters.sample("sojourn_live_sessions") == 7)
    assert caplog.text.count("cannot be counted") == 1


@pytest.mark.parametrize("interval", [0, -1, True, "5", float("nan"), float("inf")])
def test_a_wrong_interval_is_refused(exporters, interval):
    with pytest.raises(ConfigurationError, match="count_interval expects seconds"):
        exporters.prometheus(Sessions(store="memory://"), count_interval=interval)


def test_a_store_that_cannot_count_is_refused(exporters):
    sessions = Sessions(store=FaultyStore(MemoryStore()), secret=SECRET)
    with pytest.raises(ConfigurationError, match="can count"):
        exporters.prometheus(sessions, count_interval=5)
    assert not isinstance(sessions.engine.store, InstrumentedStore)


# Switching on and off


def test_a_second_call_for_the_same_registry_is_refused(exporters):
    sessions = Sessions(store="memory://")
    started = exporters.prometheus(sessions)
    with pytest.raises(ConfigurationError, match="these metrics already"):
        exporters.prometheus(sessions)
    started.close()
    exporters.prometheus(sessions)
    exporters.opentelemetry(sessions)
    with pytest.raises(ConfigurationError, match="these metrics already"):
        exporters.opentelemetry(sessions, spans=False)
    with pytest.raises(ConfigurationError, match="spans already"):
        exporters.opentelemetry(sessions, meters=False)


def test_another_registry_gets_the_same_numbers(exporters):
    sessions = Sessions(store="memory://")
    exporters.prometheus(sessions)
    registry = CollectorRegistry()
    with telemetry.prometheus(sessions, registry=registry):
        Visitor(sessions).visit(increment)
    labels = {"realm": "default"}
    assert registry.get_sample_value("sojourn_creations_total", labels) == 1
    assert exporters.sample("sojourn_creations_total") == 1


def test_two_installations_share_a_registry(exporters):
    """Their realms distinguish them; those of the same realm are added."""
    shop, blog = (Sessions(store="memory://", realm=realm) for realm in ("shop", "blog"))
    another_shop = Sessions(store="memory://", realm="shop")
    for sessions in (shop, blog, another_shop):
        exporters.prometheus(sessions)
        exporters.opentelemetry(sessions)
        Visitor(sessions).visit(increment)
    value = exporters.registry.get_sample_value
    assert value("sojourn_creations_total", {"realm": "shop"}) == 2
    assert value("sojourn_creations_total", {"realm": "blog"}) == 1
    points = exporters.metrics()["sojourn.creations"].data.data_points
    assert {p.attributes["sojourn.realm"]: p.value for p in points} == {"shop": 2, "blog": 1}


def test_closing_restores_the_installation(exporters):
    sessions = Sessions(store="memory://")
    engine = sessions.engine
    before = engine.store, engine.load_immediately, engine.load, dict(sessions.dispatcher.listeners)
    with exporters.prometheus(sessions), exporters.opentelemetry(sessions) as both:
        assert isinstance(engine.store, InstrumentedStore)
    both.close()  # idempotent
    after = engine.store, engine.load_immediately, engine.load, dict(sessions.dispatcher.listeners)
    assert after == before
    assert sessions.connections.count_observer is None
    assert sessions.purger.observer is None
    Visitor(sessions).visit(increment)
    assert exporters.calls("create") == 0
    assert exporters.spans() == []


def test_neither_meters_nor_spans_is_refused(exporters):
    sessions = Sessions(store="memory://")
    with pytest.raises(ConfigurationError, match="found neither"):
        exporters.opentelemetry(sessions, meters=False, spans=False)
    with pytest.raises(ConfigurationError, match="count_interval is for metrics"):
        exporters.opentelemetry(sessions, meters=False, count_interval=5)


def test_an_error_of_an_exporter_does_not_fail_a_request(exporters, caplog):
    """B-34: it is logged once."""
    sessions = Sessions(store="memory://")
    exporters.prometheus(sessions)
    instrumentation = sessions.engine.store.owner
    (recorder,) = instrumentation.recorders
    recorder.event = lambda event: 1 / 0
    recorder.call_observer = lambda *_: lambda seconds: 1 / 0
    instrumentation._use_recorders((recorder,))
    visitor = Visitor(sessions)
    for _ in range(3):
        visitor.visit(increment)
    assert visitor.visit()["n"] == 3
    assert caplog.text.count("telemetry failed") == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_an_error_of_one_exporter_does_not_hide_measurements_from_another(exporters, caplog):
    """B-34."""
    sessions = Sessions(store="memory://")
    exporters.opentelemetry(sessions)
    instrumentation = sessions.engine.store.owner
    (broken,) = instrumentation.recorders
    broken.event = lambda event: 1 / 0
    broken.call_observer = lambda *_: lambda seconds: 1 / 0
    exporters.prometheus(sessions)
    Visitor(sessions).visit(increment)
    assert exporters.sample("sojourn_creations_total") == 1
    assert exporters.calls("create") == 1
    assert caplog.text.count("telemetry failed") == 1


def test_an_installation_with_telemetry_is_collected(exporters):
    sessions = Sessions(store="memory://")
    started = [
        exporters.prometheus(sessions, count_interval=60),
        exporters.opentelemetry(sessions),
    ]
    reference = weakref.ref(sessions)
    for each in started:
        each.close()
    del sessions, each, started
    exporters._stack.pop_all()
    wait_until(lambda: gc.collect() is not None and reference() is None)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(telemetry, "find_spec", lambda name: None)
    sessions = Sessions(store="memory://")
    with pytest.raises(ConfigurationError, match=r"pip install 'sojourn\[prometheus\]'"):
        sojourn.telemetry.prometheus(sessions)
    with pytest.raises(ConfigurationError, match=r"pip install 'sojourn\[opentelemetry\]'"):
        sojourn.telemetry.opentelemetry(sessions)


def test_administrative_calls_are_measured(exporters):
    sessions = Sessions(store="memory://", history="1 day")
    exporters.prometheus(sessions)
    visitor = Visitor(sessions)
    visitor.visit(increment)
    sessions.get(visitor.visit().id)
    sessions.ping()
    sessions.purge()
    assert sessions.count() == 1
    sessions.list_page()
    sessions.list_user("ada")
    for call in ("count", "list_page", "list_by_index"):
        assert exporters.calls(call) == 1, call
    assert exporters.calls("load") == 2
    assert exporters.calls("load", "absent") == 1
    assert exporters.calls("purge") >= 1


def test_the_history_is_measured(exporters):
    sessions = Sessions(store="memory://", history="30 days")
    exporters.prometheus(sessions)
    visitor = Visitor(sessions)
    visitor.visit(lambda session: session.login("ada"))
    sessions.revoke(visitor.visit().id)
    assert len(sessions.history().sessions) == 1
    assert exporters.calls("add_history") == 1
    assert exporters.calls("list_history") == 1
    assert exporters.calls("load") == 2  # of the visit, and of the entry
