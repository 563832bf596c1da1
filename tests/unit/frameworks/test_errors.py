"""Errors belong to the application (law A23), under Starlette and FastAPI.

Each test runs with two middleware stacks. In the first, the application's middleware does not use
the session, so the installation adds one layer. In the second it may, so it adds two.
"""

import logging

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse

import sojourn
from sojourn.errors import (
    LimitReached,
    SessionConflict,
    SessionTooLarge,
    SojournError,
    StoreError,
    StoreUnavailable,
)
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore

pytestmark = pytest.mark.anyio

SECRET = "errors-7Jm2Qw9vXc4Rk1-Zt"
ORIGIN = "http://localhost:5173"


class PureMiddleware:
    """A middleware of the application that is no class of Starlette's."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


async def pass_on(request, call_next):
    return await call_next(request)


STACKS = {
    "single": [],
    "pure": [(PureMiddleware, {})],
    "base": [(BaseHTTPMiddleware, {"dispatch": pass_on})],
}


class Site:
    """An application with every kind of failing page, and a visitor with a session.

    Attributes:
        handled: the errors that the application's own handlers got.
    """

    def __init__(self, kind, stack, *, cors=None, handlers=None, **options):
        self.handled = []
        self.store = FaultyStore(MemoryStore())
        self.app = kind()
        for key, status in (handlers or {}).items():
            self.app.add_exception_handler(key, self.handler(status))
        if cors == "before":
            self._add_cors()
        if options.get("on_error") is True:
            options["on_error"] = self.handler(418)
        options = {"store": self.store, "secret": SECRET, **options}
        self.sessions = sojourn.install(self.app, **options)
        for middleware, arguments in STACKS[stack]:
            self.app.add_middleware(middleware, **arguments)
        if cors == "after":
            self._add_cors()
        for page in (write, look, login, grow, commit, claim, lists, leave_and_grow, stream, fail):
            self.app.router.add_route(f"/{page.__name__}", page, methods=["GET", "POST"])
        self.app.state.sessions = self.sessions
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    def _add_cors(self):
        self.app.add_middleware(
            CORSMiddleware, allow_origins=[ORIGIN], allow_credentials=True, allow_methods=["*"]
        )

    def handler(self, status):
        async def handle(request, error):
            assert isinstance(request, Request)
            self.handled.append(error)
            return JSONResponse({"error": type(error).__name__}, status)

        return handle

    async def get(self, path, **headers):
        return await self.client.get(
            path, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )


async def write(request):
    request.session["n"] = request.session.get("n", 0) + 1
    return PlainTextResponse(str(request.session["n"]))


async def look(request):
    return PlainTextResponse(str(request.session.get("n")))


async def login(request):
    request.session.login("ada")
    return PlainTextResponse("in")


async def grow(request):
    request.session["large"] = "x" * 100_000
    return PlainTextResponse("grown")


async def leave_and_grow(request):
    request.session.destroy()
    return await grow(request)


async def commit(request):
    request.session["n"] = 7
    await request.session.acommit()
    return PlainTextResponse("done")


async def claim(request):
    await request.session.aclaim("n")
    return PlainTextResponse("done")


async def lists(request):
    await request.app.state.sessions.alist_user("ada")
    return PlainTextResponse("done")


async def stream(request):
    request.session["large"] = "x" * 100_000

    async def parts():
        while True:  # a stream that is not stopped does not end
            yield b"part"

    return StreamingResponse(parts())


async def fail(request):
    request.session["n"] = 99
    request.session.destroy()
    raise LookupError("planned by the test")


@pytest.fixture(params=[Starlette, FastAPI], ids=["starlette", "fastapi"])
def kind(request):
    return request.param


@pytest.fixture(params=STACKS)
def make(request, kind):
    return lambda **options: Site(kind, request.param, **options)


PATHS = {
    "/look": "load",
    "/write": "save",
    "/commit": "save",
    "/claim": "save",
    "/lists": "list_by_index",
}


async def failing(site, path):
    """Give the visitor a session, and let the store fail where a page needs it."""
    await site.get("/write")
    site.store.fail(PATHS[path])


@pytest.mark.parametrize("path", PATHS)
async def test_a_failing_store_is_503_on_every_path(make, path, caplog):
    """A23, A15: negotiated, with Retry-After, and one line of the log."""
    site = make()
    await failing(site, path)
    cookies = dict(site.client.cookies)
    caplog.clear()
    with caplog.at_level(logging.INFO, "sojourn"):
        reply = await site.get(path, accept="application/problem+json")
    assert reply.status_code == 503
    assert reply.json()["status"] == 503
    assert int(reply.headers["retry-after"]) > 0
    assert reply.headers["content-type"] == "application/problem+json"
    assert "set-cookie" not in reply.headers
    assert len([one for one in caplog.records if one.name == "sojourn"]) == 1
    site.store.heal()
    assert dict(site.client.cookies) == cookies
    assert (await site.get("/look")).text == "1"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("key", [StoreUnavailable, StoreError, SojournError, 503])
async def test_the_application_answers_a_failing_store(make, path, key):
    """A23: by the class of the error, by a base class, or by status."""
    site = make(handlers={key: 521})
    await failing(site, path)
    reply = await site.get(path)
    assert (reply.status_code, reply.json()) == (521, {"error": "StoreUnavailable"})
    assert len(site.handled) == 1


@pytest.mark.parametrize("key", [Exception, 500])
@pytest.mark.parametrize("path", PATHS)
async def test_the_handler_of_all_exceptions_answers_503(make, path, key):
    """A23: its status of 500 becomes 503 with Retry-After."""
    site = make(handlers={key: 500})
    await failing(site, path)
    reply = await site.get(path)
    assert (reply.status_code, reply.json()) == (503, {"error": "StoreUnavailable"})
    assert int(reply.headers["retry-after"]) > 0
    assert len(site.handled) == 1


@pytest.mark.parametrize("path", PATHS)
async def test_on_error_answers_first(make, path):
    """A23: load errors, commit errors and what a handler did not catch."""
    site = make(on_error=True, handlers={500: 500})
    await failing(site, path)
    assert (await site.get(path)).status_code == 418
    assert len(site.handled) == 1


@pytest.mark.parametrize("path", ["/look", "/write", "/grow"])
async def test_on_error_may_leave_an_error_to_others(make, path):
    """A23: None is no answer."""
    site = make(on_error=lambda request, error: None, handlers={SojournError: 521})
    await site.get("/write")
    site.store.fail("load" if path == "/look" else "save")
    assert (await site.get(path)).status_code == 521


async def test_an_error_of_the_commit_is_answered(make):
    """A23: before the response of the page starts."""
    site = make(handlers={SessionTooLarge: 413})
    await site.get("/write")
    reply = await site.get("/grow")
    assert (reply.status_code, reply.json()) == (413, {"error": "SessionTooLarge"})
    assert reply.headers["vary"] == "Cookie"
    assert (await site.get("/look")).text == "1"


async def test_a_login_beyond_the_limit_is_answered(make):
    """A23: LimitReached; the session from before stays."""
    site = make(handlers={LimitReached: 409}, max_sessions=1, on_limit="refuse")
    await site.get("/login")
    site.client.cookies.clear()
    await site.get("/write")
    assert (await site.get("/login")).status_code == 409
    assert (await site.get("/look")).text == "1"


async def test_a_conflict_is_answered(make, monkeypatch):
    """A23: SessionConflict, raised while a new session is created."""
    site = make(handlers={SojournError: 409})

    async def taken(record):
        return False

    monkeypatch.setattr(site.store.store, "create", taken)
    reply = await site.get("/write")
    assert (reply.status_code, reply.json()) == (409, {"error": SessionConflict.__name__})
    assert "set-cookie" not in reply.headers


async def test_a_stream_whose_commit_fails_is_answered_and_stopped(make):
    """A23: the stream itself is never started."""
    site = make(handlers={SessionTooLarge: 413})
    await site.get("/write")
    assert (await site.get("/stream")).status_code == 413


async def test_without_a_handler_the_framework_answers_500(make):
    """A23: the data is dropped, the error reaches the server's log."""
    site = make()
    await site.get("/write")
    reply = await site.get("/grow")
    assert (reply.status_code, reply.text) == (500, "Internal Server Error")
    assert reply.headers["vary"] == "Cookie"
    assert (await site.get("/look")).text == "1"


