"""Applications of Lilya for the laws of requests, and for real servers."""

from lilya.apps import Lilya
from lilya.middleware import DefineMiddleware
from lilya.requests import Request
from lilya.responses import Response, StreamingResponse
from lilya.routing import Path

import sojourn
from sojourn.testing import HandlerResponse
from tests.frameworks.apps.wsgi_app import uninstall

__all__ = ["build", "uninstall"]


class Stream(StreamingResponse):
    """A stream that sends each part at once; Lilya's sends a part when it has the next one."""

    async def stream(self, send):
        async for part in self.body_iterator:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def endpoint(handler):
    """Return an endpoint of Lilya that calls a handler."""

    async def respond(request: Request) -> Response:
        response = await handler(request.scope.get("session")) or HandlerResponse()
        kind = Response if isinstance(response.body, bytes) else Stream
        return kind(response.body, status_code=response.status, headers=dict(response.headers))

    return respond


def build(handlers, **options):
    """Return an application that serves each handler at its path, and its installation."""
    sessions = sojourn.Sessions(**options)
    middleware = [DefineMiddleware(sojourn.asgi.SessionMiddleware, sessions=sessions)]
    routes = [Path(path, endpoint(handler)) for path, handler in handlers.items()]
    return Lilya(routes=routes, middleware=middleware), sessions
