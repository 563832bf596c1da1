"""The laws of requests through Django's handlers of ASGI and WSGI."""

from tests.contract.request_suite import RequestSuite
from tests.frameworks.apps import django_app, django_wsgi_app


class TestDjango(RequestSuite):
    """A1 to A24 through Django's ASGI handler."""

    build = staticmethod(django_app.build)
    uninstall = staticmethod(django_app.uninstall)


class TestDjangoWSGI(RequestSuite):
    """A1 to A24 through Django's WSGI handler."""

    protocol = "wsgi"
    build = staticmethod(django_wsgi_app.build)
    uninstall = staticmethod(django_wsgi_app.uninstall)
