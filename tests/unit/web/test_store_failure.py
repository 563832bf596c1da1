"""`on_store_failure`: requests and handshakes whose session cannot be loaded.

Through every kind of application of the request suite, over a store with injected faults; and
once over a real server that was killed. The request suite tests failures of *save*.
"""

from __future__ import annotations

import asyncio
import logging
from wsgiref.util import setup_testing_defaults

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

import sojourn
from sojourn.errors import ConfigurationError, StoreUnavailable
from sojourn.frameworks.fastapi import SessionDep
from sojourn.stores.memory import MemoryStore
from sojourn.testing import HandlerResponse
from sojourn.testing.faults import FaultyStore
from sojourn.web.wsgi import get_session
from sojourn.web.wsgi_environ import Environ
from tests.contract import test_applications as applications
from tests.integration.valkey import Valkey
from tests.unit.web.asgi_client import Wire, begin, connect, visit

KITS = [
    applications.TestStarlette,
    applications.TestFastAPI,
    applications.TestBareASGI,
    applications.TestBareWSGI,
]
SECRET = "a failing store: 7Jm2Qw9vXc4Rk1"


@pytest.fixture(params=KITS, ids=lambda kit: kit.__name__)
def kit(request):
    return request.param()


async def write(session):
    """Count, and send the user."""
    session["n"] = session.get("n", 0) + 1
    return HandlerResponse(body=f"{session['n']} {session.new}".encode())


async def look(session):
    return HandlerResponse(body=str(session.get("n")).encode())


async def ignore(_):
    return HandlerResponse(body=b"page")


def calling(verb, *arguments):
    """Return a handler that calls a method which needs the store."""

    async def handler(session):
        found = getattr(session, verb)(*arguments)
        if hasattr(found, "__await__"):
            await found
        return HandlerResponse()

    return handler


LASTING = {
    "/login": calling("login", "ada"),
    "/logout": calling("logout"),
    "/destroy": calling("destroy"),
    "/rotate": calling("rotate"),
    "/commit": calling("acommit"),
    "/refresh": calling("arefresh"),
    "/claim": calling("aclaim", "nonce"),
    "/grant": calling("ause_grant", "pay"),
    "/exclusive": calling("exclusive"),
}
PAGES = {"/write": write, "/look": look, "/ignore": ignore, **LASTING}


