"""Falcon integration: ``install`` for ``falcon.App`` and ``falcon.asgi.App``, hooks for routes."""

from sojourn.frameworks.falcon.installation import find as find
from sojourn.frameworks.falcon.installation import install as install
from sojourn.frameworks.falcon.installation import uninstall as uninstall
from sojourn.frameworks.falcon.routes import (
    aget_session,
    get_session,
    load_session,
    load_session_async,
    require_csrf,
    require_csrf_async,
)

__all__ = [
    "aget_session",
    "get_session",
    "load_session",
    "load_session_async",
    "require_csrf",
    "require_csrf_async",
]
