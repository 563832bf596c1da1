"""The middleware of aiohttp: one layer outside of the application's own, one inside."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.log import ws_logger

from sojourn.errors import ConfigurationError, StoreError
from sojourn.frameworks.aiohttp.exchange import (
    AiohttpExchange,
    exchanges_of,
    streams,
    to_response,
)
from sojourn.frameworks.aiohttp.session import AiohttpNullSession, AiohttpSession
from sojourn.frameworks.aiohttp.websocket import AiohttpSocket, redact_tickets
from sojourn.session import Session
from sojourn.sessions import Sessions
from sojourn.web.error_response import EXPECTED_ERRORS
from sojourn.web.framework_exchange import call_on_error, default_response, is_answerable
from sojourn.web.installation import OnStoreFailure, WebInstallation

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class SessionLayers:
    """The middleware of one installation.

    The outer layer loads the session before the application's own middleware runs. The inner layer
    commits after it, so that the application's middleware can answer an error of the commit (law
    A23). The signal ``on_response_prepare`` commits what changes later, and adds the headers.

    Args:
        sessions: the installation.
    """

    def __init__(self, sessions: Sessions[Any]) -> None:
        self._web: WebInstallation = sessions.web
        self._single = False  # the inner layer is called by the outer one
        self._alone = False  # nothing else of the application receives a response

    def add_layers(self, app: web.Application) -> None:
        """Add both layers to the application's middleware, and the signal; before it is frozen."""
        others = [each for each in app.middlewares if each not in (self.outer, self.inner)]
        self._single = not others
        app.middlewares[:] = (
            [self.outer, *others] if self._single else [self.outer, *others, self.inner]
        )
        signal = app.on_response_prepare
        if self.prepare in signal:
            signal.remove(self.prepare)
        self._alone = self._single and not signal
        signal.append(self.prepare)

    @web.middleware
    async def outer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Load the session, and answer errors by default."""
        installation = self._web
        if not installation.active:
            return await handler(request)
        exchanges = exchanges_of(request)
        for outer in exchanges:
            if outer.web is installation:  # a second middleware of this route
                return await handler(request)
            installation.check_nested(outer.web)
        if request.headers.get(hdrs.UPGRADE, "").lower() == "websocket":
            return await self._serve_socket(request, handler, exchanges)
        exchange = AiohttpExchange(installation, request)
        for outer in exchanges:
            outer.adopt_replacement()
            outer.displaced_by = exchange
        exchanges.append(exchange)
        try:
            return await self._serve(exchange, handler)
        finally:
            if len(exchanges) > 1:
                outer = exchanges[exchanges.index(exchange) - 1]
                exchange.displaced_by = outer
                _restore(outer)
            exchange.end()

    async def _serve(self, exchange: AiohttpExchange, handler: Handler) -> web.StreamResponse:
        request = exchange.request
        installation = self._web
        try:
            if installation.loads_all or exchange.wanted():
                refusal = await self._load(exchange)
                if refusal is not None:
                    return refusal
            if self._single:
                response = await self.inner(request, handler, exchange)
                if exchange.settled:
                    await _commit_changes(exchange, response)
            else:
                response = await self._call_middleware(exchange, handler)
            if response.prepared:
                await exchange.finish_stream()
            else:
                _set_status(exchange, response)
        except web.HTTPException as response:
            _set_status(exchange, response)
            raise
        except asyncio.CancelledError as error:
            await exchange.settle(error)
            raise
        except Exception as error:
            _record_disconnect(exchange, error)
            failure = await _settle(exchange, error)
            answer = default_response(exchange, failure, request.headers.get(hdrs.ACCEPT))
            if answer is None:
                raise
            return to_response(answer)
        return response

    async def _call_middleware(
        self, exchange: AiohttpExchange, handler: Handler
    ) -> web.StreamResponse:
        """Call the application's middleware, and commit what it has changed after the inner layer.

        When aiohttp calls ``prepare``, an error of the store can only close the connection.
        """
        try:
            response = await handler(exchange.request)
        except web.HTTPException as raised:
            await _commit_changes(exchange, raised)
            raise
        await _commit_changes(exchange, response)
        return response

    async def _load(self, exchange: AiohttpExchange) -> web.Response | None:
        """Load the session, or return the refusal of a request of another origin."""
        config = self._web.config
        if config.protect:
            refusal = _check_origin(exchange)
            if refusal is not None:
                return refusal
        if config.autoload:
            try:
                waiting = exchange.start()
                if waiting is not None:
                    await waiting
            except StoreError as error:
                exchange.defer(error)  # raised in the inner layer, where it can be answered
        return None

    @web.middleware
    async def inner(
        self, request: web.Request, handler: Handler, exchange: AiohttpExchange | None = None
    ) -> web.StreamResponse:
        """Commit when the handler has ended, and call ``on_error`` for an error."""
        if exchange is None:
            found = _find(request, self._web)
            if not isinstance(found, AiohttpExchange) or found.entered:
                return await handler(request)  # no installation, a WebSocket, or a second layer
            exchange = found
        exchange.entered = True
        try:
            return await self._call_and_commit(exchange, handler)
        except web.HTTPException as raised:
            waiting = exchange.commit_response(raised.status)
            if waiting is not None:
                await waiting
            raise
        except Exception as error:
            if not is_answerable(error):
                raise
            left = isinstance(error, EXPECTED_ERRORS) and not exchange.response_started
            failure = error if left else await _settle(exchange, error)
            answer: web.StreamResponse | None = await call_on_error(exchange, request, failure)
            if answer is not None:
                if left:
                    await exchange.settle(error)
                return answer
            if failure is not error:
                raise failure from error
            raise

    async def _call_and_commit(
        self, exchange: AiohttpExchange, handler: Handler
    ) -> web.StreamResponse:
        """Call the handler, and commit before its response is passed on."""
        if exchange.failure is not None:
            raise exchange.failure  # the session could not be loaded
        response = await handler(exchange.request)
        if response.prepared:
            await exchange.finish_stream()
        elif (
            self._alone and len(exchange.request.match_info.apps) == 1 and not streams(response)
        ):  # nothing can use the session any more: one step instead of two
            try:
                await exchange.prepare(response)
            except Exception as error:
                exchange.failure = error
                raise
        else:
            waiting = exchange.commit_response(response.status)
            if waiting is not None:
                await waiting
        return response

    async def prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add the headers of the session to a response; a signal of aiohttp."""
        found = _find(request, self._web)
        if found is not None and not found.response_started:
            await found.prepare(response)

    async def _serve_socket(
        self, request: web.Request, handler: Handler, exchanges: list[Any]
    ) -> web.StreamResponse:
        socket = AiohttpSocket(self._web, request)
        config = self._web.config
        patterns = config.patterns
        wanted = patterns.everything or patterns.match(request.path)
        exchanges.append(socket)
        return await socket.run(handler, autoload=wanted and config.autoload)


