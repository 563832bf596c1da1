"""``sojourn.install(app)`` for a Litestar application that exists already."""

from __future__ import annotations

from typing import Any

from litestar import Litestar

from sojourn.errors import ConfigurationError, SojournError
from sojourn.frameworks.litestar.config import SojournConfig
from sojourn.frameworks.litestar.encoding import with_session_encoder
from sojourn.frameworks.litestar.errors import answer_error, close_socket
from sojourn.frameworks.litestar.layer_check import check_layers
from sojourn.frameworks.litestar.middleware import SessionMiddleware
from sojourn.sessions import Sessions


def install(app: Litestar, sessions: Sessions[Any]) -> None:
    """Add the middleware to the routes of an application, also while it is being served.

    Use ``SojournPlugin`` where the application is created: it also provides the dependency
    ``session`` and the OpenAPI scheme, which Litestar reads when a route is registered.

    Raises:
        ConfigurationError: a route has a session middleware of Litestar.
    """
    others = app.middleware
    app.middleware = [SojournConfig(sessions).middleware, *others]
    try:
        check_layers(app)
    except ConfigurationError:
        app.middleware = others
        raise
    app.exception_handlers.setdefault(SojournError, answer_error)
    app.after_exception.append(close_socket)
    app.type_encoders = with_session_encoder(app.type_encoders)
    _rebuild(app)


def uninstall(app: Litestar, sessions: Sessions[Any]) -> None:
    """Remove the middleware from the routes. The installation is inactive already."""
    app.middleware = [each for each in app.middleware if _sessions_of(each) is not sessions]
    if close_socket in app.after_exception:
        app.after_exception.remove(close_socket)
    if app.exception_handlers.get(SojournError) is answer_error:
        del app.exception_handlers[SojournError]
    _rebuild(app)


def find(app: Litestar) -> Sessions[Any] | None:
    """Return the installation whose middleware an application has; None without one."""
    return next((found for each in app.middleware if (found := _sessions_of(each))), None)


def _sessions_of(middleware: Any) -> Sessions[Any] | None:
    if getattr(middleware, "middleware", None) is not SessionMiddleware:
        return None
    backend: Any = middleware.kwargs["backend"]
    sessions: Sessions[Any] = backend.config.sessions
    return sessions


def _rebuild(app: Litestar) -> None:
    """Build the middleware stacks of all routes again, and route requests to them from now on."""
    previous = app.asgi_router
    router = type(previous)(app)
    app.asgi_router = router
    router.construct_routing_trie()
    layer: Any = app.asgi_handler
    while layer.app is not previous:
        layer = layer.app
    layer.app = router