class TestAnonymous:
    @pytest.mark.anyio
    async def test_request_continues_with_an_empty_session_and_keeps_the_cookie(self, kit):
        """A15: the session is never saved; no cookie is set or deleted."""
        async with kit.serve(PAGES, on_store_failure="anonymous") as site:
            browser = site.browser()
            await browser.get("/write")
            cookie = browser.cookie
            site.store.fail()
            site.take_trace()
            for page, body in [("/look", b"None"), ("/write", b"1 True"), ("/ignore", b"page")]:
                reply = await browser.get(page)
                assert (reply.status, reply.body) == (200, body)
                assert reply.all("set-cookie") == []
                assert (reply.get("vary") is None) == (page == "/ignore")
            assert {
                call for call in site.take_trace() if call in ("create", "save", "touch")
            } == set()
            site.store.heal()
            assert browser.cookie == cookie
            assert (await browser.get("/write")).body == b"2 False"
            assert site.count() == 1

    @pytest.mark.anyio
    @pytest.mark.parametrize("path", sorted(LASTING))
    async def test_method_that_needs_the_store_is_503(self, kit, path):
        """A15, ASVS 7.4.1: a logout that failed is not reported as a success."""
        async with kit.serve(PAGES, on_store_failure="anonymous") as site:
            browser = site.browser()
            await browser.get("/write")
            site.store.fail()
            try:
                reply = await browser.get(path)
            except StoreUnavailable:  # the framework raised the error to its server
                pytest.fail("the error got past the middleware")
            assert reply.status == 503
            assert int(reply.get("retry-after") or 0) > 0
            assert reply.all("set-cookie") == []
            site.store.heal()
            assert (await browser.get("/look")).body == b"1"

    @pytest.mark.anyio
    async def test_write_that_cannot_be_saved_is_503(self, kit):
        """A15: the session was loaded or is new; the write must not be dropped silently."""
        async with kit.serve(PAGES, on_store_failure="anonymous") as site:
            browser = site.browser()
            await browser.get("/write")
            site.store.fail("save", "create")
            assert (await browser.get("/write")).status == 503
            assert (await site.browser().get("/write")).status == 503
            assert (await browser.get("/look")).body == b"1"

    @pytest.mark.anyio
    async def test_each_outage_is_logged_once(self, kit, caplog, monkeypatch):
        """A15."""
        monkeypatch.setattr("sojourn.web.event_log._QUIET_TIME", 0)
        caplog.set_level(logging.WARNING, "sojourn")
        async with kit.serve(PAGES, on_store_failure="anonymous") as site:
            browser = site.browser()
            await browser.get("/write")
            for outage in (1, 2):
                site.store.fail()
                for _ in range(3):
                    await browser.get("/look")
                assert caplog.text.count("the session store failed (load)") == outage
                site.store.heal()
                assert (await browser.get("/look")).body == b"1"
                assert caplog.text.count("answers again") == outage
            assert len(caplog.records) == 4

    @pytest.mark.anyio
    async def test_anonymous_applies_to_the_given_paths_only(self, kit):
        """A15: path patterns, for routes that are resolved after the session is loaded."""
        async with kit.serve(PAGES, on_store_failure=["/l*"]) as site:
            browser = site.browser()
            await browser.get("/write")
            site.store.fail()
            assert (await browser.get("/look")).status == 200
            assert (await browser.get("/ignore")).status == 503

    @pytest.mark.anyio
    async def test_request_without_a_cookie_makes_no_load(self, kit):
        """A15: a hanging ``load`` has no effect, and a session can begin."""
        async with kit.serve(PAGES, on_store_failure="anonymous") as site:
            site.store.hang("load")
            assert (await site.browser().get("/look")).body == b"None"
            site.store.heal()
            assert (await site.browser().get("/write")).body == b"1 True"
            assert site.count() == 1


@pytest.mark.anyio
async def test_failing_store_is_503_by_default(kit):
    """A15, ASVS 16.5.3: fail closed."""
    async with kit.serve(PAGES) as site:
        browser = site.browser()
        await browser.get("/write")
        site.store.fail()
        for page in ("/look", "/ignore"):
            assert (await browser.get(page)).status == 503


@pytest.mark.anyio
async def test_outage_is_logged_once_not_for_each_request(kit, caplog):
    """S12, A15: the line has the reason of the outage."""
    async with kit.serve(PAGES) as site:
        browser = site.browser()
        await browser.get("/write")
        site.store.fail()
        caplog.clear()
        with caplog.at_level(logging.DEBUG, logger="sojourn"):
            for page in ("/look", "/write"):
                assert (await browser.get(page)).status == 503
        records = [one for one in caplog.records if one.name == "sojourn"]
        assert [one.levelname for one in records] == ["WARNING", "DEBUG", "DEBUG"]
        assert "the session store failed (load): " in records[0].getMessage()
        assert all("\n" not in logging.Formatter().format(record) for record in records)


def test_invalid_ticket_is_not_a_store_failure(kit):
    """A8: an invalid cookie gives an empty session, with or without the option."""

    async def law():
        async with kit.serve(PAGES, on_store_failure="anonymous") as site:
            assert (await site.browser("sid=" + "A" * 66).get("/write")).body == b"1 True"
            assert site.count() == 1

    asyncio.run(law())


# Routes


def starlette(sessions_of):
    """Return an application of routes, and its store."""
    store = FaultyStore(MemoryStore())
    app = Starlette()
    sessions = sojourn.install(app, store=store, secret=SECRET, autoload=False, **sessions_of)

    @sessions.route
    async def usual(request):
        request.session["n"] = 1
        return PlainTextResponse("usual")

    @sessions.route(on_store_failure="anonymous")
    def going_on(request):
        return PlainTextResponse(f"{request.session.get('n')}")

    @sessions.route(on_store_failure="error")
    async def strict(request):
        return PlainTextResponse(f"{request.session.get('n')}")

    @sessions.route(on_store_failure="anonymous")
    async def twice(request):
        return await strict(request)

    for handler in (usual, going_on, strict, twice):
        app.router.routes.append(Route(f"/{handler.__name__}", handler))
    return app, store


