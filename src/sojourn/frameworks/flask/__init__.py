"""Flask integration: ``install``, the session interface, and ``@sessions.route`` for views."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from flask import Flask, current_app, request

from sojourn.errors import ConfigurationError
from sojourn.frameworks.flask.csrf import check_csrf, provide_csrf_token
from sojourn.frameworks.flask.errors import ErrorHandling
from sojourn.frameworks.flask.interface import SessionInterface
from sojourn.frameworks.flask.lifecycle import LIFECYCLE
from sojourn.frameworks.flask.login import LoginBinding
from sojourn.frameworks.flask.session import FlaskNullSession, FlaskSession, UnloadedSession
from sojourn.frameworks.flask.settings import read_settings
from sojourn.sessions import Sessions
from sojourn.web.installation import OnStoreFailure
from sojourn.web.wsgi import check_store

__all__ = [
    "FlaskNullSession",
    "FlaskSession",
    "SessionInterface",
    "UnloadedSession",
    "check_csrf",
    "install",
    "load_session",
    "read_settings",
    "uninstall",
]


def install(app: Flask, sessions: Sessions[Any]) -> None:
    """Replace the session interface of an application, also while it is being served."""
    check_store(sessions.web)
    sessions.web.session_class = FlaskSession
    sessions.web.null_session_class = FlaskNullSession
    sessions.route_decorator = route
    replaced = app.session_interface
    if isinstance(replaced, SessionInterface) and not replaced.web.active:
        replaced = replaced.replaced
    interface = SessionInterface(sessions.web, replaced, LoginBinding(app, sessions))
    app.session_interface = interface
    interface.undo = [ErrorHandling(sessions.web).wrap(app), provide_csrf_token(app)]


def uninstall(app: Flask, sessions: Sessions[Any]) -> None:
    """Remove what install added. The interface remains for requests under way."""
    interface = app.session_interface
    if isinstance(interface, SessionInterface) and interface.web is sessions.web:
        for undo in interface.undo:
            undo()


def load_session(on_store_failure: OnStoreFailure | None = None) -> FlaskSession | FlaskNullSession:
    """Return the session of the present request; load it if necessary.

    For ``autoload=False``, and for paths that ``include`` and ``exclude`` leave out.
    ``flask.session`` is this session from then on.

    Args:
        on_store_failure: what to do if the store fails; None for the installation's choice.

    Raises:
        ConfigurationError: sojourn is not installed on the application.
        StoreUnavailable: the store failed.
    """
    interface = current_app.session_interface
    if not isinstance(interface, SessionInterface):
        raise ConfigurationError(
            "this view needs a session, and sojourn is not installed on its application: call "
            "sojourn.install(app) after app.config is complete"
        )
    return interface.load(request.environ.get(LIFECYCLE), on_store_failure)


def route(view: Callable[..., Any], policy: OnStoreFailure | None) -> Callable[..., Any]:
    """Load the session before a view runs."""

    @functools.wraps(view)
    def load_and_call(*args: Any, **kwargs: Any) -> Any:
        load_session(policy)
        return current_app.ensure_sync(view)(*args, **kwargs)

    return load_and_call
