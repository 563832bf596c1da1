"""The laws of requests about users: login, rotation, logout, revoking (A9, and A7 to A17 with it).

What lives here: what a ticket is worth before, while and after it is replaced, and what a session
has ended for. What must not: sessions without users (``appends.py``) and every order of two calls,
which sojourn's own tests go through.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

import pytest

from sojourn._core.login import GRACE_PERIOD, IN_FLIGHT_PERIOD
from sojourn.errors import ResponseStarted, SessionGone
from sojourn.events import Reused, Rotated
from sojourn.session import Session
from sojourn.testing.appkit import AppKit
from sojourn.testing.applaws import look, read, write
from sojourn.testing.running import under_loop
from sojourn.testing.site import Browser, Halt, Handler, Site, Status

_MANY: Final = 20


async def login(session: Session[Any]) -> None:
    """Log in."""
    session.login("ada", methods=("password",))


async def rotate(session: Session[Any]) -> None:
    """Ask for a new ticket."""
    session.rotate()


async def logout(session: Session[Any]) -> None:
    """Log out."""
    session.logout()


async def ask(session: Session[Any]) -> Status:
    """Status with the user, and with why the former session has ended."""
    return Status(body=f"{session.user} {session.ended_reason}".encode())


HANDLERS: Final[dict[str, Handler]] = {
    "/write": write,
    "/read": read,
    "/look": look,
    "/login": login,
    "/rotate": rotate,
    "/logout": logout,
    "/ask": ask,
}


class LifeLaws(AppKit):
    """Users, and the tickets that come and go with them."""

    # Login

    @under_loop
    async def test_a_login_replaces_the_ticket_and_keeps_the_data(self) -> None:
        """A9, ASVS 7.2.4, B-25: the former is dead at once, for everybody and in every process."""
        async with self.site(HANDLERS) as site:
            browser = site.browser()
            first = (await browser.get("/write")).all("set-cookie")
            thief = site.browser(browser.cookie)
            assert (await thief.get("/read")).body == b"1"
            second = (await browser.get("/login")).all("set-cookie")
            assert [_attributes(each) for each in second] == [_attributes(first[0])]
            assert browser.cookie not in (None, thief.cookie)
            async with site.another() as elsewhere:
                for place in (site, elsewhere):
                    assert (await place.browser(thief.cookie).get("/ask")).body == b"None None"
                    at = place.browser(browser.cookie)
                    assert (await at.get("/read")).body == b"1"
                    assert (await at.get("/ask")).body == b"ada None"

    @under_loop
    async def test_logging_in_again_replaces_the_ticket_again(self) -> None:
        """A9, ASVS 7.2.4: also for the same user."""
        async with self.site(HANDLERS) as site:
            browser = site.browser()
            cookies = []
            for _ in range(3):
                await browser.get("/login")
                cookies.append(browser.cookie)
            assert len(set(cookies)) == 3
            for old in cookies[:2]:
                assert (await site.browser(old).get("/ask")).body == b"None None"
            assert (await browser.get("/ask")).body == b"ada None"

    # Nothing late

    @pytest.mark.parametrize("end", ["logout", "revoke_user", "revoke_all", "login"])
    @pytest.mark.parametrize(
        "late", ["write", "read", "stream", "refresh", "commit", "rotate", "login"]
    )
    def test_nothing_late_passes_the_end_of_a_ticket(self, end: str, late: str) -> None:
        """A7, A9, B-32: what was under way with it writes nothing and sends no cookie."""

        async def law() -> None:
            halt, raised = Halt(), []

            async def slow(session: Session[Any]) -> Status | None:
                session.get("n")
                if late == "stream":
                    return Status(body=_write_late(session, halt))
                await halt.here()
                try:
                    await _act_late(session, late)
                except SessionGone as error:
                    raised.append(error)
                return None

            async with self.site({**HANDLERS, "/slow": slow}, touch_interval=60) as site:
                browser = site.browser()
                await browser.get("/login")
                await browser.get("/write")
                running = browser.start("/slow")
                await halt.reached()
                before = browser.cookie
                site.clock.advance(61)  # so that even reading has something to write
                await _end_ticket(site, browser, end)
                halt.go()
                reply = await running.done()
                assert (reply.status, reply.all("set-cookie")) == (200, [])
                assert len(raised) == (late in ("refresh", "commit"))
                assert site.count() == (end == "login")
                async with site.another() as elsewhere:
                    for place in (site, elsewhere):
                        stale = await place.browser(before).get("/ask")
                        assert stale.body.startswith(b"None ")
                        if end == "login":
                            assert (await place.browser(browser.cookie).get("/read")).body == b"1"

        under_loop(law)()

    @under_loop
    async def test_a_login_that_is_committing_does_not_outlive_its_users_end(self) -> None:
        """S16: in the very moment before it is written; a later one is good."""
        async with self.site(HANDLERS) as site:
            known, new = site.browser(), site.browser()
            await known.get("/write")
            before = known.cookie
            for browser in (known, new):
                site.store.meanwhile("save_login", lambda: site.sessions.arevoke_user("ada"))
                assert (await browser.get("/login")).all("set-cookie") == []
                assert await site.sessions.alist_user("ada") == []
                assert browser.cookie == (before if browser is known else None)
                assert (await browser.get("/ask")).body == b"None None"
            await known.get("/login")
            assert (await known.get("/ask")).body == b"ada None"

    @under_loop
    async def test_who_was_logged_out_by_others_learns_why(self) -> None:
        """ASVS 7.4.3, B-41: once the user is revoked, nobody is in, and the reason is told."""
        async with self.site(HANDLERS) as site:
            browsers = [site.browser() for _ in range(3)]
            for browser in browsers:
                await browser.get("/login")
            assert await site.sessions.arevoke_user("ada", reason="disabled") == 3
            for browser in browsers:
                assert (await browser.get("/ask")).body == b"None disabled"

    # Rotation

    @under_loop
    async def test_a_rotation_keeps_the_former_ticket_for_a_moment(self) -> None:
        """A9: until the grace is over; whoever brings it gets the new one, the same, again."""
        async with self.site(HANDLERS) as site:
            browser = site.browser()
            await browser.get("/write")
            before = browser.cookie
            lost = await browser.start("/rotate").done()
            site.clock.advance((GRACE_PERIOD - 1) / 1000)
            async with site.another() as elsewhere:
                for place in (site, elsewhere):
                    reply = await place.browser(before).get("/read")
                    assert reply.body == b"1"
                    assert reply.all("set-cookie") == lost.all("set-cookie")
            browser.take(lost)
            assert browser.cookie != before
            assert (await browser.get("/read")).body == b"1"

    @pytest.mark.parametrize("seen", [False, True], ids=["unseen", "seen"])
    @pytest.mark.parametrize("on_reuse", ["revoke", "ignore"])
    def test_a_replaced_ticket_that_comes_again_is_the_sign_of_theft(
        self,
        on_reuse: str,
        seen: bool,  # noqa: FBT001
    ) -> None:
        """A9, B-40: after the grace, or two seconds after the new one was seen."""

        async def law() -> None:
            async with self.site(HANDLERS, on_reuse=on_reuse) as site:
                reused: list[Reused] = []
                site.sessions.on(Reused, reused.append)
                browser = site.browser()
                await browser.get("/login")
                thief = site.browser(browser.cookie)
                await browser.get("/rotate")
                if seen:
                    await browser.get("/ask")
                site.clock.advance(((IN_FLIGHT_PERIOD if seen else GRACE_PERIOD) - 1) / 1000)
                straggler = await site.browser(thief.cookie).get("/ask")
                assert straggler.body == b"ada None"
                site.clock.advance("1 ms")
                assert (await thief.get("/ask")).body == b"None reused"
                assert len(reused) == 1
                kept = on_reuse == "ignore"
                expected = b"ada None" if kept else b"None reused"
                assert (await browser.get("/ask")).body == expected
                assert site.count() == kept

        under_loop(law)()

    @under_loop
    async def test_many_requests_at_once_rotate_once_and_log_nobody_out(self) -> None:
        """A9: twenty that are under way as it happens, and as many that left before and arrive."""
        halt, last = Halt(), Halt()
        here: list[object] = []

        async def slow(session: Session[Any]) -> None:
            session.increment("n")
            here.append(session)
            if len(here) == _MANY:
                await last.here()
            await halt.here()

        handlers = {**HANDLERS, "/slow": slow}
        async with self.site(handlers, rotate_interval="10 minutes") as site:
            events: list[object] = []
            for kind in (Rotated, Reused):
                site.sessions.on(kind, events.append)
            browser = site.browser()
            await browser.get("/login")
            before = browser.cookie
            site.clock.advance("10 minutes")
            running = [browser.start("/slow") for _ in range(_MANY)]
            await last.reached()
            last.go()
            halt.go()
            replies = [await each.done() for each in running]
            running = [browser.start("/slow") for _ in range(_MANY)]
            replies += [await each.done() for each in running]
            assert [reply.status for reply in replies] == 2 * _MANY * [200]
            assert [type(event) for event in events] == [Rotated]
            assert len({tuple(reply.all("set-cookie")) for reply in replies}) == 1
            browser.take(replies[0])
            assert browser.cookie != before
            assert (await browser.get("/read")).body == str(2 * _MANY).encode()
            assert (await browser.get("/ask")).body == b"ada None"

    # Beside other laws

    @pytest.mark.parametrize("how", ["500", "exception"])
    def test_a_failing_request_rotates_but_logs_nobody_in(self, how: str) -> None:
        """A10: a ticket that was to be replaced is; who fails after a login let nobody in."""

        def failing(act: Handler) -> Handler:
            async def handler(session: Session[Any]) -> Status:
                session.increment("n")
                await act(session)
                if how == "exception":
                    raise LookupError("as planned")
                return Status(500)

            return handler

        async def law() -> None:
            handlers = {**HANDLERS, "/in": failing(login), "/turn": failing(rotate)}
            async with self.site(handlers) as site:
                browser = site.browser()
                await browser.get("/write")
                before = browser.cookie
                browser.take(await browser.start("/in").done())
                assert browser.cookie == before
                assert (await browser.get("/ask")).body == b"None None"
                browser.take(await browser.start("/turn").done())
                assert site.sessions.usage().rotations == 1
                assert (await browser.get("/read")).body == b"1"  # perhaps with the former ticket
                assert browser.cookie != before
                assert (await browser.get("/read")).body == b"1"

        under_loop(law)()

    @under_loop
    async def test_no_ticket_is_replaced_after_the_first_byte(self) -> None:
        """A11: its cookie could not be sent any more; the stream hears of it at once."""
        raised: list[object] = []

        async def late(session: Session[Any]) -> AsyncIterator[bytes]:
            yield b"first"
            for act in (partial(session.login, "eve"), session.rotate):
                try:
                    act()
                except ResponseStarted as error:
                    raised.append(error)
            yield b"last"

        async def stream(session: Session[Any]) -> Status:
            return Status(body=late(session))

        async with self.site({**HANDLERS, "/stream": stream}) as site:
            browser = site.browser()
            await browser.get("/login")
            for visitor in (browser, site.browser()):
                assert (await visitor.get("/stream")).body == b"firstlast"
            assert len(raised) == 4
            assert (await browser.get("/ask")).body == b"ada None"
            assert site.count() == 1

    @under_loop
    async def test_a_page_of_a_user_is_stored_nowhere(self) -> None:
        """A13, B-7, ASVS 14.3.2: no-store for who is logged in, private for anybody else."""
        async with self.site(HANDLERS) as site:
            browser = site.browser()
            assert (await browser.get("/look")).get("cache-control") == "private"
            await browser.get("/login")
            reply = await browser.get("/look")
            assert reply.get("cache-control") == "private, no-store"
            assert reply.all("set-cookie") == []
            await browser.get("/logout")
            assert (await browser.get("/look")).get("cache-control") == "private"

    @under_loop
    async def test_only_a_login_restarts_the_longest_life(self) -> None:
        """A17, ASVS 7.3.2, NIST REAUTH-10: no rotation does, however often."""
        options: dict[str, Any] = {"timeout": "10 minutes", "absolute_timeout": "1 hour"}
        async with self.site(HANDLERS, **options) as site:
            browser = site.browser()
            await browser.get("/write")
            site.clock.advance("9 minutes")
            await browser.get("/login")
            for _ in range(2):
                for _ in range(11):
                    site.clock.advance("5 minutes")
                    await browser.get("/rotate")
                    assert (await browser.get("/read")).body == b"1"
                await browser.get("/login")
            for _ in range(12):
                assert (await browser.get("/ask")).body == b"ada None"
                site.clock.advance("5 minutes")
                await browser.get("/rotate")
            assert (await browser.get("/ask")).body.startswith(b"None ")
            assert site.count() == 0

    @under_loop
    async def test_silence_ends_a_users_session_though_the_cookie_comes(self) -> None:
        """A17, ASVS 7.3.1: also with a ticket that a rotation has just replaced."""
        async with self.site(HANDLERS, timeout="5 seconds") as site:
            browser = site.browser()
            await browser.get("/login")
            former = site.browser(browser.cookie)
            await browser.get("/rotate")
            site.clock.advance("5 seconds")
            assert (await former.get("/ask")).body == b"None expired (idle)"
            assert (await browser.get("/read")).body == b"None"
            assert site.count() == 0


def _attributes(header: str) -> set[str]:
    return set(header.split("; ")[1:])


async def _end_ticket(site: Site, browser: Browser, how: str) -> None:
    if how == "revoke_user":
        assert await site.sessions.arevoke_user("ada") == 1
    elif how == "revoke_all":
        await site.sessions.arevoke_all()
    else:
        await browser.get(f"/{how}")


async def _act_late(session: Session[Any], late: str) -> None:
    match late:
        case "login":
            session.login("ada")
        case "rotate":
            session.rotate()
        case "read":
            session.get("n")
        case _:
            session.increment("n")
    if late == "refresh":
        await session.arefresh()
    elif late == "commit":
        await session.acommit()


async def _write_late(session: Session[Any], halt: Halt) -> AsyncIterator[bytes]:
    yield b"first"
    await halt.here()
    session.increment("n")
    yield b"last"
