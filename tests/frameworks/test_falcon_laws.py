"""The laws of requests through Falcon."""

from tests.contract.request_suite import RequestSuite
from tests.frameworks.apps import falcon_app, falcon_asgi_app


class TestFalcon(RequestSuite):
    """A1 to A24 through ``falcon.App``."""

    protocol = "wsgi"
    build = staticmethod(falcon_app.build)
    uninstall = staticmethod(falcon_app.uninstall)


class TestFalconASGI(RequestSuite):
    """A1 to A24 through ``falcon.asgi.App``."""

    build = staticmethod(falcon_asgi_app.build)
    uninstall = staticmethod(falcon_asgi_app.uninstall)