@pytest.mark.parametrize("save_on_error", [False, True])
async def test_the_handler_of_all_exceptions_sees_the_error_itself(make, save_on_error):
    """A23: not one that the framework made of it."""
    site = make(handlers={Exception: 500}, save_on_error=save_on_error)
    await site.get("/write")
    assert (await site.get("/grow")).json() == {"error": "SessionTooLarge"}


@pytest.mark.parametrize("handlers", [{}, {SessionTooLarge: 413}])
async def test_a_session_that_was_destroyed_stays_destroyed(make, handlers):
    """A10: the new session is too large, and the old one is gone nevertheless."""
    site = make(handlers=handlers)
    await site.get("/write")
    reply = await site.get("/leave_and_grow")
    assert reply.status_code == (413 if handlers else 500)
    assert "max-age=0" in reply.headers["set-cookie"].lower()
    assert site.sessions.usage().removes == 1
    assert (await site.get("/look")).text == "None"


async def test_an_error_page_has_the_headers_of_the_session(make):
    """A10, A13: the page of the framework, made outside of the application's middleware."""
    site = make()
    await site.get("/write")
    reply = await site.get("/fail")
    assert (reply.status_code, reply.text) == (500, "Internal Server Error")
    assert "max-age=0" in reply.headers["set-cookie"].lower()
    assert reply.headers["vary"] == "Cookie"


