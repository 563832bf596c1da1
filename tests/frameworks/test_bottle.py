"""Bottle: the laws of requests, and what its users expect of a session."""

from tests.contract.request_suite import RequestSuite
from tests.frameworks.apps import bottle_app


class TestBottle(RequestSuite):
    """A1 to A24 through Bottle."""

    protocol = "wsgi"
    build = staticmethod(bottle_app.build)
    uninstall = staticmethod(bottle_app.uninstall)
