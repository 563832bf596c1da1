"""Error handlers of frameworks that destroy or rotate the session (law A10).

Each class builds an application with the outermost error handler of the framework, which runs
after the session of the failed request was committed.
"""

import bottle
import pytest
from aiohttp import web
from blacksheep import Content
from blacksheep import Response as BlackSheepResponse
from django.http import HttpResponse
from litestar import Litestar, Response
from pyramid.config import Configurator
from pyramid.response import Response as PyramidResponse
from sanic.response import text
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from tornado.web import Application

import sojourn
from sojourn.frameworks.litestar import SojournPlugin
from sojourn.session import Session
from sojourn.testing import SocketDriver
from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.errors import check_unavailable
from sojourn.testing.app_suite.handlers import HANDLERS
from sojourn.testing.decorators import under_loop
from tests.contract.test_applications import PassThrough
from tests.frameworks.apps import (
    aiohttp_app,
    blacksheep_app,
    bottle_app,
    django_app,
    django_wsgi_app,
    falcon_app,
    falcon_asgi_app,
    flask_app,
    litestar_app,
    pyramid_app,
    quart_app,
    sanic_app,
    starlette_app,
    tornado_app,
)

pytestmark = pytest.mark.filterwarnings("ignore:It is recommended to use web.RequestKey")

PAGE = "an error page"


class ErrorHandlerTests(AppTests):
    """Tests of error handlers that use the session."""

    def act(self, session):
        """Use the session; called by the error handler."""

    def build(self, handlers, **options):
        return self.build_with_handler(handlers, self.act, **options)

    def serve_failing(self, act):
        """Return an application whose page /fail raises, and whose error handler calls ``act``."""

        async def fail(session):
            session.increment("n")
            raise LookupError("planned by the test")

        self.act = act
        return self.serve({**HANDLERS, "/fail": fail})

    @pytest.mark.parametrize("act", [Session.destroy, Session.logout])
    @under_loop
    async def test_error_handler_destroys_the_session(self, act):
        """A10: the record is deleted; the error page clears the cookie."""
        async with self.serve_failing(act) as app:
            browser = app.browser()
            await browser.get("/write")
            await browser.get("/login")
            before = browser.cookie
            reply = await browser.start("/fail").done()
            assert (reply.status, reply.body.decode()) == (500, PAGE)
            assert app.count() == 0
            assert len(reply.all("set-cookie")) == 1
            assert (await app.browser(before).get("/who")).body == b"None None"

    @under_loop
    async def test_error_handler_rotates_the_ticket(self):
        """A10: the error page has the new ticket."""
        async with self.serve_failing(Session.rotate) as app:
            browser = app.browser()
            await browser.get("/write")
            before = browser.cookie
            browser.store_cookies(await browser.start("/fail").done())
            assert browser.cookie not in (None, before)
            assert app.sessions.usage().rotations == 1
            assert (await browser.get("/read")).body == b"1"

    @under_loop
    async def test_error_handler_changes_no_data(self):
        """A10: its changes are dropped, like those of the failed page."""
        async with self.serve_failing(lambda session: session.increment("n")) as app:
            browser = app.browser()
            await browser.get("/write")
            assert (await browser.start("/fail").done()).status == 500
            assert (await browser.get("/read")).body == b"1"

    @under_loop
    async def test_error_page_is_503_if_the_error_handler_cannot_destroy_the_session(self):
        """A10, A23: a failed logout must not look successful."""

        def act(session):
            app.store.fail("delete")
            session.destroy()

        async with self.serve_failing(act) as app:
            await check_unavailable(app)

    @pytest.mark.parametrize("act", [Session.destroy, Session.logout])
    @under_loop
    async def test_error_page_is_503_if_the_failed_page_cannot_destroy_the_session(self, act):
        """A10, A23: the page called the method, not the error handler."""

        async def fail(session):
            app.store.fail("delete")
            act(session)
            raise LookupError("planned by the test")

        self.act = lambda _: None
        async with self.serve({**HANDLERS, "/fail": fail}) as app:
            await check_unavailable(app)


class TestStarlette(ErrorHandlerTests):
    """The handler of all exceptions, outside every middleware."""

    middleware = ()
    debug = False

    def build_with_handler(self, handlers, act, **options):
        async def answer(request, error):
            act(request.session)
            return PlainTextResponse(PAGE, 500)

        app = Starlette(
            routes=[Route(path, starlette_app.endpoint(h)) for path, h in handlers.items()],
            middleware=list(self.middleware),
            exception_handlers={Exception: answer},
        )
        return app, sojourn.install(app, **options)


class TestStarletteWithMiddleware(TestStarlette):
    """With a middleware that uses the session."""

    middleware = (Middleware(PassThrough),)


class TestAiohttp(ErrorHandlerTests):
    """A middleware."""

    protocol = "own"

    def make_driver(self, app, trace):
        return SocketDriver(app, trace, aiohttp_app.running)

    def build_with_handler(self, handlers, act, **options):
        @web.middleware
        async def answer(request, handler):
            try:
                return await handler(request)
            except LookupError:
                act(request["session"])
                return web.Response(status=500, text=PAGE)

        app, sessions = aiohttp_app.build(handlers, **options)
        app.middlewares.append(answer)
        return app, sessions