def fastapi(sessions_of):
    store = FaultyStore(MemoryStore())
    app = FastAPI()
    sessions = sojourn.install(app, store=store, secret=SECRET, autoload=False, **sessions_of)

    @app.get("/usual")
    @sessions.route
    def usual(request: Request) -> str:
        request.scope["session"]["n"] = 1
        return "usual"

    @app.get("/going_on")
    @sessions.route(on_store_failure="anonymous")
    async def going_on(session: SessionDep, query: int = 5) -> str:
        return f"{session.get('n')}"

    @app.get("/strict")
    @sessions.route(on_store_failure="error")
    async def strict(session: SessionDep) -> str:
        return f"{session.get('n')}"

    return app, store


@pytest.mark.parametrize("make", [starlette, fastapi])
class TestRoutes:
    def test_on_store_failure_of_a_route_takes_precedence(self, make):
        """A15: over that of the installation."""
        app, store = make({})
        with TestClient(app, base_url="http://localhost") as client:
            assert client.get("/usual").status_code == 200
            store.fail()
            statuses = {p: client.get(p).status_code for p in ("/usual", "/going_on", "/strict")}
            assert statuses == {"/usual": 503, "/going_on": 200, "/strict": 503}
            store.heal()
            assert "1" in client.get("/going_on").text

    def test_route_with_error_in_an_anonymous_installation_is_503(self, make):
        """A15."""
        app, store = make({"on_store_failure": "anonymous"})
        with TestClient(app, base_url="http://localhost") as client:
            client.get("/usual")
            store.fail()
            assert client.get("/going_on").text.strip('"') == "None"
            assert client.get("/strict").status_code == 503


def test_route_with_error_called_by_an_anonymous_route_is_503():
    """A15: the failed load is raised when the second route loads the session."""
    app, store = starlette({})
    with TestClient(app, base_url="http://localhost") as client:
        client.get("/usual")
        store.fail()
        assert client.get("/twice").status_code == 503


def test_500_of_a_wsgi_framework_becomes_503():
    """A15: Flask, for example, turns every exception of a handler into a 500."""

    def application(environ: Environ, start_response):
        try:
            environ["sojourn.session"].logout()
        except StoreUnavailable:
            start_response("500 Internal Server Error", [("Content-Length", "4")])
        return [b"oops"]

    store = FaultyStore(MemoryStore())
    sessions = sojourn.Sessions(store=store, secret=SECRET, on_store_failure="anonymous")
    _, cookie = asyncio.run(visit(sessions, begin))
    store.fail()
    environ: Environ = {"HTTP_HOST": "localhost", "HTTP_COOKIE": f"sid={cookie}"}
    setup_testing_defaults(environ)
    started = []
    wrapped = sojourn.wsgi.SessionMiddleware(application, sessions)
    assert list(wrapped(environ, lambda *answer: started.append(answer))) == [b"oops"]
    [(status, headers)] = started
    assert status.startswith("503")
    assert int(dict(headers)["retry-after"]) > 0
    assert dict(headers)["Content-Length"] == "4"


def test_a_wsgi_route_loads_its_session():
    """A15: with get_session."""
    seen = []

    def application(environ: Environ, start_response):
        for policy in ("anonymous", "error"):
            try:
                seen.append(dict(get_session(environ, policy)))
            except StoreUnavailable as error:
                seen.append(type(error))
        start_response("200 OK", [])
        return [b"ok"]

    store = FaultyStore(MemoryStore())
    _, cookie = asyncio.run(visit(sojourn.Sessions(store=store, secret=SECRET), begin))
    sessions = sojourn.Sessions(store=store, secret=SECRET, autoload=False)
    store.fail()
    environ: Environ = {"HTTP_HOST": "localhost", "HTTP_COOKIE": f"sid={cookie}"}
    setup_testing_defaults(environ)
    wrapped = sojourn.wsgi.SessionMiddleware(application, sessions)
    assert list(wrapped(environ, lambda *_: lambda _: None)) == [b"ok"]
    assert seen == [{}, StoreUnavailable]


