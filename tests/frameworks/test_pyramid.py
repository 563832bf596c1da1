"""Pyramid: the laws of requests, and what its users expect of a session."""

from tests.contract.request_suite import RequestSuite
from tests.frameworks.apps import pyramid_app


class TestPyramid(RequestSuite):
    """A1 to A24 through Pyramid."""

    protocol = "wsgi"
    answers_errors = False
    build = staticmethod(pyramid_app.build)
    uninstall = staticmethod(pyramid_app.uninstall)
