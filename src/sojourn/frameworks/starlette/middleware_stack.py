"""Sessions in the middleware stack of an application; ``@sessions.route`` for functions."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse

from sojourn.errors import ConfigurationError, SojournError, StoreError
from sojourn.frameworks.starlette.outermost_middleware import LayeredMiddleware, SingleMiddleware
from sojourn.session import Session
from sojourn.sessions import Sessions
from sojourn.web.asgi import ErrorMiddleware, SessionMiddleware, error_page
from sojourn.web.asgi_scope import CONNECTION, ASGIApp, Receive, Scope
from sojourn.web.installation import OnStoreFailure

logger: logging.Logger = logging.getLogger("sojourn")


def unwrap(app: Starlette, sessions: Sessions[Any]) -> None:
    """Undo ``wrap``. The installation is inactive already."""
    app.__dict__.pop("build_middleware_stack", None)
    stack = app.middleware_stack
    if isinstance(stack, LayeredMiddleware) and stack.app.web is sessions.web:
        app.middleware_stack = stack.app.app


#: Middleware that does not use the session, so it may be outside of the session middleware.
_INDEPENDENT_MIDDLEWARE: Final[Collection[object]] = (
    CORSMiddleware,
    GZipMiddleware,
    HTTPSRedirectMiddleware,
    TrustedHostMiddleware,
)


def wrap(app: Starlette, sessions: Sessions[Any]) -> None:
    """Put the session middleware into the application's middleware stack.

    It is inside of a CORS middleware and outside of the handlers for exceptions, whenever the
    middleware was added: so its responses to errors have the headers of CORS, and the application's
    handlers make them (law A23). Error pages are made outside of it, by a handler that is wrapped,
    so that they have the right headers, too (A10, A13). Without other middleware, it serves
    requests itself and calls Starlette's for an error page.

    Other middleware may use the session, so one layer is outside of everything, and another one
    responds to errors inside.
    """
    framework = _Framework(app)
    build = app.build_middleware_stack

    def add_session(stack: ASGIApp) -> SessionMiddleware:
        return SessionMiddleware(stack, sessions, framework=framework)

    def add_errors(stack: ASGIApp) -> ErrorMiddleware:
        return ErrorMiddleware(stack, sessions, framework=framework)

    def build_stack() -> ASGIApp:
        all_own, handlers = app.user_middleware, app.exception_handlers
        own = _without_session_middleware(all_own)
        single = not app.debug and all(each.cls in _INDEPENDENT_MIDDLEWARE for each in own)
        app.user_middleware = [*own, Middleware(add_session if single else add_errors)]
        if single:
            app.exception_handlers = _with_error_page(handlers)
        try:
            stack = build()
        finally:
            app.user_middleware, app.exception_handlers = all_own, handlers
        if not single:
            return LayeredMiddleware(stack, sessions, framework)
        if not isinstance(stack, ServerErrorMiddleware) or type(stack) is not ServerErrorMiddleware:
            return stack  # a subclass may do more for each request
        if isinstance(stack.app, SessionMiddleware):
            return SingleMiddleware(stack, sessions, framework)
        return stack

    app.build_middleware_stack = build_stack  # type: ignore[method-assign] # Starlette calls it as an attribute
    if app.middleware_stack is not None:  # it is being served: keep the objects of its middleware
        layer: Any = remove_session_middleware(app.middleware_stack)
        while not isinstance(layer.app, ExceptionMiddleware):
            layer = layer.app
        layer.app = add_errors(layer.app)
        app.middleware_stack = LayeredMiddleware(app.middleware_stack, sessions, framework)


#: Logged when Starlette's middleware is replaced.
_REPLACED_WARNING: Final = (
    "Starlette's SessionMiddleware of this application is not used, because sojourn gives its "
    "requests their session; remove it where the application or a library adds it"
)


def _without_session_middleware(middleware: Sequence[Middleware]) -> list[Middleware]:
    """Return an application's middleware without Starlette's ``SessionMiddleware``.

    It would replace ``scope["session"]``. Libraries such as NiceGUI add it themselves.
    """
    kept = [each for each in middleware if not _is_session_middleware(each.cls)]
    if len(kept) < len(middleware):
        logger.warning(_REPLACED_WARNING)
    return kept


def remove_session_middleware(stack: ASGIApp) -> ASGIApp:
    """Remove Starlette's ``SessionMiddleware`` from a stack that is built already.

    Args:
        stack: the outermost middleware; each has the next one as ``app``.

    Returns:
        The stack.
    """
    found: Any = stack
    if _is_session_middleware(type(found)):
        logger.warning(_REPLACED_WARNING)
        return remove_session_middleware(found.app)
    following = getattr(found, "app", None)
    if not (following is None or isinstance(found, ExceptionMiddleware | Starlette)):
        remaining = remove_session_middleware(following)
        if remaining is not following:
            found.app = remaining
    return stack


def _is_session_middleware(cls: object) -> bool:
    # Not imported here: the module needs itsdangerous.
    module = sys.modules.get("starlette.middleware.sessions")
    return (
        module is not None and isinstance(cls, type) and issubclass(cls, module.SessionMiddleware)
    )


class _Framework:
    """The application's requests and error handlers."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    def make_request(self, scope: Scope, receive: Receive) -> HTTPConnection:
        """Return the request; the handshake of a WebSocket as what both have in common."""
        return Request(scope, receive) if scope["type"] == "http" else HTTPConnection(scope)

    async def call_handler(self, request: Request, error: SojournError) -> ASGIApp | None:
        """Call the application's handler for an error; return its response, None without one."""
        return await call_handler(self._app.exception_handlers, request, error)


