"""``sojourn.install(app)`` for BlackSheep."""

from __future__ import annotations

import inspect
from types import CoroutineType
from typing import Any

from blacksheep import Application
from blacksheep.contents import Content
from blacksheep.messages import Response
from blacksheep.middlewares import MiddlewareCategory

from sojourn.errors import ConfigurationError, SessionRequired, SojournError, StoreError
from sojourn.frameworks.blacksheep import routes
from sojourn.frameworks.blacksheep.session import BlackSheepNullSession, BlackSheepSession
from sojourn.sessions import Sessions
from sojourn.web.asgi import SessionMiddleware
from sojourn.web.asgi_exchange import HTTPExchange, create_layered_exchange
from sojourn.web.asgi_scope import CONNECTION, read_path
from sojourn.web.cache_headers import RawHeaders
from sojourn.web.error_response import (
    EXPECTED_ERRORS,
    unauthorized_response,
    unavailable_response,
)
from sojourn.web.status import SERVER_ERROR
from sojourn.web.websocket import WebSocketConnection

_NO_CONTENT = 204


class SessionMixin:
    """What ``install`` adds to the class of an application, by ``app.extend``.

    Attributes:
        sojourn_middleware: around the application.
        sojourn_sessions: the installation.
    """

    sojourn_middleware: SessionMiddleware
    sojourn_sessions: Sessions[Any]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request or a socket."""
        await self.sojourn_middleware(scope, receive, send)

    def extend(self, mixin: type) -> None:
        """Extend the class below this one, which stays around what serves mounted applications."""
        app: Any = self
        app.__class__ = type(self).__bases__[1]  # `extend` has created the class from two
        Application.extend(app, mixin)
        Application.extend(app, SessionMixin)

    def mount(self, path: str, app: Any) -> None:
        """Mount an application, which gets the session, too."""
        parent: Any = super()
        parent.mount(path, app)
        if isinstance(app, Application):
            _serve_mounted(app, self.sojourn_sessions)


def install(app: Application, sessions: Sessions[Any]) -> None:
    """Give each request and socket of an application its session, as ``request.session``."""
    if app.started:
        raise ConfigurationError(
            "sojourn.install expects an application that has not started, because BlackSheep "
            "prepares its middleware at the start. Call it where the application is created"
        )
    sessions.web.session_class = BlackSheepSession
    sessions.web.null_session_class = BlackSheepNullSession
    sessions.route_decorator = routes.route
    if sessions.config.state.cls is not None:
        routes.bind_state(sessions.config.state.cls)
    app.extend(SessionMixin)
    changed: Any = app

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        base: Any = super(SessionMixin, changed)
        await base.__call__(scope, receive, send)

    changed.sojourn_middleware = SessionMiddleware(serve, sessions, autoload=False)
    changed.sojourn_sessions = sessions
    _add_component(app, sessions, "")
    for child in _mounted(app):
        _serve_mounted(child, sessions)


def uninstall(app: Application, sessions: Sessions[Any]) -> None:
    """Remove the handler of errors. The installation is inactive already, and requests pass it."""
    if app.exceptions_handlers.get(SojournError) is _answer_error:
        del app.exceptions_handlers[SojournError]
    for child in _mounted(app):
        if not isinstance(child, SessionMixin):
            uninstall(child, sessions)


def _mounted(app: Application) -> list[Application]:
    """Return the applications of BlackSheep that one has mounted."""
    handlers = [route.handler for route in app.mount_registry.mounted_apps]
    return [each for each in handlers if isinstance(each, Application)]


def _serve_mounted(app: Application, sessions: Sessions[Any]) -> None:
    """Give a mounted application the session of the one that mounts it.

    BlackSheep does not route requests to applications that are mounted in a mounted one.

    Args:
        app: if it has an installation of its own, that one serves its requests.
        sessions: the installation.
    """
    prefix = app.base_path
    if app.started:
        raise ConfigurationError(
            f"the application that is mounted at {prefix!r} has started already, so it cannot get "
            "the session. Mount it before it starts"
        )
    _add_component(app, sessions, prefix)


def _add_component(app: Application, sessions: Sessions[Any], prefix: str) -> None:
    app.middlewares.append(_SessionComponent(app, sessions, prefix), MiddlewareCategory.SESSION)
    if SojournError not in app.exceptions_handlers:
        app.exceptions_handlers[SojournError] = _answer_error


class _SessionComponent:
    """Loads and commits where the application's exception handlers answer; a middleware.

    Args:
        app: the application.
        sessions: the installation.
        prefix: the path at which the application is mounted; empty for the outermost one.
    """

    def __init__(self, app: Application, sessions: Sessions[Any], prefix: str) -> None:
        self._app = app
        self._sessions = sessions
        self._prefix = prefix

    async def __call__(self, request: Any, handler: Any) -> Any:
        """Serve a request; a WebSocket is one, too."""
        connection = request.scope.get(CONNECTION)
        if isinstance(connection, HTTPExchange):
            if connection.web is self._sessions.web:
                return await self._serve(request, handler, connection)
        elif isinstance(connection, WebSocketConnection):
            return await self._serve_socket(request, handler, connection)
        elif (
            CONNECTION not in request.scope
            and request.scope["type"] == "http"
            and self._sessions.web.active
        ):
            return await self._serve_directly(request, handler)
        return await handler(request)

    async def _serve_directly(self, request: Any, handler: Any) -> Any:
        """Serve a request of BlackSheep's test client, which passes no ASGI messages."""
        scope = request.scope
        exchange = create_layered_exchange(self._sessions.web, scope, _send_nothing)
        scope[CONNECTION] = exchange
        try:
            response = await self._serve(request, handler, exchange)
            if response is None:
                response = Response(_NO_CONTENT)
            given: RawHeaders = list(response.headers.values or ())
            headers = exchange.respond(response.status, given, complete=True)
            if isinstance(headers, CoroutineType):
                headers = await headers
            for name in {name for name, _ in given}:
                response.remove_header(name)
            for name, value in headers:
                response.add_header(name, value)
        except Exception as error:
            await exchange.settle(error)
            raise
        finally:
            exchange.end()
        return response

    async def _serve(self, request: Any, handler: Any, exchange: HTTPExchange) -> Any:
        config = self._sessions.web.config
        try:
            if config.autoload and (
                config.patterns.everything
                or config.patterns.match(self._prefix + read_path(request.scope))
            ):
                try:
                    await exchange.load()
                finally:  # exception handlers may use it, too
                    if exchange.session is not None:
                        request.session = exchange.session
            response = await handler(request)
            await self._commit(request, response, exchange)
        except SojournError as error:
            if self._is_left_to_handler(error, exchange):
                try:
                    response = await self._app.handle_request_handler_exception(request, error)
                    await self._commit(request, response, exchange)
                except SojournError as failure:
                    return await self._answer(request, failure, exchange)
                return response
            return await self._answer(request, error, exchange)
        return response

    def _is_left_to_handler(self, error: SojournError, exchange: HTTPExchange) -> bool:
        """Return whether a handler answers an error whose request has not failed (law A10)."""
        if not isinstance(error, EXPECTED_ERRORS) or exchange.response_started:
            return False
        handlers = self._app.exceptions_handlers
        kinds = type(error).__mro__
        found = next((handlers[each] for each in kinds if each in handlers), _answer_error)
        return found is not _answer_error

    async def _answer(self, request: Any, error: SojournError, exchange: HTTPExchange) -> Any:
        """Respond inside of the application's CORS middleware, whose headers the response gets."""
        await exchange.settle(error)
        exchange.failure = error
        request.scope["session"] = exchange.session
        return await self._app.handle_request_handler_exception(request, error)

    async def _commit(self, request: Any, response: Any, exchange: HTTPExchange) -> None:
        session = exchange.session
        if session is None:
            return
        found = request.session
        if found is not session:
            request.session = session
            request.scope["session"] = found
        if request.scope.get("session") is not session:
            exchange.adopt_replacement()
        waiting = exchange.commit(_NO_CONTENT if response is None else response.status)
        if waiting is not None:
            await waiting

    async def _serve_socket(
        self, socket: Any, handler: Any, connection: WebSocketConnection
    ) -> Any:
        if connection.session is not None:
            socket.session = connection.session
        try:
            return await handler(socket)
        except Exception as error:
            if not await connection.close_after(error, None):
                raise


