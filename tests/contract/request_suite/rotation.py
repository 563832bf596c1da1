"""Rotation, reuse of replaced tickets, and requests with a replaced ticket: laws A7, A9 and S16."""

from typing import Any

import pytest

from sojourn._core.policy import IN_FLIGHT_PERIOD
from sojourn.errors import SessionGone
from sojourn.events import Reused, Rotated
from sojourn.session import Session
from sojourn.testing import Browser, Checkpoint, HandlerResponse, ServedApp
from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.handlers import HANDLERS, two_parts
from sojourn.testing.decorators import under_loop

REQUESTS = 20


class RotationTests(AppTests):
    """Tests of replaced tickets."""

    @pytest.mark.parametrize("end", ["logout", "revoke_user", "revoke_all", "login"])
    @pytest.mark.parametrize(
        "act", ["write", "read", "stream", "refresh", "commit", "rotate", "login"]
    )
    @under_loop
    async def test_a_late_request_with_an_ended_ticket_changes_nothing(
        self, end: str, act: str
    ) -> None:
        """A7, A9, B-32: it neither writes nor sets a cookie."""
        checkpoint, raised = Checkpoint(), []

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
            await browser.get("/login")
            await browser.get("/write")
            running = browser.start("/slow")
            await checkpoint.reached()
            before = browser.cookie
            app.clock.advance(61)  # so that a read would touch the record
            await _end_ticket(app, browser, end)
            checkpoint.release()
            reply = await running.done()
            assert (reply.status, reply.all("set-cookie")) == (200, [])
            assert len(raised) == (act in ("refresh", "commit"))
            assert app.count() == (end == "login")
            async with app.another() as other:
                for place in (app, other):
                    stale = await place.browser(before).get("/who")
                    assert stale.body.startswith(b"None ")
                    if end == "login":
                        assert (await place.browser(browser.cookie).get("/read")).body == b"1"

    @under_loop
    async def test_a_login_does_not_survive_a_revocation_during_its_commit(self) -> None:
        """S16: just before the login is saved; a later login succeeds."""
        async with self.serve(HANDLERS) as app:
            known, new = app.browser(), app.browser()
            await known.get("/write")
            before = known.cookie
            for browser in (known, new):
                app.store.meanwhile("save_login", lambda: app.sessions.arevoke_user("ada"))
                assert (await browser.get("/login")).all("set-cookie") == []
                assert await app.sessions.alist_user("ada") == []
                assert browser.cookie == (before if browser is known else None)
                assert (await browser.get("/who")).body == b"None None"
            await known.get("/login")
            assert (await known.get("/who")).body == b"ada None"

    @pytest.mark.parametrize("on_reuse", ["revoke", "ignore"])
    @under_loop
    async def test_reuse_of_a_replaced_ticket_is_detected(self, on_reuse: str) -> None:
        """A9, B-40: two seconds after its successor was seen."""
        async with self.serve(HANDLERS, on_reuse=on_reuse) as app:
            reused: list[Reused] = []
            app.sessions.on(Reused, reused.append)
            browser = app.browser()
            await browser.get("/login")
            thief = app.browser(browser.cookie)
            await browser.get("/rotate")
            app.clock.advance("20 minutes")
            await browser.get("/who")
            app.clock.advance((IN_FLIGHT_PERIOD - 1) / 1000)
            assert (await app.browser(thief.cookie).get("/who")).body == b"ada None"
            app.clock.advance("1 ms")
            assert (await thief.get("/who")).body == b"None reused"
            assert len(reused) == 1
            kept = on_reuse == "ignore"
            assert (await browser.get("/who")).body == (b"ada None" if kept else b"None reused")
            assert app.count() == kept

    @under_loop
    async def test_a_late_response_does_not_replace_a_newer_ticket(self) -> None:
        """A7, A9: a request with the previous ticket ends after two more rotations."""
        checkpoint = Checkpoint()

        async def slow(session: Session[Any]) -> None:
            session.get("n")
            await checkpoint.wait()

        async with self.serve({**HANDLERS, "/slow": slow}) as app:
            browser = app.browser()
            await browser.get("/login")
            previous = app.browser(browser.cookie)
            await browser.get("/rotate")
            running = previous.start("/slow")
            await checkpoint.reached()
            await browser.get("/who")
            app.clock.advance(IN_FLIGHT_PERIOD / 1000)
            await browser.get("/rotate")
            await browser.get("/who")
            app.clock.advance(IN_FLIGHT_PERIOD / 1000)
            checkpoint.release()
            reply = await running.done()
            assert (reply.status, reply.all("set-cookie")) == (200, [])
            assert (await browser.get("/who")).body == b"ada None"

    @under_loop
    async def test_parallel_requests_rotate_once(self) -> None:
        """A9: 20 requests that are in progress at the rotation, and 20 with the old ticket."""
        checkpoint, last = Checkpoint(), Checkpoint()
        waiting: list[object] = []

        async def slow(session: Session[Any]) -> None:
            session.increment("n")
            waiting.append(session)
            if len(waiting) == REQUESTS:
                await last.wait()
            await checkpoint.wait()

        async with self.serve({**HANDLERS, "/slow": slow}, rotate_interval="10 minutes") as app:
            events: list[object] = []
            for kind in (Rotated, Reused):
                app.sessions.on(kind, events.append)
            browser = app.browser()
            await browser.get("/login")
            before = browser.cookie
            app.clock.advance("10 minutes")
            running = [browser.start("/slow") for _ in range(REQUESTS)]
            await last.reached()
            last.release()
            checkpoint.release()
            replies = [await each.done() for each in running]
            running = [browser.start("/slow") for _ in range(REQUESTS)]
            replies += [await each.done() for each in running]
            assert [reply.status for reply in replies] == 2 * REQUESTS * [200]
            assert [type(event) for event in events] == [Rotated]
            assert len({tuple(reply.all("set-cookie")) for reply in replies}) == 1
            browser.store_cookies(replies[0])
            assert browser.cookie != before
            assert (await browser.get("/read")).body == str(2 * REQUESTS).encode()
            assert (await browser.get("/who")).body == b"ada None"


async def _end_ticket(app: ServedApp, browser: Browser, end: str) -> None:
    if end == "revoke_user":
        assert await app.sessions.arevoke_user("ada") == 1
    elif end == "revoke_all":
        await app.sessions.arevoke_all()
    else:
        await browser.get(f"/{end}")


async def _act(session: Session[Any], act: str) -> None:
    match act:
        case "login":
            session.login("ada")
        case "rotate":
            session.rotate()
        case "read":
            session.get("n")
        case _:
            session.increment("n")
    if act == "refresh":
        await session.arefresh()
    elif act == "commit":
        await session.acommit()
