"""The laws of requests for Starlette, FastAPI, a bare ASGI and a bare WSGI application."""

from collections.abc import Iterator

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

import sojourn
from sojourn._core.concurrency import run
from sojourn.testing import HandlerResponse
from sojourn.web import wsgi
from tests.contract.request_suite import RequestSuite


def endpoint(handler):
    """Return an endpoint of Starlette and FastAPI that calls a handler."""

    async def respond(request: Request) -> Response:
        response = await handler(request.scope.get("session")) or HandlerResponse()
        kind = Response if isinstance(response.body, bytes) else StreamingResponse
        return kind(response.body, response.status, headers=dict(response.headers))

    return respond


class TestStarlette(RequestSuite):
    """A1 to A24 through Starlette."""

    def build(self, handlers, **options):
        app = Starlette(routes=[Route(path, endpoint(h)) for path, h in handlers.items()])
        return app, sojourn.install(app, **options)

    def uninstall(self, app, sessions):
        sojourn.uninstall(app)


class PassThrough(BaseHTTPMiddleware):
    """A middleware that runs the application in a task of its own, as most of Starlette's do."""

    async def dispatch(self, request, call_next):
        return await call_next(request)


class TestStarletteWithMiddleware(TestStarlette):
    """A1 to A24 through two layers: one outside and one inside of the application's middleware."""

    def build(self, handlers, **options):
        routes = [Route(path, endpoint(h)) for path, h in handlers.items()]
        app = Starlette(routes=routes, middleware=[Middleware(PassThrough)])
        return app, sojourn.install(app, **options)


class TestStarletteDebug(TestStarlette):
    """A1 to A24 with ``debug=True``, whose error pages are made outside of everything."""

    def build(self, handlers, **options):
        app = Starlette(routes=[Route(p, endpoint(h)) for p, h in handlers.items()], debug=True)
        return app, sojourn.install(app, **options)


class TestFastAPI(TestStarlette):
    """A1 to A24 through FastAPI."""

    def build(self, handlers, **options):
        app = FastAPI()
        for path, handler in handlers.items():
            app.add_api_route(path, endpoint(handler), methods=["GET", "HEAD"])
        return app, sojourn.install(app, **options)


class TestBareASGI(RequestSuite):
    """A1 to A24 through an ASGI callable."""

    answers_errors = False

    def build(self, handlers, **options):
        async def app(scope, receive, send):
            response = await handlers[scope["path"]](scope.get("session")) or HandlerResponse()
            headers = [(k.encode(), v.encode()) for k, v in headers_of(response).items()]
            await send(
                {"type": "http.response.start", "status": response.status, "headers": headers}
            )
            if isinstance(response.body, bytes):
                await send({"type": "http.response.body", "body": response.body})
                return
            async for part in response.body:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        sessions = sojourn.Sessions(**options)
        return sojourn.asgi.SessionMiddleware(app, sessions), sessions

    def uninstall(self, app, sessions):
        sessions.web.active = False


class TestBareWSGI(TestBareASGI):
    """A1 to A24 through a WSGI callable."""

    protocol = "wsgi"

    def build(self, handlers, **options):
        def app(environ, start_response):
            session = environ.get("sojourn.session")
            response = run(handlers[environ["PATH_INFO"]](session)) or HandlerResponse()
            start_response(f"{response.status} Because", list(headers_of(response).items()))
            return [response.body] if isinstance(response.body, bytes) else parts_of(response.body)

        sessions = sojourn.Sessions(**options)
        return wsgi.SessionMiddleware(app, sessions), sessions


def headers_of(response):
    """Return the headers of a response, with its length if it is not a stream."""
    if not isinstance(response.body, bytes):
        return response.headers
    return {"content-length": str(len(response.body)), **response.headers}


def parts_of(stream) -> Iterator[bytes]:
    """Yield the parts of an async generator without an event loop."""
    while True:
        try:
            yield run(anext(stream))
        except StopAsyncIteration:
            return
