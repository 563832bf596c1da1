"""install and uninstall for Sanic, and the handlers of requests, errors and WebSockets."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, cast

from sanic import Request, Sanic
from sanic.exceptions import Forbidden, SanicException
from sanic.response import BaseHTTPResponse, HTTPResponse

from sojourn.errors import ConfigurationError
from sojourn.frameworks.sanic.exchange import (
    SanicExchange,
    SessionRequest,
    attach,
    find,
    to_response,
)
from sojourn.frameworks.sanic.websocket import SanicSocket
from sojourn.frameworks.text_options import options_from_settings
from sojourn.session import Session
from sojourn.sessions import Sessions
from sojourn.web.error_response import EXPECTED_ERRORS
from sojourn.web.framework_exchange import call_on_error, default_response, is_answerable
from sojourn.web.installation import OnStoreFailure, WebInstallation
from sojourn.web.status import SERVER_ERROR
from sojourn.web.websocket import ForeignOriginError

if TYPE_CHECKING:
    from sojourn.config import AllOptions, Options

#: Before the application's own middleware and listeners; Sanic's default is 0.
_FIRST_PRIORITY: Final = 1_000

#: The beginning of the keys of options in ``app.config``.
_PREFIX: Final = "SOJOURN_"


class SanicAdapter:
    """The hooks of one installation in one application.

    Args:
        app: the application.
        sessions: the installation.
    """

    def __init__(self, app: Any, sessions: Sessions[Any]) -> None:
        self._app = app
        self._web: WebInstallation = sessions.web
        self._state = sessions.config.state.cls
        self._error_handler: Any = None
        self._respond_to_error: Any = None

    async def load(self, request: Any) -> HTTPResponse | None:
        """Load the session of a request; a request middleware."""
        web = self._web
        if not web.active or find(request) is not None:
            return None
        self.replace_error_handler()
        config = web.config
        if _has_socket_route(request):
            return await self._load_socket(request)
        exchange = SanicExchange(web, request)
        attach(request, exchange)
        if web.loads_all or exchange.wanted():
            if config.protect:
                refusal = exchange.check_origin(
                    request.method,
                    site=request.headers.get("sec-fetch-site"),
                    origin=request.headers.get("origin"),
                )
                if refusal is not None:
                    return to_response(refusal)
            if config.autoload:
                waiting = exchange.start()
                if waiting is not None:
                    await waiting
        return None

    async def _load_socket(self, request: Any) -> HTTPResponse | None:
        config = self._web.config
        socket = SanicSocket(self._web, request)
        attach(request, socket)
        if config.autoload and (config.patterns.everything or config.patterns.match(request.path)):
            try:
                await socket.load()
            except ForeignOriginError:
                kind = _RefusedHandshake if request.app.asgi else HTTPResponse
                detail = "The handshake comes from a page of another origin.\n"
                return kind(detail, status=403, content_type="text/plain; charset=utf-8")
        return None

    # Handlers

    def wrap_routes(self) -> None:
        """Wrap the handler of each route, before the first request."""
        for route in self._app.router.routes:
            handler = route.handler
            if getattr(handler, "__sojourn__", False):
                continue
            websocket = hasattr(handler, "is_websocket")
            wrapped = _serve_socket(handler) if websocket else _serve_request(handler)
            wrapped.__sojourn__ = True  # type: ignore[attr-defined]
            route.handler = wrapped

    def add_dependency(self) -> None:
        """Let Sanic Extensions inject the session into handlers with a parameter ``Session``.

        The parameter is found by its type; with ``state=Shop`` also ``Session[Shop]``.
        """
        extensions = getattr(self._app, "_ext", None)  # `app.ext` would load them
        if extensions is not None:
            inject = self._inject_session()
            extensions.add_dependency(Session, inject)
            if self._state is not None:
                generic: Any = Session
                extensions.add_dependency(generic[self._state], inject)

    def _inject_session(self) -> Callable[[Request], Any]:
        # A function, because Sanic Extensions reads the types of its parameters.
        async def inject(request: Request) -> Session[Any]:
            # Parameters are made before the request middleware runs.
            if await self.load(request) is not None:
                raise Forbidden("This request was sent by a page of another origin.")
            return await get_session(request)

        inject.__annotations__ = {"request": Request, "return": Session}
        return inject

    # Errors

    def replace_error_handler(self) -> None:
        """Respond to errors before Sanic's error handler does; the application may replace that."""
        error_handler = self._app.error_handler
        if error_handler is not self._error_handler:
            self.restore_error_handler()
            self._error_handler = error_handler
            self._respond_to_error = error_handler.response
            error_handler.response = self._answer

    def restore_error_handler(self) -> None:
        """Undo ``replace_error_handler``."""
        if self._error_handler is not None:
            self._error_handler.response = self._respond_to_error
            self._error_handler = None

    def _answer(self, request: Any, exception: Exception) -> Any:
        lifecycle = None if request is None else find(request)
        if lifecycle is None:
            return self._respond_to_error(request, exception)
        return self._answer_with_session(request, exception, lifecycle)

    async def _answer_with_session(
        self, request: Any, exception: Exception, lifecycle: SanicExchange | SanicSocket
    ) -> Any:
        """Commit what is kept of a failed request, and respond to its error (laws A10, A23)."""
        failure = exception
        left = False
        if isinstance(lifecycle, SanicExchange):
            left = self._is_left_to_handler(request, exception, lifecycle)
            if not left:
                failure = await _settle(lifecycle, exception)
        response = await call_on_error(lifecycle, request, failure)
        if response is None:
            response = await self._call_handler(request, failure, lifecycle)
        elif left:
            lifecycle.mark_failed()
        if left and isinstance(lifecycle, SanicExchange) and isinstance(response, BaseHTTPResponse):
            try:  # here, because Sanic sends the response even if its commit fails later
                waiting = lifecycle.commit_response(response.status)
                if waiting is not None:
                    await waiting
            except Exception as error:  # noqa: BLE001 - answered instead of the first error
                return await self._answer_with_session(request, error, lifecycle)
        return response

    async def _call_handler(
        self, request: Any, error: Exception, lifecycle: SanicExchange | SanicSocket
    ) -> Any:
        """Return the response of the application's handler, or a built-in one."""
        if is_answerable(error) and self._app.error_handler.lookup(error, request.name) is None:
            answer = default_response(lifecycle, error, request.headers.get("accept"))
            if answer is not None:
                return to_response(answer)
        response = self._respond_to_error(request, error)
        return await response if inspect.isawaitable(response) else response

    def _is_left_to_handler(
        self, request: Any, exception: Exception, exchange: SanicExchange
    ) -> bool:
        """Return whether a handler answers an error whose request has not failed (law A10)."""
        return (
            isinstance(exception, EXPECTED_ERRORS)
            and not exchange.response_started
            and self._app.error_handler.lookup(exception, request.name) is not None
        )


