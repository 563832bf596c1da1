"""SessionInterface: Quart's protocol of sessions, translated to ``SessionLifecycle``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from quart import Quart, Response, has_request_context, has_websocket_context, request, websocket
from quart.sessions import NullSession, SessionMixin
from quart.sessions import SessionInterface as SessionInterfaceOfQuart
from quart.wrappers.base import BaseRequestWebsocket

from sojourn.errors import ConfigurationError, StoreError
from sojourn.frameworks.flask.session import FlaskNullSession, FlaskSession, UnloadedSession
from sojourn.frameworks.quart.context import replace_session
from sojourn.frameworks.quart.lifecycle import LIFECYCLE, QuartLifecycle
from sojourn.web.asgi import check_origin
from sojourn.web.asgi_scope import CONNECTION, Scope
from sojourn.web.installation import OnStoreFailure, WebInstallation
from sojourn.web.transport_security import TransportSecurity
from sojourn.web.websocket import WebSocketConnection


class SessionInterface(SessionInterfaceOfQuart):
    """Opens and saves the sessions of an application.

    After ``uninstall`` it remains for requests under way, and passes others to the application's
    previous interface (law A20).

    Args:
        web: the web layer of the installation.
        replaced: the application's previous session interface.

    Attributes:
        web: as given.
        replaced: as given.
        undo: functions that remove what else was installed.
    """

    null_session_class: type[NullSession] = UnloadedSession

    def __init__(self, web: WebInstallation, replaced: Any) -> None:
        self.web: WebInstallation = web
        self.replaced: Any = replaced
        self.undo: list[Callable[[], object]] = []

    async def open_session(self, app: Quart, request: BaseRequestWebsocket) -> SessionMixin | None:
        """Return the session of a request or socket; None if it has none.

        An error of the store is kept for ``ErrorHandling``: Quart would not give it to the
        application's error handlers here. Until then the session is empty.
        """
        scope = cast("Scope", request.scope)
        web = self.web
        connection = scope.get(CONNECTION)
        if connection is not None and connection.web is web:
            return cast("FlaskSession | None", connection.session)
        lifecycle: QuartLifecycle | None = scope.get(LIFECYCLE)
        if lifecycle is not None and lifecycle.session is not None:
            return cast("FlaskSession", lifecycle.session)
        if not web.active:
            previous: SessionMixin | None = await self.replaced.open_session(app, request)
            return previous
        if connection is not None:
            web.check_nested(connection.web)
        scope[LIFECYCLE] = lifecycle = QuartLifecycle(web, scope)
        if not web.loads_all:
            config = web.config
            wanted = config.patterns.everything or config.patterns.match(lifecycle.path())
            if wanted and config.protect:
                lifecycle.refusal = check_origin(web, scope)
            if not (wanted and config.autoload) or lifecycle.refusal is not None:
                return None
        try:
            await lifecycle.load()
        except StoreError as error:
            lifecycle.load_error = error
        session = cast("FlaskSession | None", lifecycle.session)
        if session is not None:
            session.store_version()
        return session

    async def make_null_session(self, app: Quart) -> NullSession:
        """Return the session of a request that has none."""
        if self.web.active:
            return self.null_session_class()
        null: NullSession = await self.replaced.make_null_session(app)
        return null

    def is_null_session(self, instance: object) -> bool:
        """Return whether a session is not to be saved."""
        return isinstance(instance, NullSession)

    async def load(
        self, on_store_failure: OnStoreFailure | None
    ) -> FlaskSession | FlaskNullSession:
        """Return the session of the present request or socket; load it if necessary.

        Raises:
            RuntimeError: the response has been sent.
            StoreUnavailable: the store failed.
        """
        is_socket = has_websocket_context()
        scope = cast("Scope", websocket.scope if is_socket else request.scope)
        current: QuartLifecycle | WebSocketConnection | None = scope.get(LIFECYCLE)
        if current is None:
            current = scope.get(CONNECTION)
            if isinstance(current, WebSocketConnection) and current.web is not self.web:
                raise ConfigurationError(
                    "this WebSocket expects the session of its application's installation, found "
                    "that of another one; install sojourn on one of the two applications only"
                )
        if current is None:
            raise RuntimeError("the response has ended; load the session before that")
        try:
            await current.load(on_store_failure)
        finally:
            if current.session is not None:
                replace_session(current.session, websocket=is_socket)
        return cast("FlaskSession", current.session)

    async def save_session(
        self, app: Quart, session: SessionMixin, response: Response | Any | None
    ) -> None:
        """Commit a session and put its headers on the response.

        Args:
            app: the application.
            session: of the request or socket.
            response: None for a socket, whose session its connection commits.

        Raises:
            StoreError: the store failed.
            SessionError: the session cannot be saved.
        """
        if has_websocket_context() and not has_request_context():
            return
        lifecycle = find_lifecycle()
        if lifecycle is None:
            if not self.web.active:
                await self.replaced.save_session(app, session, response)
            return
        if lifecycle.responded or response is None:
            return
        own: Any = lifecycle.session
        if own is not None and session is not own and not lifecycle.settled:
            lifecycle.adopt(session)  # a view may replace the session (law A24)
        await lifecycle.add_to(response)

    def get_cookie_name(
        self,
        app: Quart,  # noqa: ARG002 - Quart passes it
    ) -> str:
        """Return the name of the cookie for the present request; over https without one."""
        lifecycle = find_lifecycle() if has_request_context() else None
        transport = TransportSecurity.SECURE if lifecycle is None else lifecycle.transport
        return self.web.cookie_variant(transport).cookie.name


def find_lifecycle() -> QuartLifecycle | None:
    """Return the lifecycle of the present request; None if it has none, or has ended."""
    scope = cast("Scope", request.scope)
    lifecycle: QuartLifecycle | None = scope.get(LIFECYCLE)
    return lifecycle
