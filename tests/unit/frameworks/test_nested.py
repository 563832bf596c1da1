"""Applications inside of applications: whose session it is, and which cookie (law A24)."""

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient

import sojourn
from sojourn.errors import ConfigurationError
from sojourn.stores.memory import MemoryStore
from sojourn.web.asgi import SessionMiddleware
from sojourn.web.asgi_scope import CONNECTION

pytestmark = pytest.mark.anyio

SECRET = "nested-7Jm2Qw9vXc4Rk1-Zt"


async def count(request):
    request.session["n"] = request.session.get("n", 0) + 1
    return PlainTextResponse(str(request.session["n"]))


async def fail(request):
    request.session["n"] = request.session.get("n", 0) + 1
    raise LookupError("planned by the test")


async def show(websocket):
    await websocket.accept()
    await websocket.send_text(str(websocket.session.get("n")))
    await websocket.close()


def routes(*more):
    return [Route("/count", count), Route("/fail", fail), WebSocketRoute("/show", show), *more]


def install(app, **options):
    return sojourn.install(app, store=MemoryStore(), secret=SECRET, **options)


def client_of(app):
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


@pytest.mark.parametrize("kind", [Starlette, FastAPI])
async def test_a_mounted_application_has_the_outer_session(kind):
    """A24: without an ``install`` of its own."""
    inner = kind(routes=routes())
    outer = Starlette(routes=routes(Mount("/inner", inner)))
    install(outer)
    async with client_of(outer) as client:
        assert (await client.get("/count")).text == "1"
        assert (await client.get("/inner/count")).text == "2"
        assert (await client.get("/inner/fail")).status_code == 500
        assert (await client.get("/count")).text == "3"
        assert list(client.cookies) == ["sid"]


@pytest.mark.parametrize("options", [{}, {"cookie": "sid"}, {"realm": "b", "cookie": "sid"}])
async def test_two_installations_with_one_cookie_are_an_error(options, caplog):
    """A24: at the first request of the inner one, with what to do."""
    inner = Starlette(routes=routes())
    outer = Starlette(routes=routes(Mount("/inner", inner)))
    install(outer)
    install(inner, **options)
    raised = []

    async def keep(request, error):
        raised.append(error)
        return PlainTextResponse("wrong", 500)

    outer.add_exception_handler(Exception, keep)
    async with client_of(outer) as client:
        assert (await client.get("/count")).text == "1"
        cookies = dict(client.cookies)
        assert (await client.get("/inner/count")).status_code == 500
        assert dict(client.cookies) == cookies
        assert (await client.get("/count")).text == "2"
    (error,) = raised
    assert isinstance(error, ConfigurationError)
    for word in ("sid", "realm=", "cookie=", "remove the inner sojourn.install"):
        assert word in str(error)


async def test_two_installations_with_one_cookie_are_an_error_for_sockets():
    """A24."""
    inner = Starlette(routes=routes())
    outer = Starlette(routes=[Mount("/inner", inner)])
    install(outer)
    install(inner)
    with (
        pytest.raises(ConfigurationError, match="cookie __Host-sid"),
        TestClient(outer).websocket_connect("/inner/show"),
    ):
        pass


@pytest.mark.parametrize("options", [{"realm": "admin"}, {"cookie": "other"}])
async def test_two_installations_with_two_cookies_have_two_sessions(options):
    """A24: each request of the inner application has both, and neither changes the other."""
    inner = Starlette(routes=routes())
    outer = Starlette(routes=routes(Mount("/inner", inner)))
    sessions = install(outer)
    install(inner, **options)
    async with client_of(outer) as client:
        for number in ("1", "2"):
            assert (await client.get("/count")).text == number
            assert (await client.get("/inner/count")).text == number
        assert (await client.get("/inner/fail")).status_code == 500
        assert (await client.get("/inner/count")).text == "3"
        assert (await client.get("/count")).text == "3"
        assert set(client.cookies) == {"sid", options.get("cookie", "sid-admin")}
        assert sessions.usage().writes == 2  # only by its own pages
    client = TestClient(outer)
    client.get("/inner/count")
    with client.websocket_connect("/inner/show") as socket:
        assert socket.receive_text() == "1"


async def test_the_outer_session_is_back_after_the_inner_request():
    """A24: for what a middleware between the two does at the end."""
    outer = sojourn.Sessions(store=MemoryStore(), secret=SECRET)
    inner = sojourn.Sessions(store=MemoryStore(), secret=SECRET, realm="inner")
    seen = []

    async def page(scope, receive, send):
        scope["session"]["inner"] = True
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    nested = SessionMiddleware(page, inner)

    async def between(scope, receive, send):
        mine = scope["session"], scope[CONNECTION]
        await nested(scope, receive, send)
        seen.append((scope["session"], scope[CONNECTION]) == mine)

    async with client_of(SessionMiddleware(between, outer)) as client:
        reply = await client.get("/")
        assert len(reply.headers.get_list("set-cookie")) == 1
    assert seen == [True]
    assert outer.usage().creates == 0


@pytest.mark.parametrize(
    ("options", "https", "http"),
    [
        ({}, "__Host-sid", "sid"),
        ({"realm": "admin"}, "__Host-sid-admin", "sid-admin"),
        ({"realm": "admin", "path": "/admin"}, "__Secure-sid-admin", "sid-admin"),
        ({"realm": "admin", "cookie": "mine"}, "mine", "mine"),
    ],
)
def test_the_cookie_is_named_after_the_realm(options, https, http):
    """A24, A14: unless a name is given."""
    settings = sojourn.Sessions(store=MemoryStore(), secret=SECRET, **options).config.web.cookie
    assert (settings.over_https().name, settings.over_http().name) == (https, http)
