"""Changes after the first byte: law A11."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from sojourn.errors import ResponseStarted
from sojourn.session import Session
from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.checkpoint import Checkpoint
from sojourn.testing.app_suite.drivers import ASGIDriver
from sojourn.testing.app_suite.handlers import HANDLERS, Handler, HandlerResponse, two_parts
from sojourn.testing.decorators import under_loop


class StreamTests(AppTests):
    """Tests of streaming responses."""

    @under_loop
    async def test_changes_of_a_stream_are_committed_at_its_end(self) -> None:
        """A11: as operations, so that parallel requests keep their changes."""
        checkpoint = Checkpoint()

        async def stream(session: Session[Any]) -> HandlerResponse:
            session.get("n")
            return HandlerResponse(body=two_parts(checkpoint, lambda: session.increment("n")))

        async with self.serve({**HANDLERS, "/stream": stream}) as app:
            browser = app.browser()
            await browser.get("/write")
            running = browser.start("/stream")
            await checkpoint.reached()
            assert (await browser.get("/write")).body == b"2"
            checkpoint.release()
            assert (await running.done()).body == b"firstlast"
            assert (await browser.get("/read")).body == b"3"

    @under_loop
    async def test_a_failing_stream_drops_its_changes(self) -> None:
        """A10, A11: also if its OSError could be taken for a disconnected client."""

        async def failing(session: Session[Any]) -> AsyncIterator[bytes]:
            yield b"first"
            session.increment("n")
            raise FileNotFoundError("planned by the test")

        async def stream(session: Session[Any]) -> HandlerResponse:
            session.get("n")
            return HandlerResponse(body=failing(session))

        async with self.serve({**HANDLERS, "/stream": stream}) as app:
            browser = app.browser()
            await browser.get("/write")
            await browser.start("/stream").done()
            assert (await browser.get("/read")).body == b"1"

    @pytest.mark.parametrize("spec_version", ["2.0", "2.4"])
    @under_loop
    async def test_changes_are_kept_if_the_client_disconnects(self, spec_version: str) -> None:
        """A11: for both ways in which ASGI servers report it."""
        checkpoint = Checkpoint()

        async def counting(session: Session[Any]) -> AsyncIterator[bytes]:
            yield b"first"
            for _ in range(5):  # before 2.4, an application that does not listen runs on
                session.increment("n")
                yield b"x"
                await checkpoint.wait()

        async def stream(session: Session[Any]) -> HandlerResponse:
            session.get("n")
            return HandlerResponse(body=counting(session))

        async with self.serve({**HANDLERS, "/stream": stream}) as app:
            if isinstance(app.driver, ASGIDriver):
                app.driver.spec_version = spec_version
            browser = app.browser()
            await browser.get("/write")
            running = browser.start("/stream")
            await checkpoint.reached()
            running.disconnect()
            checkpoint.release()
            await running.done()
            assert int((await browser.get("/read")).body) >= 2

    @under_loop
    async def test_no_session_is_created_after_the_first_byte(self) -> None:
        """A11: its cookie could not be set; the assignment raises ResponseStarted."""
        raised: list[object] = []
        stream = _call_late(
            raised,
            lambda session: session.update(n=1),
            lambda session: session.increment("n"),
            lambda session: session.setdefault("n", 1),
            lambda session: session.append("log", 1),
            lambda session: session.add("tags", 1),
            lambda session: session.flash("hello"),
        )
        async with self.serve({"/stream": stream}) as app:
            assert (await app.browser().get("/stream")).body == b"firstlast"
            assert len(raised) == 6
            assert app.count() == 0

    @under_loop
    async def test_no_ticket_is_replaced_after_the_first_byte(self) -> None:
        """A11: login and rotate raise ResponseStarted."""
        raised: list[object] = []
        stream = _call_late(
            raised, lambda session: session.login("eve"), lambda session: session.rotate()
        )
        async with self.serve({**HANDLERS, "/stream": stream}) as app:
            browser = app.browser()
            await browser.get("/login")
            for client in (browser, app.browser()):
                assert (await client.get("/stream")).body == b"firstlast"
            assert len(raised) == 4
            assert (await browser.get("/who")).body == b"ada None"
            assert app.count() == 1


def _call_late(raised: list[object], *calls: Callable[[Session[Any]], object]) -> Handler:
    """Return a handler whose stream calls functions that must raise ResponseStarted."""

    def call_all(session: Session[Any]) -> None:
        for call in calls:
            try:
                call(session)
            except ResponseStarted as error:
                raised.append(error)

    async def stream(session: Session[Any]) -> HandlerResponse:
        late = partial(call_all, session)
        return HandlerResponse(body=two_parts(Checkpoint(released=True), late))

    return stream
