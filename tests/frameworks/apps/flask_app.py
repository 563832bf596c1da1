"""Applications of Flask for the laws of requests, and for real servers."""

from flask import Flask, Response, session, stream_with_context

import sojourn
from sojourn._core.concurrency import run
from sojourn.testing import HandlerResponse
from tests.frameworks.apps.wsgi_app import parts_of


def build(handlers, **options):
    """Return an application that serves each handler at its path, and its installation."""
    app = Flask(__name__)
    sessions = sojourn.install(app, **options)
    for path, handler in handlers.items():
        app.add_url_rule(path, path, view(handler, sessions))
    return app, sessions


def view(handler, sessions):
    """Return a view that calls a handler with the session, None after ``uninstall``."""

    def respond():
        own = session if sessions.web.active else None  # the proxy: a read of it would be an access
        response = run(handler(own)) or HandlerResponse()
        whole = isinstance(response.body, bytes)
        body = response.body if whole else stream_with_context(parts_of(response.body))
        return Response(body, response.status, dict(response.headers))

    return respond


def uninstall(app, sessions):
    """Uninstall sessions from an application that is being served."""
    sojourn.uninstall(app)
