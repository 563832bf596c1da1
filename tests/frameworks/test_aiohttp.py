"""aiohttp: the laws of requests through its own server, and what its users expect."""

import pytest
from aiohttp import web

from sojourn.testing.app_suite.socket_driver import SocketDriver
from tests.contract.request_suite import RequestSuite
from tests.frameworks.apps import aiohttp_app

pytestmark = pytest.mark.filterwarnings("ignore:It is recommended to use web.RequestKey")


class TestAiohttp(RequestSuite):
    """A1 to A24 through aiohttp's own server."""

    protocol = "own"
    build = staticmethod(aiohttp_app.build)
    uninstall = staticmethod(aiohttp_app.uninstall)

    def make_driver(self, app, trace):
        return SocketDriver(app, trace, aiohttp_app.running)

    def closed_response(self):
        return web.Response(status=418, text="closed")
