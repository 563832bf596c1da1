"""The laws of requests through Litestar."""

from tests.contract.request_suite import RequestSuite
from tests.frameworks.apps import litestar_app


class TestLitestar(RequestSuite):
    """A1 to A24 through ``SojournPlugin``."""

    build = staticmethod(litestar_app.build)
    uninstall = staticmethod(litestar_app.uninstall)


class TestInstalledLitestar(RequestSuite):
    """A1 to A24 through ``sojourn.install`` of an existing application."""

    build = staticmethod(litestar_app.build_installed)
    uninstall = staticmethod(litestar_app.uninstall)
