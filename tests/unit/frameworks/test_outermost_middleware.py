"""The outermost middleware of Starlette and FastAPI, as other libraries expect it.

OpenTelemetry takes the stack of ``build_middleware_stack`` apart, and asgiref calls an application
with the scope alone unless its ``__call__`` is a coroutine function.
"""

import asyncio
import functools

import httpx
import pytest
import uvicorn
from asgiref.compatibility import is_double_callable
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse

import sojourn
from sojourn import admin
from sojourn.frameworks.starlette import SessionMiddleware
from sojourn.stores.memory import MemoryStore
from sojourn.web.asgi import ErrorMiddleware

pytestmark = pytest.mark.anyio

SECRET = "outermost-3Hs8Kd1bNf6Tz0-Qe"


class PureMiddleware:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


async def count(request):
    number = request.session.get("counter", 0) + 1
    request.session["counter"] = number
    return PlainTextResponse(str(number))


async def leave(request):
    request.session.destroy()
    raise ValueError("failed after the destruction")


async def stream(request):
    request.session["counter"] = 100

    async def body():
        yield b"begun"
        raise ValueError("failed in the stream")

    return StreamingResponse(body())


async def stream_nothing(request):
    async def body():
        raise ValueError("failed before the stream")
        yield b""

    return StreamingResponse(body())


class Site:
    """An application whose handler of all exceptions records them.

    Attributes:
        handled: the exceptions.
    """

    def __init__(self, kind, *, middleware=(), handler=True):
        self.handled = []
        self.app = kind()
        for path, function in (
            ("/count", count),
            ("/leave", leave),
            ("/stream", stream),
            ("/stream-nothing", stream_nothing),
        ):
            self.app.add_route(path, function)
        for each in middleware:
            self.app.add_middleware(each)
        if handler:
            self.app.add_exception_handler(Exception, self._handle)
        self.sessions = sojourn.install(self.app, store=MemoryStore(), secret=SECRET)

    async def _handle(self, request, error):
        self.handled.append(type(error))
        return PlainTextResponse("the application's page", status_code=500)

    def client(self):
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://localhost")


@pytest.fixture(params=[Starlette, FastAPI])
def kind(request):
    return request.param


@pytest.fixture(params=[(), (PureMiddleware,)], ids=["alone", "with-middleware"])
def middleware(request):
    return request.param


def take_apart(app, seen):
    """Wrap the stack of an application as OpenTelemetry's instrumentation of FastAPI does."""
    build = app.build_middleware_stack

    class Observing:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            seen.append(scope["path"])
            await self.app(scope, receive, send)

    def build_instrumented():
        found = build()
        assert isinstance(found, ServerErrorMiddleware)
        errors = ServerErrorMiddleware(
            Observing(found.app), handler=found.handler, debug=found.debug
        )
        return ServerErrorMiddleware(Observing(errors))

    app.build_middleware_stack = build_instrumented


class TestStackTakenApart:
    async def test_sessions_work_and_each_layer_is_passed(self, kind, middleware):
        site, seen = Site(kind, middleware=middleware), []
        take_apart(site.app, seen)
        async with site.client() as client:
            assert [(await client.get("/count")).text for _ in range(2)] == ["1", "2"]
        assert seen == ["/count"] * 4

    async def test_the_error_page_has_the_headers_of_the_session(self, kind, middleware):
        """A10, A13."""
        site = Site(kind, middleware=middleware)
        take_apart(site.app, [])
        async with site.client() as client:
            await client.get("/count")
            reply = await client.get("/leave")
        assert (reply.status_code, reply.text) == (500, "the application's page")
        assert "max-age=0" in reply.headers["set-cookie"].lower()
        assert reply.headers["vary"] == "Cookie"
        assert site.handled == [ValueError]


async def test_a_subclass_of_starlettes_middleware_is_passed():
    """By each request, also if it does not fail."""
    seen = []

    class Observing(ServerErrorMiddleware):
        async def __call__(self, scope, receive, send):
            seen.append(scope["path"])
            await super().__call__(scope, receive, send)

    class Application(Starlette):
        def build_middleware_stack(self):
            found = super().build_middleware_stack()
            return Observing(found.app, found.handler, found.debug)

    site = Site(Application)
    async with site.client() as client:
        assert [(await client.get("/count")).text for _ in range(2)] == ["1", "2"]
        reply = await client.get("/leave")
    assert (reply.status_code, reply.text) == (500, "the application's page")
    assert "max-age=0" in reply.headers["set-cookie"].lower()
    assert seen == ["/count", "/count", "/leave"]


