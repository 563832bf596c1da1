"""check_layers: refuses routes whose sessions come from two places."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from litestar import Litestar
from litestar.middleware.session.base import SessionMiddleware as LitestarMiddleware
from litestar.security.session_auth.middleware import MiddlewareWrapper

from sojourn.errors import ConfigurationError
from sojourn.frameworks.litestar.config import SojournConfig
from sojourn.sessions import Sessions


def check_layers(app: Litestar) -> None:
    """Check that no route has a session middleware of Litestar beside that of sojourn.

    Both would set ``request.session``. Two installations of sojourn may be nested if their cookies
    have different names.

    Raises:
        ConfigurationError: a route has both, or two installations use one cookie name.
    """
    for path, handler in _handlers(app):
        configs = list(_session_configs(handler, path))
        own = [each for each in configs if isinstance(each, SojournConfig)]
        foreign = next((each for each in configs if not isinstance(each, SojournConfig)), None)
        if own and foreign is not None:
            raise ConfigurationError(
                f"the route {path} has a session middleware of Litestar, by "
                f"{type(foreign).__name__}, beside that of sojourn, and both set request.session. "
                f"Remove Litestar's, or leave the route to it with exclude=[{path!r}]"
            )
        _check_nested([each.sessions for each in own])


def _check_nested(installations: list[Sessions[Any]]) -> None:
    for position, inner in enumerate(installations):
        for outer in installations[:position]:
            if outer is not inner:
                inner.web.check_nested(outer.web)


def _handlers(app: Litestar) -> Iterator[tuple[str, Any]]:
    """Yield the path and the handler of each route."""
    for route in app.routes:
        any_route: Any = route
        handlers = getattr(any_route, "route_handlers", None) or [any_route.route_handler]
        for handler in handlers:
            yield route.path, handler


def _session_configs(handler: Any, path: str) -> Iterator[Any]:
    """Yield the session configs whose middleware serves a route, outermost first."""
    for middleware in reversed(handler.resolve_middleware()):
        cls = getattr(middleware, "middleware", None)
        if not isinstance(cls, type):
            continue
        config = None
        if issubclass(cls, LitestarMiddleware):
            config = middleware.kwargs["backend"].config
        elif issubclass(cls, MiddlewareWrapper):
            config = middleware.kwargs["config"].session_backend_config
        if config is None or handler.opt.get(config.exclude_opt_key):
            continue
        if isinstance(config, SojournConfig):
            patterns = config.sessions.web.config.patterns
            if not (patterns.everything or patterns.match(path)):
                continue
        yield config
