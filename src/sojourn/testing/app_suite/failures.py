"""A failing store, errors that the application answers, and uninstall: laws A15, A20 and A23."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import pytest

from sojourn.errors import SojournError, StoreError, StoreUnavailable
from sojourn.session import Session
from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.checkpoint import Checkpoint
from sojourn.testing.app_suite.handlers import HANDLERS, Handler, HandlerResponse, write
from sojourn.testing.decorators import under_loop


async def _commit(session: Session[Any]) -> None:
    session["n"] = 5
    await session.acommit()


async def _refresh(session: Session[Any]) -> None:
    await session.arefresh()


async def _claim(session: Session[Any]) -> None:
    await session.aclaim("n")


#: Handlers with verbs that reach the store.
EXPLICIT: Final[Mapping[str, Handler]] = {
    "/commit": _commit,
    "/refresh": _refresh,
    "/claim": _claim,
    "/create": write,
}

#: The verb of the store that fails, and whether the visitor has a session, by path.
EVERY_PATH: Final[Mapping[str, tuple[Any, Literal["known", "new"]]]] = {
    "/read": ("load", "known"),
    "/write": ("save", "known"),
    "/create": ("create", "new"),
    "/login": ("save_login", "new"),
    "/commit": ("save", "known"),
    "/refresh": ("load", "known"),
    "/claim": ("save", "known"),
}


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

    @pytest.mark.parametrize("error", [StoreUnavailable("down"), StoreError("damaged")])
    @pytest.mark.parametrize("path", EVERY_PATH)
    @under_loop
    async def test_a_failing_store_is_503_on_every_path(self, path: str, error: StoreError) -> None:
        """A23: also by a verb that the handler calls itself; nothing of the request is written."""
        async with self.serve({**HANDLERS, **EXPLICIT}) as app:
            browser = app.browser()
            await browser.get("/write")
            verb, client = EVERY_PATH[path]
            app.store.fail(verb, error=error)
            visitor = browser if client == "known" else app.browser()
            reply = await visitor.get(path)
            assert reply.status == 503
            assert int(reply.get("retry-after") or 0) > 0
            assert reply.all("set-cookie") == []
            app.store.heal()
            assert (await browser.get("/read")).body == b"1"

    @pytest.mark.parametrize("path", EVERY_PATH)
    @under_loop
    async def test_the_application_answers_a_failing_store(self, path: str) -> None:
        """A23: with ``on_error``, before the response starts."""
        errors: list[SojournError] = []

        def on_error(_: object, error: SojournError) -> Any:
            errors.append(error)
            return self.closed_response()

        async with self.serve({**HANDLERS, **EXPLICIT}, on_error=on_error) as app:
            browser = app.browser()
            await browser.get("/write")
            verb, client = EVERY_PATH[path]
            app.store.fail(verb)
            visitor = browser if client == "known" else app.browser()
            reply = await visitor.get(path)
            assert (reply.status, reply.body) == (418, b"closed")
            assert [type(error) for error in errors] == [StoreUnavailable]
            app.store.heal()
            assert (await browser.get("/read")).body == b"1"

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
