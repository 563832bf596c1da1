"""Applications of Quart for the laws of requests, and for real servers."""

from quart import Quart, Response, session, stream_with_context

import sojourn
from sojourn.testing import HandlerResponse


def build(handlers, **options):
    """Return an application that serves each handler at its path, and its installation."""
    app = Quart(__name__)
    sessions = sojourn.install(app, **options)
    for path, handler in handlers.items():
        app.add_url_rule(path, path, view(handler, sessions))
    return app, sessions


def view(handler, sessions):
    """Return a view that calls a handler with the session, None after ``uninstall``."""

    async def respond():
        own = session if sessions.web.active else None  # the proxy: a read of it would be an access
        response = await handler(own) or HandlerResponse()
        body = response.body
        if not isinstance(body, bytes):
            body = stream_with_context(lambda: response.body)()
        return Response(body, response.status, dict(response.headers))

    return respond


def uninstall(app, sessions):
    """Uninstall sessions from an application that is being served."""
    sojourn.uninstall(app)
