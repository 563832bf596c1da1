"""The headers for caches that the lifecycle decides: law A13. Others are in AppSuite."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest

from sojourn.session import Session
from sojourn.testing import HandlerResponse
from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.handlers import HANDLERS, Handler
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


class CacheHeaderTests(AppTests):
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

    @under_loop
    async def test_a_page_of_a_session_that_ends_meanwhile_is_not_stored(self) -> None:
        """A13: it may show data of the session from before the revocation."""
        async with self.serve(HANDLERS) as app:
            browser = app.browser()
            await browser.get("/login")
            app.store.meanwhile("save", lambda: app.sessions.arevoke_user("ada"))
            reply = await browser.get("/write")
            assert reply.get("cache-control") == "private, no-store"
