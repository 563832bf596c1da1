"""install, get, uninstall, on_install: add sessions to an application of a known framework."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast, runtime_checkable

from sojourn.errors import ConfigurationError

if TYPE_CHECKING:
    from typing import Unpack

    from typing_extensions import TypeVar as TypeVarWithDefault

    from sojourn.config import AllOptions, Options
    from sojourn.sessions import Sessions

    S = TypeVarWithDefault("S", default=Any)
else:
    S = TypeVar("S")


class Adapter(Protocol):
    """The interface of a framework module."""

    def install(self, app: Any, sessions: Sessions[Any]) -> None:
        """Give every request and socket of an application its session."""
        ...

    def uninstall(self, app: Any, sessions: Sessions[Any]) -> None:
        """Remove sessions from an application, also on a running server."""
        ...


@runtime_checkable
class ReadsSettings(Protocol):
    """The interface of a framework module whose users write settings into the application."""

    def read_settings(self, app: Any, given: Options) -> AllOptions:
        """Return the given options and those in the application's settings; the given precede.

        Raises:
            ConfigurationError: a setting is invalid, or has no counterpart.
        """
        ...


@runtime_checkable
class FindsInstallation(Protocol):
    """The interface of a framework module that can be installed without ``install``."""

    def find(self, app: Any) -> Sessions[Any] | None:
        """Return the installation of an application, such as one by a plugin; None for none."""
        ...


#: The module for an application with a base class of this name. Frameworks are not imported here.
#: The first base class with an entry decides, so FastAPI precedes Starlette.
_ADAPTERS: Final = {
    "aiohttp.web_app.Application": "sojourn.frameworks.aiohttp",
    "blacksheep.server.application.Application": "sojourn.frameworks.blacksheep",
    "bottle.Bottle": "sojourn.frameworks.bottle",
    "falcon.app.App": "sojourn.frameworks.falcon",
    "fastapi.applications.FastAPI": "sojourn.frameworks.fastapi",
    "flask.app.Flask": "sojourn.frameworks.flask",
    "litestar.app.Litestar": "sojourn.frameworks.litestar",
    "pyramid.config.Configurator": "sojourn.frameworks.pyramid",
    "pyramid.router.Router": "sojourn.frameworks.pyramid",
    "quart.app.Quart": "sojourn.frameworks.quart",
    "sanic.app.Sanic": "sojourn.frameworks.sanic",
    "starlette.applications.Starlette": "sojourn.frameworks.starlette",
    "tornado.web.Application": "sojourn.frameworks.tornado",
}

#: Django builds its handlers from the settings.
_DJANGO: Final = """\
sojourn.install does not change a handler of Django. Write in settings.py:

    SESSION_ENGINE = "sojourn.frameworks.django"
    SOJOURN = {"store": "redis://localhost:6379/0"}  # the options of sojourn.install

and for the verbs of sojourn on request.session, also under ASGI, replace in MIDDLEWARE

    "django.contrib.sessions.middleware.SessionMiddleware" by
    "sojourn.frameworks.django.SessionMiddleware"

