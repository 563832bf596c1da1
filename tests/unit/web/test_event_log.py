"""The log lines about security events and outages: exact texts, fields, counts and limits."""

import json
import logging
import os
import sys
import threading

import pytest

from sojourn import Sessions
from sojourn.errors import StoreUnavailable
from sojourn.events import (
    Authenticated,
    Created,
    Dispatcher,
    Expired,
    Read,
    Rejected,
    Reused,
    Revoked,
    StoreFailed,
    Touched,
    Written,
)
from sojourn.stores.memory import MemoryStore
from sojourn.testing.faults import FaultyStore
from sojourn.web.event_log import EventLog, RateLimit, escape

SECRET = "K7d-event-log-tests-Wq3nYx5Rb"
#: A text that no path of the repository contains.
ACTOR = "actor-5f81c2"
ID = "0123456789abcdef" * 2
#: Events of every request; an installation must not register listeners for them.
ORDINARY = (Read, Written, Created, Touched)


class Clock:
    """Seconds that a test sets."""

    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def dispatcher():
    return Dispatcher()


@pytest.fixture
def log(dispatcher, clock, caplog):
    caplog.set_level(logging.DEBUG, "sojourn")
    return EventLog(dispatcher, clock=clock)


def lines(caplog):
    return [(record.levelname, record.getMessage()) for record in caplog.records]


# Security events


@pytest.mark.parametrize(
    ("event", "level", "line"),
    [
        (
            Authenticated(ID, "grace", ("password", "totp")),
            "INFO",
            f"session {ID}: a user logged in by password, totp",
        ),
        (
            Authenticated(ID, "grace", ()),
            "INFO",
            f"session {ID}: a user logged in by an unstated method",
        ),
        (Revoked(ID, "destroyed"), "INFO", f"session {ID} was ended by its visitor"),
        (Revoked(ID, "logout"), "INFO", f"session {ID} was ended by its visitor"),
        (Revoked(ID, "logout", ACTOR), "INFO", f"session {ID} was revoked: logout"),
        (
            Revoked(ID, "limit"),
            "INFO",
            f"session {ID} was revoked, because its user has more than max_sessions",
        ),
        (
            Revoked(ID, "account closed", "admin@example.com"),
            "INFO",
            f"session {ID} was revoked: account closed",
        ),
        (
            Revoked("", "stolen secret", ACTOR, 1_790_000_000_123),
            "INFO",
            (
                "every session that was created before 2026-09-21T14:13:20.123+00:00 was revoked: "
                "stolen secret"
            ),
        ),
        (
            Revoked("", "far", None, 10**18),
            "INFO",
            "every session that was created before 9999-12-31T23:59:59.999+00:00 was revoked: far",
        ),
        (Expired(ID, "idle"), "INFO", f"session {ID} has expired: idle"),
        (
            Reused(ID),
            "WARNING",
            (
                f"session {ID}: a former ticket was used again, which indicates that it was "
                "stolen; occurrences since the last line: 1"
            ),
        ),
        (
            Rejected("", "forged"),
            "WARNING",
            (
                "1 ticket was sealed with a secret that is not in the key ring, or forged. After a "
                "change of the secret, keep the former one: secret=[new, former]"
            ),
        ),
        (Rejected("", "malformed"), "INFO", "1 ticket was rejected: malformed"),
        (
            Rejected(ID, "replaced"),
            "INFO",
            f"1 ticket was rejected: replaced; the latest is of session {ID}",
        ),
        (
            Rejected(ID, "unreadable: format 9"),
            "WARNING",
            (
                "1 ticket was rejected, because the record cannot be read; the latest is session "
                f"{ID}. It is damaged, of a newer release, or encrypted with another secret"
            ),
        ),
    ],
)
@pytest.mark.usefixtures("log")
def test_the_line_of_an_event(event, level, line, dispatcher, caplog):
    """ASVS 16.3, 16.2.1: it names the session ID, not the user or the actor."""
    dispatcher.emit(event)
    assert lines(caplog) == [(level, line)]
    [record] = caplog.records
    assert record.sojourn_event == type(event).__name__
    assert record.sojourn_session == (event.session_id or None)
    for text in ("grace", "admin@example.com", ACTOR):
        assert text not in json.dumps(record.__dict__, default=str)


