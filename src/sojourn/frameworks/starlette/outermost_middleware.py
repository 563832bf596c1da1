"""Outermost middleware of an application with sessions, as Starlette's ``ServerErrorMiddleware``.

Other libraries, such as OpenTelemetry's, require an object of that class there.
"""

from __future__ import annotations

from types import CoroutineType
from typing import Any

from starlette.middleware.errors import ServerErrorMiddleware

from sojourn._core.coroutine_function import mark_coroutine_function
from sojourn.sessions import Sessions
from sojourn.web.asgi import SessionMiddleware
from sojourn.web.asgi_scope import CONNECTION, ASGIApp, Framework, Message, Receive, Scope, Send


class LayeredMiddleware(ServerErrorMiddleware):
    """Sessions outside of a whole stack, which has its own error page.

    Args:
        stack: the application's, with an ``ErrorMiddleware`` inside.
        sessions: the installation.
        framework: the application's requests and error handlers.
    """

    app: SessionMiddleware

    def __init__(self, stack: ASGIApp, sessions: Sessions[Any], framework: Framework) -> None:
        super().__init__(SessionMiddleware(stack, sessions, framework=framework, layered=True))

    @mark_coroutine_function
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> CoroutineType[Any, Any, None]:
        """Serve one connection."""
        return self.app(scope, receive, send)  # type: ignore[return-value] # a CoroutineType


class SingleMiddleware(ServerErrorMiddleware):
    """Sessions instead of Starlette's outermost middleware, which only failing requests enter.

    Args:
        stack: the application's; a ``SessionMiddleware`` follows the outermost one.
        sessions: the installation.
        framework: the application's requests and error handlers.
    """

    def __init__(
        self, stack: ServerErrorMiddleware, sessions: Sessions[Any], framework: Framework
    ) -> None:
        super().__init__(stack.app, stack.handler, stack.debug)
        following: Any = stack.app
        self._web = sessions.web
        self._serve = SessionMiddleware(
            following.app, sessions, framework=framework, error_page=self._send_page
        )

    @mark_coroutine_function
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> CoroutineType[Any, Any, None]:
        """Serve one connection."""
        if "session" in scope or CONNECTION in scope or not self._web.active:
            return super().__call__(scope, receive, send)  # type: ignore[return-value] # a CoroutineType
        return self._serve(scope, receive, send)  # type: ignore[return-value] # a CoroutineType

    async def _send_page(
        self, error: Exception, scope: Scope, receive: Receive, send: Send | None
    ) -> None:
        """Call the handler of all exceptions, send its response, and raise the error.

        As in Starlette, the response is not sent if another one was started.
        """
        errors = [error]  # emptied: an error whose traceback refers to it is a reference cycle
        del error

        async def raise_error(_scope: Scope, _receive: Receive, started: Send) -> None:
            if send is None:
                await started({"type": "http.response.start"})
            raise errors.pop()

        page = ServerErrorMiddleware(raise_error, self.handler, self.debug)
        await page(scope, receive, _discard if send is None else send)


async def _discard(message: Message) -> None:
    """Send nothing."""