class TestBlackSheep(ErrorHandlerTests):
    """The handler of all exceptions."""

    def build_with_handler(self, handlers, act, **options):
        async def answer(app, request, error):
            act(request.session)
            return BlackSheepResponse(500, None, Content(b"text/plain", PAGE.encode()))

        app, sessions = blacksheep_app.build(handlers, **options)
        app.exceptions_handlers[Exception] = answer
        return app, sessions


class TestBottle(ErrorHandlerTests):
    """The page of status 500."""

    protocol = "wsgi"

    def build_with_handler(self, handlers, act, **options):
        app, sessions = bottle_app.build(handlers, **options)

        @app.error(500)
        def answer(error):
            act(bottle.request.session)
            return PAGE

        return app, sessions


class TestDjango(ErrorHandlerTests):
    """``handler500``."""

    build_application = staticmethod(django_app.build)

    def build_with_handler(self, handlers, act, **options):
        def answer(request):
            act(request.session)
            return HttpResponse(PAGE, status=500)

        app, sessions = self.build_application(handlers, **options)
        django_app.building.urls.handler500 = staticmethod(answer)
        return app, sessions


class TestDjangoWSGI(TestDjango):
    """``handler500`` under WSGI."""

    protocol = "wsgi"
    build_application = staticmethod(django_wsgi_app.build)


class TestFalcon(ErrorHandlerTests):
    """The handler of all exceptions."""

    protocol = "wsgi"

    def build_with_handler(self, handlers, act, **options):
        def answer(req, resp, error, params):
            act(req.context.session)
            resp.status, resp.text = 500, PAGE

        app, sessions = falcon_app.build(handlers, **options)
        app.add_error_handler(Exception, answer)
        return app, sessions


class TestFalconASGI(ErrorHandlerTests):
    """The handler of all exceptions under ASGI."""

    def build_with_handler(self, handlers, act, **options):
        async def answer(req, resp, error, params):
            act(req.context.session)
            resp.status, resp.text = 500, PAGE

        app, sessions = falcon_asgi_app.build(handlers, **options)
        app.add_error_handler(Exception, answer)
        return app, sessions


class TestFlask(ErrorHandlerTests):
    """The handler of status 500."""

    protocol = "wsgi"
    handled = 500

    def build_with_handler(self, handlers, act, **options):
        from flask import session

        def answer(error):
            act(session)
            return PAGE, 500

        app, sessions = flask_app.build(handlers, **options)
        app.register_error_handler(self.handled, answer)
        return app, sessions


class TestFlaskException(TestFlask):
    """The handler of all exceptions."""

    handled = Exception


class TestLitestar(ErrorHandlerTests):
    """The handler of all exceptions."""

    def build_with_handler(self, handlers, act, **options):
        def answer(request, error):
            act(request.session)
            return Response(PAGE, status_code=500, media_type="text/plain")

        plugin = SojournPlugin(**options)
        routes = [litestar_app.endpoint(path, handler) for path, handler in handlers.items()]
        app = Litestar(
            routes, plugins=[plugin], openapi_config=None, exception_handlers={Exception: answer}
        )
        return app, plugin.sessions


class TestPyramid(ErrorHandlerTests):
    """An exception view."""

    protocol = "wsgi"

    def build_with_handler(self, handlers, act, **options):
        def answer(error, request):
            act(request.session)
            return PyramidResponse(PAGE, status=500)

        with Configurator() as config:
            for path, handler in handlers.items():
                config.add_route(path, path)
                config.add_view(pyramid_app.view(handler), route_name=path)
            config.add_exception_view(answer)
            sessions = sojourn.install(config, **options)
            return config.make_wsgi_app(), sessions


class TestQuart(ErrorHandlerTests):
    """The handler of status 500."""

    handled = 500

    def build_with_handler(self, handlers, act, **options):
        from quart import session

        async def answer(error):
            act(session)
            return PAGE, 500

        app, sessions = quart_app.build(handlers, **options)
        app.register_error_handler(self.handled, answer)
        return app, sessions


class TestQuartException(TestQuart):
    """The handler of all exceptions."""

    handled = Exception


class TestSanic(ErrorHandlerTests):
    """The handler of all exceptions."""

    protocol = "own"

    def make_driver(self, app, trace):
        return SocketDriver(app, trace, sanic_app.running)

    def build_with_handler(self, handlers, act, **options):
        app, sessions = sanic_app.build(handlers, **options)

        @app.exception(Exception)
        async def answer(request, error):
            act(request.ctx.session)
            return text(PAGE, status=500)

        return app, sessions


class TestTornado(ErrorHandlerTests):
    """``write_error``."""

    protocol = "own"

    def make_driver(self, app, trace):
        return SocketDriver(app, trace, tornado_app.running)

    def build_with_handler(self, handlers, act, **options):
        class Respond(tornado_app.Respond):
            def write_error(self, status_code, **kwargs):
                act(self.session)
                self.finish(PAGE)

        app = Application([(path, Respond, {"handler": h}) for path, h in handlers.items()])
        return app, sojourn.install(app, **options)
