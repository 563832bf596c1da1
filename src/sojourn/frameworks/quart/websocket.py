"""Sockets of Quart: their session is committed and refreshed when a handler receives (W2, W3)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from quart import Quart, websocket

from sojourn.errors import SojournError
from sojourn.frameworks.flask.methods import replace_methods
from sojourn.sessions import Sessions
from sojourn.web.asgi import SessionMiddleware
from sojourn.web.asgi_scope import CONNECTION, Receive, Scope, Send
from sojourn.web.websocket import WebSocketConnection
from sojourn.web.websocket_close import SocketEnded


class _EndedError(BaseException):
    """A handler ended with an error of its session; it passes Quart's handlers of exceptions.

    Args:
        error: of the handler.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


class SocketHandling:
    """Serves the sockets of an application with their session.

    Args:
        app: the application.
        sessions: the installation.
    """

    def __init__(self, app: Quart, sessions: Sessions[Any]) -> None:
        self._web = sessions.web
        self._asgi: Any = app.asgi_app
        self._dispatch: Callable[..., Any] = app.full_dispatch_websocket
        self._middleware = SessionMiddleware(self._serve, sessions)

    def wrap(self, app: Quart) -> Callable[[], None]:
        """Replace two methods of an application, and the class of its connections.

        Returns:
            A function that puts them back.
        """
        own = app.asgi_websocket_class
        find = self._find

        class WebsocketConnection(own):  # type: ignore[misc, valid-type] # the application's class
            """Receives messages in a task of its own, and keeps them for the handler."""

            def __init__(self, app: Quart, scope: Any) -> None:
                super().__init__(app, scope)
                connection = find(scope)
                if connection is not None:
                    self.queue: asyncio.Queue[Any] = _MessageQueue(connection)

        unwrap = replace_methods(
            app, asgi_app=self._asgi_app, full_dispatch_websocket=self._full_dispatch
        )
        app.asgi_websocket_class = WebsocketConnection

        def undo() -> None:
            unwrap()
            if app.asgi_websocket_class is WebsocketConnection:
                app.asgi_websocket_class = own

        return undo

    def _find(self, scope: Any) -> WebSocketConnection | None:
        """Return the connection of this installation; None if the socket has none."""
        connection = scope.get(CONNECTION)
        own = isinstance(connection, WebSocketConnection) and connection.web is self._web
        return connection if own else None

    async def _asgi_app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket" and self._web.active:
            await self._middleware(scope, receive, send)
        else:
            await self._asgi(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = self._find(scope)
        if connection is not None:
            receive = connection.receive_ahead
        try:
            await self._asgi(scope, receive, send)
        except _EndedError as ended:
            raise ended.error from None

    async def _full_dispatch(self, *context: Any) -> Any:
        try:
            return await self._dispatch(*context)
        except (SojournError, SocketEnded) as error:
            if self._find(websocket.scope) is None:
                raise
            raise _EndedError(error) from None
        except Exception:
            connection = self._find(websocket.scope)
            if connection is not None:
                connection.mark_failed()  # Quart closes the socket as one that has not failed
            raise


class _MessageQueue(asyncio.Queue[Any]):
    """The messages of a socket that the handler has not received yet.

    Args:
        connection: of the socket.
    """

    def __init__(self, connection: WebSocketConnection) -> None:
        super().__init__()
        self._connection = connection
        self._undelivered: deque[Any] = deque()

    async def get(self) -> Any:
        """Commit, wait for the next message, take in what others wrote, and return the message.

        A handler may cancel it, mostly by a timeout; the next call returns the message then (A21).
        """
        connection = self._connection
        await connection.commit_before_wait()
        message = self._undelivered.popleft() if self._undelivered else await super().get()
        try:
            await connection.refresh_for_delivery()
        except BaseException:
            self._undelivered.appendleft(message)
            raise
        return message
