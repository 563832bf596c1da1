"""The laws of requests with the ticket in a header: through Starlette, bare ASGI and bare WSGI.

The client translates: what the laws send as a cookie travels as ``Authorization``, and the response
header comes back as the Set-Cookie that the laws expect.
"""

from dataclasses import replace

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

import sojourn
from sojourn.testing import AppSuite
from tests.contract.request_suite.endings import EndingTests
from tests.contract.request_suite.expiry import ExpiryTests
from tests.contract.request_suite.identity import IdentityTests
from tests.contract.request_suite.merging import MergingTests
from tests.contract.request_suite.rotation import RotationTests
from tests.contract.request_suite.secrecy import SecrecyTests
from tests.contract.request_suite.store_calls import StoreCallTests
from tests.contract.request_suite.tickets import TicketTests
from tests.contract.test_applications import PassThrough
from tests.frameworks.apps import asgi_app, starlette_app, wsgi_app

DELETED = "sid=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax"


class HeaderDriver:
    """A client that keeps its ticket itself and sends it in a header."""

    def __init__(self, driver):
        self._driver = driver

    def start(self, request):
        """Start a request with the cookie's value in ``Authorization``."""
        if request.cookie is not None:
            tickets = [
                ("authorization", f"Session {pair.partition('=')[2]}")
                for pair in request.cookie.split("; ")
                if pair.partition("=")[0] in ("sid", "__Host-sid")
            ]
            request = replace(request, cookie=None, headers=(*request.headers, *tickets))
        running = self._driver.start(request)
        running.reply = HeaderResponse()
        return running

    def close(self):
        """Stop the threads of the driver."""
        self._driver.close()


class HeaderResponse(sojourn.testing.app_suite.drivers.ClientResponse):
    """A response whose ticket header looks like a Set-Cookie."""

    __slots__ = ()

    def all(self, name):
        """Return the values of a header; Set-Cookie and Vary as with cookies."""
        found = super().all(name)
        if name == "vary":
            return [value.replace("Authorization", "Cookie") for value in found]
        if name != "set-cookie":
            return found
        assert found == [], "a header and a cookie in one response"
        return [
            f"sid={ticket}; Path=/; HttpOnly; SameSite=Lax" if ticket else DELETED
            for ticket in super().all("session-ticket")
        ]


class HeaderSuite(
    AppSuite,
    EndingTests,
    ExpiryTests,
    IdentityTests,
    MergingTests,
    RotationTests,
    SecrecyTests,
    StoreCallTests,
    TicketTests,
):
    """The laws that do not concern the cookie itself."""

    # About Cookie headers; `tests/unit/web/test_header_transport.py` has the same about others.
    test_an_invalid_ticket_never_reaches_the_store = None
    # It replaces the client by one that sends cookies.
    test_changes_are_kept_if_the_client_disconnects = None

    def make_driver(self, app, trace):
        """Return a server whose client keeps the ticket in a header."""
        return HeaderDriver(super().make_driver(app, trace))


class TestStarlette(HeaderSuite):
    """A1 to A24 through two layers, with the ticket in a header."""

    uninstall = staticmethod(starlette_app.uninstall)

    def build(self, handlers, **options):
        routes = [Route(path, starlette_app.endpoint(h)) for path, h in handlers.items()]
        app = Starlette(routes=routes, middleware=[Middleware(PassThrough)])
        return app, sojourn.install(app, transport="header", **options)


class TestBareASGI(HeaderSuite):
    """A1 to A24 through an ASGI callable, with the ticket in a header."""

    answers_errors = False
    uninstall = staticmethod(asgi_app.uninstall)

    def build(self, handlers, **options):
        return asgi_app.build(handlers, transport="header", **options)


class TestBareWSGI(HeaderSuite):
    """A1 to A24 through a WSGI callable, with the ticket in a header."""

    protocol = "wsgi"
    answers_errors = False
    uninstall = staticmethod(wsgi_app.uninstall)

    def build(self, handlers, **options):
        return wsgi_app.build(handlers, transport="header", **options)