def _find(request: web.Request, installation: WebInstallation) -> Any:
    """Return the exchange or socket of a request for one installation; None if there is none."""
    return next((each for each in exchanges_of(request) if each.web is installation), None)


async def _commit_changes(exchange: AiohttpExchange, response: web.StreamResponse) -> None:
    """Commit changes from before a response, if there are any."""
    copy = exchange.working_copy
    if (
        copy is not None
        and copy.changes is not None
        and not response.prepared
        and (exchange.settled or copy.modified())
    ):
        waiting = exchange.commit_response(response.status)
        if waiting is not None:
            await waiting


def _set_status(exchange: AiohttpExchange, response: web.StreamResponse) -> None:
    """Make an error response 503 if the store failed (law A23)."""
    status = exchange.final_status(response.status)
    if status != response.status:
        response.set_status(status)


def _restore(outer: Any) -> None:
    """Leave the request to the installation that another one was nested in."""
    outer.displaced_by = None
    if outer.session is not None:
        outer.set_request_session(outer.session)


def _record_disconnect(exchange: AiohttpExchange, error: Exception) -> None:
    transport = exchange.request.transport
    if isinstance(error, ConnectionError) and (transport is None or transport.is_closing()):
        exchange.client_disconnected = True


async def _settle(exchange: AiohttpExchange, error: Exception) -> Exception:
    """Commit what is kept of a failed request; return the error to answer."""
    try:
        await exchange.settle(error)
    except Exception as failure:  # noqa: BLE001 - answered instead of the first error
        return failure
    return error


