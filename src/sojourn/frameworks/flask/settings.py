"""Reads the options in ``app.config`` of Flask and Quart."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from sojourn._crypto.secret_key import check_secrets
from sojourn.config import options_from_mapping
from sojourn.errors import ConfigurationError
from sojourn.frameworks.flask.session import FLASHES

if TYPE_CHECKING:
    from sojourn.config import Options

#: The default of SESSION_COOKIE_NAME, in whose place comes the safer default of ``cookie``.
_DEFAULT_COOKIE: Final = "session"

#: Options that PERMANENT_SESSION_LIFETIME would contradict.
_TIME_OPTIONS: Final = frozenset({"remember_timeout", "remember_absolute_timeout", "preset"})

logger: logging.Logger = logging.getLogger("sojourn")


class HasConfig(Protocol):
    """An application of Flask or Quart."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration."""
        ...


def read_settings(app: HasConfig, given: Options) -> Options:
    """Return the given options and those in ``app.config``.

    Keywords precede ``SOJOURN_<OPTION>``, which precedes the settings of the framework.

    Args:
        app: its configuration is complete.
        given: options that precede the settings.

    Raises:
        ConfigurationError: a setting is invalid, or has no counterpart.
    """
    config = app.config
    named = cast("dict[str, Any]", options_from_mapping(config))
    if "state" in named:
        raise ConfigurationError(
            "SOJOURN_STATE is no setting: pass the class, sojourn.install(app, state=...)"
        )
    own: dict[str, Any] = {**named, **given}
    options = {**_cookie_options(config), **own}
    if _TIME_OPTIONS.isdisjoint(own) and config.get("PERMANENT_SESSION_LIFETIME") is not None:
        options["remember_timeout"] = config["PERMANENT_SESSION_LIFETIME"]
    merge = own.get("merge", {})
    if isinstance(merge, Mapping):  # requests at the same time may flash: each message is kept
        options["merge"] = {FLASHES: "append", **merge}
    if "secret" not in own and "SOJOURN_SECRET" not in os.environ:
        secrets = _secrets(config)
        if secrets:
            options["secret"] = secrets
    if "store" not in own and "SOJOURN_STORE" not in os.environ:
        _check_store(config)
    return cast("Options", options)


def _cookie_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that SESSION_COOKIE_* stand for."""
    found: dict[str, Any] = {}
    name = config.get("SESSION_COOKIE_NAME", _DEFAULT_COOKIE)
    if name != _DEFAULT_COOKIE:
        found["cookie"] = name
    if config.get("SESSION_COOKIE_DOMAIN"):
        found["domain"] = config["SESSION_COOKIE_DOMAIN"]
    path = config.get("SESSION_COOKIE_PATH") or config.get("APPLICATION_ROOT") or "/"
    if path != "/":
        found["path"] = path
    if config.get("SESSION_COOKIE_SECURE"):
        found["secure"] = True
    if config.get("SESSION_COOKIE_SAMESITE") is not None:
        found["same_site"] = config["SESSION_COOKIE_SAMESITE"]
    if config.get("SESSION_COOKIE_PARTITIONED"):
        found["partitioned"] = True
    if not config.get("SESSION_COOKIE_HTTPONLY", True):
        raise ConfigurationError(
            "SESSION_COOKIE_HTTPONLY expects True, found False: the cookie is always HttpOnly. "
            "Remove the setting"
        )
    return found


def _secrets(config: Mapping[str, Any]) -> list[str | bytes]:
    """Return SECRET_KEY and SECRET_KEY_FALLBACKS, newest first; none if SECRET_KEY is guessable.

    Raises:
        ConfigurationError: one is not text or bytes, or the fallbacks are not a list.
    """
    key = config.get("SECRET_KEY")
    fallbacks = config.get("SECRET_KEY_FALLBACKS") or ()
    if key and not isinstance(key, str | bytes):
        raise ConfigurationError(
            f"SECRET_KEY expects text or bytes, found {type(key).__name__}; "
            "secrets.token_urlsafe(32) makes one"
        )
    if isinstance(fallbacks, str | bytes):
        raise ConfigurationError(
            "SECRET_KEY_FALLBACKS expects a list of earlier secrets, found one; write it in a list"
        )
    secrets: list[str | bytes] = []
    for secret in [key, *fallbacks] if key else []:
        try:
            check_secrets(secret, source="SECRET_KEY")
        except ConfigurationError as error:
            if not secrets:
                logger.warning(
                    "SECRET_KEY does not seal sessions, because it can be guessed (%s). A store on "
                    "this machine uses a generated secret; a shared one needs secret=",
                    error,
                )
                return []
        else:
            secrets.append(secret)
    return secrets


def _check_store(config: Mapping[str, Any]) -> None:
    """Refuse a store that the settings of another library name."""
    kind = config.get("SESSION_TYPE")
    if kind:
        raise ConfigurationError(
            f"SESSION_TYPE={kind!r} is a setting of another library. Name the store here, as "
            "SOJOURN_STORE = 'redis://localhost:6379/0' or sojourn.install(app, store=...), and "
            "remove SESSION_TYPE"
        )
