"""Sessions that end while a request is in progress, and after it: law A7."""

from __future__ import annotations

from typing import Any

import pytest

from sojourn.errors import SessionGone
from sojourn.session import Session
from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.checkpoint import Checkpoint
from sojourn.testing.app_suite.handlers import HANDLERS, HandlerResponse, two_parts
from sojourn.testing.app_suite.served_app import Browser, ServedApp
from sojourn.testing.decorators import under_loop


class EndingTests(AppTests):
    """Tests of ended sessions."""

    @pytest.mark.parametrize("end", ["destroyed", "revoked", "expired"])
    @pytest.mark.parametrize("act", ["write", "read", "stream", "refresh", "commit", "destroy"])
    @under_loop
    async def test_a_late_request_does_not_restore_an_ended_session(
        self, end: str, act: str
    ) -> None:
        """A7, B-32, B-33, B-38: nor does its response set or clear the cookie."""
        checkpoint = Checkpoint()
        raised: list[BaseException] = []

        async def slow(session: Session[Any]) -> HandlerResponse | None:
            session.get("n")
            if act == "stream":
                return HandlerResponse(body=two_parts(checkpoint, lambda: session.increment("n")))
            await checkpoint.wait()
            try:
                await _act(session, act)
            except SessionGone as error:
                raised.append(error)
            return None

        async with self.serve({**HANDLERS, "/slow": slow}, touch_interval=60) as app:
            browser = app.browser()
            await browser.get("/write")
            running = browser.start("/slow")
            await checkpoint.reached()
            cookie = browser.cookie
            await _end(app, browser, end)
            checkpoint.release()
            reply = await running.done()
            assert reply.status == 200
            if (act, end) != ("destroy", "expired"):  # this request itself ended the session
                assert reply.all("set-cookie") == []
            if act in ("refresh", "commit"):
                assert len(raised) == 1
            assert app.count() == 0
            for place in (app, app.another()):
                assert (await place.browser(cookie).get("/read")).body == b"None"

    @under_loop
    async def test_destroy_deletes_the_cookie_and_the_record(self) -> None:
        """A7, B-35, B-36: the old cookie opens no session."""
        async with self.serve(HANDLERS) as app:
            browser = app.browser()
            await browser.get("/write")
            before = browser.cookie
            await browser.get("/destroy")
            assert browser.cookie is None
            assert app.count() == 0
            assert (await app.browser(before).get("/read")).body == b"None"

    @under_loop
    async def test_a_write_after_destroy_creates_another_session(self) -> None:
        """A7: with another ID and cookie, and without the old data."""

        async def recreate(session: Session[Any]) -> HandlerResponse:
            old = session.id
            session.destroy()
            session["fresh"] = True
            return HandlerResponse(body=f"{old != session.id} {'n' in session}".encode())

        async with self.serve({**HANDLERS, "/recreate": recreate}) as app:
            browser = app.browser()
            await browser.get("/write")
            before = browser.cookie
            assert (await browser.get("/recreate")).body == b"True False"
            assert browser.cookie not in (None, before)
            assert app.count() == 1
            assert (await app.browser(before).get("/read")).body == b"None"

    @under_loop
    async def test_clear_logs_out_and_later_writes_start_another_session(self) -> None:
        """A24, A7: ``session.clear(); session["user_id"] = ...`` as in Flask's tutorial."""

        async def clear(session: Session[Any]) -> None:
            session.clear()

        async def keep(session: Session[Any]) -> None:
            session.clear(keep_login=True)

        async def clear_and_write(session: Session[Any]) -> None:
            session.clear()
            session["n"] = 7
            session.flash("bye")

        async def clear_and_fail(session: Session[Any]) -> HandlerResponse:
            session.clear()
            return HandlerResponse(500)

        handlers = {
            **HANDLERS,
            "/clear": clear,
            "/keep": keep,
            "/clear-and-write": clear_and_write,
            "/clear-and-fail": clear_and_fail,
        }
        async with self.serve(handlers) as app:
            for path, read, count in [
                ("/clear", b"None", 0),
                ("/clear-and-write", b"7", 1),
                ("/clear-and-fail", b"None", 0),  # like a logout, also if the request fails (A10)
            ]:
                browser = app.browser()
                await browser.get("/write")
                await browser.get("/login")
                before = browser.cookie
                await browser.get(path)
                assert browser.cookie != before
                assert app.count() == count
                assert (await app.browser(before).get("/who")).body.startswith(b"None")
                assert (await browser.get("/read")).body == read
                assert (await browser.get("/who")).body.startswith(b"None")
                await browser.get("/destroy")
            browser = app.browser()
            await browser.get("/write")
            await browser.get("/login")
            cookie = browser.cookie
            await browser.get("/keep")
            assert browser.cookie == cookie
            assert (await browser.get("/who")).body.startswith(b"ada")
            assert (await browser.get("/read")).body == b"None"

    @under_loop
    async def test_clear_without_a_login_keeps_the_record_and_the_ticket(self) -> None:
        """A24, A4."""

        async def clear(session: Session[Any]) -> None:
            session.clear()

        async with self.serve({**HANDLERS, "/clear": clear}) as app:
            browser = app.browser()
            await browser.get("/write")
            cookie, [record] = browser.cookie, app.stored()
            reply = await browser.get("/clear")
            assert reply.all("set-cookie") == []
            assert (await browser.get("/read")).body == b"None"
            assert browser.cookie == cookie
            assert [stored.id for stored in app.stored()] == [record.id]


async def _act(session: Session[Any], act: str) -> None:
    if act == "destroy":
        session.destroy()
    elif act != "read":
        session.increment("n")
    if act == "refresh":
        await session.arefresh()
    elif act == "commit":
        await session.acommit()


async def _end(app: ServedApp, browser: Browser, end: str) -> None:
    if end == "destroyed":
        await browser.get("/destroy")
    elif end == "revoked":
        [record] = app.stored()
        assert await app.sessions.arevoke(record.session_id)
    else:
        app.clock.advance("31 minutes")
