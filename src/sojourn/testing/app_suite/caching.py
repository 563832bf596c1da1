"""Vary and Cache-Control: law A13."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import pytest

from sojourn.session import Session
from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.checkpoint import Checkpoint
from sojourn.testing.app_suite.handlers import HANDLERS, Handler, HandlerResponse, two_parts
from sojourn.testing.decorators import under_loop

#: Every way to access a session without changing it.
ACCESSES: Final[Mapping[str, Callable[[Session[Any]], object]]] = {
    "get": lambda session: session.get("n"),
    "item": lambda session: session["n"],
    "in": lambda session: "n" in session,
    "not in": lambda session: "absent" not in session,
    "len": len,
    "bool": bool,
    "iteration": list,
    "keys": lambda session: list(session.keys()),
    "values": lambda session: list(session.values()),
    "items": lambda session: list(session.items()),
    "copy": dict,
    "repr": repr,
    "state": lambda session: session.state.n,
    "id": lambda session: session.id,
    "new": lambda session: session.new,
    "created_at": lambda session: session.created_at,
    "seen_at": lambda session: session.seen_at,
    "expires_at": lambda session: session.expires_at,
    "labels": lambda session: dict(session.labels),
    "flashes": lambda session: session.flashes(),
}


def _with_headers(act: Callable[[Session[Any]], object], **headers: str) -> Handler:
    async def handler(session: Session[Any]) -> HandlerResponse:
        act(session)
        return HandlerResponse(headers={k.replace("_", "-"): v for k, v in headers.items()})

    return handler


def _recreate(session: Session[Any]) -> None:
    session.destroy()
    session["n"] = 1


class CachingTests(AppTests):
    """Tests of the headers for caches."""

    @pytest.mark.parametrize("access", ACCESSES)
    @under_loop
    async def test_every_access_makes_the_response_private(self, access: str) -> None:
        """A13, B-2, B-3: Vary: Cookie and Cache-Control: private."""

        async def handler(session: Session[Any]) -> None:
            ACCESSES[access](session)

        async with self.serve({**HANDLERS, "/access": handler}) as app:
            browser = app.browser()
            await browser.get("/write")
            reply = await browser.get("/access")
            assert reply.status == 200
            assert reply.get("vary") == "Cookie"
            assert reply.get("cache-control") == "private"
            assert reply.all("set-cookie") == []

    @under_loop
    async def test_a_response_that_sets_the_cookie_is_not_stored(self) -> None:
        """A13, B-4, B-6, B-8: private, no-store; the handler's Cache-Control does not matter."""
        handlers = {
            **HANDLERS,
            "/public": _with_headers(_recreate, cache_control="public, max-age=60"),
            "/shared": _with_headers(_recreate, cache_control="private, s-maxage=60"),
        }
        async with self.serve(handlers) as app:
            browser = app.browser()
            for path in ("/write", "/destroy", "/public", "/shared"):
                reply = await browser.get(path)
                assert len(reply.all("set-cookie")) == 1
                assert reply.get("cache-control") == "private, no-store"
                assert reply.get("vary") == "Cookie"

    @under_loop
    async def test_headers_of_the_handler_are_kept(self) -> None:
        """A13, B-5: its Cache-Control stays if no cookie is sent; Vary is extended."""

        def look(session: Session[Any]) -> None:
            session.get("n")

        handlers = {
            "/own": _with_headers(look, cache_control="max-age=60", vary="Accept-Encoding"),
            "/star": _with_headers(look, vary="*"),
            "/cookie": _with_headers(look, vary="accept, cookie"),
        }
        async with self.serve(handlers) as app:
            own = await app.browser().get("/own")
            assert own.get("cache-control") == "max-age=60"
            assert own.get("vary") == "Accept-Encoding, Cookie"
            assert (await app.browser().get("/star")).get("vary") == "*"
            assert (await app.browser().get("/cookie")).get("vary") == "accept, cookie"

    @pytest.mark.parametrize("kind", ["304", "HEAD", "404", "500", "stream", "error"])
    @under_loop
    async def test_every_kind_of_response_is_private(self, kind: str) -> None:
        """A13, A.6: 304, HEAD, errors and streams too."""
        if kind == "error" and not self.answers_errors:
            pytest.skip("the server responds to exceptions, outside of the middleware")

        async def handler(session: Session[Any]) -> HandlerResponse:
            session.get("n")
            if kind == "error":
                raise LookupError("planned by the test")
            if kind == "stream":
                return HandlerResponse(body=two_parts(Checkpoint(released=True)))
            status = int(kind) if kind.isdigit() else 200
            return HandlerResponse(status, body=b"" if status == 304 else b"ok")

        expected = {"304": 304, "404": 404, "500": 500, "error": 500}.get(kind, 200)
        async with self.serve({"/page": handler}) as app:
            method = "HEAD" if kind == "HEAD" else "GET"
            reply = await app.browser().start("/page", method=method).done()
            assert reply.status == expected
            assert reply.get("vary") == "Cookie"
            assert reply.get("cache-control") == "private"

    @under_loop
    async def test_a_stream_that_may_access_a_session_is_private(self) -> None:
        """A13, B-7: the headers are sent before the access, so a visitor's session decides."""

        async def late_access(session: Session[Any]) -> AsyncIterator[bytes]:
            yield b"user"
            yield str(session.user).encode()

        async def stream(session: Session[Any]) -> HandlerResponse:
            return HandlerResponse(body=late_access(session))

        async with self.serve({**HANDLERS, "/stream": stream}) as app:
            browser = app.browser()
            reply = await browser.get("/stream")
            assert (reply.body, reply.get("vary")) == (b"userNone", None)
            await browser.get("/write")
            reply = await browser.get("/stream")
            assert reply.get("vary") == "Cookie"
            assert reply.get("cache-control") == "private"
            await browser.get("/login")
            reply = await browser.get("/stream")
            assert reply.body == b"userada"
            assert reply.get("vary") == "Cookie"
            assert reply.get("cache-control") == "private, no-store"

    @under_loop
    async def test_a_page_of_a_logged_in_user_is_not_stored(self) -> None:
        """A13, B-7, ASVS 14.3.2: no-store for logged-in users, private for others."""
        async with self.serve(HANDLERS) as app:
            browser = app.browser()
            assert (await browser.get("/look")).get("cache-control") == "private"
            await browser.get("/login")
            reply = await browser.get("/look")
            assert reply.get("cache-control") == "private, no-store"
            assert reply.all("set-cookie") == []
            await browser.get("/logout")
            assert (await browser.get("/look")).get("cache-control") == "private"
