"""A plugin of pytest that adds the session of sojourn to Pyramid's tests of its sessions.

``SharedCookieSessionTests`` are Pyramid's tests for every session in a cookie.
"""

import time
import unittest

import sojourn
from sojourn.frameworks.pyramid import session_factory
from sojourn.testing import FakeClock, open_session

SECRET = "a secret for the tests of peers: 4be8a101"

#: Pyramid's default, 20 minutes.
TIMEOUT = 1200

#: Replaces Pyramid's ``timeout=None``.
NEVER = 10**9

NAMES = {"cookie_name": "cookie", "set_on_exception": "save_on_error"}


def sessions_for(timeout=TIMEOUT, **options):
    """Return an installation with the options of Pyramid's session factories."""
    options.pop("httponly", None)  # always
    given = {NAMES.get(name, name): value for name, value in options.items()}
    return sojourn.Sessions(
        store="memory://",
        secret=SECRET,
        timeout=NEVER if timeout is None else int(timeout),
        absolute_timeout=None,
        clock=FakeClock(),
        **{"cookie": "session", "secure": False, **given},
    )


def pytest_configure():
    """Add a class of tests to Pyramid's module."""
    from tests import test_session

    class TestSojournSession(test_session.SharedCookieSessionTests, unittest.TestCase):
        def setUp(self):
            self.serialized = None

        def _makeOne(self, request, **options):  # noqa: N802 - the name in Pyramid
            sessions = sessions_for(**options)
            self.addCleanup(sessions.close)
            request.environ.setdefault("wsgi.url_scheme", "http")
            request.environ.setdefault("HTTP_HOST", "localhost")
            clock = sessions.engine.clock
            if isinstance(self.serialized, tuple):  # renewed at, created at, data
                clock.now = int(self.serialized[0] * 1000)
                request.cookies = open_session(sessions, **self.serialized[2]).cookies
            clock.now = int(time.time() * 1000)
            cookies = [f"{name}={value}" for name, value in request.cookies.items()]
            if cookies:
                request.environ["HTTP_COOKIE"] = "; ".join(cookies)
            return session_factory(sessions)(request)

        def _serialize(self, value):
            """Record the content of a cookie; the session is created when its options are known."""
            self.serialized = value
            return "noted"

    test_session.TestSojournSession = TestSojournSession
