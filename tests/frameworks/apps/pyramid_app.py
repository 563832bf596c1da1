"""Applications of Pyramid for the laws of requests, and for real servers."""

from pyramid.config import Configurator
from pyramid.response import Response

import sojourn
from sojourn._core.concurrency import run
from sojourn.testing import HandlerResponse
from tests.frameworks.apps.wsgi_app import parts_of

__all__ = ["build", "uninstall"]


def view(handler):
    """Return a view that calls a handler."""

    def respond(request):
        response = run(handler(getattr(request, "session", None))) or HandlerResponse()
        answer = Response(status=response.status)
        answer.headers.update(response.headers)
        if isinstance(response.body, bytes):
            answer.body = response.body
        else:
            answer.app_iter = parts_of(response.body)
        return answer

    return respond


def build(handlers, **options):
    """Return an application that serves each handler at its path, and its installation."""
    with Configurator() as config:
        for path, handler in handlers.items():
            config.add_route(path, path)
            config.add_view(view(handler), route_name=path)
        sessions = sojourn.install(config, **options)
        return config.make_wsgi_app(), sessions


def uninstall(app, sessions):
    """Uninstall sessions from an application that is being served."""
    sojourn.uninstall(app)
