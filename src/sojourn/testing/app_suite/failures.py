"""A failing store, the idle timeout, and uninstall: laws A15, A17 and A20."""

from __future__ import annotations

from typing import Any

import pytest

from sojourn.session import Session
from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.checkpoint import Checkpoint
from sojourn.testing.app_suite.handlers import HANDLERS, HandlerResponse
from sojourn.testing.decorators import under_loop


class FailureTests(AppTests):
    """Tests of requests whose handler is correct."""

    @pytest.mark.parametrize("verb", ["load", "save", "create"])
    @under_loop
    async def test_a_failing_store_is_503_and_loses_nothing(self, verb: Any) -> None:
        """A15: no cookie is cleared and no empty session saved."""
        async with self.serve(HANDLERS) as app:
            browser = app.browser()
            await browser.get("/write")
            before = browser.cookie
            app.store.fail(verb)
            client = app.browser() if verb == "create" else browser
            reply = await client.get("/write")
            assert reply.status == 503
            assert int(reply.get("retry-after") or 0) > 0
            assert reply.get("cache-control") == "no-store"
            assert reply.all("set-cookie") == []
            assert browser.cookie == before
            app.store.heal()
            assert (await browser.get("/read")).body == b"1"
            assert app.count() == 1

    @under_loop
    async def test_a_request_without_cookie_does_not_wait_for_the_store(self) -> None:
        """A15: a store that hangs or fails does not affect visitors without a session."""
        async with self.serve(HANDLERS) as app:
            app.store.hang("load")
            assert (await app.browser().get("/look")).status == 200
            app.store.heal()
            app.store.fail()
            assert (await app.browser().get("/look")).status == 200

    @under_loop
    async def test_uninstall_lets_running_requests_finish(self) -> None:
        """A20: with their session; later requests have none."""
        checkpoint = Checkpoint()

        async def slow(session: Session[Any]) -> HandlerResponse:
            await checkpoint.wait()
            return HandlerResponse(body=str(session.increment("n")).encode())

        async def ask(session: Session[Any] | None) -> HandlerResponse:
            return HandlerResponse(body=b"none" if session is None else b"some")

        async with self.serve({**HANDLERS, "/slow": slow, "/ask": ask}) as app:
            browser = app.browser()
            await browser.get("/write")
            assert (await browser.get("/ask")).body == b"some"
            running = browser.start("/slow")
            await checkpoint.reached()
            self.uninstall(app.app, app.sessions)
            after = await browser.get("/ask")
            assert after.body == b"none"
            assert after.get("vary") is None
            checkpoint.release()
            assert (await running.done()).body == b"2"
            [record] = app.stored()
            assert record.version == 2
