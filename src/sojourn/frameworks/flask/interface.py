"""SessionInterface: Flask's protocol of sessions, translated to ``SessionLifecycle``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import flask.globals
from flask import Flask, Request, Response, has_request_context, request
from flask.sessions import NullSession, SessionMixin
from flask.sessions import SessionInterface as SessionInterfaceOfFlask

from sojourn.errors import StoreError
from sojourn.frameworks.flask.lifecycle import LIFECYCLE, FlaskLifecycle
from sojourn.frameworks.flask.login import LoginBinding
from sojourn.frameworks.flask.session import FlaskNullSession, FlaskSession, UnloadedSession
from sojourn.web.installation import OnStoreFailure, WebInstallation
from sojourn.web.transport_security import TransportSecurity
from sojourn.web.wsgi import EXCHANGE
from sojourn.web.wsgi_environ import check_origin


class SessionInterface(SessionInterfaceOfFlask):
    """Opens and saves the sessions of an application.

    After ``uninstall`` it remains for requests under way, and passes others to the application's
    previous interface (law A20).

    Args:
        web: the web layer of the installation.
        replaced: the application's previous session interface.
        login: binds the logins of Flask-Login.

    Attributes:
        web: as given.
        replaced: as given.
        undo: functions that remove what else was installed.
    """

    null_session_class: type[NullSession] = UnloadedSession

    def __init__(
        self, web: WebInstallation, replaced: SessionInterfaceOfFlask, login: LoginBinding
    ) -> None:
        self.web: WebInstallation = web
        self.replaced: SessionInterfaceOfFlask = replaced
        self.undo: list[Callable[[], object]] = []
        self._login = login

    def open_session(
        self,
        app: Flask,
        request: Request,
    ) -> SessionMixin | None:
        """Return the session of a request; None if it has none (see ``UnloadedSession``).

        An error of the store is kept for ``ErrorHandling``: Flask would not give it to the
        application's error handlers here. Until then the session is empty.
        """
        environ = request.environ
        lifecycle: FlaskLifecycle | None = environ.get(LIFECYCLE)
        if lifecycle is not None and lifecycle.session is not None:
            return cast("FlaskSession", lifecycle.session)
        web = self.web
        if not web.active:
            return self.replaced.open_session(app, request)
        if EXCHANGE in environ and (outer := environ[EXCHANGE]) is not None:
            web.check_nested(outer.web)
        environ[LIFECYCLE] = lifecycle = FlaskLifecycle(web, environ)
        if not web.loads_all:
            config = web.config
            wanted = config.patterns.everything or config.patterns.match(lifecycle.path())
            if wanted and config.protect:
                lifecycle.refusal = check_origin(web, environ)
            if not (wanted and config.autoload) or lifecycle.refusal is not None:
                return None
        try:
            lifecycle.load()
        except StoreError as error:
            lifecycle.load_error = error
        session = cast("FlaskSession | None", lifecycle.session)
        if session is not None:
            session.store_version()
            self._login.follow(session, lifecycle)
        return session

    def make_null_session(self, app: Flask) -> NullSession:
        """Return the session of a request that has none."""
        return (
            self.null_session_class() if self.web.active else self.replaced.make_null_session(app)
        )

    def is_null_session(self, obj: object) -> bool:
        """Return whether a session is not to be saved."""
        return isinstance(obj, NullSession)

    def load(
        self, lifecycle: FlaskLifecycle | None, on_store_failure: OnStoreFailure | None
    ) -> FlaskSession | FlaskNullSession:
        """Return the session of the present request; load it if necessary.

        Raises:
            RuntimeError: the response has been sent.
            StoreUnavailable: the store failed.
        """
        if lifecycle is None:
            raise RuntimeError("the response has ended; load the session before that")
        try:
            lifecycle.load(on_store_failure)
        finally:
            session = lifecycle.session
            if session is not None:
                # Before Flask 3.1.3 the attribute is `session`; Flask 3.2 has one context.
                name = "request_ctx" if "request_ctx" in vars(flask.globals) else "app_ctx"
                attributes: dict[str, Any] = getattr(flask.globals, name).__dict__
                attributes["_session" if "_session" in attributes else "session"] = session
        loaded = cast("FlaskSession", session)
        loaded.store_version()
        self._login.follow(loaded, lifecycle)
        return loaded

    def save_session(
        self,
        app: Flask,
        session: SessionMixin,
        response: Response,
    ) -> None:
        """Commit a session and put its headers on the response.

        Raises:
            StoreError: the store failed.
            SessionError: the session cannot be saved.
        """
        lifecycle: FlaskLifecycle | None
        if isinstance(session, FlaskSession):  # faster than to find it by the request
            lifecycle = cast("FlaskLifecycle | None", session.lifecycle())
        else:
            lifecycle = find_lifecycle()
        if lifecycle is None:
            if not self.web.active:
                self.replaced.save_session(app, session, response)
            return
        if lifecycle.responded:
            return
        own: Any = lifecycle.session
        if own is not None and session is not own and not lifecycle.settled:
            lifecycle.adopt(session)  # before Flask 3.1.3, a view may replace the session (law A24)
        lifecycle.add_to(response)
        self._login.finish(app, lifecycle, response)

    def get_cookie_name(
        self,
        app: Flask,  # noqa: ARG002 - Flask passes it
    ) -> str:
        """Return the name of the cookie for the present request; over https without one."""
        lifecycle = find_lifecycle() if has_request_context() else None
        transport = TransportSecurity.SECURE if lifecycle is None else lifecycle.transport
        return self.web.cookie_variant(transport).cookie.name


def find_lifecycle() -> FlaskLifecycle | None:
    """Return the lifecycle of the present request; None if it has none, or has ended."""
    lifecycle: FlaskLifecycle | None = request.environ.get(LIFECYCLE)
    return lifecycle
