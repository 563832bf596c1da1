"""Help for tests of applications, stores and framework adapters (``docs/testing.md``).

The suites need pytest; everything for tests of applications works without it.
"""

import typing

from sojourn.testing.clock import FakeClock
from sojourn.testing.faults import FaultyStore
from sojourn.testing.opened_session import OpenSession, aopen_session, open_session
from sojourn.testing.visitor import Visitor

if typing.TYPE_CHECKING:
    from sojourn.testing.app_suite import AppSuite
    from sojourn.testing.app_suite.checkpoint import Checkpoint
    from sojourn.testing.app_suite.handlers import HandlerResponse
    from sojourn.testing.app_suite.served_app import Browser, ServedApp
    from sojourn.testing.app_suite.socket_driver import SocketDriver
    from sojourn.testing.store_suite import StoreSuite

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

# Type checkers see the imports above; with this function they would accept every name.
if not typing.TYPE_CHECKING:
    _APP_SUITE = "sojourn.testing.app_suite"

    #: The modules of the names that need pytest, which are imported when they are first used.
    _MODULES = {
        "AppSuite": _APP_SUITE,
        "Browser": f"{_APP_SUITE}.served_app",
        "Checkpoint": f"{_APP_SUITE}.checkpoint",
        "HandlerResponse": f"{_APP_SUITE}.handlers",
        "ServedApp": f"{_APP_SUITE}.served_app",
        "SocketDriver": f"{_APP_SUITE}.socket_driver",
        "StoreSuite": "sojourn.testing.store_suite",
    }

    def __getattr__(name: str) -> object:
        """Import a public name at its first use (PEP 562)."""
        try:
            module = _MODULES[name]
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        from importlib import import_module

        value = getattr(import_module(module), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        """List the public names, also those that are not imported yet."""
        return sorted({*globals(), *__all__})
