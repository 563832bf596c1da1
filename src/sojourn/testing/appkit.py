"""What an adapter of a framework says about it: the base of ``AppSuite``.

What lives here: building applications, choosing the driver. What must not: laws.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from sojourn.record import Record
from sojourn.sessions import Sessions
from sojourn.store import Store
from sojourn.stores.memory import MemoryStore
from sojourn.testing.drivers import ASGIDriver, Driver, WSGIDriver
from sojourn.testing.site import Handler, Site


class AppKit:
    """Builds applications for the laws.

    Attributes:
        protocol: how the framework's applications are served.
        answers_errors: an exception of a handler becomes an answer inside the framework, so its
            headers pass our middleware; elsewhere the server makes one of its own.
    """

    protocol: ClassVar[Literal["asgi", "wsgi"]] = "asgi"
    answers_errors: ClassVar[bool] = True

    def build(self, handlers: Mapping[str, Handler], **options: Any) -> tuple[Any, Sessions[Any]]:
        """Return an application that has each handler at its path, and its installation.

        A handler is a coroutine function: it gets the request's session (None if there is none) and
        returns an ``Status`` or None. Under WSGI, drive it with ``sojourn._core.concurrency.run``.

        Args:
            handlers: by path.
            options: for ``sojourn.install`` or ``sojourn.Sessions``.
        """
        raise NotImplementedError("an adapter's test class says how to build the application")

    def uninstall(self, app: Any, sessions: Sessions[Any]) -> None:
        """Take the sessions away from an application that is being served."""
        raise NotImplementedError("an adapter's test class says how to uninstall")

    def make_store(self) -> Store:
        """Return a new, empty store for one application.

        It must not read the clock of this machine: the laws move one of their own.
        """
        return MemoryStore()

    def stored(self, store: Store) -> list[Record]:
        """Return every record in a store of ``make_store``, without waiting.

        Expired ones too, but none that ``invalidate_all`` has made absent.
        """
        assert isinstance(store, MemoryStore)
        return store.records()

    def make_driver(self, app: Any, trace: list[str]) -> Driver:
        """Return what serves the application."""
        return ASGIDriver(app, trace) if self.protocol == "asgi" else WSGIDriver(app, trace)

    def site(self, handlers: Mapping[str, Handler], **options: Any) -> Site:
        """Serve an application with these handlers."""
        return Site(self, handlers, options)
