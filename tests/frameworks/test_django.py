"""The laws of requests through Django's handlers of ASGI and WSGI."""

import gc

import pytest

from tests.contract.request_suite import RequestSuite
from tests.frameworks.apps import django_app, django_wsgi_app

#: Django 5.2 does not close the file with the body of a request whose client disconnects.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning")


@pytest.fixture(autouse=True, scope="module")
def _collect_files():
    """Collect those files while the warning is ignored."""
    yield
    gc.collect()


class TestDjango(RequestSuite):
    """A1 to A24 through Django's ASGI handler."""

    build = staticmethod(django_app.build)
    uninstall = staticmethod(django_app.uninstall)


class TestDjangoWSGI(RequestSuite):
    """A1 to A24 through Django's WSGI handler."""

    protocol = "wsgi"
    build = staticmethod(django_wsgi_app.build)
    uninstall = staticmethod(django_wsgi_app.uninstall)