async def _send_nothing(_: Any) -> None:
    """Send no message: there is no server."""


async def _answer_error(app: Application, request: Any, error: Any) -> Response:
    """Respond to an error of sojourn that the application has no handler for (law A23)."""
    connection = request.scope.get(CONNECTION)
    if isinstance(connection, HTTPExchange):
        on_error = connection.web.config.on_error
        if on_error is not None and not isinstance(error, ConfigurationError):
            answer = on_error(request, error)
            if inspect.isawaitable(answer):
                answer = await answer
            if answer is not None:
                return await _to_response(answer, request.scope)
    handlers: Any = app.exceptions_handlers
    handler = handlers.get(Exception) or handlers.get(SERVER_ERROR)
    if handler is not None:
        response: Response = await handler(app, request, error)
        return response
    accept = request.get_first_header(b"accept")
    if isinstance(error, StoreError):
        return _make_response(503, *unavailable_response(accept))
    if isinstance(error, SessionRequired):
        return _make_response(401, *unauthorized_response(accept))
    page: Response = await app.handle_internal_server_error(request, error)
    return page


async def _to_response(answer: Any, scope: Any) -> Response:
    """Return what ``on_error`` has returned, a response or an ASGI application, as a response."""
    if isinstance(answer, Response):
        return answer
    response = Response(SERVER_ERROR)
    body = bytearray()

    async def receive() -> Any:
        return {"type": "http.disconnect"}  # the body of the request is not for this application

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            response.status = message["status"]
            for name, value in message.get("headers", ()):
                response.add_header(name, value)
        else:
            body.extend(message.get("body", b""))

    await answer(scope, receive, send)
    kind = response.get_first_header(b"content-type") or b"application/octet-stream"
    response.remove_header(b"content-type")
    response.remove_header(b"content-length")
    response.content = Content(kind, bytes(body))
    return response


def _make_response(status: int, headers: RawHeaders, body: bytes) -> Response:
    """Return a response of BlackSheep, which sets type and length by the content."""
    kind = next(value for name, value in headers if name == b"content-type")
    others = [pair for pair in headers if pair[0] not in (b"content-type", b"content-length")]
    return Response(status, others, Content(kind, body))
