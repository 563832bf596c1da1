"""Frameworks with the generic middleware: the laws of requests."""

import pytest

from tests.contract.request_suite import RequestSuite
from tests.frameworks.apps import cherrypy_app, connexion_app, lilya_app


class TestCherryPy(RequestSuite):
    """A1 to A24 through CherryPy and the WSGI middleware."""

    protocol = "wsgi"
    answers_errors = False  # with `request.throw_errors`, the page is made outside
    # CherryPy answers 400 to a Cookie header with a nameless cookie itself.
    test_an_invalid_ticket_never_reaches_the_store = None
    build = staticmethod(cherrypy_app.build)
    uninstall = staticmethod(cherrypy_app.uninstall)


# Connexion 3.3 does not await one of its own coroutines when a handler raises.
@pytest.mark.filterwarnings("ignore:coroutine 'ServerErrorMiddleware:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestConnexion(RequestSuite):
    """A1 to A24 through Connexion and the ASGI middleware."""

    answers_errors = False  # Connexion makes the page outside of this position
    build = staticmethod(connexion_app.build)
    uninstall = staticmethod(connexion_app.uninstall)


class TestLilya(RequestSuite):
    """A1 to A24 through Lilya and the ASGI middleware."""

    answers_errors = False  # Lilya makes the page outside of its middleware
    build = staticmethod(lilya_app.build)
    uninstall = staticmethod(lilya_app.uninstall)