async def test_a_handler_that_fails_itself_is_a_500(make):
    """A23: it may use the session that could not be loaded; that is the same error again."""

    async def handle(request, error):
        return PlainTextResponse(str(dict(request.session)))

    site = make()
    site.app.add_exception_handler(StoreUnavailable, handle)
    await failing(site, "/look")
    reply = await site.get("/look")
    assert reply.status_code == 503


@pytest.mark.parametrize("cors", ["before", "after"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "handlers", [{}, {StoreError: 521}, {Exception: 500}], ids=["none", "own", "all"]
)
async def test_cors_headers_are_on_every_503(make, cors, path, handlers):
    """A23: with Starlette's middleware, added before or after ``install``."""
    site = make(cors=cors, handlers=handlers)
    await failing(site, path)
    reply = await site.get(path, origin=ORIGIN)
    assert reply.status_code in (503, 521)
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    assert reply.headers["access-control-allow-credentials"] == "true"


@pytest.mark.parametrize("cors", ["before", "after"])
async def test_cors_headers_are_on_a_403(make, cors, caplog):
    """A23, ASVS 3.5.1: the page can read why; the store is not called and no handler runs."""
    site = make(cors=cors, protect=True)
    await site.get("/write")
    site.store.calls.clear()
    headers = {"origin": ORIGIN, "sec-fetch-site": "same-site", "accept": "application/json"}
    reply = await site.client.post("/write", headers=headers)
    assert reply.status_code == 403
    assert "allowed_origins" in reply.json()["detail"]
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    assert {"Sec-Fetch-Site", "Cookie", "Origin"} <= set(reply.headers["vary"].split(", "))
    assert "allowed_origins" in caplog.text
    assert ORIGIN in caplog.text
    assert site.store.calls == []
    assert (await site.get("/look")).text == "1"


async def test_a_preflight_is_answered_by_the_application(make):
    """The CORS middleware answers it; no session is loaded for it in the single layer."""
    site = make(cors="before", protect=True, allowed_origins=[ORIGIN])
    preflight = {"origin": ORIGIN, "access-control-request-method": "POST"}
    reply = await site.client.options("/write", headers=preflight)
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    headers = {"origin": ORIGIN, "sec-fetch-site": "same-site"}
    assert (await site.client.post("/write", headers=headers)).text == "1"


# Middleware of the application


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
async def test_a_middleware_uses_the_session(kind, before):
    """A2: before the page, and after it; the cookie is sent."""

    async def dispatch(request, call_next):
        if before:
            request.session["seen"] = True
        response = await call_next(request)
        if not before:
            request.session["seen"] = True
        return response

    site = Site(kind, "single")
    site.app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    reply = await site.get("/write")
    assert len(reply.headers.get_list("set-cookie")) == 1
    assert reply.headers["vary"] == "Cookie"
    (record,) = site.store.store._records.values()
    assert site.sessions.usage().creates == 1
    assert record.version == (1 if before else 2)
    assert (await site.get("/look")).text == "1"


async def test_middleware_gets_every_part_of_a_stream(kind):
    """A11: a second middleware, which replaces the start, does not let the rest pass the first."""

    async def stream(request: Request):
        async def parts():
            yield "a" * 1000
            request.session["late"] = 1
            yield "b" * 1000

        request.session["early"] = 1
        return StreamingResponse(parts())

    site = Site(kind, "base")
    site.app.add_middleware(GZipMiddleware)
    site.app.add_route("/parts", stream)
    reply = await site.get("/parts")
    assert reply.headers["content-encoding"] == "gzip"
    assert reply.text == "a" * 1000 + "b" * 1000
    (record,) = site.store.store._records.values()
    assert record.version == 2


async def test_a_middleware_that_replaces_the_response_keeps_the_cookie(kind):
    """A2: the session that the page began is not lost with its response."""

    async def dispatch(request, call_next):
        await call_next(request)
        return PlainTextResponse("replaced")

    site = Site(kind, "single")
    site.app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    reply = await site.get("/write")
    assert reply.text == "replaced"
    assert len(reply.headers.get_list("set-cookie")) == 1
    assert reply.headers["vary"] == "Cookie"


@pytest.mark.parametrize("on_error", [None, True])
async def test_an_error_in_a_middleware_is_answered(kind, on_error):
    """A23: by ``on_error``, else 503; handlers of the application are inside of it."""

    async def dispatch(request, call_next):
        await request.app.state.sessions.alist_user("ada")
        return await call_next(request)

    site = Site(kind, "single", on_error=on_error)
    site.app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    site.store.fail("list_by_index")
    reply = await site.get("/look")
    assert reply.status_code == (418 if on_error else 503)
    assert len(site.handled) == (1 if on_error else 0)


async def test_a_middleware_that_uses_a_session_that_was_not_loaded(kind):
    """A15: it does not see an empty session."""
    seen = []

    async def dispatch(request, call_next):
        try:
            seen.append(dict(request.session))
        except StoreUnavailable:
            seen.append("unavailable")
        return await call_next(request)

    site = Site(kind, "single")
    site.app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    await failing(site, "/look")
    seen.clear()
    assert (await site.get("/look")).status_code == 503
    assert seen == ["unavailable"]


async def test_install_on_an_application_that_is_served(make):
    """A20, A23: its middleware objects stay."""
    site = make()
    await site.get("/look")
    sojourn.uninstall(site.app)
    assert site.app.middleware_stack is not None
    store = FaultyStore(MemoryStore())
    sojourn.install(site.app, store=store, secret=SECRET)
    assert (await site.get("/write")).text == "1"
    store.fail("load")
    assert (await site.get("/look")).status_code == 503


async def test_debug_pages_have_the_headers_of_the_session(kind):
    """A13: Starlette makes them itself."""
    site = Site(kind, "single")
    site.app.debug = True
    await site.get("/write")
    reply = await site.get("/fail", accept="text/html")
    assert reply.status_code == 500
    assert "planned by the test" in reply.text
    assert reply.headers["vary"] == "Cookie"
