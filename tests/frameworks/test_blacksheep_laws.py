"""The laws of requests through BlackSheep."""

from tests.contract.request_suite import RequestSuite
from tests.frameworks.apps import blacksheep_app


class TestBlackSheep(RequestSuite):
    """A1 to A24 through BlackSheep."""

    build = staticmethod(blacksheep_app.build)
    uninstall = staticmethod(blacksheep_app.uninstall)
