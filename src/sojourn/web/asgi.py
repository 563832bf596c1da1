"""SessionMiddleware for ASGI: translates messages for ``SessionLifecycle``; makes no decisions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from types import CoroutineType
from typing import Any, Final

from sojourn.errors import StoreUnavailable
from sojourn.session import Session
from sojourn.web.asgi_scope import (
    CONNECTION,
    ASGIApp,
    Message,
    Receive,
    Scope,
    Send,
    read_headers,
    read_labels,
    read_path,
    read_site,
)
from sojourn.web.cache_headers import RawHeaders
from sojourn.web.installation import HasWebInstallation, OnStoreFailure, WebInstallation
from sojourn.web.lifecycle import UNAVAILABLE_BODY, UNAVAILABLE_HEADERS, SessionLifecycle
from sojourn.web.origin import Refusal, refusal_response
from sojourn.web.transport import INSECURE
from sojourn.web.websocket import WebSocketConnection

_SERVER_ERROR: Final = 500

#: Of scopes without versions.
_NO_VERSION: Final[dict[str, str]] = {}

_HANDLED_TYPES: Final = frozenset({"http", "websocket"})

logger: logging.Logger = logging.getLogger("sojourn")


class SessionMiddleware:
    """Gives each request and each WebSocket of an ASGI application its session.

    ``scope["session"]`` is the session (``request.session`` in Starlette and FastAPI).

    Args:
        app: the application.
        sessions: the installation.
    """

    def __init__(self, app: ASGIApp, sessions: HasWebInstallation) -> None:
        self.app = app
        self.web: WebInstallation = sessions.web

    async def __call__(  # noqa: C901, PLR0912, PLR0915 - every outcome, top to bottom
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve one connection."""
        web, app = self.web, self.app
        scope_type = scope["type"]
        if scope_type not in _HANDLED_TYPES or not web.active:
            await app(scope, receive, send)
            return
        config = web.config
        wanted = config.patterns.everything or config.patterns.match(read_path(scope))
        outer = scope.get(CONNECTION)
        if outer is not None and outer.web is web:  # a second middleware of this route
            if wanted:
                await outer.load()
            await app(scope, receive, send)
        elif scope_type == "websocket":
            connection = WebSocketConnection(web, scope, receive, send)
            await connection.serve(app, autoload=wanted and config.autoload)
        else:
            # Not in a method: a coroutine in between would cost every request.
            if config.protect and wanted and (reason := _check_origin(web, scope)) is not None:
                await _send_refusal(send, reason)
                return
            scope[CONNECTION] = exchange = _create_exchange(web, scope, send)
            try:
                try:
                    if wanted and config.autoload:
                        host, cookies, _, proxied = read_headers(scope)
                        waiting = exchange.begin(scope["scheme"], host, cookies, proxied)
                        if waiting is not None:
                            try:
                                await waiting
                            finally:
                                scope["session"] = exchange.session
                        else:
                            scope["session"] = exchange.session
                    await app(scope, receive, exchange.send)
                except BaseException as error:
                    await _fail(exchange, error)
                    raise
                copy = exchange.working_copy
                if copy is not None and copy.changes is not None:
                    waiting = exchange.finish()
                    if waiting is not None:
                        await waiting
            except StoreUnavailable as error:
                if exchange.response_started and not exchange.unavailable:
                    raise
                # One line: an outage has one for each request.
                logger.error(  # noqa: TRY400
                    "answered 503 because the session store failed: %s",
                    error,
                    exc_info=error.application_error,
                )
                if not exchange.response_started:
                    await _send_unavailable(send)
            finally:
                # Two reference cycles less: the request is freed without the garbage collector.
                scope[CONNECTION] = None
                copy = exchange.working_copy
                if copy is not None:
                    copy.client = None  # as `end` does


