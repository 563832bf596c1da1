"""Tornado: the laws of requests through its own server, and what its users expect."""

from sojourn.testing.app_suite.socket_driver import SocketDriver
from tests.contract.request_suite import RequestSuite
from tests.frameworks.apps import tornado_app
from tests.frameworks.socket_suite import SocketSuite


class TestTornado(RequestSuite):
    """A1 to A24 through Tornado's own server."""

    protocol = "own"
    build = staticmethod(tornado_app.build)
    uninstall = staticmethod(tornado_app.uninstall)

    def make_driver(self, app, trace):
        return SocketDriver(app, trace, tornado_app.running)

    def closed_response(self):
        return 418, {"Content-Type": "text/plain"}, b"closed"


class TestTornadoSockets(SocketSuite):
    """W1 to W8 through the own server."""

    build_sockets = staticmethod(tornado_app.build_sockets)
    running = staticmethod(tornado_app.running)