async def _settle(exchange: SanicExchange, exception: Exception) -> Exception:
    """Commit what is kept of a request that raised; return the error to answer."""
    try:
        status = _status(exception)
        if status < SERVER_ERROR:  # a handler responds by raising it, such as `NotFound`
            waiting = exchange.commit_response(status)
            if waiting is not None:
                await waiting
        else:
            await exchange.settle(exception)
    except Exception as error:  # noqa: BLE001 - answered instead of the first error
        return error
    return exception


def _status(exception: Exception) -> int:
    """Return the status of the response to an exception, unless a handler decides otherwise."""
    if not isinstance(exception, SanicException):
        return SERVER_ERROR
    return exception.status_code or SERVER_ERROR


class _RefusedHandshake(HTTPResponse):
    """Refuses a handshake under an ASGI server, which then answers 403.

    Servers take no response of a request for a WebSocket, which is what Sanic would send.
    """

    async def send(self, data: Any = None, end_stream: bool | None = None) -> None:  # noqa: ARG002, FBT001 - as in Sanic
        """Close the WebSocket before it is accepted."""
        stream: Any = self.stream
        await stream.transport.send({"type": "websocket.close", "code": 1008})


def _has_socket_route(request: Any) -> bool:
    """Return whether the handler of a request expects a WebSocket.

    The header Upgrade does not say so: any client may send it, and a server may ignore it (RFC 9110
    7.8).
    """
    route = request.route  # None if there is no such page
    return route is not None and hasattr(route.handler, "is_websocket")


