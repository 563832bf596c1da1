"""Idle and absolute timeouts: law A17."""

from typing import Any

from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.handlers import HANDLERS
from sojourn.testing.decorators import under_loop

OPTIONS: dict[str, Any] = {"timeout": "10 minutes", "absolute_timeout": "1 hour"}


class ExpiryTests(AppTests):
    """Tests of timeouts."""

    @under_loop
    async def test_activity_does_not_extend_the_absolute_timeout(self) -> None:
        """A17, ASVS 7.3.2, B-37: reads and writes do not."""
        async with self.serve(HANDLERS, **OPTIONS) as app:
            browser = app.browser()
            await browser.get("/write")
            for _ in range(11):
                app.clock.advance("5 minutes")
                assert (await browser.get("/write")).body != b"1"
                assert (await browser.get("/read")).body != b"None"
            app.clock.advance("5 minutes")
            assert (await browser.get("/read")).body == b"None"
            assert app.stored() == []  # expired records are not counted

    @under_loop
    async def test_only_a_login_restarts_the_absolute_timeout(self) -> None:
        """A17, ASVS 7.3.2, NIST REAUTH-10: rotations do not."""
        async with self.serve(HANDLERS, **OPTIONS) as app:
            browser = app.browser()
            await browser.get("/write")
            app.clock.advance("9 minutes")
            await browser.get("/login")
            for _ in range(2):
                for _ in range(11):
                    app.clock.advance("5 minutes")
                    await browser.get("/rotate")
                    assert (await browser.get("/read")).body == b"1"
                await browser.get("/login")
            for _ in range(12):
                assert (await browser.get("/who")).body == b"ada None"
                app.clock.advance("5 minutes")
                await browser.get("/rotate")
            assert (await browser.get("/who")).body.startswith(b"None ")
            assert app.count() == 0

    @under_loop
    async def test_the_session_of_a_user_ends_at_the_idle_timeout(self) -> None:
        """A17, ASVS 7.3.1: also with the previous ticket of a rotation."""
        async with self.serve(HANDLERS, timeout="5 seconds") as app:
            browser = app.browser()
            await browser.get("/login")
            previous = app.browser(browser.cookie)
            await browser.get("/rotate")
            app.clock.advance("5 seconds")
            assert (await previous.get("/who")).body == b"None expired (idle)"
            assert (await browser.get("/read")).body == b"None"
            assert app.count() == 0

    @under_loop
    async def test_a_session_ends_at_the_idle_timeout(self) -> None:
        """A17, ASVS 7.3.1: the cookie does not matter; the record is deleted."""
        async with self.serve(HANDLERS, timeout="10 minutes") as app:
            browser = app.browser()
            await browser.get("/write")
            app.clock.advance(599.999)
            assert (await browser.get("/read")).body == b"1"
            app.clock.advance(600)
            assert (await browser.get("/read")).body == b"None"
            assert app.stored() == []  # expired records are not counted
