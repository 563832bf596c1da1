"""Applications of Django (ASGI) for the laws of requests, and for real servers.

Django has one set of settings for each process. An application of these tests has an installation
and URLs of its own nevertheless: its middleware is a function that knows both.
"""

from types import SimpleNamespace

from django.conf import settings

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="a secret for tests: 3d1c7f6e-5f8c1e90",
        ROOT_URLCONF="tests.frameworks.apps.django_app",
        USE_TZ=True,
    )

import django

django.setup()

from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import path

import sojourn
from sojourn.frameworks.django import SessionMiddleware
from sojourn.testing import HandlerResponse

urlpatterns = []

#: The installation and the URLs of the application that is being built.
building = SimpleNamespace(sessions=None, urls=None)


def middleware(get_response):
    """Return the session middleware of the application that is being built."""
    layer = SessionMiddleware(get_response, building.sessions)
    return layer


def choose_urls(get_response):
    """Return a middleware that serves the URLs of the application that is being built."""
    urls = building.urls

    if asynchronous(get_response):

        async def serve(request):
            request.urlconf = urls
            return await get_response(request)

    else:

        def serve(request):
            request.urlconf = urls
            return get_response(request)

    return serve


from asgiref.sync import iscoroutinefunction as asynchronous
from django.utils.decorators import sync_and_async_middleware

middleware = sync_and_async_middleware(middleware)
choose_urls = sync_and_async_middleware(choose_urls)


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
    sessions = sojourn.Sessions(**options)
    building.sessions = sessions
    building.urls = type(
        "URLs",
        (),
        {"urlpatterns": [path(route.lstrip("/"), each) for route, each in views.items()]},
    )
    here = "tests.frameworks.apps.django_app."
    with override_settings(MIDDLEWARE=[here + "choose_urls", here + "middleware"]):
        return handler_class(), sessions


def build(handlers, **options):
    """Return an application that serves each handler at its path, and its installation."""
    views = {route: view(handler) for route, handler in handlers.items()}
    return make(ASGIHandler, views, options)


def uninstall(app, sessions):
    """Uninstall sessions from an application that is being served."""
    sessions.web.active = False
