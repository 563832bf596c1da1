"""HeaderSuite: the laws of requests with the ticket in a header.

The client translates: it sends the cookie of the laws as ``Authorization`` and returns the response
header as the Set-Cookie that the laws expect.
"""

from dataclasses import replace

from sojourn.testing.app_suite.drivers import ClientResponse
from tests.contract.request_suite.caching import CacheHeaderTests
from tests.contract.request_suite.cookies import CookieTests
from tests.contract.request_suite.hostile_cookies import HostileCookieTests

DELETED = "sid=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax"


class HeaderDriver:
    """A client that stores its ticket and sends it in a header."""

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
        """Stop threads and servers; awaited if the result is awaitable."""
        return self._driver.close()


class HeaderResponse(ClientResponse):
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


class HeaderTests:
    """Mixin that sets the client of a suite; list it before the suite of a framework."""

    # Tests of Cookie headers; `tests/unit/web/test_header_transport.py` tests the other headers.
    test_an_invalid_ticket_never_reaches_the_store = None
    # This test replaces the client by one that sends cookies.
    test_changes_are_kept_if_the_client_disconnects = None

    def make_driver(self, app, trace):
        """Return a server whose client sends the ticket in a header."""
        return HeaderDriver(super().make_driver(app, trace))

    def build(self, handlers, **options):
        """Return the application of the suite, and its installation with ``transport="header"``."""
        return super().build(handlers, transport="header", **options)


def in_header(suite, *marks):
    """Return a ``RequestSuite`` without the laws about the cookie, and with ``HeaderTests``.

    Args:
        suite: the class.
        marks: of pytest.
    """
    cookie_tests = {
        name: None
        for tests in (CacheHeaderTests, CookieTests, HostileCookieTests)
        for name in dir(tests)
        if name.startswith("test_")
    }
    document = "The laws of this framework with the ticket in a header."
    members = {"__doc__": document, "__module__": __name__, "pytestmark": list(marks)}
    return type(suite.__name__, (HeaderTests, suite), cookie_tests | members)
