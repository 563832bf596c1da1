"""Applications of Starlette for the laws of requests, and for real servers."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

import sojourn
from sojourn.testing import HandlerResponse


def endpoint(handler):
    """Return an endpoint of Starlette and FastAPI that calls a handler."""

    async def respond(request: Request) -> Response:
        response = await handler(request.scope.get("session")) or HandlerResponse()
        kind = Response if isinstance(response.body, bytes) else StreamingResponse
        return kind(response.body, response.status, headers=dict(response.headers))

    return respond


def build(handlers, **options):
    """Return an application that serves each handler at its path, and its installation."""
    app = Starlette(routes=[Route(path, endpoint(h)) for path, h in handlers.items()])
    return app, sojourn.install(app, **options)


def uninstall(app, sessions):
    """Uninstall sessions from an application that is being served."""
    sojourn.uninstall(app)