@pytest.mark.parametrize("wrong", ["anonymus", "", 5])
def test_invalid_on_store_failure_of_a_route_is_refused(wrong):
    sessions = sojourn.install(Starlette(), store="memory://")
    with pytest.raises(ConfigurationError, match="on_store_failure expects one of error, anonym"):
        sessions.route(on_store_failure=wrong)


# Sockets


async def send_contents(scope, receive, send):
    """Accept; reply to each message with the session data."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        scope["session"]["seen"] = True
        await send({"type": "websocket.send", "text": str(sorted(scope["session"]))})


class TestSockets:
    @pytest.mark.anyio
    async def test_a_handshake_continues_without_its_session(self):
        """A15: the socket works with an empty session that is never saved."""
        store = FaultyStore(MemoryStore())
        sessions = sojourn.Sessions(store=store, secret=SECRET, on_store_failure="anonymous")
        _, cookie = await visit(sessions, begin)
        store.fail()
        async with connect(send_contents, sessions, cookie=cookie) as wire:
            assert "headers" not in wire.sent[0]
            for _ in range(2):
                wire.send("x")
                assert (await wire.recv())["text"] == "['seen']"
                store.heal()
            assert sessions.connections.total() == 0
        seen, _ = await visit(sessions, cookie=cookie)
        assert seen["counter"] == 0
        assert "seen" not in seen

    @pytest.mark.anyio
    @pytest.mark.parametrize("path", ["/ticker", "/bank"])
    async def test_anonymous_applies_to_sockets_of_the_given_paths(self, path):
        """A15: other sockets are accepted and closed with "try again later"."""
        store = FaultyStore(MemoryStore())
        sessions = sojourn.Sessions(store=store, secret=SECRET, on_store_failure=["/ticker"])
        _, cookie = await visit(sessions, begin)
        store.fail()
        wire = Wire(send_contents, sessions, cookie=cookie, path=path).start()
        first = await wire.recv()
        assert first["type"] == "websocket.accept"
        if path == "/bank":
            assert (await wire.recv())["code"] == 1013
        wire.disconnect()
        await wire.end()

    @pytest.mark.anyio
    async def test_on_store_failure_of_a_socket_route_takes_precedence(self):
        """A15: with the decorator."""
        store = FaultyStore(MemoryStore())
        app = Starlette()
        sessions = sojourn.install(app, store=store, secret=SECRET, autoload=False)

        @sessions.route(on_store_failure="anonymous")
        async def socket(websocket):
            await websocket.accept()
            await websocket.send_text(str(dict(websocket.session)))
            await websocket.close()

        app.router.routes.append(WebSocketRoute("/socket", socket))
        _, cookie = await visit(sojourn.Sessions(store=store, secret=SECRET), begin)
        store.fail()
        client = TestClient(app, base_url="http://localhost", cookies={"sid": cookie})
        with client, client.websocket_connect("/socket") as ws:
            assert ws.receive_text() == "{}"


# A real server


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["error", "anonymous"])
async def test_killed_server_fails_requests_until_it_is_restarted(tmp_path, how):
    """A15: as the option says; requests succeed after the restart."""
    server = Valkey(tmp_path)
    server.start()
    app = Starlette()

    async def page(request):
        request.session["n"] = request.session.get("n", 0) + 1
        return PlainTextResponse(str(request.session["n"]))

    app.router.routes.append(Route("/", page))
    sessions = sojourn.install(app, store=server.url, secret=SECRET, on_store_failure=how)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/")).text == "1"
        cookies = dict(client.cookies)
        with server.refusing():
            for _ in range(2):
                answer = await client.get("/")
                assert "set-cookie" not in answer.headers
                if how == "error":
                    assert answer.status_code == 503
                    assert int(answer.headers["retry-after"]) > 0
                else:
                    assert (answer.status_code, answer.text) == (200, "1")
        assert dict(client.cookies) == cookies
        for n in ("1", "2"):  # the restarted server is empty, because it does not persist data
            assert (await client.get("/")).text == n
    sessions.close()
    server.stop()
