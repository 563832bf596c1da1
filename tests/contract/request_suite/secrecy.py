"""Tickets, verifiers and secrets are never shown: law A18."""

import logging
import traceback
from typing import Any

import pytest

from sojourn import events
from sojourn.session import Session
from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.handlers import destroy, write
from sojourn.testing.app_suite.served_app import SECRET
from sojourn.testing.decorators import under_loop
from tests.support.working_copies import copy_of


class SecrecyTests(AppTests):
    """Tests that search outputs for secrets."""

    def test_the_ticket_appears_only_in_the_cookie(self, caplog: pytest.LogCaptureFixture) -> None:
        """A18, B-46, B-48, B-49: not in a log, repr, exception, event, store or error page."""
        shown: list[str] = []
        cookies: list[str] = []
        verifiers: list[bytes] = []

        async def show(session: Session[Any]) -> None:
            verifiers.append(copy_of(session).verifier)
            shown.extend((repr(session), str(session), repr(session.labels), session.id))

        async def fail(session: Session[Any]) -> None:
            session["n"] = 1
            raise LookupError(f"with {session!r}")

        async def collect() -> None:
            handlers = {"/write": write, "/show": show, "/fail": fail, "/destroy": destroy}
            async with self.serve(handlers) as app:
                for kind in events.KINDS:
                    app.sessions.on(kind, lambda event: shown.append(repr(event)))
                browser = app.browser()
                await browser.get("/write")
                cookies.append(browser.cookie or "")
                await browser.get("/show")
                await browser.get("/write")
                for record in app.stored():
                    shown.append(record.to_bytes().decode("latin-1"))
                    shown.append(repr(await app.sessions.aget(record.session_id)))
                failed = await browser.start("/fail").done()
                shown.append(failed.body.decode())
                shown.extend(traceback.format_exception(failed.error))
                app.store.fail("load", times=1)
                unavailable = await browser.get("/write")
                shown.append(f"{unavailable.body.decode()} {unavailable.headers}")
                await browser.get("/write", headers=[("x", "y")])
                before = browser.cookie
                await browser.get("/destroy")
                assert before == cookies[0]
                browser.cookie = before
                await browser.get("/write")
                cookies.append(browser.cookie or "")
                await app.browser(str(before)[:-9] + "A" * 9).get("/write")
                shown.extend((repr(app.sessions), repr(app.sessions.config), repr(app.app)))
                shown.extend(
                    repr(part) for part in (app.sessions.web, app.sessions.engine, app.store)
                )

        with caplog.at_level(logging.DEBUG):
            under_loop(collect)()
        shown.extend(f"{record.getMessage()} {record.exc_text}" for record in caplog.records)
        text = "\n".join(shown)
        assert len(shown) > 20
        for cookie in cookies:
            value = cookie.partition("=")[2]
            assert len(value) == 66
            assert value not in text
            assert value[20:50] not in text
        for verifier in verifiers:
            assert len(verifier) == 16
            for form in (verifier.hex(), repr(verifier)[2:-1], verifier.decode("latin-1")):
                assert form not in text
        assert SECRET not in text

    def test_replaced_tickets_appear_only_in_cookies(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A18: not in a log, event, list or store; nor does the newest ticket."""
        shown: list[str] = []
        cookies: list[str] = []

        async def renew(session: Session[Any]) -> None:
            shown.append(repr(session))
            if session.user is None:
                session.login("ada")
            else:
                session.rotate()

        async def collect() -> None:
            async with self.serve({"/write": write, "/renew": renew}) as app:
                for kind in events.KINDS:
                    app.sessions.on(kind, lambda event: shown.append(repr(event)))
                browser = app.browser()
                for path in ("/write", "/renew", "/renew", "/renew"):
                    await browser.get(path)
                    cookies.append(browser.cookie or "")
                    # No other rotation happens in the grace period of the last.
                    await browser.get("/write")
                    app.clock.advance("2 seconds")
                shown.append(repr(await app.sessions.alist_user("ada")))
                shown.extend(record.to_bytes().decode("latin-1") for record in app.stored())
                await app.browser(cookies[1]).get("/renew")  # replaced twice: reuse

        with caplog.at_level(logging.DEBUG):
            under_loop(collect)()
        shown.extend(f"{record.getMessage()} {record.exc_text}" for record in caplog.records)
        text = "\n".join(shown)
        assert "Reused" in text
        assert len(set(cookies)) == 4
        assert not any(cookie.partition("=")[2][20:50] in text for cookie in cookies)
