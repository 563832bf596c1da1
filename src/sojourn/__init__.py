"""Server-side sessions for every Python web framework. Start with ``install``.

Further public modules: ``sojourn.errors``, ``sojourn.frameworks``, ``sojourn.stores`` and
``sojourn.testing``.
"""

from sojourn import asgi, errors, wsgi
from sojourn._core.operations import Merge
from sojourn.errors import SojournError
from sojourn.events import (
    Authenticated,
    Conflicted,
    Created,
    Expired,
    Read,
    Rejected,
    Reused,
    Revoked,
    Rotated,
    StoreFailed,
    Touched,
    Written,
)
from sojourn.frameworks.install import get, install, on_install, uninstall
from sojourn.session import Session
from sojourn.sessions import Sessions
from sojourn.stores.callback import CallbackStore

__all__ = [
    "Authenticated",
    "CallbackStore",
    "Conflicted",
    "Created",
    "Expired",
    "Merge",
    "Read",
    "Rejected",
    "Reused",
    "Revoked",
    "Rotated",
    "Session",
    "Sessions",
    "SojournError",
    "StoreFailed",
    "Touched",
    "Written",
    "asgi",
    "errors",
    "get",
    "install",
    "on_install",
    "uninstall",
    "wsgi",
]
