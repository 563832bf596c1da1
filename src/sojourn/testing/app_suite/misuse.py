"""Mistakes of handlers: law A24."""

from __future__ import annotations

from typing import Any

import pytest

from sojourn.session import Session
from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.handlers import HANDLERS
from sojourn.testing.decorators import under_loop


class MisuseTests(AppTests):
    """Tests of mistakes of handlers."""

    @pytest.mark.parametrize("verb", ["acommit", "arefresh", "aclaim", "ause_grant"])
    @under_loop
    async def test_a_verb_that_is_not_awaited_is_no_condition(self, verb: str) -> None:
        """A24: the request fails, and what it guards is not done."""
        granted = []

        async def careless(session: Session[Any]) -> None:
            session.increment("n")
            call = getattr(session, verb)
            coroutine = call("n") if verb in {"aclaim", "ause_grant"} else call()
            try:
                if coroutine:
                    granted.append(True)
            finally:
                coroutine.close()  # or Python warns that it was never awaited

        async with self.serve({**HANDLERS, "/careless": careless}) as app:
            browser = app.browser()
            await browser.get("/write")
            reply = await browser.start("/careless").done()
            assert reply.status in {0, 500}
            assert reply.status or isinstance(reply.error, TypeError)
            assert granted == []
            assert (await browser.get("/read")).body == b"1"

    @under_loop
    async def test_clear_logs_out(self) -> None:
        """A24, A7: what is written afterwards is in another session, of no user."""

        async def clear(session: Session[Any]) -> None:
            session.clear()

        async def clear_and_write(session: Session[Any]) -> None:
            session.clear()
            session["n"] = 7

        handlers = {**HANDLERS, "/clear": clear, "/clear-and-write": clear_and_write}
        for path, n in (("/clear", b"None"), ("/clear-and-write", b"7")):
            async with self.serve(handlers) as app:
                browser = app.browser()
                await browser.get("/write")
                await browser.get("/login")
                before = browser.cookie
                await browser.get(path)
                assert (await app.browser(before).get("/who")).body.startswith(b"None ")
                assert (await app.browser(before).get("/read")).body == b"None"
                assert (await browser.get("/who")).body.startswith(b"None ")
                assert (await browser.get("/read")).body == n
                assert app.count() == (n == b"7")

    @under_loop
    async def test_clear_without_a_login_keeps_the_ticket(self) -> None:
        """A24."""

        async def clear(session: Session[Any]) -> None:
            session.clear()

        async with self.serve({**HANDLERS, "/clear": clear}) as app:
            browser = app.browser()
            await browser.get("/write")
            before = browser.cookie
            assert (await browser.get("/clear")).all("set-cookie") == []
            assert browser.cookie == before
            assert (await browser.get("/write")).body == b"1"
