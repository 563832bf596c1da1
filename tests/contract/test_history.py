"""The history of ended sessions: one entry for each way in which a session ends."""

import pytest

from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.handlers import HANDLERS
from sojourn.testing.decorators import under_loop
from tests.frameworks.apps import asgi_app, flask_app, wsgi_app

#: Calls that end a session; the reason and the actor of the entry.
ENDINGS = {
    "logout": ("destroyed", None),
    "destroy": ("destroyed", None),
    "clear": ("destroyed", None),
    "revoke": ("stolen", "support"),
    "revoke user": ("disabled", "support"),
    "credentials changed": ("credentials changed", "ada"),
    "reuse": ("reused", None),
    "expiry": ("expired: idle", None),
}


async def clear(session):
    """Clear the session, like a logout."""
    session.clear()


async def add_label(session):
    """Log in with a label."""
    session.login("ada", labels={"device": "phone"})


class HistoryTests(AppTests):
    """The option ``history`` in one kind of application."""

    @pytest.mark.parametrize("ending", ENDINGS)
    @under_loop
    async def test_each_ending_leaves_one_entry(self, ending):
        """A7: with the reason, the actor, the user and the labels; further requests add none."""
        handlers = {**HANDLERS, "/clear": clear, "/phone": add_label}
        async with self.serve(handlers, history="30 days") as app:
            browser = app.browser()
            await browser.get("/phone")
            [record] = [record for record in app.stored() if record.version]
            before = browser.cookie
            await _end(app, browser, record.session_id, ending)
            await app.browser(before).get("/read")
            [ended] = await _history(app)
            assert (ended.reason, ended.actor) == ENDINGS[ending]
            assert (ended.id, ended.user, ended.labels["device"]) == (
                record.session_id,
                "ada",
                "phone",
            )
            assert ended.created_at is not None
            assert round(ended.created_at.timestamp() * 1000) == record.created_at

    @under_loop
    async def test_an_eviction_leaves_an_entry(self):
        """A7: with the user whose other login evicted the session."""
        async with self.serve(HANDLERS, history="30 days", max_sessions=1) as app:
            await app.browser().get("/login")
            app.clock.advance("1 minute")
            await app.browser().get("/login")
            [ended] = await _history(app)
            assert (ended.reason, ended.user) == ("limit", "ada")

    @under_loop
    async def test_revoking_all_leaves_one_entry(self):
        """A7: without an ID."""
        async with self.serve(HANDLERS, history="30 days") as app:
            for _ in range(3):
                await app.browser().get("/login")
            await app.sessions.arevoke_all(reason="restart", actor="ops")
            [ended] = await _history(app)
            assert (ended.id, ended.reason, ended.actor) == ("", "restart", "ops")

    @under_loop
    async def test_logout_succeeds_if_the_history_fails(self):
        """A15: the session is destroyed, and the response of the handler is sent."""
        async with self.serve(HANDLERS, history="30 days") as app:
            browser = app.browser()
            await browser.get("/login")
            app.store.fail("add_history")
            assert (await browser.get("/logout")).status == 200
            assert browser.cookie is None
            assert app.count() == 0
            app.store.heal()
            assert await _history(app) == ()

    @under_loop
    async def test_no_entry_is_added_without_the_option(self):
        """A3: without a further store call."""
        async with self.serve(HANDLERS) as app:
            browser = app.browser()
            await browser.get("/login")
            app.take_trace()
            await browser.get("/logout")
            assert "add_history" not in app.take_trace()
            assert await _history(app) == ()


class TestASGI(HistoryTests):
    """Through an ASGI callable."""

    answers_errors = False
    build = staticmethod(asgi_app.build)


class TestWSGI(HistoryTests):
    """Through a WSGI callable."""

    protocol = "wsgi"
    answers_errors = False
    build = staticmethod(wsgi_app.build)


class TestFlask(HistoryTests):
    """Through the session protocol of a framework."""

    protocol = "wsgi"
    build = staticmethod(flask_app.build)


async def _history(app):
    page = await app.sessions.ahistory()
    assert page.unreadable == 0
    return page.sessions


async def _end(app, browser, session_id, ending):
    sessions = app.sessions
    match ending:
        case "revoke":
            assert await sessions.arevoke(session_id, reason="stolen", actor="support")
        case "revoke user":
            assert await sessions.arevoke_user("ada", reason="disabled", actor="support") == 1
        case "credentials changed":
            assert await sessions.acredentials_changed("ada", actor="ada") == 1
        case "reuse":
            await browser.get("/rotate")
            await browser.get("/read")
            app.clock.advance("3 seconds")
        case "expiry":
            app.clock.advance("31 minutes")
        case _:
            await browser.get(f"/{ending}")
