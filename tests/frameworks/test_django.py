"""The laws of requests through Django's handlers of ASGI and WSGI."""

import gc

import pytest

from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.handlers import HANDLERS
from sojourn.testing.decorators import under_loop
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


class TestCookieHeaders(AppTests):
    """Through Django's ASGI handler; apart, because ``HeaderSuite`` sends no cookies."""

    build = staticmethod(django_app.build)
    uninstall = staticmethod(django_app.uninstall)

    @under_loop
    async def test_several_cookie_headers_are_one(self):
        """A8: HTTP/2 splits the Cookie header (RFC 9113 8.2.3); two tickets count as none."""
        async with self.serve(HANDLERS) as app:
            browser, other = app.browser(), app.browser()
            assert (await browser.get("/write")).body == b"1"
            assert (await other.get("/write")).body == b"1"
            split = await browser.get("/write", headers=[("cookie", "theme=dark,light")])
            assert split.body == b"2"
            planted = await browser.get("/read", headers=[("cookie", other.cookie)])
            assert planted.body == b"None"
