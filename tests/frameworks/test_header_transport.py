"""A1 to A24 through every framework, with the ticket in a header."""

import pytest

from tests.contract.request_suite.in_header import in_header
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

SLOW = pytest.mark.slow

# Django does not close the body of a request whose client has disconnected.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning")

TestDjango = in_header(test_django.TestDjango)
TestDjangoWSGI = in_header(test_django.TestDjangoWSGI, SLOW)
TestFlask = in_header(test_flask.TestFlask)
TestLitestar = in_header(test_litestar_laws.TestLitestar, SLOW)

TestAiohttp = in_header(test_aiohttp.TestAiohttp, SLOW)
TestBlackSheep = in_header(test_blacksheep_laws.TestBlackSheep, SLOW)
TestBottle = in_header(test_bottle.TestBottle, SLOW)
TestCherryPy = in_header(test_generic.TestCherryPy, SLOW)
TestConnexion = in_header(test_generic.TestConnexion, SLOW)
TestFalcon = in_header(test_falcon_laws.TestFalcon, SLOW)
TestFalconASGI = in_header(test_falcon_laws.TestFalconASGI, SLOW)
TestLilya = in_header(test_generic.TestLilya, SLOW)
TestPyramid = in_header(test_pyramid.TestPyramid, SLOW)
TestQuart = in_header(test_quart.TestQuart, SLOW)
TestSanic = in_header(test_sanic.TestSanic, SLOW)
TestSanicUnderASGI = in_header(test_sanic.TestSanicUnderASGI, SLOW)
TestTornado = in_header(test_tornado.TestTornado, SLOW)
