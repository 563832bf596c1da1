"""The installation of a Django project: its settings as options, and ``get_sessions``."""
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final, cast

from django.conf import settings
from django.core.signals import setting_changed

from sojourn.config import Options
from sojourn.errors import ConfigurationError
from sojourn.frameworks.django.expiry import RecordLimits
from sojourn.frameworks.django.views import route
from sojourn.sessions import Sessions

#: The setting with the options of sojourn, a dict.
OPTIONS_SETTING: Final = "SOJOURN"

#: The value of SESSION_ENGINE.
ENGINE: Final = "sojourn.frameworks.django"

#: Django's settings that an installation depends on.
SETTINGS: Final = (
    OPTIONS_SETTING,
    "SECRET_KEY",
    "SECRET_KEY_FALLBACKS",
    "SESSION_COOKIE_AGE",
    "SESSION_COOKIE_DOMAIN",
    "SESSION_COOKIE_NAME",
    "SESSION_COOKIE_PATH",
    "SESSION_COOKIE_SAMESITE",
    "SESSION_COOKIE_SECURE",
    "SESSION_EXPIRE_AT_BROWSER_CLOSE",
    "SESSION_SAVE_EVERY_REQUEST",
)

#: Options that Django has a setting for, which its test client and its middleware read, too.
_SETTING_OF_OPTION: Final = {
    "cookie": "SESSION_COOKIE_NAME",
    "path": "SESSION_COOKIE_PATH",
    "domain": "SESSION_COOKIE_DOMAIN",
    "same_site": "SESSION_COOKIE_SAMESITE",
    "persistent": "SESSION_EXPIRE_AT_BROWSER_CLOSE",
}

_LIFETIME_OPTIONS: Final = ("timeout", "idle_timeout", "absolute_timeout", "preset")


class _Installation:
    """The installation of this process, and the stores that were opened for it."""

    def __init__(self) -> None:
        self.lock: threading.RLock = threading.RLock()
        self.sessions: Sessions[Any] | None = None
        self.stores: dict[tuple[object, ...], Any] = {}

    def reset(self) -> None:
        """Build the installation again when it is requested next."""
        self.sessions = None


_installation: Final = _Installation()


def get_sessions() -> Sessions[Any]:
    """Return the installation of this project; build it from the settings at the first call.

    Raises:
        ConfigurationError: a setting is invalid, or contradicts another.
    """
    sessions = _installation.sessions
    if sessions is not None:
        return sessions
    with _installation.lock:
        if _installation.sessions is None:
            _installation.sessions = _build()
        return _installation.sessions


def is_installed() -> bool:
    """Return whether this project has sojourn's session engine or middleware."""
    return settings.SESSION_ENGINE == ENGINE or _installation.sessions is not None


def _build() -> Sessions[Any]:
    options = read_options()
    store = options.get("store")
    key = (store, options.get("realm"), str(options.get("store_timeout")))
    by_url = store is None or isinstance(store, str)
    if by_url and key in _installation.stores:
        # A changed setting, as in a test, must not lose the sessions of a store in memory.
        options["store"] = _installation.stores[key]
    sessions: Sessions[Any] = Sessions(**cast("Options", options))
    if by_url:
        _installation.stores[key] = sessions.store
    idle, absolute = _stated_limits()
    sessions.engine.writer.limit_record = RecordLimits(
        sessions.engine.policy, idle_bounded=idle, absolute_bounded=absolute
    )
    sessions.route_decorator = route
    return sessions


def _stated_limits() -> tuple[bool, bool]:
    """Return which limits SOJOURN states, the idle and the absolute one: ``set_expiry`` obeys."""
    given = _read_setting()
    preset = given.get("preset") is not None
    idle = preset or "timeout" in given or "idle_timeout" in given
    return idle, preset or given.get("absolute_timeout") is not None


def _read_setting() -> dict[str, Any]:
    """Return the setting SOJOURN.

    Raises:
        ConfigurationError: it is no dict, or has an option that Django has a setting for.
    """
    given: object = getattr(settings, OPTIONS_SETTING, {})
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f"{OPTIONS_SETTING} in Django's settings expects a dict of options such as "
            f'{{"store": "redis://cache:6379/0"}}, found {type(given).__qualname__}'
        )
    for option, setting in _SETTING_OF_OPTION.items():
        if option in given:
            raise ConfigurationError(
                f"{OPTIONS_SETTING} has the option {option!r}; Django's own setting {setting} "
                f"decides that, and its test client reads it, too. Set {setting} instead"
            )
    return dict(given)


def read_options() -> dict[str, Any]:
    """Return the options in Django's settings.

    Raises:
        ConfigurationError: SOJOURN is no dict, or has an option that Django has a setting for.
    """
    given = _read_setting()
    options: dict[str, Any] = {
        "cookie": settings.SESSION_COOKIE_NAME,
        "path": settings.SESSION_COOKIE_PATH,
        "domain": settings.SESSION_COOKIE_DOMAIN,
        "same_site": settings.SESSION_COOKIE_SAMESITE or "lax",
        "persistent": not settings.SESSION_EXPIRE_AT_BROWSER_CLOSE,
    }
    if settings.SESSION_COOKIE_SECURE:
        options["secure"] = True
    if not any(name in given for name in _LIFETIME_OPTIONS):
        options["timeout"] = settings.SESSION_COOKIE_AGE
        if settings.SESSION_SAVE_EVERY_REQUEST:
            options["absolute_timeout"] = None  # each request extends the session, without end
    if given.get("secret") is None and settings.SECRET_KEY:
        options["secret"] = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return {**options, **given}


def _setting_changed(*, setting: str, **_: object) -> None:
    if setting in SETTINGS:
        _installation.reset()


setting_changed.connect(_setting_changed, dispatch_uid="sojourn.settings")
