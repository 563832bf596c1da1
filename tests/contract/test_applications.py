"""The laws of requests for Starlette, FastAPI, a bare ASGI and a bare WSGI application."""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Route

import sojourn
from sojourn.frameworks.starlette import SessionMiddleware
from tests.contract.request_suite import RequestSuite
from tests.frameworks.apps import asgi_app, fastapi_app, starlette_app, wsgi_app


class TestStarlette(RequestSuite):
    """A1 to A24 through Starlette."""

    build = staticmethod(starlette_app.build)
    uninstall = staticmethod(starlette_app.uninstall)


class PassThrough(BaseHTTPMiddleware):
    """A middleware that runs the application in a separate task, like ``BaseHTTPMiddleware``."""

    async def dispatch(self, request, call_next):
        return await call_next(request)


class TestStarletteWithMiddleware(TestStarlette):
    """A1 to A24 through two layers: one outside and one inside the application's middleware."""

    def build(self, handlers, **options):
        routes = [Route(path, starlette_app.endpoint(h)) for path, h in handlers.items()]
        app = Starlette(routes=routes, middleware=[Middleware(PassThrough)])
        return app, sojourn.install(app, **options)


class TestStarletteDebug(TestStarlette):
    """A1 to A24 with ``debug=True``, whose error pages are generated outside every middleware."""

    def build(self, handlers, **options):
        routes = [Route(path, starlette_app.endpoint(h)) for path, h in handlers.items()]
        app = Starlette(routes=routes, debug=True)
        return app, sojourn.install(app, **options)


class TestStarletteDropIn(RequestSuite):
    """A1 to A24 through the class with Starlette's constructor."""

    # `clear` ends the session, as Starlette's does: tests/unit/frameworks has its tests.
    test_clear_without_a_login_keeps_the_record_and_the_ticket = None
    test_clear_without_a_login_keeps_the_ticket = None
    # Starlette generates its error page outside every added middleware.
    answers_errors = False

    def build(self, handlers, **options):
        sessions = sojourn.Sessions(**options)
        routes = [Route(path, starlette_app.endpoint(h)) for path, h in handlers.items()]
        middleware = [Middleware(SessionMiddleware, sessions=sessions)]
        return Starlette(routes=routes, middleware=middleware), sessions

    def uninstall(self, app, sessions):
        sessions.web.active = False


class TestFastAPI(RequestSuite):
    """A1 to A24 through FastAPI."""

    build = staticmethod(fastapi_app.build)
    uninstall = staticmethod(fastapi_app.uninstall)


class TestBareASGI(RequestSuite):
    """A1 to A24 through an ASGI callable."""

    answers_errors = False
    build = staticmethod(asgi_app.build)
    uninstall = staticmethod(asgi_app.uninstall)


class TestBareWSGI(RequestSuite):
    """A1 to A24 through a WSGI callable."""

    protocol = "wsgi"
    answers_errors = False
    build = staticmethod(wsgi_app.build)
    uninstall = staticmethod(wsgi_app.uninstall)
