"""Starlette integration: ``install``, and ``@sessions.route`` for function handlers."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from sojourn.errors import ConfigurationError
from sojourn.session import Session
from sojourn.sessions import Sessions
from sojourn.web.asgi import SessionMiddleware
from sojourn.web.asgi_scope import CONNECTION
from sojourn.web.installation import OnStoreFailure


def install(app: Starlette, sessions: Sessions[Any]) -> None:
    """Add the middleware to an application, also while it is being served."""
    wrap(app, sessions)
    sessions.route_decorator = route


def uninstall(app: Starlette, sessions: Sessions[Any]) -> None:
    """Remove the middleware. The installation is inactive already."""
    app.__dict__.pop("build_middleware_stack", None)
    stack = app.middleware_stack
    if isinstance(stack, SessionMiddleware) and stack.web is sessions.web:
        app.middleware_stack = stack.app


def wrap(app: Starlette, sessions: Sessions[Any]) -> None:
    """Put the session middleware outside of the application's middleware stack.

    It is outside of Starlette's error handling, so that the error page of a failing handler has the
    right headers, and a session that was destroyed before the failure stays destroyed (laws A10,
    A13).
    """
    build = app.build_middleware_stack

    def build_around() -> SessionMiddleware:
        return SessionMiddleware(build(), sessions)

    app.build_middleware_stack = build_around  # type: ignore[method-assign]
    if app.middleware_stack is not None:
        app.middleware_stack = SessionMiddleware(app.middleware_stack, sessions)


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
            "this route asks for a session, and no session middleware saw the request. Call "
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
