"""Sockets of Quart: their session is committed and refreshed when a handler receives (W2, W3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import quart.wrappers
from quart import Quart, websocket

from sojourn.errors import SojournError
from sojourn.frameworks.flask.method_patching import replace_methods
from sojourn.sessions import Sessions
from sojourn.web.asgi import SessionMiddleware
from sojourn.web.asgi_scope import CONNECTION, Receive, Scope, Send
from sojourn.web.websocket import WebSocketConnection
from sojourn.web.websocket_close import SocketEnded

#: What Quart raises from 0.23 on in the handler of a client that has left; no failure.
_DISCONNECTED: Final[Any] = getattr(quart.wrappers, "ClientDisconnectedError", ())


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
        """Replace two methods of an application, and the class of its sockets.

        Returns:
            A function that puts them back.
        """
        own = app.websocket_class
        find = self._find

        class Websocket(own):  # type: ignore[misc, valid-type] # the application's class
            """Receives messages for the handler, which Quart has received in another task."""

            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self._receiving = asyncio.Lock()  # several tasks get the messages in their order
                self._undelivered: str | bytes | None = None

            async def receive(self) -> str | bytes:
                """Commit, wait for a message, adopt the newest record, and return the message.

                A handler may cancel it, mostly by a timeout; the next call returns the message
                then (A21).
                """
                connection = find(self.scope)
                if connection is None:
                    unchanged: str | bytes = await super().receive()
                    return unchanged
                await self.accept()
                await connection.commit_before_wait()
                async with self._receiving:
                    message, self._undelivered = self._undelivered, None
                    if message is None:
                        message = await super().receive()
                    try:
                        await connection.refresh_for_delivery()
                    except BaseException:
                        self._undelivered = message
                        raise
                    return message

        unwrap = replace_methods(
            app, asgi_app=self._asgi_app, full_dispatch_websocket=self._full_dispatch
        )
        app.websocket_class = Websocket

        def undo() -> None:
            unwrap()
            if app.websocket_class is Websocket:
                app.websocket_class = own

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
        except BaseException as raised:
            ended = _find_ended(raised)
            if ended is None:
                raise
            raise ended.error from None

    async def _full_dispatch(self, *context: Any) -> Any:
        try:
            return await self._dispatch(*context)
        except (SojournError, SocketEnded) as error:
            if self._find(websocket.scope) is None:
                raise
            raise _EndedError(error) from None
        except Exception as error:
            connection = self._find(websocket.scope)
            if connection is not None and not isinstance(error, _DISCONNECTED):
                connection.mark_failed()  # Quart closes the socket as one that has not failed
            raise


def _find_ended(raised: BaseException) -> _EndedError | None:
    """Return the ``_EndedError`` of a handler, which Quart 0.23 raises in an exception group."""
    while isinstance(raised, BaseExceptionGroup):
        ended, _ = raised.split(_EndedError)
        if ended is None:
            return None
        raised = ended.exceptions[0]
    return raised if isinstance(raised, _EndedError) else None
