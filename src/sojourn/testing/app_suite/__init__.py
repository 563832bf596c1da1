"""AppSuite: the laws of requests as tests (``docs/testing.md``)."""

from __future__ import annotations

from sojourn.testing.app_suite.caching import CachingTests
from sojourn.testing.app_suite.clocks import ClockTests
from sojourn.testing.app_suite.errors import ErrorTests
from sojourn.testing.app_suite.failures import FailureTests
from sojourn.testing.app_suite.interruptions import InterruptionTests
from sojourn.testing.app_suite.isolation import IsolationTests
from sojourn.testing.app_suite.misuse import MisuseTests
from sojourn.testing.app_suite.requests import RequestTests
from sojourn.testing.app_suite.streams import StreamTests


class AppSuite(
    RequestTests,
    CachingTests,
    ErrorTests,
    StreamTests,
    FailureTests,
    IsolationTests,
    InterruptionTests,
    ClockTests,
    MisuseTests,
):
    """The laws of requests that depend on the adapter of a framework.

    Inherit it in a test module, and define how an application is built from handlers and how
    sessions are uninstalled::

        class TestMyFramework(AppSuite):
            def build(self, handlers, **options):
                app = MyFramework({path: adapt(handler) for path, handler in handlers.items()})
                return app, sojourn.install(app, **options)

            def uninstall(self, app, sessions):
                sojourn.uninstall(app)
    """
