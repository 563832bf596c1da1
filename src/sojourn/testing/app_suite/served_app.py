"""ServedApp: an application with sessions, served in this process, and its clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol, Self
from unittest.mock import patch

from sojourn._core.clock import wall_clock
from sojourn.record import Record
from sojourn.sessions import Sessions
from sojourn.store import Closeable, Store
from sojourn.stores.memory import MemoryStore
from sojourn.testing.app_suite.drivers import (
    ClientResponse,
    Driver,
    Headers,
    Request,
    RunningRequest,
)
from sojourn.testing.app_suite.handlers import Handler
from sojourn.testing.clock import FakeClock
from sojourn.testing.faults import FaultyStore

SECRET: Final = "the secret of tests: 7Jm2Qw9vXc4Rk1"  # noqa: S105 - used by tests only


class AppFactory(Protocol):
    """Builds applications, stores and drivers; ``AppSuite`` implements and documents it."""

    def build(self, handlers: Mapping[str, Handler], **options: Any) -> tuple[Any, Sessions[Any]]:
        """Return an application and its installation."""
        ...

    def make_store(self) -> Store:
        """Return a new, empty store."""
        ...

    def stored(self, store: Store) -> list[Record]:
        """Return all records of a store."""
        ...

    def make_driver(self, app: Any, trace: list[str]) -> Driver:
        """Return a server of the application."""
        ...


class Browser:
    """A client with a cookie jar for the session cookie, and for that of ``near_cache``.

    Attributes:
        cookie: ``name=value``; None if there is none.
        written_cookie: the cookie of ``near_cache`` that marks that the client has written its
            session, as ``name=value``; None if there is none.
        at: the application that it sends requests to.
    """

    def __init__(self, at: ServedApp, cookie: str | None = None) -> None:
        self.at = at
        self.cookie = cookie
        self.written_cookie: str | None = None

    def start(self, path: str, **request: Any) -> RunningRequest:
        """Start a request with the present cookie.

        Args:
            path: of the URL.
            request: fields of ``Request``.
        """
        cookies = "; ".join(
            cookie for cookie in (self.cookie, self.written_cookie) if cookie is not None
        )
        return self.at.driver.start(Request(path=path, cookie=cookies or None, **request))

    async def get(self, path: str, *, headers: Headers = (), **request: Any) -> ClientResponse:
        """Send a request, store the cookie of the response, and return the response.

        Raises:
            Exception: the application raised it into its server and sent no response.
        """
        reply = await self.start(path, headers=headers, **request).done()
        self.store_cookies(reply)
        if reply.error is not None and not reply.status:
            raise reply.error
        return reply

    def store_cookies(self, reply: ClientResponse) -> None:
        """Store or remove the cookie as a response says."""
        for header in reply.all("set-cookie"):
            pair, _, attributes = header.partition(";")
            if pair.endswith("-written=1"):
                self.written_cookie = pair
                continue
            self.cookie = None if "max-age=0;" in attributes.lower() else pair


class ServedApp:
    """An application with the given handlers, over a store that records its calls.

    Args:
        suite: builds the application.
        handlers: by path.
        options: of the installation, except ``clock``, ``store`` and ``secret``.
        skew: milliseconds by which the clock of the application's machine is ahead. The
            installation then has no ``FakeClock``: its clock is the store's or the machine's.

    Attributes:
        app, sessions: the application and its installation.
        store: records calls and injects faults.
        trace: calls of the store and messages to clients, in order.
        clock: a ``FakeClock``.
        driver: serves the application.
    """

    def __init__(
        self,
        suite: AppFactory,
        handlers: Mapping[str, Handler],
        options: Mapping[str, Any],
        skew: int | None = None,
    ) -> None:
        self.clock: FakeClock = options.get("clock") or FakeClock()
        self.store: FaultyStore = options.get("store") or FaultyStore(suite.make_store())
        self.trace: list[str] = self.store.calls
        self._owns_store = "store" not in options
        self._suite = suite
        self._handlers = handlers
        self._options = {
            "secret": SECRET,
            **options,
            "clock": self.clock,
            "store": self.store,
        }
        self.app: Any
        self.sessions: Sessions[Any]
        if skew is None:
            self.app, self.sessions = suite.build(handlers, **self._options)
        else:
            without_clock = {k: v for k, v in self._options.items() if k != "clock"}
            with patch("sojourn.sessions.wall_clock", lambda: wall_clock() + skew):
                self.app, self.sessions = suite.build(handlers, **without_clock)
        self.driver: Driver = suite.make_driver(self.app, self.trace)

    async def __aenter__(self) -> Self:
        """Return the application."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Release blocked calls, stop threads and close the store."""
        self.store.heal()
        closing = self.driver.close()
        if closing is not None:
            await closing
        self.sessions.close()
        if self._owns_store and isinstance(self.store.store, Closeable):
            self.store.store.close()

    @property
    def memory(self) -> MemoryStore:
        """The wrapped store, if it is a ``MemoryStore``."""
        assert isinstance(self.store.store, MemoryStore)
        return self.store.store

    def another(self, *, skew: int | None = None, **options: Any) -> ServedApp:
        """Return the same application over the same store, as in another process."""
        return ServedApp(self._suite, self._handlers, {**self._options, **options}, skew)

    def browser(self, cookie: str | None = None) -> Browser:
        """Return a new client."""
        return Browser(self, cookie)

    def stored(self) -> list[Record]:
        """Return all stored records; see ``AppSuite.stored``."""
        return self._suite.stored(self.store.store)

    def count(self) -> int:
        """Return the number of live sessions."""
        at = self.clock()
        return sum(record.version > 0 and record.expires_at > at for record in self.stored())

    def take_trace(self) -> list[str]:
        """Return the trace since the last call."""
        trace = list(self.trace)
        self.trace.clear()
        return trace