The installation is sojourn.frameworks.django.get_sessions()"""

_installed: Final[weakref.WeakKeyDictionary[Any, tuple[Sessions[Any], Adapter]]] = (
    weakref.WeakKeyDictionary()
)
#: The same by ``id``, for applications without weak references whose adapter cannot find the
#: installation in them. They live as long as the process; Sanic's do in any case.
_installed_strong: Final[dict[int, tuple[Any, tuple[Sessions[Any], Adapter]]]] = {}
_listeners: Final[list[Callable[[Any, Sessions[Any]], object]]] = []


def install(app: Any, *, state: type[S] | None = None, **options: Unpack[Options]) -> Sessions[S]:
    """Give every request and socket of an application a session, loaded and saved automatically.

    Args:
        app: an application of a known framework; one of Starlette, FastAPI or Litestar may be
            served already.
        state: a dataclass, ``msgspec.Struct`` or pydantic model for ``session.state``.
        options: the fields of ``sojourn.config.Options``; all have defaults.

    Returns:
        The installation, also found with ``sojourn.get(app)``.

    Raises:
        ConfigurationError: an option is invalid, the application has sessions already, or its
            framework is not supported; the message shows the line to write instead.
    """
    # Imported here, so that `import sojourn` costs a tenth.
    from sojourn.sessions import Sessions

    adapter = _find_adapter(app)
    if _find(app) is not None:
        raise ConfigurationError(
            f"{app!r} has sessions already: sojourn.get(app). To change them, call "
            "sojourn.uninstall(app) first"
        )
    found: AllOptions = cast("AllOptions", options)
    if isinstance(adapter, ReadsSettings):
        found = adapter.read_settings(app, options)
    if state is not None:
        found["state"] = state
    sessions: Sessions[S] = Sessions(**found)
    adapter.install(app, sessions)
    try:
        _installed[app] = (sessions, adapter)
    except TypeError:
        if not (isinstance(adapter, FindsInstallation) and adapter.find(app) is sessions):
            _installed_strong[id(app)] = (app, (sessions, adapter))
    notify_listeners(app, sessions)
    return sessions


def notify_listeners(app: Any, sessions: Sessions[Any]) -> None:
    """Call the listeners of ``on_install``; for adapters that can be installed without it."""
    for listener in _listeners:
        listener(app, sessions)


def get(app: Any) -> Sessions[Any]:
    """Return the installation of an application.

    Raises:
        ConfigurationError: there is none.
    """
    return _entry(app)[0]


def uninstall(app: Any) -> None:
    """Remove sessions from an application, also while it is being served.

    Running requests finish with their session; later requests have none (law A20). Records stay in
    the store until they expire. The store stays open for running requests; close it with
    ``Sessions.close``.

    Raises:
        ConfigurationError: nothing is installed.
    """
    sessions, adapter = _entry(app)
    if _installed_strong.pop(id(app), None) is None:
        with contextlib.suppress(TypeError):  # no weak reference: the adapter has found it
            _installed.pop(app, None)
    sessions.web.active = False
    adapter.uninstall(app, sessions)


def on_install(listener: Callable[[Any, Sessions[Any]], object]) -> None:
    """Call a function with the application and its ``Sessions`` after each later ``install``.

    Raises:
        ConfigurationError: the listener is not a function.
    """
    if not callable(listener):
        raise ConfigurationError(
            f"on_install expects a function of the application and its Sessions, found {listener!r}"
        )
    _listeners.append(listener)


def _entry(app: Any) -> tuple[Sessions[Any], Adapter]:
    entry = _find(app)
    if entry is None:
        raise ConfigurationError(
            f"nothing is installed on {app!r}; call sojourn.install(app) first"
        )
    return entry


def _find(app: Any) -> tuple[Sessions[Any], Adapter] | None:
    """Return the installation of an application; None if there is none."""
    if id(app) in _installed_strong:
        return _installed_strong[id(app)][1]
    with contextlib.suppress(TypeError):  # no weak reference, or no hash
        if app in _installed:
            return _installed[app]
    module = _find_module(app)
    if module is None:
        return None
    adapter = import_module(module)
    sessions = adapter.find(app) if isinstance(adapter, FindsInstallation) else None
    return None if sessions is None else (sessions, cast("Adapter", adapter))


def _find_module(app: Any) -> str | None:
    for base in type(app).__mro__:
        module = _ADAPTERS.get(f"{base.__module__}.{base.__qualname__}")
        if module is not None:
            return module
    return None


def _find_adapter(app: Any) -> Adapter:
    module = _find_module(app)
    if module is not None:
        return cast("Adapter", import_module(module))
    bases = {f"{base.__module__}.{base.__qualname__}" for base in type(app).__mro__}
    if "django.core.handlers.base.BaseHandler" in bases:
        raise ConfigurationError(_DJANGO)
    if hasattr(app, "wsgi_app"):
        line = "app.wsgi_app = sojourn.wsgi.SessionMiddleware(app.wsgi_app, sessions)"
    else:
        line = "app = sojourn.asgi.SessionMiddleware(app, sessions)   # or sojourn.wsgi for WSGI"
    raise ConfigurationError(
        f"sojourn.install does not support {app!r}. Create the sessions and wrap it:\n\n"
        f"    sessions = sojourn.Sessions()\n    {line}\n"
    )
