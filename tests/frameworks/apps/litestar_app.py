"""Applications of Litestar for the laws of requests, and for real servers."""

from litestar import Litestar, Request, Response
from litestar.handlers import HTTPRouteHandler
from litestar.response import Stream

import sojourn
from sojourn.frameworks.litestar import SojournPlugin
from sojourn.testing import HandlerResponse


def endpoint(path, handler):
    """Return a route handler of Litestar that calls a handler."""

    async def respond(request: Request) -> Response:
        response = await handler(request.scope.get("session")) or HandlerResponse()
        kind = Response if isinstance(response.body, bytes) else Stream
        return kind(
            response.body,
            status_code=response.status,
            headers=dict(response.headers),
            media_type="text/plain",
        )

    # Litestar answers HEAD only where a handler names it.
    return HTTPRouteHandler(path, http_method=["GET", "HEAD"], status_code=200)(respond)


def build(handlers, **options):
    """Return an application that serves each handler at its path, and its installation."""
    plugin = SojournPlugin(**options)
    routes = [endpoint(path, handler) for path, handler in handlers.items()]
    return Litestar(routes, plugins=[plugin], openapi_config=None), plugin.sessions


def build_installed(handlers, **options):
    """Return an application that exists before sessions are installed, and its installation."""
    routes = [endpoint(path, handler) for path, handler in handlers.items()]
    app = Litestar(routes, openapi_config=None)
    return app, sojourn.install(app, **options)


def uninstall(app, sessions):
    """Uninstall sessions from an application that is being served."""
    sojourn.uninstall(app)
