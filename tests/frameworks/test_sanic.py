"""Sanic: the laws of requests through its own server, and what its users expect."""

from sanic.response import text

from sojourn.testing.app_suite.socket_driver import SocketDriver
from tests.contract.request_suite import RequestSuite
from tests.frameworks.apps import sanic_app
from tests.frameworks.socket_suite import SocketSuite


class TestSanic(RequestSuite):
    """A1 to A24 through Sanic's own server."""

    protocol = "own"
    build = staticmethod(sanic_app.build)
    uninstall = staticmethod(sanic_app.uninstall)

    def make_driver(self, app, trace):
        return SocketDriver(app, trace, sanic_app.running)

    def closed_response(self):
        return text("closed", status=418)


class TestSanicSockets(SocketSuite):
    """W1 to W8 through the own server."""

    build_sockets = staticmethod(sanic_app.build_sockets)
    running = staticmethod(sanic_app.running)