@pytest.mark.usefixtures("log")
def test_fields_of_a_log_record_factory_are_not_replaced(dispatcher, caplog):
    """ASVS 16.2.1: an application may add a field ``session_id`` to each log record."""
    plain = logging.getLogRecordFactory()

    def factory(*args, **kwargs):
        record = plain(*args, **kwargs)
        record.session_id = record.event = record.reason = "of the application"
        return record

    logging.setLogRecordFactory(factory)
    try:
        dispatcher.emit(Revoked(ID, "stolen"))
    finally:
        logging.setLogRecordFactory(plain)
    [record] = caplog.records
    assert (record.session_id, record.sojourn_session) == ("of the application", ID)
    assert record.sojourn_reason == "stolen"


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        (Authenticated(ID, "ada", ("password", "totp")), {"methods": ["password", "totp"]}),
        (Revoked(ID, "stolen"), {"reason": "stolen"}),
        (Revoked(ID, "logout"), {"reason": "logout"}),
        (Revoked(ID, "limit"), {"reason": "limit"}),
        (Revoked("", "breach"), {"reason": "breach"}),
        (Expired(ID, "idle"), {"reason": "idle"}),
        (Reused(ID), {"count": 1}),
        (Rejected(ID, "replaced"), {"reason": "replaced", "count": 1}),
        (Rejected("", "forged"), {"reason": "forged", "count": 1}),
        (Rejected(ID, "unreadable: format 9"), {"reason": "unreadable", "count": 1}),
    ],
)
@pytest.mark.usefixtures("log")
def test_the_fields_of_a_line(event, fields, dispatcher, caplog):
    """ASVS 16.2.1: for formatters, such as those that write JSON."""
    dispatcher.emit(event)
    [record] = caplog.records
    common = {"event": type(event).__name__, "session": event.session_id or None}
    expected = {f"sojourn_{name}": value for name, value in {**common, **fields}.items()}
    found = {name: value for name, value in vars(record).items() if name.startswith("sojourn_")}
    assert found == expected


@pytest.mark.usefixtures("log")
def test_the_fields_of_an_outage(dispatcher, clock, caplog):
    """ASVS 16.2.1."""
    dispatcher.emit(StoreFailed(ID, "load", "down"))
    clock.now += 7.04
    dispatcher.emit(Read(ID, 2))
    failed, recovered = [
        {name: value for name, value in vars(record).items() if name.startswith("sojourn_")}
        for record in caplog.records
    ]
    assert failed == {
        "sojourn_event": "StoreFailed",
        "sojourn_operation": "load",
        "sojourn_error": "down",
    }
    assert recovered == {
        "sojourn_event": "StoreRecovered",
        "sojourn_seconds": 7.0,
        "sojourn_count": 1,
        "sojourn_operations": {"load": 1},
    }


HOSTILE = "a\r\n2026-01-01 CRITICAL root: forged\x1b[31m\u2028\u202e\ud800"


@pytest.mark.parametrize(
    "event",
    [
        Revoked(ID, HOSTILE),
        Revoked("", HOSTILE),
        Rejected(ID, HOSTILE),
        Authenticated(ID, "ada", (HOSTILE,)),
        StoreFailed(ID, "load", HOSTILE),
    ],
)
@pytest.mark.usefixtures("log")
def test_newlines_in_external_text_are_escaped(event, dispatcher, caplog):
    """ASVS 16.4.1."""
    dispatcher.emit(event)
    [message] = caplog.messages
    assert message.isprintable()
    assert r"a\r\n2026-01-01" in message
    message.encode()


@pytest.mark.usefixtures("log")
def test_a_password_in_the_url_of_an_error_is_masked(dispatcher, caplog):
    """A18: third-party drivers and stores may quote the URL in their errors."""
    error = "cannot reach redis://app:p@ssw0rd-1@host:6379/0?password=p4ssword-2"
    dispatcher.emit(StoreFailed("", "load", error))
    [record] = caplog.records
    assert record.sojourn_error in record.getMessage()
    assert record.sojourn_error == "cannot reach redis://app:***@host:6379/0?password=***"


def test_external_text_is_truncated():
    assert escape("é\\n") == "é\\n"
    assert len(escape("x" * 10_000)) == 501
    assert escape("x" * 500) == "x" * 500
    assert escape("\xe9 \u2603\n\x1b") == "\xe9 \u2603\\n\\x1b"


@pytest.mark.usefixtures("log")
def test_disabled_level_formats_nothing(dispatcher, caplog, monkeypatch):
    """The level is set with ``logging`` alone."""

    def fail(_):
        raise AssertionError("formatted")

    monkeypatch.setattr("sojourn.web.event_log.escape", fail)
    caplog.set_level(logging.ERROR, "sojourn")
    for event in (
        Authenticated(ID, "ada", ("password",)),
        Revoked(ID, "a"),
        Expired(ID, "idle"),
        Rejected(ID, "replaced"),
        Rejected("", "forged"),
        StoreFailed("", "load", "down"),
    ):
        dispatcher.emit(event)
    assert caplog.records == []


