"""Starlette: ``install`` for its applications, and ``@sessions.route`` for its handlers.

What lives here: putting the middleware outermost and decorating functions. What must not: anything
that FastAPI does differently (``fastapi.py``).

The middleware goes around Starlette's own error handling, so that the error page of a failing
handler carries the right headers too, and a session destroyed before the failure stays destroyed
(laws A10, A13).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from sojourn._core.session import Session
from sojourn.errors import ConfigurationError
from sojourn.sessions import Sessions
from sojourn.web.asgi import SessionMiddleware
from sojourn.web.lifecycle import OnStoreFailure
from sojourn.web.scope import EXCHANGE


def install(app: Starlette, sessions: Sessions[Any]) -> None:
    """Put the middleware around an application, also one that is being served."""
    wrap(app, sessions)
    sessions.route_decorator = route


def uninstall(app: Starlette, sessions: Sessions[Any]) -> None:
    """Take the middleware away; the gate is inactive already, so no request waits for it."""
    app.__dict__.pop("build_middleware_stack", None)
    stack = app.middleware_stack
    if isinstance(stack, SessionMiddleware) and stack.gate is sessions.gate:
        app.middleware_stack = stack.app


def wrap(app: Starlette, sessions: Sessions[Any]) -> None:
    """Make the application build its stack inside our middleware, now and after changes."""
    build = app.build_middleware_stack

    def build_around() -> SessionMiddleware:
        return SessionMiddleware(build(), sessions)

    app.build_middleware_stack = build_around  # type: ignore[method-assign]
    if app.middleware_stack is not None:
        app.middleware_stack = SessionMiddleware(app.middleware_stack, sessions)


async def load(connection: HTTPConnection, policy: OnStoreFailure | None = None) -> Session[Any]:
    """Return the session of a request or socket, loading it if nothing did yet.

    Args:
        connection: the request or socket.
        policy: what becomes of it where the store fails; None for the installation's way.

    Raises:
        ConfigurationError: no middleware of ours is around the application.
    """
    exchange = connection.scope.get(EXCHANGE)
    if exchange is None:
        raise ConfigurationError(
            "this route asks for a session, and no session middleware saw the request. Call "
            "sojourn.install(app), or give the route "
            "middleware=[Middleware(sojourn.asgi.SessionMiddleware, sessions=sessions)]"
        )
    session: Session[Any] = await exchange.load(policy)
    return session


def route(handler: Callable[..., Any], policy: OnStoreFailure | None) -> Callable[..., Any]:
    """Load the session before a function handler that takes a request or a socket runs."""
    if inspect.iscoroutinefunction(handler):

        @functools.wraps(handler)
        async def loading(connection: HTTPConnection) -> Any:
            await load(connection, policy)
            return await handler(connection)

    else:

        @functools.wraps(handler)
        async def loading(connection: HTTPConnection) -> Any:
            await load(connection, policy)
            return await run_in_threadpool(handler, connection)

    return loading
