"""Requests at the same time: laws A6 and A16."""

from __future__ import annotations

from typing import Any

import pytest

from sojourn._core.concurrency import sleep
from sojourn.session import Session
from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.checkpoint import Checkpoint
from sojourn.testing.app_suite.handlers import HANDLERS, HandlerResponse
from sojourn.testing.decorators import under_loop


class IsolationTests(AppTests):
    """Tests of overlapping requests."""

    @pytest.mark.parametrize("process", ["same", "another"])
    @under_loop
    async def test_overlapping_requests_keep_each_others_changes(self, process: str) -> None:
        """A6: in one process and between two."""
        checkpoint = Checkpoint()

        async def slow(session: Session[Any]) -> None:
            session.increment("n")
            session["slow"] = True
            await checkpoint.wait()

        async def show(session: Session[Any]) -> HandlerResponse:
            return HandlerResponse(body=repr(sorted(session.items())).encode())

        async with self.serve({**HANDLERS, "/slow": slow, "/show": show}) as app:
            browser = app.browser()
            await browser.get("/write")
            running = browser.start("/slow")
            await checkpoint.reached()
            async with app.another() as other:
                place = other if process == "another" else app
                assert (await place.browser(browser.cookie).get("/write")).body == b"2"
            checkpoint.release()
            assert (await running.done()).status == 200
            assert (await browser.get("/show")).body == b"[('n', 3), ('slow', True)]"

    @under_loop
    async def test_parallel_requests_have_their_own_session(self) -> None:
        """A16, B-52: 200 requests of 40 visitors at the same time; some fail."""
        wrong: list[tuple[str, str]] = []

        def handler_for(name: str) -> Any:
            async def handler(session: Session[Any]) -> None:
                session.setdefault("name", name)
                for _ in range(3):
                    await sleep(0)  # runs other tasks or threads
                    if session["name"] != name:
                        wrong.append((name, session["name"]))
                if len(name) % 2:
                    raise LookupError("planned by the test")

            return handler

        visitors = [f"visitor-{n}" for n in range(40)]
        async with self.serve({f"/{name}": handler_for(name) for name in visitors}) as app:
            browsers = [app.browser() for _ in visitors]
            for _ in range(5):
                pairs = list(zip(visitors, browsers, strict=True))
                in_progress = [browser.start(f"/{name}") for name, browser in pairs]
                for running, browser in zip(in_progress, browsers, strict=True):
                    browser.store_cookies(await running.done())
            assert wrong == []
            assert app.count() == sum(len(name) % 2 == 0 for name in visitors)

    @under_loop
    async def test_a_failed_request_leaves_nothing_to_the_next_one(self) -> None:
        """A16: in the thread or task that is used again."""

        async def fail(session: Session[Any]) -> None:
            session["n"] = 99
            raise LookupError("planned by the test")

        async with self.serve({**HANDLERS, "/fail": fail}) as app:
            for _ in range(20):
                await app.browser().start("/fail").done()
                assert (await app.browser().get("/read")).body == b"None"
            assert app.count() == 0