@pytest.mark.usefixtures("log")
def test_warnings_are_logged_at_level_warning(dispatcher, caplog):
    """ASVS 16.3: the usual level in production."""
    caplog.set_level(logging.WARNING, "sojourn")
    for reason in ("replaced", "forged", "unreadable: format 9"):
        dispatcher.emit(Rejected(ID, reason))
    dispatcher.emit(Reused(ID))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3


def test_the_library_configures_no_handler():
    Sessions(store="memory://").close()
    assert logging.getLogger("sojourn").handlers == []
    assert logging.getLogger("sojourn").propagate


# Rate limits


@pytest.mark.usefixtures("log")
def test_rejected_tickets_are_logged_once_a_minute_with_their_count(dispatcher, clock, caplog):
    """ASVS 16.3.3: many forged tickets must not flood the log."""
    for _ in range(500):
        dispatcher.emit(Rejected("", "forged"))
        clock.now += 0.1
    assert len(caplog.messages) == 1
    clock.now += 60
    dispatcher.emit(Rejected("", "forged"))
    assert len(caplog.messages) == 2
    assert caplog.messages[1].startswith("500 tickets were sealed with a secret that is not in")
    assert caplog.records[1].sojourn_count == 500


@pytest.mark.usefixtures("log")
def test_each_reason_has_its_own_rate_limit(dispatcher, clock, caplog):
    for _ in range(3):
        dispatcher.emit(Rejected("", "forged"))
    dispatcher.emit(Rejected(ID, "replaced"))
    assert [record.sojourn_reason for record in caplog.records] == ["forged", "replaced"]
    clock.now += 61
    dispatcher.emit(Rejected("", "malformed"))  # also logs the due counts of other reasons
    assert [record.getMessage()[:9] for record in caplog.records[2:]] == ["2 tickets", "1 ticket "]


def test_pending_count_is_logged_on_close(log, dispatcher, caplog):
    for _ in range(3):
        dispatcher.emit(Rejected("", "malformed"))
    log.close()
    log.close()
    assert caplog.messages == [
        "1 ticket was rejected: malformed",
        "2 tickets were rejected: malformed",
    ]


@pytest.mark.usefixtures("log")
def test_delayed_line_about_unreadable_records_names_no_session(dispatcher, clock, caplog):
    for _ in range(2):
        dispatcher.emit(Rejected(ID, "unreadable: format 9"))
    clock.now += 61
    dispatcher.emit(Rejected("", "malformed"))
    assert "the latest is session unknown." in caplog.messages[1]
    assert caplog.records[1].sojourn_session is None


def test_subject_of_a_logged_count_waits_for_its_interval(clock):
    limit = RateLimit(clock)
    assert limit.admit("a") == 1
    assert limit.admit("a") == 0
    assert limit.pop_due() == []
    clock.now += 60
    assert limit.pop_due() == [("a", 1)]
    clock.now += 59
    assert limit.admit("a") == 0
    clock.now += 1
    assert limit.admit("a") == 2


@pytest.mark.usefixtures("log")
def test_repeated_reuse_of_a_ticket_is_logged_once_a_minute(dispatcher, caplog):
    """With an ``on_reuse`` that does not revoke the session."""
    for _ in range(100):
        dispatcher.emit(Reused(ID))
    dispatcher.emit(Reused(ID[::-1]))
    assert len(caplog.records) == 2


def test_number_of_rate_limited_subjects_is_bounded(clock):
    limit = RateLimit(clock)
    lines = sum(bool(limit.admit(f"https://{number}.example")) for number in range(10_000))
    assert lines == 101  # one hundred, and one for all others
    clock.now += 61
    assert limit.admit("https://later.example") == 1
    assert limit.admit("https://9999.example") == 1
    assert limit.pop_due(everything=True) == [("", 9_899)]


def test_threads_count_every_event(clock):
    limit, admitted = RateLimit(clock), []

    def work():
        admitted.extend(limit.admit("forged") for _ in range(2_000))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # switch threads within a call
    try:
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert sum(admitted) == 1
    clock.now += 60
    assert limit.admit("forged") == 4_000


# Outages


