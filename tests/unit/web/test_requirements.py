"""`require_existing` and `require_user` over HTTP under ASGI."""

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.routing import Route

import sojourn
from sojourn.errors import LoginRequired, SessionRequired
from sojourn.frameworks.fastapi import SessionDep
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore

pytestmark = pytest.mark.anyio


async def members(request):
    request.session["seen"] = True
    return PlainTextResponse(request.session.require_user())


async def visitors(request):
    request.session.require_existing()
    return PlainTextResponse("welcome back")


async def login(request):
    request.session.login("ada")
    return PlainTextResponse("ok")


ROUTES = [Route("/members", members), Route("/visitors", visitors), Route("/login", login)]


def browser(app):
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


class TestRequirements:
    @pytest.mark.parametrize("middleware", [[], [Middleware(CORSMiddleware, allow_origins=["*"])]])
    async def test_missing_login_is_401(self, middleware):
        """A23, A10: the changes of the handler are dropped."""
        app = Starlette(routes=ROUTES, middleware=middleware)
        sessions = sojourn.install(app, store="memory://")
        async with browser(app) as client:
            answer = await client.get("/members", headers={"accept": "application/json"})
            assert answer.status_code == 401
            assert answer.json() == {"detail": "This page requires a session. Please log in."}
            assert answer.headers["www-authenticate"] == "Session"
            assert "set-cookie" not in answer.headers
            assert await sessions.acount() == 0
            assert (await client.get("/visitors")).status_code == 401
            await client.get("/login")
            assert (await client.get("/members")).text == "ada"
            assert (await client.get("/visitors")).text == "welcome back"

    async def test_fastapi_sends_the_error_as_json(self):
        """A23."""
        app = FastAPI()
        sojourn.install(app, store="memory://")

        @app.get("/me")
        async def me(session: SessionDep):
            return session.require_user()

        async with browser(app) as client:
            answer = await client.get("/me", headers={"accept": "application/json"})
        assert (answer.status_code, list(answer.json())) == (401, ["detail"])

    async def test_error_handler_of_the_application_responds(self):
        """A23."""

        async def to_login(request, error):
            return RedirectResponse("/login", 303)

        app = Starlette(routes=ROUTES, exception_handlers={LoginRequired: to_login})
        sojourn.install(app, store="memory://")
        async with browser(app) as client:
            answer = await client.get("/members")
            assert (answer.status_code, answer.headers["location"]) == (303, "/login")
            client.cookies.clear()
            assert (await client.get("/visitors")).status_code == 401  # a base class

    async def test_error_has_the_reason_of_a_revocation(self):
        """A23: an error page may show it."""
        sessions = sojourn.Sessions(store="memory://")
        async with sessions.open() as visit:
            visit.session.login("ada")
        cookie = dict(visit.response_headers())["set-cookie"].partition(";")[0]
        await sessions.arevoke(visit.session.id, reason="stolen phone")
        async with sessions.open(cookies=cookie) as visit:
            with pytest.raises(LoginRequired, match="stolen phone") as caught:
                visit.session.require_user()
            assert caught.value.reason == "stolen phone"
            with pytest.raises(SessionRequired):
                visit.session.require_existing()

    async def test_failing_store_is_503_not_401(self):
        """A15: also on routes with ``on_store_failure="anonymous"``."""
        store = FaultyStore(MemoryStore())
        app = Starlette(routes=ROUTES)
        sojourn.install(app, store=store, secret="a secret for tests: 5f8c1e90",
                        on_store_failure="anonymous")  # fmt: skip
        async with browser(app) as client:
            await client.get("/login")
            store.fail("load")
            assert (await client.get("/members")).status_code == 503
            assert (await client.get("/visitors")).status_code == 503
