"""A near cache under every framework: N1 and N3, which each adapter implements in part."""

import pytest

from sojourn.testing.app_suite.handlers import HANDLERS
from sojourn.testing.decorators import under_loop
from tests.contract import test_applications as applications
from tests.contract.test_near_cache import WithNearCache
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

# Django does not close the body of a request whose client has disconnected.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning")

SUITES = [
    applications.TestStarlette,
    applications.TestFastAPI,
    test_aiohttp.TestAiohttp,
    test_blacksheep_laws.TestBlackSheep,
    test_bottle.TestBottle,
    test_django.TestDjango,
    test_django.TestDjangoWSGI,
    test_falcon_laws.TestFalcon,
    test_falcon_laws.TestFalconASGI,
    test_flask.TestFlask,
    test_generic.TestCherryPy,
    test_generic.TestConnexion,
    test_generic.TestLilya,
    test_litestar_laws.TestLitestar,
    test_pyramid.TestPyramid,
    test_quart.TestQuart,
    test_sanic.TestSanic,
    test_sanic.TestSanicUnderASGI,
    test_tornado.TestTornado,
]


@pytest.mark.parametrize("suite", SUITES, ids=[suite.__name__ for suite in SUITES])
@under_loop
async def test_reads_are_served_from_memory_and_writes_are_read(suite):
    """N1, N3, A5: the second read makes no load; a write sends the cookie once."""
    made = type("Suite", (WithNearCache, suite), {})()
    async with made.serve(HANDLERS) as app:
        browser = app.browser()
        await browser.get("/write")
        app.take_trace()
        for _ in range(2):
            assert (await browser.get("/read")).body == b"1"
        assert app.take_trace().count("load") == 1
        reply = await browser.get("/write")
        sent = [value for value in reply.all("set-cookie") if "-written=1; " in value]
        assert len(sent) == 1
        assert reply.get("cache-control") == "private, no-store"
        app.take_trace()
        assert (await browser.get("/read")).body == b"2"
        assert "load" in app.take_trace()