def test_outage_is_logged_as_two_lines(dispatcher, log, clock, caplog):
    """A15: at the first failure, and at the first success with count, operations and duration."""
    for number in range(1_000):
        dispatcher.emit(StoreFailed(ID, "save" if number % 4 else "load", "down"))
        clock.now += 0.042
    dispatcher.emit(Written(ID, 2))
    clock.now += 5
    dispatcher.emit(Read(ID, 2))
    assert lines(caplog) == [
        (
            "WARNING",
            "the session store failed (load): down. Further failures are counted until it answers",
        ),
        (
            "WARNING",
            (
                "the session store answers again after 42.0 seconds; failed calls: 1000 "
                "(load 250, save 750)"
            ),
        ),
    ]
    failed, recovered = caplog.records
    assert (failed.sojourn_event, failed.sojourn_operation) == ("StoreFailed", "load")
    assert recovered.sojourn_operations == {"load": 250, "save": 750}
    assert (recovered.sojourn_count, recovered.sojourn_seconds) == (1000, 42.0)
    assert ID not in caplog.text
    assert log.level(StoreUnavailable("down")) == logging.ERROR


@pytest.mark.usefixtures("log")
def test_listeners_of_every_request_exist_during_an_outage_only(dispatcher, clock):
    """An event without a listener is not created, so normal operation costs nothing."""
    assert not set(ORDINARY) & set(dispatcher.listeners)
    dispatcher.emit(StoreFailed("", "load", "down"))
    assert set(ORDINARY) <= set(dispatcher.listeners)
    clock.now += 6
    dispatcher.emit(Read(ID, 1))
    assert not set(ORDINARY) & set(dispatcher.listeners)


def test_installation_registers_no_listener_of_every_request():
    sessions = Sessions(store=MemoryStore(), secret=SECRET)
    assert not {Read, Written, Touched} & set(sessions.dispatcher.listeners)


@pytest.mark.usefixtures("log")
def test_intermittent_failures_are_one_outage(dispatcher, clock, caplog):
    for _ in range(100):
        dispatcher.emit(StoreFailed("", "load", "slow"))
        clock.now += 2
        dispatcher.emit(Read(ID, 1))
    assert len(caplog.records) == 1
    clock.now += 5
    dispatcher.emit(Read(ID, 1))
    assert caplog.messages[1].startswith("the session store answers again after 200.0 seconds")


@pytest.mark.usefixtures("log")
def test_successful_load_does_not_end_an_outage_of_writes(dispatcher, clock, caplog):
    """A full store still serves loads; the outage ends with the first successful write."""
    dispatcher.emit(StoreFailed("", "save", "out of memory"))
    clock.now += 60
    dispatcher.emit(Read(ID, 1))
    assert len(caplog.records) == 1
    dispatcher.emit(Touched(ID))
    assert caplog.messages[1].endswith("after 60.0 seconds; failed calls: 1 (save 1)")


@pytest.mark.parametrize(
    "event",
    [Rejected(ID, "unknown"), Revoked(ID, "a"), Expired(ID, "idle"), Authenticated(ID, "a", ())],
)
@pytest.mark.usefixtures("log")
def test_event_that_implies_a_store_call_ends_an_outage(event, dispatcher, clock, caplog):
    dispatcher.emit(StoreFailed("", "load", "down"))
    clock.now += 5
    dispatcher.emit(event)
    assert "the session store answers again after 5.0 seconds" in caplog.text


@pytest.mark.parametrize(
    ("event", "ends"),
    [
        (Written(ID, 2), True),
        (Authenticated(ID, "ada", ()), True),
        (Revoked(ID, "stolen"), True),
        (Expired(ID, "idle"), True),
        (Read(ID, 2), False),
        (Rejected(ID, "replaced"), False),
        (None, False),
    ],
)
def test_successful_write_ends_an_outage_of_writes(event, ends, *, dispatcher, log, clock, caplog):
    """A15: a full store still serves loads."""
    dispatcher.emit(StoreFailed(ID, "save", "full"))
    clock.now += 10.04
    if event is None:
        log.store_answered()
    else:
        dispatcher.emit(event)
    lines_of_end = [text for text in caplog.messages if "answers again after 10.0 s" in text]
    assert len(lines_of_end) == ends


def test_a_forged_ticket_does_not_end_an_outage(dispatcher, log, clock, caplog):
    """A8: the store was not called."""
    dispatcher.emit(StoreFailed("", "load", "down"))
    clock.now += 5
    dispatcher.emit(Rejected("", "forged"))
    assert "answers again" not in caplog.text
    log.store_answered()
    assert "answers again" in caplog.text


