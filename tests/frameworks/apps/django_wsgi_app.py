"""Applications of Django (WSGI) for the laws of requests, and for real servers."""

from dataclasses import replace

from django.core.handlers.wsgi import WSGIHandler

from sojourn._core.concurrency import run
from tests.frameworks.apps.django_app import make, respond, uninstall
from tests.frameworks.apps.wsgi_app import parts_of

__all__ = ["build", "uninstall"]


def view(handler):
    """Return a view that calls a handler."""

    def serve(request):
        response = run(handler(getattr(request, "session", None)))
        if response is not None and not isinstance(response.body, bytes):
            response = replace(response, body=parts_of(response.body))
        return respond(response)

    return serve


def build(handlers, **options):
    """Return an application that serves each handler at its path, and its installation."""
    return make(WSGIHandler, {route: view(each) for route, each in handlers.items()}, options)
