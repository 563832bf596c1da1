"""Errors of sessions as errors of a Litestar application: its handlers answer them (law A23)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.exceptions.responses import create_debug_response, create_exception_response
from litestar.handlers import BaseRouteHandler

from sojourn.errors import SessionRequired, SojournError, StoreError
from sojourn.web.asgi_exchange import HTTPExchange
from sojourn.web.asgi_scope import CONNECTION, ASGIApp, Receive, Scope, Send
from sojourn.web.status import SERVER_ERROR, UNAVAILABLE
from sojourn.web.websocket import WebSocketConnection

logger: logging.Logger = logging.getLogger("sojourn")


class LitestarFramework:
    """The requests and error handlers of Litestar applications."""

    def make_request(self, scope: Scope, receive: Receive) -> ASGIConnection[Any, Any, Any, Any]:
        """Return the request; the handshake of a WebSocket as what both have in common."""
        any_scope: Any = scope
        any_receive: Any = receive
        if scope["type"] != "http":
            return ASGIConnection(any_scope, any_receive)
        request: Request[Any, Any, Any] = scope["litestar_app"].request_class(
            any_scope, any_receive
        )
        return request

    async def call_handler(self, request: Any, error: SojournError) -> ASGIApp | None:
        """Return the response of the application's handler, or Litestar's page for an error.

        Returns:
            None without a handler, if the store failed or a session is required.
        """
        handler = _find_handler(_handlers(request), error)
        if handler is not None:
            return _to_asgi(handler(request, error), request)
        if isinstance(error, StoreError | SessionRequired):
            return None
        return _error_page(request, error)


class _SessionErrorResponse(Response[None]):
    """The response to an error of sojourn that a handler has raised.

    Args:
        error: the error.
    """

    def __init__(self, error: SojournError) -> None:
        super().__init__(None, status_code=SERVER_ERROR)
        self._error = error

    def to_asgi_response(self, app: Any, request: Any, **_: Any) -> Any:  # noqa: ARG002 - of Response
        """Return the ASGI application that responds."""
        error = self._error

        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            exchange: HTTPExchange | None = scope.get(CONNECTION)
            framework = LitestarFramework()
            if exchange is not None and await exchange.answer(error, receive, framework):
                return
            response = await framework.call_handler(request, error)
            await (response or _error_page(request, error))(scope, receive, send)

        return respond


def answer_error(_: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """Respond to an error of sojourn; an exception handler of Litestar.

    ``on_error`` is called, then the application's handler for all exceptions.
    """
    assert isinstance(error, SojournError)  # noqa: S101 - it is registered for this class
    return _SessionErrorResponse(error)


async def close_socket(error: Exception, scope: Any) -> None:
    """Close a socket whose handler raised an error of its session; an ``after_exception`` hook.

    Litestar would close it with 4500.
    """
    connection = scope.get(CONNECTION)
    if isinstance(connection, WebSocketConnection):
        await connection.close_after(error, LitestarFramework())


def _handlers(request: ASGIConnection[Any, Any, Any, Any]) -> Mapping[Any, Any]:
    """Return the exception handlers of a request's route, or of its application."""
    handler: BaseRouteHandler | None = request.scope.get("route_handler")
    if handler is None:
        return request.app.exception_handlers
    resolve = getattr(handler, "resolve_exception_handlers", None)  # until Litestar 3
    handlers: Any = handler.exception_handlers if resolve is None else resolve()
    return cast("Mapping[Any, Any]", handlers)


def _find_handler(handlers: Mapping[Any, Any], error: SojournError) -> Any:
    """Return the application's handler of an error; None if there is only that of sojourn."""
    for base in type(error).__mro__:
        if base in handlers and handlers[base] is not answer_error:
            return handlers[base]
    if isinstance(error, StoreError) and UNAVAILABLE in handlers:
        return handlers[UNAVAILABLE]
    return handlers.get(SERVER_ERROR)


def _error_page(request: Any, error: SojournError) -> ASGIApp:
    """Return Litestar's page for an error, and log it."""
    logger.error("answered 500 because of an error of the session", exc_info=error)
    page = create_debug_response if request.app.debug else create_exception_response
    return _to_asgi(page(request, error), request)


def _to_asgi(response: Any, request: Any) -> ASGIApp:
    """Return a response of Litestar as an ASGI application."""
    handler = request.scope.get("route_handler")
    resolve = getattr(handler, "resolve_type_encoders", None)
    encoders = request.app.type_encoders if resolve is None else resolve()
    application: ASGIApp = response.to_asgi_response(
        app=None, request=request, type_encoders=encoders
    )
    return application
