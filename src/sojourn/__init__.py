"""Server-side sessions for every Python web framework. Start with ``install``.

Further public modules: ``sojourn.errors``, ``sojourn.frameworks``, ``sojourn.stores`` and
``sojourn.testing``.
"""

import typing

from sojourn import errors
from sojourn.errors import SojournError
from sojourn.frameworks.install import get, install, on_install, uninstall

if typing.TYPE_CHECKING:
    from sojourn import admin, asgi, wsgi
    from sojourn._core.operations import Merge
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
    from sojourn.session import Session
    from sojourn.sessions import Sessions
    from sojourn.stores.callback import CallbackStore
    from sojourn.web.health import health

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
    "admin",
    "asgi",
    "errors",
    "get",
    "health",
    "install",
    "on_install",
    "uninstall",
    "wsgi",
]

# Type checkers see the imports above; with this function they would accept every name.
if not typing.TYPE_CHECKING:
    _EVENTS = "sojourn.events"

    #: The modules of the names that are imported when they are first used; None for modules.
    _MODULES = {
        "Authenticated": _EVENTS,
        "CallbackStore": "sojourn.stores.callback",
        "Conflicted": _EVENTS,
        "Created": _EVENTS,
        "Expired": _EVENTS,
        "Merge": "sojourn._core.operations",
        "Read": _EVENTS,
        "Rejected": _EVENTS,
        "Reused": _EVENTS,
        "Revoked": _EVENTS,
        "Rotated": _EVENTS,
        "Session": "sojourn.session",
        "Sessions": "sojourn.sessions",
        "StoreFailed": _EVENTS,
        "Touched": _EVENTS,
        "Written": _EVENTS,
        "admin": None,
        "asgi": None,
        "health": "sojourn.web.health",
        "wsgi": None,
    }

    def __getattr__(name: str) -> object:
        """Import a public name at its first use (PEP 562)."""
        try:
            module = _MODULES[name]
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        from importlib import import_module

        if module is None:
            value = import_module(f"{__name__}.{name}")
        else:
            value = getattr(import_module(module), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        """List the public names, also those that are not imported yet."""
        return sorted({*globals(), *__all__})
