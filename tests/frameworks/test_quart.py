"""The laws of requests for Quart."""

from tests.contract.request_suite import RequestSuite
from tests.frameworks.apps import quart_app


class TestQuart(RequestSuite):
    """A1 to A24 through Quart."""

    build = staticmethod(quart_app.build)
    uninstall = staticmethod(quart_app.uninstall)
