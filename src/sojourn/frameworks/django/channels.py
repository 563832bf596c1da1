"""Channels: sessions of consumers, in place of ``channels.sessions`` and ``channels.auth``."""

from __future__ import annotations

from typing import Any
from weakref import ref

from channels.auth import AuthMiddleware  # type: ignore[import-untyped] # it has no types
from channels.sessions import CookieMiddleware  # type: ignore[import-untyped] # it has no types

from sojourn.frameworks.django.current_session import current_session, in_request
from sojourn.frameworks.django.middleware import prepare
from sojourn.frameworks.django.settings import get_sessions
from sojourn.sessions import Sessions
from sojourn.web.asgi import SessionMiddleware as ASGISessionMiddleware
from sojourn.web.asgi_scope import ASGIApp, Receive, Scope, Send


class SessionMiddleware:
    """Gives each consumer the session of the page that opened its WebSocket: ``scope["session"]``.

    The session adopts the newest record before each message is delivered, and its changes are
    committed before each message that is sent (laws W2 and W3). The WebSocket is closed when the
    session ends (W4).

    Args:
        inner: the application: a consumer, a router or another middleware.
        sessions: the installation; None for that of the settings.
    """

    def __init__(self, inner: ASGIApp, sessions: Sessions[Any] | None = None) -> None:
        self.inner: ASGIApp = inner
        self._given = sessions
        self._used: Sessions[Any] | None = None
        self._middleware: ASGISessionMiddleware | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        sessions = self._given or get_sessions()
        middleware = self._middleware
        if middleware is None or sessions is not self._used:  # the settings may change in tests
            prepare(sessions)
            middleware = ASGISessionMiddleware(self._serve, sessions)
            self._middleware, self._used = middleware, sessions
        await middleware(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; logins of ``channels.auth`` find their session."""
        session = scope.get("session")
        token = current_session.set(None if session is None else ref(session))
        in_request.set(True)  # in the task of this connection
        try:
            await self.inner(scope, receive, send)
        finally:
            current_session.reset(token)


def SessionMiddlewareStack(inner: ASGIApp) -> ASGIApp:  # noqa: N802 - the name in Channels
    """Return an application with ``scope["session"]`` and ``scope["cookies"]``."""
    cookies: Any = CookieMiddleware  # Channels has types of its own for scopes and messages
    stack: ASGIApp = cookies(SessionMiddleware(inner))
    return stack


def AuthMiddlewareStack(inner: ASGIApp) -> ASGIApp:  # noqa: N802 - the name in Channels
    """Return an application that has ``scope["user"]``, too."""
    users: Any = AuthMiddleware  # as above
    return SessionMiddlewareStack(users(inner))