class TestHandlerOfAllExceptions:
    async def test_is_called_once(self, kind, middleware):
        site = Site(kind, middleware=middleware)
        async with site.client() as client:
            await client.get("/count")
            reply = await client.get("/leave")
            assert (reply.status_code, reply.text) == (500, "the application's page")
            assert site.handled == [ValueError]
            assert (await client.get("/count")).text == "1"

    async def test_is_called_without_a_page_after_the_start_of_a_response(self, kind, middleware):
        """As in Starlette without sessions: it reports the error."""
        site = Site(kind, middleware=middleware)
        sent, error = await serve(site.app, "/stream")
        assert str(error) == "failed in the stream"
        assert site.handled == [ValueError]
        assert sent == [
            ("http.response.start", 200, None),
            ("http.response.body", None, b"begun"),
        ]

    async def test_answers_a_stream_that_failed_before_its_first_part(self, kind, middleware):
        """A13: the response is started once, also if the handler waits before it answers."""
        site = Site(kind, middleware=middleware, handler=False)

        async def wait_and_answer(request, error):
            for _ in range(5):
                await asyncio.sleep(0)
            return PlainTextResponse("late", status_code=500)

        site.app.add_exception_handler(Exception, wait_and_answer)
        sent, error = await serve(site.app, "/stream-nothing")
        assert str(error) == "failed before the stream"
        assert sent == [
            ("http.response.start", 500, None),
            ("http.response.body", None, b"late"),
        ]

    async def test_may_be_a_partial_of_an_object(self, kind, middleware):
        """As in Starlette without sessions."""

        class Handler:
            async def __call__(self, text, request, error):
                return PlainTextResponse(text, status_code=500)

        site = Site(kind, middleware=middleware, handler=False)
        site.app.add_exception_handler(Exception, functools.partial(Handler(), "partial"))
        async with site.client() as client:
            reply = await client.get("/leave")
        assert (reply.status_code, reply.text) == (500, "partial")

    async def test_answers_after_uninstall(self, kind, middleware):
        site = Site(kind, middleware=middleware, handler=False)
        site.app.add_route("/fail", fail)
        async with site.client() as client:
            assert (await client.get("/count")).text == "1"
            sojourn.uninstall(site.app)
            reply = await client.get("/fail")
        assert (reply.status_code, reply.text) == (500, "Internal Server Error")


async def serve(app, path):
    """Serve one request; return what is sent, and the error that is raised."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append((message["type"], message.get("status"), message.get("body")))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "server": ("localhost", 80),
        "client": ("127.0.0.1", 5000),
    }
    with pytest.raises(ValueError, match="failed") as raised:
        await app(scope, receive, send)
    return sent, raised.value


async def fail(request):
    raise ValueError("failed without a session")


def applications():
    """Return every object of sojourn that a server or a middleware calls as an application."""
    sessions = sojourn.Sessions(store=MemoryStore(), secret=SECRET)

    async def app(scope, receive, send):
        raise AssertionError("not called")

    alone, layered = Site(Starlette).app, Site(Starlette, middleware=[PureMiddleware]).app
    return {
        "admin": admin.app(sessions, allow=lambda _: True),
        "asgi": sojourn.asgi.SessionMiddleware(app, sessions),
        "device page": admin.device_page(sessions, login_url="/"),
        "drop-in": SessionMiddleware(app, SECRET).app,
        "errors": ErrorMiddleware(app, sessions, framework=None),
        "health": sojourn.health(sessions),
        "layered": layered.build_middleware_stack(),
        "single": alone.build_middleware_stack(),
    }


@pytest.mark.parametrize("name", list(applications()))
def test_servers_and_asgiref_recognise_applications_of_asgi_3(name):
    found = applications()[name]
    assert not is_double_callable(found)
    config = uvicorn.Config(found)
    config.load()
    assert config.interface == "asgi3"
