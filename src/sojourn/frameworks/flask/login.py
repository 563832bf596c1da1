"""LoginBinding: the logins of Flask-Login bind and rotate the session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from flask import Flask, Response, request, session

from sojourn.errors import LoginRequired
from sojourn.frameworks.flask.remember import RememberCompanion, token_name
from sojourn.frameworks.flask.session import FlaskNullSession, FlaskSession
from sojourn.sessions import Sessions
from sojourn.web.lifecycle import SessionLifecycle

#: The keys of Flask-Login in the session: the user, whether the login is recent, and what becomes
#: of its cookie with this response.
_USER: Final = "_user_id"
_FRESH: Final = "_fresh"
_REMEMBER: Final = "_remember"

#: The key of Flask-Security for its CSRF cookie, and the setting that names this cookie.
_CSRF_COOKIE: Final = "fs_cc"
_CSRF_COOKIE_NAME: Final = "SECURITY_CSRF_COOKIE_NAME"


class LoginBinding:
    """Follows the signals of Flask-Login in one application, without an import in it.

    Flask-Login's cookie for "remember me" has a companion, so that a user who is revoked is logged
    out everywhere.

    Args:
        app: the application; its session interface keeps this object alive.
        sessions: the installation.
    """

    def __init__(self, app: Flask, sessions: Sessions[Any]) -> None:
        self._companion = RememberCompanion(sessions.remembered_logins)
        self._decode: Callable[[str], str | None] | None = None
        try:
            import flask_login  # type: ignore[import-untyped] # it has no types
        except ImportError:
            return
        self._decode = flask_login.decode_cookie
        signals = flask_login.signals
        signals.user_accessed.connect(self._check_token, app)
        signals.user_logged_in.connect(self._log_in, app)
        signals.user_logged_out.connect(self._log_out, app)
        signals.user_login_confirmed.connect(self._confirm, app)
        signals.user_loaded_from_cookie.connect(self._restore, app)
        signals.session_protected.connect(self._protect, app)

    def follow(self, loaded: FlaskSession, lifecycle: SessionLifecycle) -> None:
        """Mark the login as not recent, for Flask-Login, if the session is only remembered.

        Args:
            loaded: the session of a request.
            lifecycle: of the request.
        """
        copy = lifecycle.working_copy
        if copy is None or copy.record is None or not copy.record.persistent:
            return
        if copy.record.authenticated_at and loaded.remembered and loaded.get(_FRESH):
            loaded[_FRESH] = False

    def finish(self, app: Flask, lifecycle: SessionLifecycle, response: Response) -> None:
        """Set or remove the companion with a response.

        Args:
            app: the application.
            lifecycle: of the request, after the commit.
            response: complete but for the companion.
        """
        if "login_manager" in vars(app) and lifecycle.working_copy is not None:
            self._companion.add_to(app, lifecycle, lifecycle.working_copy, response)

    def _log_in(self, _: Flask, **__: Any) -> None:
        own = _session()
        if own is None:
            return
        if own.get(_FRESH):
            own.login(own[_USER])
        else:
            own.restore_login(own[_USER])

    def _log_out(self, app: Flask, **__: Any) -> None:
        own = _session()
        if own is None:
            return
        # With the response, each library removes its cookie and its key.
        keys = [_REMEMBER, _CSRF_COOKIE] if app.config.get(_CSRF_COOKIE_NAME) else [_REMEMBER]
        cleared = [key for key in keys if own.get(key) == "clear"]
        own.logout()
        if cleared:
            own.update(dict.fromkeys(cleared, "clear"))

    def _confirm(self, _: Flask, **__: Any) -> None:
        own = _session()
        if own is not None:
            own.confirm_login()

    def _check_token(self, app: Flask, **_: Any) -> None:
        """Check the token with which Flask-Login would log a user in, before it does so."""
        own = _session()
        if own is None or own.get(_USER) is not None or own.get(_REMEMBER) == "clear":
            return
        token = request.cookies.get(token_name(app))
        if token is None:
            return
        if isinstance(own, FlaskNullSession):
            self._companion.hide_token(app)  # the login could not be stored
            return
        user = None if self._decode is None else self._decode(token)
        if user is not None and self._companion.check(own, user).refusal is not None:
            self._companion.hide_token(app)

    def _restore(self, app: Flask, **_: Any) -> None:
        own = _session()
        if own is None:
            return
        user = own[_USER]
        restoration = self._companion.restoration()
        if restoration is None:  # the user of the session does not exist, and the token has another
            restoration = self._companion.check(own, user)
        if own.user is not None or restoration.refusal is not None:
            own.logout()
            if restoration.refusal is not None:
                self._companion.hide_token(app)
                raise LoginRequired(restoration.refusal)
            own[_USER], own[_FRESH] = user, False
        own.restore_login(user, restoration)

    def _protect(self, _: Flask, **__: Any) -> None:
        """Log out where ``SESSION_PROTECTION`` is "strong" and the client has changed.

        The session is destroyed, and what Flask-Login has left in it continues in a new one.
        """
        own = _session()
        if own is not None and own.user is not None and _USER not in own:
            kept = own.copy()
            own.logout()
            own.update(kept)
            own[_REMEMBER] = "clear"


def _session() -> FlaskSession | None:
    """Return the present session; None if the request has none."""
    own: Any = session
    return own if isinstance(own, FlaskSession | FlaskNullSession) else None
