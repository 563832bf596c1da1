"""Litestar integration: ``SojournPlugin``, ``SojournConfig`` for its protocol, a CSRF guard.

``app = Litestar(route_handlers, plugins=[SojournPlugin()])``
"""

from sojourn.frameworks.litestar.config import SojournBackend, SojournConfig
from sojourn.frameworks.litestar.csrf import require_csrf
from sojourn.frameworks.litestar.dependency import get_session
from sojourn.frameworks.litestar.installation import find as find
from sojourn.frameworks.litestar.installation import install as install
from sojourn.frameworks.litestar.installation import uninstall as uninstall
from sojourn.frameworks.litestar.middleware import SessionMiddleware
from sojourn.frameworks.litestar.plugin import SojournPlugin

__all__ = [
    "SessionMiddleware",
    "SojournBackend",
    "SojournConfig",
    "SojournPlugin",
    "get_session",
    "require_csrf",
]
