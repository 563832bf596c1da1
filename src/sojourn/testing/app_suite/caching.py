"""Vary and Cache-Control: law A13."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from sojourn.session import Session
from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.checkpoint import Checkpoint
from sojourn.testing.app_suite.handlers import HANDLERS, HandlerResponse, two_parts
from sojourn.testing.decorators import under_loop


class CachingTests(AppTests):
    """Tests of the headers for caches."""

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
            assert "Cookie" in (reply.get("vary") or "").split(", ")  # and Accept, with Falcon
            assert reply.get("cache-control") == "private"

    @under_loop
    async def test_a_stream_that_may_access_a_session_is_private(self) -> None:
        """A13, B-7: the headers are sent before the access."""

        async def late_access(session: Session[Any]) -> AsyncIterator[bytes]:
            yield b"user"
            yield str(session.user).encode()

        async def stream(session: Session[Any]) -> HandlerResponse:
            return HandlerResponse(body=late_access(session))

        async with self.serve({**HANDLERS, "/stream": stream}) as app:
            browser = app.browser()
            reply = await browser.get("/stream")
            assert reply.body == b"userNone"
            assert reply.get("vary") == "Cookie"
            assert reply.get("cache-control") == "private"
            await browser.get("/write")
            reply = await browser.get("/stream")
            assert reply.get("vary") == "Cookie"
            assert reply.get("cache-control") == "private"
            await browser.get("/login")
            reply = await browser.get("/stream")
            assert reply.body == b"userada"
            assert reply.get("vary") == "Cookie"
            assert reply.get("cache-control") == "private, no-store"

    @pytest.mark.parametrize("visitor", ["anonymous", "logged in"])
    @under_loop
    async def test_a_stream_of_known_length_is_private(self, visitor: str) -> None:
        """A13, B-7: a body that is sent in parts may access the session late."""

        async def late_access(session: Session[Any]) -> AsyncIterator[bytes]:
            yield b"user"
            yield b"%4s" % str(session.user)[:4].encode()

        async def stream(session: Session[Any]) -> HandlerResponse:
            return HandlerResponse(headers={"content-length": "8"}, body=late_access(session))

        async with self.serve({**HANDLERS, "/stream": stream}) as app:
            browser = app.browser()
            if visitor == "logged in":
                await browser.get("/login")
            reply = await browser.get("/stream")
            assert reply.body == (b"user ada" if visitor == "logged in" else b"userNone")
            assert reply.get("vary") == "Cookie"
            assert (reply.get("cache-control") or "").startswith("private")

    @under_loop
    async def test_a_stream_keeps_the_caching_of_the_application(self) -> None:
        """A13: Vary is added, Cache-Control is the application's."""

        async def stream(_: Session[Any]) -> HandlerResponse:
            parts = two_parts(Checkpoint(released=True))
            return HandlerResponse(headers={"cache-control": "public, max-age=60"}, body=parts)

        async with self.serve({"/stream": stream}) as app:
            reply = await app.browser().get("/stream")
            assert reply.get("vary") == "Cookie"
            assert reply.get("cache-control") == "public, max-age=60"
