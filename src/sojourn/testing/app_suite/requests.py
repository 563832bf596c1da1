"""Store calls and messages of ordinary requests: laws A1 to A5."""

from __future__ import annotations

from typing import Any

from sojourn.session import Session
from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.checkpoint import Checkpoint
from sojourn.testing.app_suite.handlers import HANDLERS, HandlerResponse, two_parts
from sojourn.testing.decorators import under_loop


class RequestTests(AppTests):
    """Tests of what a request costs, and of the order of save and response."""

    @under_loop
    async def test_a_request_without_cookie_and_write_costs_nothing(self) -> None:
        """A1: no store call and no Set-Cookie; Vary only if the session was accessed."""
        async with self.serve(HANDLERS) as app:
            ignored = await app.browser().get("/ignore")
            assert ignored.all("set-cookie") == []
            assert ignored.get("vary") is None
            assert ignored.get("cache-control") is None
            looked = await app.browser().get("/look")
            assert looked.all("set-cookie") == []
            assert looked.get("vary") == "Cookie"
            assert app.take_trace() == 2 * ["start", "body", "end"]

    @under_loop
    async def test_the_first_write_creates_before_the_first_byte(self) -> None:
        """A2: one create, then the response, which sets the cookie."""
        async with self.serve(HANDLERS) as app:
            browser = app.browser()
            reply = await browser.get("/write")
            assert app.take_trace() == ["create", "start", "body", "end"]
            assert len(reply.all("set-cookie")) == 1
            assert (await browser.get("/write")).body == b"2"
            assert app.count() == 1

    @under_loop
    async def test_a_read_is_one_load(self) -> None:
        """A3: no write and no Set-Cookie."""
        async with self.serve(HANDLERS) as app:
            browser = app.browser()
            await browser.get("/write")
            app.take_trace()
            for _ in range(2):
                reply = await browser.get("/read")
                assert reply.body == b"1"
                assert reply.all("set-cookie") == []
                assert app.take_trace() == ["load", "start", "body", "end"]

    @under_loop
    async def test_a_write_is_one_load_and_one_save(self) -> None:
        """A4, S18: the save comes before the first byte; there is no Set-Cookie."""
        async with self.serve(HANDLERS) as app:
            browser = app.browser()
            await browser.get("/write")
            app.take_trace()
            reply = await browser.get("/write")
            assert app.take_trace() == ["load", "save", "start", "body", "end"]
            assert reply.all("set-cookie") == []

    @under_loop
    async def test_the_write_is_stored_when_the_first_byte_arrives(self) -> None:
        """A5: another process reads it while the rest of the response is streamed."""
        checkpoint = Checkpoint()

        async def stream(session: Session[Any]) -> HandlerResponse:
            session.increment("n")
            return HandlerResponse(body=two_parts(checkpoint))

        async with self.serve({**HANDLERS, "/stream": stream}) as app:
            browser = app.browser()
            await browser.get("/write")
            running = browser.start("/stream")
            await checkpoint.reached()
            assert await running.body_received() == b"first"
            async with app.another() as other:
                assert (await other.browser(browser.cookie).get("/read")).body == b"2"
            checkpoint.release()
            assert (await running.done()).body == b"firstlast"