def _serve_request(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return a handler that commits what the wrapped one has changed."""

    async def call(request: Any, *args: Any, **kwargs: Any) -> Any:
        response = handler(request, *args, **kwargs)
        return await response if inspect.isawaitable(response) else response

    async def serve(request: Any, *args: Any, **kwargs: Any) -> Any:
        exchange = find(request)
        if exchange is None:
            return await call(request, *args, **kwargs)
        exchange.running = True
        try:
            return await _commit_after(exchange, call(request, *args, **kwargs))
        finally:
            exchange.running = False
            if exchange.response_started:
                exchange.end()

    return _copy_attributes(serve, handler, handler)


async def _commit_after(exchange: SanicExchange, handling: Awaitable[Any]) -> Any:
    """Wait for the handler of a request, and commit what it has changed."""
    try:
        response = await handling
        if exchange.response_started:
            await exchange.finish_stream()
        elif isinstance(response, BaseHTTPResponse):
            waiting = exchange.commit_response(response.status)
            if waiting is not None:
                await waiting
    except asyncio.CancelledError as error:  # also because the client has disconnected
        await exchange.settle(error)
        raise
    except Exception as error:
        if exchange.response_started:
            await exchange.settle(error)
        raise
    return response


def _serve_socket(handler: Any) -> Callable[..., Any]:
    """Return the handler of a WebSocket route, which gives the wrapped one its session.

    Sanic's own handler is a partial function that answers the handshake, and then calls the
    application's.
    """
    own = handler.args[0]

    async def serve_attached(request: Any, ws: Any, *args: Any, **kwargs: Any) -> None:
        socket = find(request)
        if socket is None:
            await own(request, ws, *args, **kwargs)
        else:
            await socket.run_handler(ws, functools.partial(own, request, ws, *args, **kwargs))

    functools.update_wrapper(serve_attached, own)
    answering = functools.partial(
        handler.func, serve_attached, *handler.args[1:], **handler.keywords
    )

    async def serve(request: Any, *args: Any, **kwargs: Any) -> Any:
        socket = find(request)
        if socket is None:
            return await answering(request, *args, **kwargs)
        protocols = socket.protocols(handler.keywords.get("subprotocols"))
        answer = functools.partial(answering, request, *args, subprotocols=protocols, **kwargs)
        return await socket.run(answer)

    return _copy_attributes(serve, handler, own)


def _copy_attributes(
    serve: Callable[..., Any], handler: Callable[..., Any], own: Callable[..., Any]
) -> Callable[..., Any]:
    """Give a wrapper the attributes of the handler, and the types of the application's function.

    Sanic Extensions reads the types of parameters. A partial function has none.
    """
    functools.update_wrapper(serve, handler)
    while isinstance(own, functools.partial):
        own = own.func
    return functools.update_wrapper(serve, own)


async def get_session(
    request: Request, on_store_failure: OnStoreFailure | None = None
) -> Session[Any]:
    """Return the session of a request or WebSocket; load it if necessary.

    Args:
        request: of Sanic.
        on_store_failure: what to do if the store fails; None for the installation's choice.

    Raises:
        ConfigurationError: no installation serves the request.
        StoreUnavailable: the store failed.
    """
    lifecycle = find(request)
    if lifecycle is None:
        raise ConfigurationError(
            "this handler needs a session, and the request did not pass a session middleware. Call "
            "sojourn.install(app) before the application starts"
        )
    session: Session[Any] = await lifecycle.load(on_store_failure)
    return session


def route(handler: Callable[..., Any], policy: OnStoreFailure | None) -> Callable[..., Any]:
    """Load the session before a handler runs: a function, or a method of a view."""

    @functools.wraps(handler)
    async def load_and_call(*args: Any, **kwargs: Any) -> Any:
        request = next(each for each in args if isinstance(each, Request))
        await get_session(request, policy)
        result = handler(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    return load_and_call


def read_settings(app: Any, given: Options) -> AllOptions:
    """Return the given options and those in ``app.config``; the given precede.

    Sanic also reads ``app.config`` from variables of the environment such as
    ``SANIC_SOJOURN_TIMEOUT``, whose text is converted.

    Args:
        app: its configuration is complete.
        given: options.

    Raises:
        ConfigurationError: a setting ``SOJOURN_...`` names no option, or its text is wrong.
    """
    return cast("AllOptions", {**options_from_settings(app.config, _PREFIX), **given})


def install(app: Any, sessions: Sessions[Any]) -> None:
    """Add the middleware and the listener to an application that has not started.

    Raises:
        ConfigurationError: the application is being served.
    """
    if app.state.is_started:
        raise ConfigurationError(
            "Sanic does not let an application change after it has started. Call "
            "sojourn.install(app) where the application is created"
        )
    adapter = SanicAdapter(app, sessions)
    app.ctx.sojourn = adapter
    request_class = app.request_class or Request
    if not issubclass(request_class, SessionRequest):
        # The application may have a class of its own.
        bases = (SessionRequest,) if request_class is Request else (SessionRequest, request_class)
        app.request_class = type(request_class.__name__, bases, {"__slots__": ()})
    app.register_middleware(adapter.load, "request", priority=_FIRST_PRIORITY)

    async def prepare(app: Sanic[Any, Any]) -> None:
        del app
        adapter.replace_error_handler()
        adapter.wrap_routes()
        adapter.add_dependency()

    app.register_listener(prepare, "before_server_start", priority=_FIRST_PRIORITY)
    sessions.route_decorator = route


def uninstall(app: Any, sessions: Sessions[Any]) -> None:
    """Remove what the application lets remove. The installation is inactive already.

    The middleware stays and lets requests pass.
    """
    del sessions
    app.ctx.sojourn = None
