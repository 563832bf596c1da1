"""Applications of Django (ASGI) for the laws of requests, and for real servers.

Django has one set of settings per process. Each application of these tests has its own
installation and URLs: a middleware function selects them.
"""

from types import SimpleNamespace

from asgiref.sync import iscoroutinefunction
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import path
from django.utils.decorators import sync_and_async_middleware

import sojourn
import tests.frameworks.apps.django_settings  # noqa: F401 - before the modules that read settings
from sojourn.frameworks.django import SessionMiddleware
from sojourn.testing import HandlerResponse

#: The installation and the URLs of the application that is being built.
building = SimpleNamespace(sessions=None, urls=None)


class Middleware(SessionMiddleware):
    """The session middleware of the application that is being built."""

    def __init__(self, get_response):
        super().__init__(get_response, building.sessions)


@sync_and_async_middleware
def choose_urls(get_response):
    """Return a middleware that serves the URLs of the application that is being built."""
    urls = building.urls

    if iscoroutinefunction(get_response):

        async def serve(request):
            request.urlconf = urls
            return await get_response(request)

    else:

        def serve(request):
            request.urlconf = urls
            return get_response(request)

    return serve


def respond(response):
    """Return a response of Django."""
    response = response or HandlerResponse()
    kind = HttpResponse if isinstance(response.body, bytes) else StreamingHttpResponse
    return kind(response.body, status=response.status, headers=dict(response.headers))


def view(handler):
    """Return an asynchronous view that calls a handler."""

    async def serve(request):
        return respond(await handler(getattr(request, "session", None)))

    return serve


def make(handler_class, views, options):
    """Return an application of one handler class, and its installation."""
    routes = [path(route.lstrip("/"), each) for route, each in views.items()]
    building.sessions = sojourn.Sessions(**options)
    building.urls = type("URLs", (), {"urlpatterns": routes})
    layers = [f"{__name__}.choose_urls", f"{__name__}.Middleware"]
    with override_settings(MIDDLEWARE=layers):
        return handler_class(), building.sessions


def build(handlers, **options):
    """Return an application that serves each handler at its path, and its installation."""
    views = {route: view(handler) for route, handler in handlers.items()}
    return make(ASGIHandler, views, options)


def uninstall(app, sessions):
    """Uninstall sessions from an application that is being served."""
    sessions.web.active = False
