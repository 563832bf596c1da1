"""SessionMiddleware for ASGI: translates messages for ``SessionLifecycle``; makes no decisions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from sojourn._core.coroutine_function import mark_coroutine_function
from sojourn.errors import StoreUnavailable
from sojourn.web import event_loop
from sojourn.web.asgi_exchange import (
    HTTPExchange,
    LayeredExchange,
    create_layered_exchange,
)
from sojourn.web.asgi_scope import (
    CONNECTION,
    WANTED_HEADERS,
    ASGIApp,
    Framework,
    Receive,
    Scope,
    Send,
    check_outer_session,
    read_header,
    read_headers,
    read_path,
    read_site,
)
from sojourn.web.installation import HasWebInstallation, WebInstallation
from sojourn.web.origin import Refusal
from sojourn.web.transport_security import INSECURE
from sojourn.web.websocket import WebSocketConnection

#: The scope key of the exchange of a request that failed, for its error page.
FAILED: Final = "sojourn.failed"

#: Sends a framework's error page for an error, unless a response was started, and reports the
#: error. ``send`` is None after the start of a response. May raise the error.
ErrorPage = Callable[[Exception, Scope, Receive, Send | None], Awaitable[None]]


class SessionMiddleware:
    """Gives each request and each WebSocket of an ASGI application its session.

    ``scope["session"]`` is the session (``request.session`` in Starlette and FastAPI).

    Args:
        app: the application.
        sessions: the installation.
        framework: how the framework makes requests and handles errors; None for none.
        error_page: responds to an error that has no other response; None if a layer outside does.
        layered: an ``ErrorMiddleware`` is inside of the application, and responds to errors there.
        autoload: load the session of a request before the application runs. False if a part of the
            framework inside does it, so that the framework's handlers answer its errors.
    """

    def __init__(
        self,
        app: ASGIApp,
        sessions: HasWebInstallation,
        *,
        framework: Framework | None = None,
        error_page: ErrorPage | None = None,
        layered: bool = False,
        autoload: bool = True,
    ) -> None:
        self.app = app
        self.web: WebInstallation = sessions.web
        self._framework = framework
        self._error_page = error_page
        self._layered = layered
        self._loads_all = self.web.loads_all and autoload
        self._autoload = self.web.config.autoload and autoload
        self._runs_asyncio: bool | None = None  # unknown until the first request

    async def __call__(  # noqa: C901, PLR0912, PLR0915 - every outcome, top to bottom
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve one connection."""
        web, app = self.web, self.app
        is_http = scope["type"] == "http"
        if not (is_http or scope["type"] == "websocket") or not web.active:
            await app(scope, receive, send)
            return
        if not self._runs_asyncio:
            if self._runs_asyncio is None:
                if CONNECTION not in scope:
                    check_outer_session(scope)
                self._runs_asyncio = event_loop.runs_asyncio()
            if not self._runs_asyncio:
                await event_loop.refuse(scope, receive, send)
                return
        config = web.config
        loads_all = self._loads_all
        wanted = loads_all or config.patterns.everything or config.patterns.match(read_path(scope))
        outer = scope[CONNECTION] if CONNECTION in scope else None  # noqa: SIM401 - called less
        if outer is not None:
            if outer.web is web:  # a second middleware of this route
                if wanted:
                    await outer.load()
                await app(scope, receive, send)
                return
            web.check_nested(outer.web)
            if outer.session is not None and scope.get("session") is not outer.session:
                outer.adopt_replacement()
        if not is_http:
            connection = WebSocketConnection(web, scope, receive, send)
            try:
                await connection.serve(
                    app, autoload=wanted and config.autoload, framework=self._framework
                )
            finally:
                _restore(scope, outer)
            return
        # Not in a method: a coroutine in between would cost every request.
        refusal = None
        if not loads_all and config.protect and wanted:
            refusal = check_origin(web, scope)
        if not self._layered:
            # Instead of `__init__`, as in `session.create_session`: every request creates one.
            exchange = HTTPExchange()
            exchange.web = web
            exchange.scope = scope
            exchange.outer_send = send
            exchange.session = exchange.working_copy = None
            exchange.held = exchange.stream_start = exchange.failure = None
            exchange.response_started = exchange.client_disconnected = False
            exchange.failed = exchange.settled = exchange.sent_unavailable = False
            exchange.transport = INSECURE
            if refusal is not None:
                await exchange.send_refusal(refusal)
                return
            shared = None
        else:
            exchange = shared = create_layered_exchange(web, scope, send)
            if refusal is not None:
                shared.refuse(refusal)
        scope[CONNECTION] = exchange
        try:
            try:
                if loads_all or (wanted and self._autoload and refusal is None):
                    # As `read_headers` does: a call would cost every request.
                    host = cookies = parts = None
                    proxied = False
                    for name, value in scope["headers"]:
                        if name in WANTED_HEADERS:
                            if name == b"host":
                                host = value
                            elif name == b"cookie":
                                if cookies is None:
                                    cookies = value
                                elif parts is None:
                                    parts = [cookies, value]
                                else:
                                    parts.append(value)
                            elif name != b"origin":
                                proxied = True
                    if parts is not None:
                        cookies = b"; ".join(parts)
                    try:
                        # As `begin` does: a collection of the garbage collector examines each
                        # object of the waiting requests, and a coroutine more is one of twenty.
                        loading = exchange.begin_load(scope["scheme"], host, cookies, proxied)
                        if loading is not None:
                            try:
                                exchange.loaded(await loading)
                            except StoreUnavailable as error:
                                exchange.load_failed(error)
                            loading = None
                    except StoreUnavailable as error:
                        if not exchange.defer(error):
                            raise
                    finally:
                        scope["session"] = exchange.session
                await app(scope, receive, exchange.send if shared is None else shared.send_outward)
                session = exchange.session
                try:
                    replaced = session is not None and scope["session"] is not session
                except KeyError:
                    replaced = True
                if replaced and not exchange.settled:
                    exchange.adopt_replacement()
                if exchange.held is not None or exchange.stream_start is not None:
                    await exchange.send_rest()
            except BaseException as error:
                await exchange.settle(error)
                raise
            copy = exchange.working_copy
            if copy is not None and copy.changes is not None and not exchange.settled:
                waiting = exchange.finish()
                if waiting is not None:
                    await waiting
        except Exception as raised:  # noqa: BLE001 - it is raised again unless it is answered
            framework, layered = self._framework, self._layered
            try:
                if not await exchange.answer(raised, receive, framework, call_handlers=not layered):
                    raise
            except Exception as error:
                if self._error_page is None:
                    if framework is not None and not layered:
                        scope[FAILED] = exchange
                else:
                    sending = None if exchange.started() else exchange.send
                    await self._error_page(error, scope, receive, sending)
                raise
        finally:
            # Break three reference cycles: the request is freed without the garbage collector.
            exchange.failure = None
            if outer is None:
                scope[CONNECTION] = None
            else:
                _restore(scope, outer)
            copy = exchange.working_copy
            if copy is not None:
                copy.client = None  # as `end` does
            if exchange.settled:
                await exchange.commit_interrupted_page()


