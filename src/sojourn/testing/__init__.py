"""Help for tests of applications, stores and framework adapters (``docs/testing.md``)."""

from sojourn.testing.app_suite import AppSuite
from sojourn.testing.app_suite.checkpoint import Checkpoint
from sojourn.testing.app_suite.handlers import HandlerResponse
from sojourn.testing.app_suite.served_app import Browser, ServedApp
from sojourn.testing.app_suite.socket_driver import SocketDriver
from sojourn.testing.clock import FakeClock
from sojourn.testing.faults import FaultyStore
from sojourn.testing.opened_session import OpenSession, aopen_session, open_session
from sojourn.testing.store_suite import StoreSuite
from sojourn.testing.visitor import Visitor

__all__ = [
    "AppSuite",
    "Browser",
    "Checkpoint",
    "FakeClock",
    "FaultyStore",
    "HandlerResponse",
    "OpenSession",
    "ServedApp",
    "SocketDriver",
    "StoreSuite",
    "Visitor",
    "aopen_session",
    "open_session",
]
