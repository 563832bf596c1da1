"""Applications of Falcon (ASGI) for the laws of requests, and for real servers."""

import falcon.asgi

import sojourn
from sojourn.testing import HandlerResponse
from tests.frameworks.apps.falcon_app import finish, uninstall

__all__ = ["build", "uninstall"]


class Resource:
    """Responds with what a handler returns."""

    def __init__(self, handler):
        self._handler = handler

    async def on_get(self, req, resp):
        response = await self._handler(getattr(req.context, "session", None)) or HandlerResponse()
        if isinstance(response.body, bytes):
            resp.data = response.body
        else:
            resp.stream = response.body
        finish(resp, response)

    on_head = on_get


def build(handlers, **options):
    """Return an application that serves each handler at its path, and its installation."""
    app = falcon.asgi.App()
    for path, handler in handlers.items():
        app.add_route(path, Resource(handler))
    return app, sojourn.install(app, **options)