async def call_handler(
    handlers: Mapping[Any, Callable[..., Any]], request: Request, error: SojournError
) -> ASGIApp | None:
    """Call one of an application's handlers for an error; return its response, None without one."""
    handler = _find_handler(handlers, error)
    return None if handler is None else await _call(handler, request, error)


async def _call(handler: Callable[..., Any], request: Request, error: Exception) -> Any:
    """Call an exception handler, in a thread if it is not a coroutine function, as Starlette."""
    function: Any = handler
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - the method itself
    ):
        return await handler(request, error)
    return await run_in_threadpool(handler, request, error)


def _find_handler(
    handlers: Mapping[Any, Callable[..., Any]], error: SojournError
) -> Callable[..., Any] | None:
    """Return the handler of the error's class or the nearest base class, or of status 503.

    The handler of all exceptions is Starlette's to call, outside of every other middleware. Only an
    error of the store is given to it here, so that its response passes the CORS middleware, too.
    """
    for base in type(error).__mro__:
        if base is Exception:
            break
        if base in handlers:
            return handlers[base]
    if not isinstance(error, StoreError):
        return None
    return handlers.get(503) or handlers.get(Exception) or handlers.get(500)


def _with_error_page(handlers: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the handlers, with one for all exceptions whose page has the session's headers."""
    own: Callable[..., Any] | None = None
    for key, handler in handlers.items():
        if key in (500, Exception):
            own = handler  # the last one counts, as in Starlette

    async def handle(request: Request, error: Exception) -> ASGIApp:
        page: ASGIApp = (
            PlainTextResponse("Internal Server Error", status_code=500)
            if own is None
            else await _call(own, request, error)
        )
        return error_page(page, request.scope)

    others = {key: value for key, value in handlers.items() if key not in (500, Exception)}
    return {**others, Exception: handle}


async def load(connection: HTTPConnection, policy: OnStoreFailure | None = None) -> Session[Any]:
    """Return the session of a request or socket; load it if necessary.

    Args:
        connection: the request or socket.
        policy: what to do if the store fails; None for the installation's choice.

    Raises:
        ConfigurationError: the request did not pass a session middleware.
        StoreUnavailable: the store failed.
    """
    current = connection.scope.get(CONNECTION)
    if current is None:
        raise ConfigurationError(
            "this route needs a session, and the request did not pass a session middleware. Call "
            "sojourn.install(app), or give the route "
            "middleware=[Middleware(sojourn.asgi.SessionMiddleware, sessions=sessions)]"
        )
    session: Session[Any] = await current.load(policy)
    return session


def route(handler: Callable[..., Any], policy: OnStoreFailure | None) -> Callable[..., Any]:
    """Load the session before a function handler runs, which takes a request or a socket."""
    if inspect.iscoroutinefunction(handler):

        @functools.wraps(handler)
        async def load_and_call(connection: HTTPConnection) -> Any:
            await load(connection, policy)
            return await handler(connection)

    else:

        @functools.wraps(handler)
        async def load_and_call(connection: HTTPConnection) -> Any:
            await load(connection, policy)
            return await run_in_threadpool(handler, connection)

    return load_and_call
