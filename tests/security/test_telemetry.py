"""Telemetry exports no ticket, user or label of a session, and no session ID unless enabled."""

import logging
import re

import pytest

from sojourn import Sessions
from sojourn.errors import SessionGone, StoreUnavailable
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore
from sojourn.testing.app_suite.served_app import SECRET
from tests.support.telemetry import Exporters
from tests.unit.telemetry.test_numbers import Visitor, increment

USER = "alice-7c1f@example.org"
ACTOR = "support-agent-bob"
REASON = "carol-reported-a-theft"
LABELS = {"browser": "Distinct-Browser/9", "address": "203.0.113.77"}
VALUE = "a-secret-value-of-a-key"


def cause_every_event(sessions, store, clock):
    """Cause each event and failure; return the texts that must not be exported, and the IDs."""
    forbidden, ids = {USER, ACTOR, REASON, VALUE, SECRET, *LABELS.values()}, set()

    def visit(visitor, change=lambda session: None):
        try:
            session = visitor.visit(change)
            ids.add(session.id)
        finally:
            if visitor.cookie:
                forbidden.add(visitor.cookie.partition("=")[2])
        return session

    def fill(session):
        session["key"] = VALUE
        session.increment("n")

    visitor, thief = Visitor(sessions, LABELS), Visitor(sessions, LABELS)
    visit(visitor, fill)
    visit(visitor, lambda session: session.login(USER, labels={"idp_sid": "idp-session-4711"}))
    forbidden.add("idp-session-4711")
    thief.cookie = visitor.cookie
    visit(visitor, lambda session: session.rotate())
    visit(visitor, increment)
    clock.advance(300)
    visit(thief)  # reused: revokes the session
    visit(visitor)
    thief.cookie = f"{thief.cookie.partition('=')[0]}=forged-{VALUE}"
    visit(thief)
    for end in (
        lambda session_id: sessions.revoke(session_id, reason=REASON, actor=ACTOR),
        lambda _: sessions.revoke_user(USER, reason=REASON, actor=ACTOR),
        lambda _: sessions.revoke_where(idp_sid="idp-session-4711", reason=REASON),
        lambda _: sessions.credentials_changed(USER),
        lambda _: sessions.revoke_all(reason=REASON, actor=ACTOR),
    ):
        visitor = Visitor(sessions, LABELS)
        visit(visitor, lambda session: session.login(USER, labels={"idp_sid": "idp-session-4711"}))
        end(visit(visitor).id)
        visit(visitor)
    visitor = Visitor(sessions, LABELS)
    visit(visitor, fill)
    for verb in ("load", "save"):
        store.fail(verb, error=StoreUnavailable(f"no answer of redis://user:{VALUE}@host"))
        with pytest.raises(StoreUnavailable):
            visit(visitor, increment)
        store.heal()

    def ended(session):
        sessions.revoke(session.id)
        session["key"] = VALUE
        session.commit()

    with pytest.raises(SessionGone):
        visit(visitor, ended)
    visitor = Visitor(sessions, LABELS)
    visit(visitor, fill)
    visit(visitor, fill)
    clock.advance(10**7)
    visit(visitor)
    sessions.purge()
    return forbidden, ids


def exported(exporters):
    """Return every exported text."""
    return "\n".join(
        [exporters.scrape(), *exporters.all_spans(), *map(str, exporters.metrics().values())]
    )


def run_everything(exporters, caplog, **options):
    caplog.set_level(logging.DEBUG, "sojourn")
    store, clock = FaultyStore(MemoryStore()), FakeClock()
    sessions = Sessions(store=store, secret=SECRET, clock=clock)
    exporters.prometheus(sessions)
    exporters.opentelemetry(sessions, **options)
    forbidden, ids = cause_every_event(sessions, store, clock)
    return forbidden, ids, exported(exporters), caplog.text


def test_no_export_has_a_ticket_a_user_a_label_or_a_session_id(caplog):
    """A18: in any exported byte, also in error messages."""
    with Exporters() as exporters:
        forbidden, ids, text, logged = run_everything(exporters, caplog)
    assert len(ids) > 8
    assert len(forbidden) > 12
    for name in ("reuses", "rejections", "revocations", "expirations", "store_failures", "logins"):
        assert re.search(rf"^sojourn_{name}_total{{.*}} [1-9]", text, re.MULTILINE), name
    assert '"commit session"' in text
    for each in forbidden:
        assert each not in text, each
        if each not in {REASON, ACTOR}:
            assert each not in logged, each
    for each in ids:
        assert each not in text, each


def test_only_spans_have_the_session_id_and_only_if_enabled(caplog):
    with Exporters() as exporters:
        forbidden, ids, text, _ = run_everything(exporters, caplog, include_session_id=True)
        spans = "\n".join(exporters.all_spans())
        assert any(each in spans for each in ids)
        metrics = "\n".join([exporters.scrape(), *map(str, exporters.metrics().values())])
        for each in ids:
            assert each not in metrics
    for each in forbidden:
        assert each not in text, each


def test_reasons_of_applications_do_not_become_labels():
    """A thousand reasons create no further time series."""
    with Exporters() as exporters:
        sessions = Sessions(store="memory://")
        exporters.prometheus(sessions)
        visitor = Visitor(sessions)
        for number in range(1000):
            session = visitor.visit(increment)
            sessions.revoke(session.id, reason=f"reason {number}")
            visitor.cookie = None
        assert exporters.sample("sojourn_revocations_total", reason="other") == 1000
        series = [
            line
            for line in exporters.scrape().splitlines()
            if line.startswith("sojourn_revocations_total{")
        ]
        assert len(series) == 1