def test_request_is_logged_at_debug_during_a_logged_outage(dispatcher, log):
    """A15: but each error type of the application's functions is logged with its traceback."""
    failed, broken = StoreUnavailable("down"), StoreUnavailable("raised")
    broken.application_error = KeyError("column")
    assert log.level(failed) == logging.ERROR
    dispatcher.emit(StoreFailed("", "load", "down"))
    assert log.level(failed) == logging.DEBUG
    assert [log.level(broken) for _ in range(3)] == [logging.ERROR, logging.DEBUG, logging.DEBUG]
    broken.application_error = OSError("disk")
    assert log.level(broken) == logging.ERROR


def test_outage_across_threads_is_logged_once(dispatcher, clock, caplog, log):
    barrier = threading.Barrier(2)

    def work(number):
        for round_ in range(50):
            barrier.wait()
            for _ in range(20):
                dispatcher.emit(StoreFailed("", "load", "down"))
            if barrier.wait() == 0:
                clock.now += 5
            barrier.wait()
            dispatcher.emit(Read(ID, round_))
            barrier.wait()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(caplog.messages) == 100
    assert {message.rpartition(": ")[2] for message in caplog.messages[1::2]} == {"40 (load 40)"}
    assert Read not in dispatcher.listeners
    assert log.level(StoreUnavailable("down")) == logging.ERROR


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_process_has_no_outage_and_no_held_lock(dispatcher, log, clock, monkeypatch):
    """A lock held by a thread of the parent would never be released in the child."""
    dispatcher.emit(StoreFailed("", "load", "down"))
    dispatcher.emit(Rejected("", "forged"))
    parent = os.getpid()
    with log._lock, log._rejections._lock:
        monkeypatch.setattr("os.getpid", lambda: parent + 1)
        dispatcher.emit(Read(ID, 1))  # would block on the lock
        dispatcher.emit(Rejected("", "forged"))
    assert Read not in dispatcher.listeners
    assert log.level(StoreUnavailable("down")) == logging.ERROR


def test_forked_process_does_not_report_the_counts_of_its_parent(clock, monkeypatch):
    """The parent reports them."""
    limit = RateLimit(clock)
    assert [limit.admit("a"), limit.admit("a")] == [1, 0]
    parent = os.getpid()
    monkeypatch.setattr("os.getpid", lambda: parent + 1)
    assert limit.pop_due(everything=True) == []


# Together


def test_log_of_a_session_lifetime_with_an_outage(caplog, monkeypatch):
    """A15, A18, ASVS 16.2.5: of a complete installation; no line has a secret, user or label."""
    monkeypatch.setattr("sojourn.web.event_log._QUIET_TIME", 0)
    caplog.set_level(logging.DEBUG, "sojourn")
    store = FaultyStore(MemoryStore())
    sessions = Sessions(store=store, secret=SECRET)
    visitor = {"browser": "Firefox-label", "address": "192.0.2.77"}
    with sessions.open(labels=visitor) as visit:
        visit.session.login("ada@example.com", methods=["password"])
        session_id = visit.session.id
    [(_, header)] = [pair for pair in visit.response_headers() if pair[0].lower() == "set-cookie"]
    cookie = header.split(";")[0]
    store.fail("load")
    for _ in range(3):
        with pytest.raises(StoreUnavailable), sessions.open(cookies=cookie):
            pass
    store.heal()
    with sessions.open(cookies=cookie) as visit:
        assert visit.session.user == "ada@example.com"
    sessions.revoke(session_id, reason="stolen phone", actor="support@example.com")
    with sessions.open(cookies=cookie):
        pass
    with sessions.open(cookies=cookie.partition("=")[0] + "=" + "A" * 66):
        pass
    sessions.close()
    texts = [message.replace(session_id, "ID") for message in caplog.messages]
    assert texts[0] == "session ID: a user logged in by password"
    assert texts[1].startswith("the session store failed (load): ")
    assert texts[2].endswith("failed calls: 3 (load 3)")
    assert texts[3:5] == [
        "session ID was revoked: stolen phone",
        "1 ticket was rejected: revoked; the latest is of session ID",
    ]
    assert texts[5].startswith("1 ticket was sealed with a secret that is not in the key ring")
    text = caplog.text + json.dumps([record.__dict__ for record in caplog.records], default=str)
    for secret in (SECRET, cookie.partition("=")[2], "ada@", "support@", *visitor.values()):
        assert secret not in text
