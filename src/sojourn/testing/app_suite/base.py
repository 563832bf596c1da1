"""What the author of a framework adapter overrides: the base of all tests of ``AppSuite``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from sojourn.record import Record
from sojourn.sessions import Sessions
from sojourn.store import SaveLoginResult, SessionLimit, Store
from sojourn.stores.memory import MemoryStore
from sojourn.testing.app_suite.drivers import ASGIDriver, Driver, WSGIDriver
from sojourn.testing.app_suite.handlers import Handler
from sojourn.testing.app_suite.served_app import ServedApp


class AppTests:
    """Base of all test classes of ``AppSuite``.

    Attributes:
        protocol: how applications of the framework are served; "own" for a framework with a server
            of its own, whose class overrides ``make_driver`` and ``closed_response``.
        answers_errors: the framework turns an exception of a handler into a response, whose headers
            pass the session middleware; otherwise the server does.
    """

    protocol: ClassVar[Literal["asgi", "wsgi", "own"]] = "asgi"
    answers_errors: ClassVar[bool] = True

    def build(self, handlers: Mapping[str, Handler], **options: Any) -> tuple[Any, Sessions[Any]]:
        """Return an application that serves each handler at its path, and its installation.

        A handler is a coroutine function. It gets the request's session (None if there is none) and
        returns a ``HandlerResponse``, or None for a plain 200. In a WSGI application, run it with
        ``sojourn.web.lifecycle.run``.

        Args:
            handlers: by path.
            options: for ``sojourn.install`` or ``sojourn.Sessions``.
        """
        raise NotImplementedError("define build(handlers, **options) in the test class")

    def uninstall(self, app: Any, sessions: Sessions[Any]) -> None:
        """Uninstall sessions from an application that is being served."""
        raise NotImplementedError("define uninstall(app, sessions) in the test class")

    def make_store(self) -> Store:
        """Return a new, empty store for one application.

        It must not use the clock of the machine: the tests move a clock of their own.
        """
        return _ListableStore()

    def stored(self, store: Store) -> list[Record]:
        """Return all records of a store from ``make_store``, without waiting.

        Expired records are included, those before the cutoff of ``invalidate_all`` are not.
        """
        assert isinstance(store, _ListableStore)
        return store.records()

    def make_driver(self, app: Any, trace: list[str]) -> Driver:
        """Return a server of the application."""
        if self.protocol == "own":
            raise NotImplementedError("define make_driver(app, trace), such as with a SocketDriver")
        return ASGIDriver(app, trace) if self.protocol == "asgi" else WSGIDriver(app, trace)

    def closed_response(self) -> Any:
        """Return what ``on_error`` returns for a response with status 418 and the body "closed"."""
        if self.protocol == "own":
            raise NotImplementedError("define closed_response() in the test class")
        return _closed_asgi if self.protocol == "asgi" else _closed_wsgi

    def serve(
        self, handlers: Mapping[str, Handler], *, skew: int | None = None, **options: Any
    ) -> ServedApp:
        """Return an application with these handlers, served in this process.

        Args:
            handlers: by path.
            skew: milliseconds by which the machine's clock is ahead; None for a ``FakeClock``.
            options: of the installation.
        """
        return ServedApp(self, handlers, options, skew)


async def _closed_asgi(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": b"closed"})


def _closed_wsgi(_environ: Any, start_response: Any) -> list[bytes]:
    start_response("418 Closed", [("Content-Type", "text/plain")])
    return [b"closed"]


class _ListableStore(MemoryStore):
    """A memory store that records which IDs it has stored."""

    def __init__(self) -> None:
        super().__init__()
        self._ids: dict[bytes, None] = {}

    async def create(self, record: Record) -> bool:
        self._ids[record.id] = None
        return await super().create(record)

    async def save_login(
        self, record: Record, expected_version: int, *, limit: SessionLimit | None, now: int
    ) -> SaveLoginResult:
        self._ids[record.id] = None
        return await super().save_login(record, expected_version, limit=limit, now=now)

    async def create_many(self, records: Sequence[Record]) -> list[bool]:
        self._ids.update(dict.fromkeys(record.id for record in records))
        return await super().create_many(records)

    def records(self) -> list[Record]:
        return [record for session_id in self._ids if (record := self.peek(session_id))]