class ErrorMiddleware:
    """Commits, and responds to errors, inside of the application's own middleware.

    The innermost middleware of a framework's stack, for ``SessionMiddleware(layered=True)``.

    Args:
        app: the framework's stack from its error handlers on.
        sessions: the installation.
        framework: how the framework makes requests and handles errors.
    """

    def __init__(self, app: ASGIApp, sessions: HasWebInstallation, *, framework: Framework) -> None:
        self.app = app
        self._web = sessions.web
        self._framework = framework

    @mark_coroutine_function
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one connection; a WebSocket passes."""
        exchange = scope.get(CONNECTION)
        if (
            not isinstance(exchange, LayeredExchange)
            or exchange.web is not self._web
            or exchange.entered()
        ):
            return self.app(scope, receive, send)
        return exchange.serve_inside(self.app, receive, send, self._framework)


def error_page(page: ASGIApp, scope: Scope) -> ASGIApp:
    """Return an error page of a framework, with the headers of the request's session.

    Args:
        page: the response.
        scope: of the request; a ``SessionMiddleware`` inside of the framework's error handling has
            left its exchange there.
    """
    exchange: HTTPExchange | None = scope.pop(FAILED, None)
    if exchange is None:
        return page

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        await page(scope, receive, exchange.send_through(send))

    return respond


def _restore(scope: Scope, outer: HTTPExchange | WebSocketConnection | None) -> None:
    """Leave the scope to the installation that this one is nested in."""
    scope[CONNECTION] = outer
    if outer is not None and outer.session is not None:
        scope["session"] = outer.session


def check_origin(web: WebInstallation, scope: Scope) -> Refusal | None:
    """Return why a request must be refused, because of its origin; None if it may pass."""
    headers = web.header_transport
    host, cookies, origin, proxied = read_headers(scope)
    return web.check_origin(
        scope["method"],
        scope["scheme"],
        site=read_site(scope),
        origin=origin,
        host=host,
        cookies=cookies,
        proxied=proxied,
        read=None if headers is None else partial(read_header, scope),
    )