class HTTPExchange(SessionLifecycle):
    """One HTTP request and its response."""

    __slots__ = ("_scope", "_send")

    _scope: Scope
    _send: Send

    async def load(self, on_store_failure: OnStoreFailure | None = None) -> Session[Any]:
        """Load the session of this request, once, and put it into the scope.

        Args:
            on_store_failure: the route's choice; None for the installation's.

        Raises:
            StoreUnavailable: the store failed.
        """
        scope = self._scope
        host, cookies, _, proxied = read_headers(scope)
        try:
            waiting = self.begin(scope["scheme"], host, cookies, proxied, on_store_failure)
            if waiting is not None:
                await waiting
        finally:
            if self.session is not None:
                scope["session"] = self.session
        session = self.session
        assert session is not None  # noqa: S101 - begin has set it
        return session

    def labels(self) -> dict[str, str]:
        """Return the labels of the client."""
        return read_labels(self._scope)

    def path(self) -> str:
        """Return the path of the request."""
        return read_path(self._scope)

    def send(self, message: Message) -> Awaitable[None]:
        """Send a message to the server, after what has to be committed before it."""
        message_type = message["type"]
        if message_type == "http.response.start":
            status = message["status"]
            headers = message.get("headers", ())
            if status >= _SERVER_ERROR and self.unavailable:
                message["status"] = 503
                headers = self.unavailable_headers(headers)
            sent = self.respond(status, headers)
            if isinstance(sent, CoroutineType):
                return self._send_start(message, sent)
            message["headers"] = sent
        elif message_type == "http.response.body" and not message.get("more_body", False):
            copy = self.working_copy
            if copy is not None and copy.changes is not None:
                waiting = self.finish()
                if waiting is not None:
                    return self._send_after(message, waiting)
            if self.response_started:
                send = self._send
                return send(message)  # nothing depends on how this ends
        copy = self.working_copy
        if self.response_started and (
            copy is None
            or copy.record is None
            or self._scope.get("asgi", _NO_VERSION).get("spec_version", "2.0") < "2.4"
        ):
            send = self._send
            return send(message)
        # From ASGI 2.4 on, the server reports a disconnected client by raising from ``send``.
        return self._send_confirmed(message)

    async def _send_start(self, message: Message, headers: Awaitable[RawHeaders]) -> None:
        message["headers"] = await headers
        await self._send_confirmed(message)

    async def _send_after(self, message: Message, waiting: Awaitable[None]) -> None:
        await waiting
        await self._send_confirmed(message)

    async def _send_confirmed(self, message: Message) -> None:
        """Send a message and note whether the client has disconnected."""
        try:
            await self._send(message)
        except OSError:
            self.client_disconnected = True
            raise


def _create_exchange(web: WebInstallation, scope: Scope, send: Send) -> HTTPExchange:
    # Instead of `__init__`, as in `session.create_session`: every request creates an exchange.
    self = object.__new__(HTTPExchange)
    self._scope = scope
    self._send = send
    self.web = web
    self.session = None
    self.working_copy = None
    self.failed = False
    self.response_started = False
    self.client_disconnected = False
    self.transport = INSECURE
    return self


async def _fail(lifecycle: SessionLifecycle, error: BaseException) -> None:
    """Commit what is kept of a request that raised."""
    if isinstance(error, asyncio.CancelledError):
        waiting = lifecycle.fail(cancelled=True)
        if waiting is not None:
            await asyncio.shield(waiting)
    elif isinstance(error, Exception):
        waiting = lifecycle.fail()
        if waiting is not None:
            await waiting


def _check_origin(web: WebInstallation, scope: Scope) -> Refusal | None:
    host, cookies, origin, proxied = read_headers(scope)
    return web.check_origin(
        scope["method"],
        scope["scheme"],
        site=read_site(scope),
        origin=origin,
        host=host,
        cookies=cookies,
        proxied=proxied,
    )


async def _send_refusal(send: Send, reason: Refusal) -> None:
    """Send 403: a page of another origin sent the request (ASVS 3.5.1)."""
    headers, body = refusal_response(reason)
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send_unavailable(send: Send) -> None:
    """Send 503: to continue would lose what the store holds (law A15)."""
    headers = list(UNAVAILABLE_HEADERS)
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": UNAVAILABLE_BODY})
