"""Login, revocation and rotation of tickets: law A9."""

from __future__ import annotations

from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.handlers import HANDLERS
from sojourn.testing.decorators import under_loop


class IdentityTests(AppTests):
    """Tests of the tickets of users."""

    @under_loop
    async def test_a_login_replaces_the_ticket_and_keeps_the_data(self) -> None:
        """A9, ASVS 7.2.4, B-25: the previous ticket is invalid at once, in every process."""
        async with self.serve(HANDLERS) as app:
            browser = app.browser()
            first = (await browser.get("/write")).all("set-cookie")
            thief = app.browser(browser.cookie)
            assert (await thief.get("/read")).body == b"1"
            second = (await browser.get("/login")).all("set-cookie")
            assert [_attributes(each) for each in second] == [_attributes(first[0])]
            assert browser.cookie not in (None, thief.cookie)
            async with app.another() as other:
                for place in (app, other):
                    assert (await place.browser(thief.cookie).get("/who")).body == b"None None"
                    client = place.browser(browser.cookie)
                    assert (await client.get("/read")).body == b"1"
                    assert (await client.get("/who")).body == b"ada None"

    @under_loop
    async def test_each_login_replaces_the_ticket(self) -> None:
        """A9, ASVS 7.2.4: also a login of the same user."""
        async with self.serve(HANDLERS) as app:
            browser = app.browser()
            cookies = []
            for _ in range(3):
                await browser.get("/login")
                cookies.append(browser.cookie)
            assert len(set(cookies)) == 3
            for old in cookies[:2]:
                assert (await app.browser(old).get("/who")).body == b"None None"
            assert (await browser.get("/who")).body == b"ada None"

    @under_loop
    async def test_a_revoked_user_gets_the_reason(self) -> None:
        """ASVS 7.4.3, B-41: all sessions of the user have ended."""
        async with self.serve(HANDLERS) as app:
            browsers = [app.browser() for _ in range(3)]
            for browser in browsers:
                await browser.get("/login")
            assert await app.sessions.arevoke_user("ada", reason="disabled") == 3
            for browser in browsers:
                assert (await browser.get("/who")).body == b"None disabled"

    @under_loop
    async def test_the_previous_ticket_is_valid_for_the_grace_period(self) -> None:
        """A9: a browser that lost the response receives the new ticket with any later request.

        Every process sends the same ticket, and no further rotation happens until a client sent it.
        """
        async with self.serve(HANDLERS, rotate_interval="10 minutes") as app:
            browser = app.browser()
            await browser.get("/write")
            before = browser.cookie
            lost = await browser.start("/rotate").done()
            async with app.another() as other:
                for place in (app, other, app, other):
                    app.clock.advance("29 minutes")
                    reply = await place.browser(before).get("/read")
                    assert reply.body == b"1"
                    assert reply.all("set-cookie") == lost.all("set-cookie")
            browser.store_cookies(lost)
            assert browser.cookie != before
            assert (await browser.get("/read")).body == b"1"


def _attributes(header: str) -> set[str]:
    return set(header.split("; ")[1:])
