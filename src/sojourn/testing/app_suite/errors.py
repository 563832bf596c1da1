"""Handlers that fail, are cancelled, or lose their client: laws A10 and A12."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sojourn.errors import SessionConflict, SojournError, StoreError
from sojourn.session import Session
from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.checkpoint import Checkpoint
from sojourn.testing.app_suite.handlers import (
    HANDLERS,
    HandlerResponse,
    fail_after,
    ignore,
    login,
    rotate,
)
from sojourn.testing.app_suite.served_app import ServedApp
from sojourn.testing.decorators import under_loop

every_failure: pytest.MarkDecorator = pytest.mark.parametrize("how", ["500", "exception"])


async def check_unavailable(app: ServedApp) -> None:
    """Request ``/fail``, which cannot end its session, and check that 503 says so (A10, A23)."""
    browser = app.browser()
    await browser.get("/write")
    before = browser.cookie
    reply = await browser.start("/fail").done()
    assert reply.status == 503
    assert int(reply.get("retry-after") or 0) > 0
    assert reply.all("set-cookie") == []
    app.store.heal()
    assert (await app.browser(before).get("/read")).body == b"1"


class ErrorTests(AppTests):
    """Tests of requests that do not succeed."""

    @every_failure
    @pytest.mark.parametrize("keep", [False, True])
    @under_loop
    async def test_a_failing_request_drops_its_changes(self, how: str, keep: bool) -> None:  # noqa: FBT001
        """A10: except with ``save_on_error``; it does not create a session."""
        handlers = {**HANDLERS, "/fail": fail_after(ignore, how)}
        async with self.serve(handlers, save_on_error=keep) as app:
            browser = app.browser()
            await browser.get("/write")
            await browser.start("/fail").done()
            assert (await browser.get("/read")).body == (b"2" if keep else b"1")
            new = await app.browser().start("/fail").done()
            if not keep:
                assert new.all("set-cookie") == []
                assert app.count() == 1

    @every_failure
    @under_loop
    async def test_a_failing_request_still_destroys_its_session(self, how: str) -> None:
        """A10, B-34: a new session that it wrote afterwards is dropped."""

        async def destroy(session: Session[Any]) -> None:
            session.destroy()
            session["n"] = 9

        async with self.serve({**HANDLERS, "/fail": fail_after(destroy, how)}) as app:
            browser = app.browser()
            await browser.get("/write")
            before = browser.cookie
            await browser.start("/fail").done()
            assert app.count() == 0
            assert (await app.browser(before).get("/read")).body == b"None"

    @every_failure
    @under_loop
    async def test_a_failing_request_rotates_but_does_not_log_in(self, how: str) -> None:
        """A10: the rotation takes effect, the login does not."""
        handlers = {**HANDLERS, "/fail": fail_after(login, how), "/turn": fail_after(rotate, how)}
        async with self.serve(handlers) as app:
            browser = app.browser()
            await browser.get("/write")
            before = browser.cookie
            browser.store_cookies(await browser.start("/fail").done())
            assert browser.cookie == before
            assert (await browser.get("/who")).body == b"None None"
            browser.store_cookies(await browser.start("/turn").done())
            assert app.sessions.usage().rotations == 1
            assert (await browser.get("/read")).body == b"1"  # possibly with the previous ticket
            assert browser.cookie != before
            assert (await browser.get("/read")).body == b"1"

    @pytest.mark.parametrize("where", ["handler", "commit"])
    @pytest.mark.parametrize("act", [Session.destroy, Session.logout, Session.rotate])
    @under_loop
    async def test_on_error_ends_and_rotates_sessions(
        self, act: Callable[[Session[Any]], None], where: str
    ) -> None:
        """A10: destroying and rotating while an error is answered is carried out."""
        current: list[Session[Any]] = []

        async def fail(session: Session[Any]) -> None:
            current.append(session)
            session["n"] = "too much" * 10_000
            if where == "handler":
                raise SessionConflict("planned by the test", 1)

        def answer(_request: Any, _error: SojournError) -> Any:
            act(current.pop())
            return self.closed_response()

        async with self.serve({**HANDLERS, "/fail": fail}, on_error=answer) as app:
            browser = app.browser()
            await browser.get("/write")
            await browser.get("/login")
            before = browser.cookie
            assert (await browser.get("/fail")).status == 418
            if act is Session.rotate:
                assert app.sessions.usage().rotations == 1
                assert browser.cookie not in (None, before)
                assert (await browser.get("/read")).body == b"1"
                return
            assert app.count() == 0
            assert browser.cookie is None
            assert (await app.browser(before).get("/who")).body == b"None None"

    @pytest.mark.parametrize("where", ["handler", "commit"])
    @pytest.mark.parametrize("save_on_error", [False, True])
    @pytest.mark.parametrize("act", [None, Session.rotate])
    @under_loop
    async def test_on_error_answers_an_error_of_a_value_that_cannot_be_stored(
        self, act: Callable[[Session[Any]], None] | None, where: str, *, save_on_error: bool
    ) -> None:
        """A10, A23: the value is dropped with the failed request, and does not fail its answer."""
        current: list[Session[Any]] = []

        async def fail(session: Session[Any]) -> None:
            current.append(session)
            session["values"] = []
            session["values"].append(object())
            if where == "handler":
                raise SessionConflict("planned by the test", 1)

        def answer(_request: Any, _error: SojournError) -> Any:
            if act is not None and not current[-1].new:
                act(current[-1])
            return self.closed_response()

        handlers = {**HANDLERS, "/fail": fail}
        async with self.serve(handlers, on_error=answer, save_on_error=save_on_error) as app:
            assert (await app.browser().get("/fail")).status == 418  # a visitor without a session
            browser = app.browser()
            await browser.get("/write")
            assert (await browser.get("/fail")).status == 418
            assert app.sessions.usage().rotations == (0 if act is None else 1)
            assert (await browser.get("/read")).body == b"1"

    @pytest.mark.parametrize("where", ["handler", "answer"])
    @under_loop
    async def test_an_answer_is_503_if_the_session_could_not_be_ended(self, where: str) -> None:
        """A10, A23: it may say that the visitor is logged out."""
        current: list[Session[Any]] = []

        async def fail(session: Session[Any]) -> None:
            current.append(session)
            if where == "handler":
                logout(session)
            raise SessionConflict("planned by the test", 1)

        def logout(session: Session[Any]) -> None:
            app.store.fail("delete")
            session.logout()

        def answer(_request: Any, error: SojournError) -> Any:
            if isinstance(error, StoreError):
                return None
            if where == "answer":
                logout(current.pop())
            return self.closed_response()

        async with self.serve({**HANDLERS, "/fail": fail}, on_error=answer) as app:
            await check_unavailable(app)

    @under_loop
    async def test_a_cancelled_handler_drops_its_changes(self) -> None:
        """A12: except those of an explicit commit."""
        if self.protocol == "wsgi":
            pytest.skip("threads are not cancelled")
        checkpoint = Checkpoint()

        async def slow(session: Session[Any]) -> None:
            session["kept"] = True
            await session.acommit()
            session.increment("n")
            await checkpoint.wait()

        async def show(session: Session[Any]) -> HandlerResponse:
            return HandlerResponse(body=f"{session.get('n')} {session.get('kept')}".encode())

        async with self.serve({**HANDLERS, "/slow": slow, "/show": show}) as app:
            browser = app.browser()
            await browser.get("/write")
            running = browser.start("/slow")
            await checkpoint.reached()
            running.cancel()
            await running.done()
            assert (await browser.get("/show")).body == b"1 True"

    @under_loop
    async def test_a_client_may_disconnect_before_the_response(self) -> None:
        """A12: the request ends as if the response was not read, or as with an exception."""
        checkpoint = Checkpoint()

        async def slow(session: Session[Any]) -> None:
            session.increment("n")
            await checkpoint.wait()

        async with self.serve({**HANDLERS, "/slow": slow}) as app:
            browser = app.browser()
            await browser.get("/write")
            running = browser.start("/slow")
            await checkpoint.reached()
            running.disconnect()
            checkpoint.release()
            await running.done()
            assert running.reply.status in (0, 200)
            assert (await browser.get("/read")).body in (b"1", b"2")
            assert (await browser.get("/write")).status == 200
