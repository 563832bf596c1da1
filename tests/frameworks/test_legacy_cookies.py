"""Visitors with a session of another library stay logged in after the switch."""

import pytest

from sojourn.legacy import FlaskCookie, StarletteCookie
from sojourn.testing import HandlerResponse
from sojourn.testing.app_suite.drivers import Request
from sojourn.testing.app_suite.handlers import HANDLERS
from sojourn.testing.app_suite.served_app import SECRET
from tests.contract import test_applications
from tests.frameworks import (
    test_aiohttp,
    test_blacksheep_laws,
    test_bottle,
    test_django,
    test_falcon_laws,
    test_flask,
    test_generic,
    test_litestar_laws,
    test_pyramid,
    test_quart,
    test_sanic,
    test_tornado,
)
from tests.support.legacy_cookies import LEGACY_SECRET, flask_cookie, starlette_cookie

SUITES = {
    "aiohttp": test_aiohttp.TestAiohttp,
    "asgi": test_applications.TestBareASGI,
    "blacksheep": test_blacksheep_laws.TestBlackSheep,
    "bottle": test_bottle.TestBottle,
    "cherrypy": test_generic.TestCherryPy,
    "connexion": test_generic.TestConnexion,
    "django": test_django.TestDjango,
    "django-wsgi": test_django.TestDjangoWSGI,
    "falcon": test_falcon_laws.TestFalcon,
    "falcon-asgi": test_falcon_laws.TestFalconASGI,
    "fastapi": test_applications.TestFastAPI,
    "flask": test_flask.TestFlask,
    "lilya": test_generic.TestLilya,
    "litestar": test_litestar_laws.TestLitestar,
    "pyramid": test_pyramid.TestPyramid,
    "quart": test_quart.TestQuart,
    "sanic": test_sanic.TestSanic,
    "sanic-asgi": test_sanic.TestSanicUnderASGI,
    "starlette": test_applications.TestStarletteWithMiddleware,
    "starlette-drop-in": test_applications.TestStarletteDropIn,
    "tornado": test_tornado.TestTornado,
    "wsgi": test_applications.TestBareWSGI,
}

LIBRARIES = {
    "starlette": (
        StarletteCookie(LEGACY_SECRET, user="_user_id"),
        starlette_cookie({"_user_id": "ada", "n": 7}),
    ),
    "flask": (FlaskCookie(LEGACY_SECRET), flask_cookie({"_user_id": "ada", "n": 7})),
}


class Visitor:
    """A browser: stores the cookies that responses set, and removes those that they delete."""

    def __init__(self, driver, cookie):
        self._driver = driver
        self.cookies = {"session": cookie}

    async def get(self, path):
        """Return the body of a response."""
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items()) or None
        running = self._driver.start(Request(path=path, cookie=cookie))
        response = await running.done()
        for header in response.all("set-cookie"):
            name, _, value = header.partition(";")[0].partition("=")
            if "max-age=0" in header.lower():
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return response.body.decode()


async def stream(session):
    """Read the session in a stream, after the first byte."""

    async def parts():
        yield b"n="
        yield str(session.get("n")).encode()

    return HandlerResponse(body=parts())


#: The frameworks that ``make test`` runs.
EVERYDAY = {"django", "fastapi", "flask", "litestar"}


def frameworks():
    """Yield the names of ``SUITES``; those that ``make test`` omits are slow."""
    for name in SUITES:
        yield pytest.param(name, marks=[] if name in EVERYDAY else [pytest.mark.slow])


@pytest.fixture(params=LIBRARIES)
def library(request):
    return LIBRARIES[request.param]


@pytest.fixture(params=frameworks())
async def visitor(request, library):
    reader, cookie = library
    suite = SUITES[request.param]()
    options = {"read_legacy": [reader], "read_legacy_until": "2099-12-31", "secret": SECRET}
    handlers = {**HANDLERS, "/stream": stream}
    app, sessions = suite.build(handlers, store=suite.make_store(), **options)
    driver = suite.make_driver(app, [])
    yield Visitor(driver, cookie)
    closing = driver.close()
    if closing is not None:
        await closing
    sessions.close()


@pytest.mark.anyio
class TestVisitor:
    async def test_login_and_data_are_converted_and_the_old_cookie_is_deleted(self, visitor):
        """A1: the first request converts the session; later ones have only its ticket."""
        assert await visitor.get("/who") == "ada None"
        assert set(visitor.cookies) == {"sid"}
        assert await visitor.get("/write") == "8"
        assert await visitor.get("/who") == "ada None"

    async def test_stream_converts_the_session(self, visitor):
        """A11: the cookies are set before the first byte."""
        assert await visitor.get("/stream") == "n=7"
        assert set(visitor.cookies) == {"sid"}
        assert await visitor.get("/read") == "7"

    async def test_old_cookie_is_invalid_after_a_logout(self, visitor):
        """A7: also a copy of it."""
        former = dict(visitor.cookies)
        assert await visitor.get("/logout") == "ok"
        assert visitor.cookies == {}
        visitor.cookies.update(former)
        assert (await visitor.get("/who")).startswith("None")
