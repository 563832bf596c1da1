"""The laws of requests for Flask."""

from tests.contract.request_suite import RequestSuite
from tests.frameworks.apps import flask_app


class TestFlask(RequestSuite):
    """A1 to A24 through Flask."""

    protocol = "wsgi"
    build = staticmethod(flask_app.build)
    uninstall = staticmethod(flask_app.uninstall)
