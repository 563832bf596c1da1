"""install, get, uninstall, on_install: sessions for an application in one line.

What lives here: recognising the framework without importing any, and remembering what was installed
on what. What must not: how a framework is extended; each has one file beside this one.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

from sojourn.errors import ConfigurationError
from sojourn.sessions import Sessions

if TYPE_CHECKING:
    from typing import Unpack

    from sojourn.config import Options

S = TypeVar("S")


class Adapter(Protocol):
    """What the file of a framework offers."""

    def install(self, app: Any, sessions: Sessions[Any]) -> None:
        """Give every request and socket of an application its session."""
        ...

    def uninstall(self, app: Any, sessions: Sessions[Any]) -> None:
        """Take it away again, also on a running server."""
        ...


#: Where a class of this name stands among an application's bases, this file knows what to do.
#: FastAPI comes first because its application is a Starlette one too.
_ADAPTERS: Final = {
    "fastapi.applications.FastAPI": "sojourn.frameworks.fastapi",
    "starlette.applications.Starlette": "sojourn.frameworks.starlette",
}

_installed: Final[weakref.WeakKeyDictionary[Any, tuple[Sessions[Any], Adapter]]] = (
    weakref.WeakKeyDictionary()
)
_listeners: Final[list[Callable[[Any, Sessions[Any]], object]]] = []


def install(app: Any, *, state: type[S] | None = None, **options: Unpack[Options]) -> Sessions[S]:
    """Give every request and socket of an application a session that loads and saves itself.

    Args:
        app: a Starlette or FastAPI application, also one that is being served.
        state: a dataclass or ``msgspec.Struct`` for ``session.state``.
        options: the fields of ``sojourn.config.Options``; all have defaults.

    Returns:
        The installation, also found with ``sojourn.get(app)``.

    Raises:
        ConfigurationError: an option is wrong, the application has sessions already, or it is one
            that cannot be changed after it was built; the text shows the line to write instead.
    """
    adapter = _find_adapter(app)
    if app in _installed:
        raise ConfigurationError(
            f"{app!r} has sessions already: sojourn.get(app). To change them, call "
            "sojourn.uninstall(app) first"
        )
    sessions: Sessions[S] = Sessions(state=state, **options)
    adapter.install(app, sessions)
    _installed[app] = (sessions, adapter)
    for listener in _listeners:
        listener(app, sessions)
    return sessions


def get(app: Any) -> Sessions[Any]:
    """Return what is installed on an application.

    Raises:
        ConfigurationError: nothing is.
    """
    return _entry(app)[0]


def uninstall(app: Any) -> None:
    """Take sessions away from an application, also while it is being served.

    Requests under way finish with their session, later ones have none (law A20). Records stay in
    the store until they expire. The store stays open for those requests: ``Sessions.close`` it when
    nothing uses it any more.

    Raises:
        ConfigurationError: nothing is installed.
    """
    sessions, adapter = _entry(app)
    del _installed[app]
    sessions.web.active = False
    adapter.uninstall(app, sessions)


def on_install(listener: Callable[[Any, Sessions[Any]], object]) -> None:
    """Call a function with the application and its ``Sessions`` at every ``install``."""
    _listeners.append(listener)


def _entry(app: Any) -> tuple[Sessions[Any], Adapter]:
    try:
        return _installed[app]
    except (KeyError, TypeError):
        raise ConfigurationError(
            f"nothing is installed on {app!r}; call sojourn.install(app) first"
        ) from None


def _find_adapter(app: Any) -> Adapter:
    for base in type(app).__mro__:
        module = _ADAPTERS.get(f"{base.__module__}.{base.__qualname__}")
        if module is not None:
            return cast("Adapter", import_module(module))
    if hasattr(app, "wsgi_app"):
        line = "app.wsgi_app = sojourn.wsgi.SessionMiddleware(app.wsgi_app, sessions)"
    else:
        line = "app = sojourn.asgi.SessionMiddleware(app, sessions)   # or sojourn.wsgi for WSGI"
    raise ConfigurationError(
        f"sojourn.install cannot change {app!r} from outside. Make the sessions and wrap it:\n\n"
        f"    sessions = sojourn.Sessions()\n    {line}\n"
    )
