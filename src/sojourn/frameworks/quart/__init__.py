"""Quart integration: ``install``, the session interface, and ``@sessions.route`` for views."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from quart import Quart, current_app

from sojourn.errors import ConfigurationError
from sojourn.frameworks.flask.session import FlaskNullSession, FlaskSession, UnloadedSession
from sojourn.frameworks.flask.settings import read_settings
from sojourn.frameworks.quart.csrf import check_csrf, provide_csrf_token
from sojourn.frameworks.quart.errors import ErrorHandling
from sojourn.frameworks.quart.interface import SessionInterface
from sojourn.frameworks.quart.websocket import SocketHandling
from sojourn.sessions import Sessions
from sojourn.web.installation import OnStoreFailure

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


def install(app: Quart, sessions: Sessions[Any]) -> None:
    """Replace the session interface of an application, also while it is being served.

    Raises:
        ConfigurationError: the application runs under trio.
    """
    if any(base.__module__.startswith("quart_trio") for base in type(app).__mro__):
        raise ConfigurationError(
            "sojourn needs asyncio, and QuartTrio runs under trio; use quart.Quart"
        )
    sessions.web.session_class = FlaskSession
    sessions.web.null_session_class = FlaskNullSession
    sessions.route_decorator = route
    replaced: Any = app.session_interface
    if isinstance(replaced, SessionInterface) and not replaced.web.active:
        replaced = replaced.replaced
    interface = SessionInterface(sessions.web, replaced)
    app.session_interface = interface  # type: ignore[assignment] # its type is that of the default
    interface.undo = [
        ErrorHandling(sessions.web).wrap(app),
        SocketHandling(app, sessions).wrap(app),
        provide_csrf_token(app),
    ]


def uninstall(app: Quart, sessions: Sessions[Any]) -> None:
    """Remove what install added. The interface remains for requests under way."""
    interface: Any = app.session_interface
    if isinstance(interface, SessionInterface) and interface.web is sessions.web:
        for undo in interface.undo:
            undo()


async def load_session(
    on_store_failure: OnStoreFailure | None = None,
) -> FlaskSession | FlaskNullSession:
    """Return the session of the present request or socket; load it if necessary.

    For ``autoload=False``, and for paths that ``include`` and ``exclude`` leave out.
    ``quart.session`` is this session from then on.

    Args:
        on_store_failure: what to do if the store fails; None for the installation's choice.

    Raises:
        ConfigurationError: sojourn is not installed on the application.
        StoreUnavailable: the store failed.
    """
    interface: Any = current_app.session_interface
    if not isinstance(interface, SessionInterface):
        raise ConfigurationError(
            "this view needs a session, and sojourn is not installed on its application: call "
            "sojourn.install(app) after app.config is complete"
        )
    return await interface.load(on_store_failure)


def route(view: Callable[..., Any], policy: OnStoreFailure | None) -> Callable[..., Any]:
    """Load the session before a view runs."""

    @functools.wraps(view)
    async def load_and_call(*args: Any, **kwargs: Any) -> Any:
        await load_session(policy)
        return await current_app.ensure_async(view)(*args, **kwargs)

    return load_and_call
