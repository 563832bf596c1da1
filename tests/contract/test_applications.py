"""The laws of requests through Starlette, FastAPI, a bare ASGI and a bare WSGI application."""

from collections.abc import Iterator

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

import sojourn
from sojourn._core.concurrency import run
from sojourn.testing import AppSuite, Status
from sojourn.web import wsgi


def endpoint(handler):
    """Return a function for Starlette and FastAPI that lets a handler answer."""

    async def respond(request: Request) -> Response:
        answer = await handler(request.scope.get("session")) or Status()
        kind = Response if isinstance(answer.body, bytes) else StreamingResponse
        return kind(answer.body, answer.status, headers=dict(answer.headers))

    return respond


class TestStarlette(AppSuite):
    """A1 to A20 through Starlette."""

    def build(self, handlers, **options):
        app = Starlette(routes=[Route(path, endpoint(h)) for path, h in handlers.items()])
        return app, sojourn.install(app, **options)

    def uninstall(self, app, sessions):
        sojourn.uninstall(app)


class TestFastAPI(TestStarlette):
    """A1 to A20 through FastAPI."""

    def build(self, handlers, **options):
        app = FastAPI()
        for path, handler in handlers.items():
            app.add_api_route(path, endpoint(handler), methods=["GET", "HEAD"])
        return app, sojourn.install(app, **options)


class TestBareASGI(AppSuite):
    """A1 to A20 through an ASGI callable."""

    answers_errors = False

    def build(self, handlers, **options):
        async def app(scope, receive, send):
            answer = await handlers[scope["path"]](scope.get("session")) or Status()
            headers = [(k.encode(), v.encode()) for k, v in measured(answer).items()]
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            if isinstance(answer.body, bytes):
                await send({"type": "http.response.body", "body": answer.body})
                return
            async for part in answer.body:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        sessions = sojourn.Sessions(**options)
        return sojourn.asgi.SessionMiddleware(app, sessions), sessions

    def uninstall(self, app, sessions):
        sessions.web.active = False


class TestBareWSGI(TestBareASGI):
    """A1 to A20 through a WSGI callable."""

    protocol = "wsgi"

    def build(self, handlers, **options):
        def app(environ, start_response):
            session = environ.get("sojourn.session")
            answer = run(handlers[environ["PATH_INFO"]](session)) or Status()
            start_response(f"{answer.status} Because", list(measured(answer).items()))
            return [answer.body] if isinstance(answer.body, bytes) else parts_of(answer.body)

        sessions = sojourn.Sessions(**options)
        return wsgi.SessionMiddleware(app, sessions), sessions


def measured(answer):
    """Return the headers of an answer, with its length where it is no stream."""
    if not isinstance(answer.body, bytes):
        return answer.headers
    return {"content-length": str(len(answer.body)), **answer.headers}


def parts_of(stream) -> Iterator[bytes]:
    """Yield the parts of an async generator without a loop."""
    while True:
        try:
            yield run(anext(stream))
        except StopAsyncIteration:
            return