def _check_origin(exchange: AiohttpExchange) -> web.Response | None:
    request = exchange.request
    answer = exchange.check_origin(
        request.method,
        site=request.headers.get("Sec-Fetch-Site"),
        origin=request.headers.get(hdrs.ORIGIN),
    )
    return None if answer is None else to_response(answer)


async def get_session(
    request: web.Request, on_store_failure: OnStoreFailure | None = None
) -> Session[Any]:
    """Return the session of a request or WebSocket; load it if necessary.

    Args:
        request: of aiohttp.
        on_store_failure: what to do if the store fails; None for the installation's choice.

    Raises:
        ConfigurationError: no installation serves the request.
        StoreUnavailable: the store failed.
    """
    exchanges = exchanges_of(request)
    if not exchanges:
        raise ConfigurationError(
            "this handler needs a session, and the request did not pass a session middleware. Call "
            "sojourn.install(app) before the application starts"
        )
    session: Session[Any] = await exchanges[-1].load(on_store_failure)
    return session


async def new_session(request: web.Request) -> Session[Any]:
    """Destroy the session of a request, and return the empty one that takes its place.

    For handlers that aiohttp-session's ``new_session`` has served. ``session.login(user)`` does
    not need it: a login replaces the ticket and keeps the data.
    """
    session = await get_session(request)
    session.destroy()
    return session


def route(handler: Callable[..., Any], policy: OnStoreFailure | None) -> Callable[..., Any]:
    """Load the session before a handler runs: a function, or a method of ``web.View``."""

    @functools.wraps(handler)
    async def load_and_call(first: Any, *args: Any, **kwargs: Any) -> Any:
        request = first.request if isinstance(first, web.View) else first
        await get_session(request, policy)
        result = handler(first, *args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    return load_and_call


_layers: Final = web.AppKey("sojourn_layers", SessionLayers)


def install(app: web.Application, sessions: Sessions[Any]) -> None:
    """Add the middleware and the signal to an application that has not started.

    Raises:
        ConfigurationError: the application has started, or is part of another one.
    """
    if app.pre_frozen:
        raise ConfigurationError(
            "aiohttp does not let an application change after it has started or has become a sub "
            "application. Call sojourn.install(app) before web.run_app(app) and before add_subapp"
        )
    sessions.web.session_class = AiohttpSession
    sessions.web.null_session_class = AiohttpNullSession
    layers = SessionLayers(sessions)
    app[_layers] = layers
    layers.add_layers(app)
    if sessions.web.header_transport is not None:
        ws_logger.addFilter(redact_tickets)
    pre_freeze = app.pre_freeze

    def arrange_and_pre_freeze() -> None:
        # Now, because the application may have added middleware and signals after `install`.
        if not app.pre_frozen:
            layers.add_layers(app)
        pre_freeze()

    # Not by an assignment, about which aiohttp warns: this replaces a method and is no state.
    vars(app)["pre_freeze"] = arrange_and_pre_freeze
    sessions.route_decorator = route


def uninstall(app: web.Application, sessions: Sessions[Any]) -> None:
    """Remove the middleware. The installation is inactive already."""
    del sessions
    layers = app[_layers]
    if app.pre_frozen:
        return  # the middleware cannot be removed any more, and lets requests pass
    vars(app).pop("pre_freeze", None)
    app.middlewares[:] = [
        each for each in app.middlewares if each not in (layers.outer, layers.inner)
    ]
    app.on_response_prepare.remove(layers.prepare)
    del app[_layers]
