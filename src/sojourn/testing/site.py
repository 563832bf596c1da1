"""Site: an application with sessions, served in this process, and its visitors.

What lives here: handlers written once for every framework, what they answer, halts at which a test
holds them, browsers with a cookie jar. What must not: frameworks (each adapter of ``AppSuite``
turns handlers into its own) and laws.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from sojourn._core.concurrency import ThreadFuture, settle
from sojourn.record import Record
from sojourn.session import Session
from sojourn.sessions import Sessions
from sojourn.store import Closeable, Store
from sojourn.stores.memory import MemoryStore
from sojourn.testing.clock import FakeClock
from sojourn.testing.drivers import Driver, Headers, Reply, Request, Running
from sojourn.testing.faults import FaultyStore
from sojourn.testing.running import PATIENCE

if TYPE_CHECKING:
    from sojourn.testing.appkit import AppKit

SECRET: Final = "the secret of tests: 7Jm2Qw9vXc4Rk1"  # noqa: S105 - it opens nothing


@dataclass(frozen=True, slots=True)
class Status:
    """What a handler answers; a body that is an async generator is a stream."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] = b"ok"


Handler = Callable[[Session[Any]], Awaitable[Status | None]]
"""Gets the session (None where the request has none), which counts as no look at it; None: 200."""


class Halt:
    """A point in a handler at which it waits until the test says so, in a task or a thread."""

    def __init__(self) -> None:
        self._reached: ThreadFuture[None] = ThreadFuture()
        self._lock = threading.Lock()
        self._open = False
        self._waiting: list[ThreadFuture[None]] = []

    async def here(self) -> None:
        """Wait for the test (called by the handler)."""
        mine: ThreadFuture[None] = ThreadFuture()
        with self._lock:
            if not self._open:
                self._waiting.append(mine)
        settle([self._reached])
        if mine in self._waiting:
            await mine.wait(PATIENCE)

    async def reached(self) -> None:
        """Wait until a handler waits here (called by the test, under its loop)."""
        await self._reached.wait(PATIENCE)

    def go(self) -> None:
        """Let everybody go on, also those who come later."""
        with self._lock:
            self._open = True
            waiting = list(self._waiting)
        settle(waiting)


class Browser:
    """A client with a cookie jar of one cookie.

    Attributes:
        cookie: ``name=value``, None while there is none.
        at: the site that it asks; another one stands for another process.
    """

    def __init__(self, site: Site, cookie: str | None = None) -> None:
        self.at = site
        self.cookie = cookie

    def start(self, path: str, **request: Any) -> Running:
        """Begin a request with the cookie as it is now."""
        return self.at.driver.start(Request(path=path, cookie=self.cookie, **request))

    async def get(self, path: str, *, headers: Headers = (), **request: Any) -> Reply:
        """Ask for a path, take in the cookie of the answer, return the answer.

        Raises:
            Exception: what the application raised into its server, unless it answered 500.
        """
        reply = await self.start(path, headers=headers, **request).done()
        self.take(reply)
        if reply.error is not None and not reply.status:
            raise reply.error
        return reply

    def take(self, reply: Reply) -> None:
        """Keep or forget the cookie as an answer says."""
        for header in reply.all("set-cookie"):
            pair, _, attributes = header.partition(";")
            self.cookie = None if "max-age=0;" in attributes.lower() else pair


class Site:
    """An application with the given handlers, over a store that notes its calls.

    Args:
        kit: builds applications of one framework.
        handlers: by path.
        options: of the installation; ``clock``, ``store`` and ``secret`` are set already.

    Attributes:
        store: notes calls and plans faults; ``trace`` is its list of calls and messages.
        below: the store below, whose calls nobody counts.
        clock: stands still.
    """

    def __init__(
        self, kit: AppKit, handlers: Mapping[str, Handler], options: Mapping[str, Any]
    ) -> None:
        self.clock: FakeClock = options.get("clock") or FakeClock()
        self.store: FaultyStore = options.get("store") or FaultyStore(kit.make_store())
        self.below: Store = self.store.store
        self._owns_store = "store" not in options
        self.trace: list[str] = self.store.calls
        self.options: dict[str, Any] = {
            "secret": SECRET,
            **options,
            "clock": self.clock,
            "store": self.store,
        }
        self.kit = kit
        self._handlers = handlers
        self.app: Any
        self.sessions: Sessions[Any]
        self.app, self.sessions = self._build()
        self.driver: Driver = kit.make_driver(self.app, self.trace)

    def _build(self) -> tuple[Any, Sessions[Any]]:
        return self.kit.build(self._handlers, **self.options)

    async def __aenter__(self) -> Self:
        """Serve."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go of what hangs, and of threads."""
        self.store.heal()
        self.driver.close()
        self.sessions.close()
        if self._owns_store and isinstance(self.below, Closeable):
            self.below.close()

    @property
    def memory(self) -> MemoryStore:
        """The store below, where it is one in memory."""
        assert isinstance(self.below, MemoryStore)
        return self.below

    def another(self, **options: Any) -> Site:
        """Return the same application as another process would serve it, over the same store."""
        return Site(self.kit, self._handlers, {**self.options, **options})

    def browser(self, cookie: str | None = None) -> Browser:
        """Return a new client."""
        return Browser(self, cookie)

    def stored(self) -> list[Record]:
        """Return what a thief of the database would find; see ``AppKit.stored``."""
        return self.kit.stored(self.below)

    def count(self) -> int:
        """Return how many sessions are stored and alive."""
        at = self.clock()
        return sum(record.version > 0 and record.expires_at > at for record in self.stored())

    def traced(self) -> list[str]:
        """Return what happened since the last call: store calls and messages to the client."""
        seen = list(self.trace)
        self.trace.clear()
        return seen
