"""Applications of Falcon (WSGI) for the laws of requests, and for real servers."""

import falcon

import sojourn
from sojourn._core.concurrency import run
from sojourn.testing import HandlerResponse
from tests.frameworks.apps.wsgi_app import parts_of


class Resource:
    """Responds with what a handler returns."""

    def __init__(self, handler):
        self._handler = handler

    def on_get(self, req, resp):
        response = run(self._handler(getattr(req.context, "session", None))) or HandlerResponse()
        if isinstance(response.body, bytes):
            resp.data = response.body
        else:
            resp.stream = parts_of(response.body)
        finish(resp, response)

    on_head = on_get


def finish(resp, response):
    """Set status and headers."""
    resp.status = response.status
    resp.content_type = "text/plain"
    for name, value in response.headers.items():
        if name.lower() == "set-cookie":
            resp.append_header(name, value)
        else:
            resp.set_header(name, value)


def build(handlers, **options):
    """Return an application that serves each handler at its path, and its installation."""
    app = falcon.App()
    for path, handler in handlers.items():
        app.add_route(path, Resource(handler))
    return app, sojourn.install(app, **options)


def uninstall(app, sessions):
    """Uninstall sessions from an application that is being served."""
    sojourn.uninstall(app)
