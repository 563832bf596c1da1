"""LoginBinding: the logins of Flask-Login bind and rotate the session."""

from __future__ import annotations

from typing import Any, Final

from flask import Flask, session

from sojourn.frameworks.flask.session import FlaskNullSession, FlaskSession
from sojourn.web.lifecycle import SessionLifecycle

#: The keys of Flask-Login in the session: the user, whether the login is recent, and what becomes
#: of the cookie of "remember me" with this response.
_USER: Final = "_user_id"
_FRESH: Final = "_fresh"
_REMEMBER: Final = "_remember"
_REMEMBER_SECONDS: Final = "_remember_seconds"


class LoginBinding:
    """Follows the signals of Flask-Login in one application, without an import in it.

    Flask-Login's own cookie for "remember me" is not set: the session itself outlives the browser,
    so that a user who is revoked is logged out everywhere. A cookie that a browser has from before
    is used once and removed.

    Args:
        app: the application; its session interface keeps this object alive.
    """

    def __init__(self, app: Flask) -> None:
        try:
            from flask_login import signals  # type: ignore[import-untyped] # it has no types
        except ImportError:
            return
        signals.user_logged_in.connect(self._log_in, app)
        signals.user_logged_out.connect(self._log_out, app)
        signals.user_login_confirmed.connect(self._confirm, app)
        signals.user_loaded_from_cookie.connect(self._restore, app)
        signals.session_protected.connect(self._protect, app)

    def follow(self, loaded: FlaskSession, lifecycle: SessionLifecycle) -> None:
        """Tell Flask-Login that a login is not recent: only "remember me" keeps the session alive.

        Args:
            loaded: the session of a request.
            lifecycle: of the request.
        """
        copy = lifecycle.working_copy
        if copy is None or copy.record is None or not copy.record.persistent:
            return
        if copy.record.authenticated_at and loaded.remembered and loaded.get(_FRESH):
            loaded[_FRESH] = False

    def _log_in(self, _: Flask, **__: Any) -> None:
        own = _session()
        if own is None:
            return
        remember = own.get(_REMEMBER) == "set"
        if remember:
            del own[_REMEMBER]
            own.pop(_REMEMBER_SECONDS, None)
        user = own[_USER]
        if own.get(_FRESH):
            own.login(user, remember=remember)
        else:
            own.restore_login(user, remember=remember)

    def _log_out(self, _: Flask, **__: Any) -> None:
        own = _session()
        if own is None:
            return
        clear = own.get(_REMEMBER) == "clear"
        own.logout()
        if clear:
            own[_REMEMBER] = "clear"  # Flask-Login removes its cookie and this key

    def _confirm(self, _: Flask, **__: Any) -> None:
        own = _session()
        if own is not None and own.user is not None:
            own.renew_login()

    def _restore(self, _: Flask, **__: Any) -> None:
        own = _session()
        if own is not None:
            own.restore_login(own[_USER], remember=True)
            own[_REMEMBER] = "clear"

    def _protect(self, _: Flask, **__: Any) -> None:
        """Log out where ``SESSION_PROTECTION`` is "strong" and the client has changed."""
        own = _session()
        if own is not None and own.user is not None and _USER not in own:
            own.logout()
            own[_REMEMBER] = "clear"


def _session() -> FlaskSession | None:
    """Return the present session; None if the request has none."""
    own: Any = session
    return own if isinstance(own, FlaskSession | FlaskNullSession) else None
