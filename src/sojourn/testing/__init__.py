"""Help for tests: of applications that have sessions, and of stores.

What lives here: the public names. What must not: anything that an application needs when it runs.
``docs/testing.md`` shows each; pytest loads ``sojourn.testing.plugin`` by itself.
"""

from sojourn.testing.appsuite import AppSuite
from sojourn.testing.clock import FakeClock
from sojourn.testing.faults import FaultyStore
from sojourn.testing.interleave import Stage, interleave
from sojourn.testing.opened import OpenSession, aopen_session, open_session
from sojourn.testing.site import Browser, Halt, Site, Status
from sojourn.testing.storesuite import StoreSuite
from sojourn.testing.visitor import Visitor

__all__ = [
    "AppSuite",
    "Browser",
    "FakeClock",
    "FaultyStore",
    "Halt",
    "OpenSession",
    "Site",
    "Stage",
    "Status",
    "StoreSuite",
    "Visitor",
    "aopen_session",
    "interleave",
    "open_session",
]
