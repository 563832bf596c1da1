"""``sojourn.install(app)`` for ``falcon.App`` and ``falcon.asgi.App``."""

from __future__ import annotations

from typing import Any

import falcon
import falcon.asgi

from sojourn.errors import SessionRequired, SojournError, StoreError
from sojourn.frameworks.falcon import routes
from sojourn.frameworks.falcon.component import ASGIComponent, WSGIComponent
from sojourn.sessions import Sessions
from sojourn.web.asgi import SessionMiddleware as ASGISessionMiddleware
from sojourn.web.asgi_scope import CONNECTION
from sojourn.web.error_response import unauthorized_response, unavailable_response
from sojourn.web.websocket import WebSocketConnection
from sojourn.web.wsgi import SessionMiddleware as WSGISessionMiddleware


class SessionApp:
    """What ``install`` adds to the class of an application.

    A server calls ``type(app).__call__``, which an instance cannot replace, and Falcon's class has
    ``__slots__``: therefore ``install`` gives the application a subclass of its class.

    Attributes:
        sojourn_sessions: the installation.
        sojourn_middleware: around the application.
    """

    __slots__ = ()

    sojourn_sessions: Sessions[Any]
    sojourn_middleware: Any
    _error_handlers: dict[Any, Any]
    _independent_middleware: bool
    _middleware: Any
    _prepare_middleware: Any
    _python_error_handler: Any
    _unprepared_middleware: list[Any]

    def __call__(self, env: Any, start_response: Any) -> Any:
        """Serve a request of WSGI."""
        return self.sojourn_middleware(env, start_response)

    def add_sessions(self, component: object) -> None:
        """Add the component, before all others: they use the session and change it."""
        self._unprepared_middleware.insert(0, component)
        self._prepare()
        self._error_handlers.setdefault(SojournError, self.answer_session_error)

    def remove_sessions(self) -> None:
        """Remove what ``add_sessions`` has added."""
        kinds = (ASGIComponent, WSGIComponent)
        others = [each for each in self._unprepared_middleware if not isinstance(each, kinds)]
        self._unprepared_middleware[:] = others
        self._prepare()
        if self._error_handlers.get(SojournError) == self.answer_session_error:
            del self._error_handlers[SojournError]

    def _prepare(self) -> None:
        self._middleware = self._prepare_middleware(
            self._unprepared_middleware, independent_middleware=self._independent_middleware
        )

    def answer_session_error(self, req: Any, resp: Any, error: Any, params: Any) -> Any:
        """Respond to an error of sojourn that the application has no handler for (law A23)."""
        handler = self._handler(req, resp, error)
        if handler is not None:
            handler(req, resp, error, params)

    def _handler(self, req: Any, resp: Any, error: SojournError) -> Any:
        """Return the handler for all exceptions; None if the default response was set."""
        handler = self._error_handlers.get(Exception)
        if handler == self._python_error_handler:
            if self.sojourn_sessions.web.config.on_error is not None:
                raise error  # the middleware outside calls it
            if _set_response(req, resp, error):
                return None
        return handler


class AsyncSessionApp(SessionApp):
    """``SessionApp`` for ASGI."""

    __slots__ = ()

    async def __call__(  # type: ignore[override] # ASGI
        self, scope: Any, receive: Any, send: Any
    ) -> None:
        """Serve a request or a socket of ASGI."""
        headers = scope.get("headers")
        if headers is not None and (
            type(headers) is not list or (headers and type(headers[0]) not in (tuple, list))
        ):
            # Falcon's test client gives iterators, which can be read once.
            scope["headers"] = [tuple(header) for header in headers]
            if scope.get("client") is not None:
                scope["client"] = tuple(scope["client"])
        await self.sojourn_middleware(scope, receive, send)

    async def answer_session_error(
        self, req: Any, resp: Any, error: Any, params: Any, ws: Any = None
    ) -> None:
        """Respond to an error of sojourn, or close its socket; see the base class."""
        connection = req.scope.get(CONNECTION)
        if ws is not None and isinstance(connection, WebSocketConnection):
            await connection.close_after(error, None)
            return
        handler = self._handler(req, resp, error)
        if handler is not None:
            await handler(req, resp, error, params)

    async def _handle_exception(
        self, req: Any, resp: Any, ex: Any, params: Any, ws: Any = None
    ) -> bool:
        """Record that the handler of a socket failed: its last changes are dropped (law A10)."""
        connection = req.scope.get(CONNECTION)
        if (
            isinstance(connection, WebSocketConnection)
            and connection.session is not None
            and not isinstance(ex, falcon.WebSocketDisconnected)
        ):
            connection.mark_failed()
        handled: bool = await super()._handle_exception(  # type: ignore[misc] # Falcon's App has it
            req, resp, ex, params, ws=ws
        )
        return handled


def install(app: falcon.App[Any, Any], sessions: Sessions[Any]) -> None:
    """Give each request of an application its session, as ``req.context.session``."""
    kind: Any = type(app)
    changed: Any = app
    serve = kind.__call__.__get__(app)
    component: object
    middleware: Any
    base: type[SessionApp]
    if isinstance(app, falcon.asgi.App):
        base, component = AsyncSessionApp, ASGIComponent(sessions.web)
        middleware = ASGISessionMiddleware(serve, sessions, autoload=False)
        # Falcon receives messages in advance, before the handler awaits them: the session would
        # be committed and refreshed at the wrong moment (laws W2, W3).
        app.ws_options.max_receive_queue = 0
    else:
        base, component = SessionApp, WSGIComponent(sessions.web)
        middleware = WSGISessionMiddleware(serve, sessions, autoload=False)
    members = {
        "__module__": kind.__module__,
        "__slots__": (),
        "sojourn_sessions": sessions,
        "sojourn_middleware": staticmethod(middleware),
    }
    changed.__class__ = type(kind.__name__, (base, kind), members)
    changed.add_sessions(component)
    sessions.route_decorator = routes.route


def uninstall(app: falcon.App[Any, Any], sessions: Sessions[Any]) -> None:  # noqa: ARG001 - of the interface
    """Remove the middleware and the component. The installation is inactive already."""
    changed: Any = app
    changed.remove_sessions()
    changed.__class__ = type(app).__bases__[1]


def find(app: falcon.App[Any, Any]) -> Sessions[Any] | None:
    """Return the installation of an application; None without one."""
    return getattr(type(app), "sojourn_sessions", None)


def _set_response(req: Any, resp: Any, error: SojournError) -> bool:
    """Set the default response to an error; return False if there is none."""
    accept = req.get_header("Accept")
    accepted = None if accept is None else accept.encode("latin-1", "replace")
    if isinstance(error, StoreError):
        status, (headers, body) = 503, unavailable_response(accepted)
    elif isinstance(error, SessionRequired):
        status, (headers, body) = 401, unauthorized_response(accepted)
    else:
        return False
    resp.status = status
    resp.data = body
    for name, value in headers:
        resp.set_header(name.decode(), value.decode("latin-1"))
    return True
