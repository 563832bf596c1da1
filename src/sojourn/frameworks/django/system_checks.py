"""System checks: settings that are invalid, weaker than sojourn's, or without effect."""
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as CheckWarning
from django.utils.module_loading import import_string

from sojourn.errors import ConfigurationError
from sojourn.frameworks.django.middleware import SessionMiddleware
from sojourn.frameworks.django.settings import ENGINE, get_sessions
from sojourn.web.installation import WebInstallation

_DJANGO_MIDDLEWARE: Final = "django.contrib.sessions.middleware.SessionMiddleware"
_SOJOURN_MIDDLEWARE: Final = "sojourn.frameworks.django.SessionMiddleware"

#: An extension of django-allauth.
_ALLAUTH_USERSESSIONS: Final = "allauth.usersessions"

#: The serializer of Django's default settings.
_JSON: Final = "django.contrib.sessions.serializers.JSONSerializer"


def check_settings(**_: Any) -> list[CheckMessage]:
    """Return what is wrong with the settings of sessions."""
    has_middleware = _has_middleware()
    if not has_middleware and settings.SESSION_ENGINE != ENGINE:
        return []
    found: list[CheckMessage] = []
    try:
        web = get_sessions().web
    except ConfigurationError as error:
        found.append(Error(str(error), hint="Correct the settings.", id="sojourn.E001"))
    else:
        if not has_middleware:
            found += _check_session_middleware(web)
    if has_middleware and _DJANGO_MIDDLEWARE in settings.MIDDLEWARE:
        found.append(
            Error(
                "MIDDLEWARE has two session middlewares; the second one replaces request.session.",
                hint=f"Remove {_DJANGO_MIDDLEWARE!r}.",
                id="sojourn.E002",
            )
        )
    if has_middleware and settings.SESSION_ENGINE != ENGINE:
        found.append(
            CheckWarning(
                f"SESSION_ENGINE is {settings.SESSION_ENGINE!r}: Django's test client and "
                "`manage.py clearsessions` use other sessions than request.session.",
                hint=f'Set SESSION_ENGINE = "{ENGINE}".',
                id="sojourn.W001",
            )
        )
    if not settings.SESSION_COOKIE_HTTPONLY:
        effect = "has no effect" if has_middleware else "lets scripts of a page read the ticket"
        found.append(
            CheckWarning(
                f"SESSION_COOKIE_HTTPONLY = False {effect}.",
                hint="Remove it: the cookie is HttpOnly by default.",
                id="sojourn.W002",
            )
        )
    if settings.SESSION_COOKIE_SAMESITE is False:
        found.append(
            CheckWarning(
                "SESSION_COOKIE_SAMESITE = False "
                + (
                    "has no effect: the cookie is SameSite=Lax."
                    if has_middleware
                    else "weakens the cookie."
                ),
                hint='Remove it, or set "Lax", "Strict" or "None".',
                id="sojourn.W003",
            )
        )
    if settings.SESSION_SERIALIZER != _JSON:
        found.append(
            CheckWarning(
                f"SESSION_SERIALIZER = {settings.SESSION_SERIALIZER!r} has no effect: sojourn "
                "stores msgpack, and never pickle.",
                hint="Remove it. Dates, decimals, UUIDs, sets and bytes are stored as they are.",
                id="sojourn.W004",
            )
        )
    return found


def _check_session_middleware(web: WebInstallation) -> Iterator[CheckMessage]:
    """Yield what does not work with Django's own session middleware."""
    hint = f"Put {_SOJOURN_MIDDLEWARE!r} into MIDDLEWARE instead of {_DJANGO_MIDDLEWARE!r}."
    if web.header_transport is not None or web.legacy is not None:
        yield Error(
            "SOJOURN has transport or read_legacy, and Django's own session middleware reads "
            "nothing but its cookie.",
            hint=hint,
            id="sojourn.E003",
        )
    if apps.is_installed(_ALLAUTH_USERSESSIONS):
        yield CheckWarning(
            f"{_ALLAUTH_USERSESSIONS} stores session keys in a column of 40 characters. With "
            "Django's own session middleware the key is the ticket: it is longer, and it grants "
            "access to the session.",
            hint=hint,
            id="sojourn.W007",
        )


def check_deployment(**_: Any) -> list[CheckMessage]:
    """Return what is weak in production (``manage.py check --deploy``)."""
    found: list[CheckMessage] = []
    has_middleware = _has_middleware()
    if (
        not has_middleware
        and settings.SESSION_ENGINE == ENGINE
        and not settings.SESSION_COOKIE_SECURE
    ):
        found.append(
            CheckWarning(
                "SESSION_COOKIE_SECURE = False: browsers send the ticket over http, too.",
                hint="Set SESSION_COOKIE_SECURE = True, or use sojourn's own middleware, which "
                "makes the cookie Secure over https.",
                id="sojourn.W005",
            )
        )
    name: str = settings.SESSION_COOKIE_NAME
    if (
        (has_middleware or settings.SESSION_ENGINE == ENGINE)
        and not name.lower().startswith(("__host-", "__secure-"))
        and settings.SESSION_COOKIE_SECURE
    ):
        found.append(
            CheckWarning(
                f"Other hosts of the domain can set a cookie named {name!r} (cookie tossing).",
                hint='Set SESSION_COOKIE_NAME = "__Host-sessionid", or "__Secure-sessionid" with '
                "SESSION_COOKIE_DOMAIN. Visitors log in once more after this change.",
                id="sojourn.W006",
            )
        )
    return found


def _has_middleware() -> bool:
    """Return whether MIDDLEWARE has sojourn's middleware, or a subclass of it."""
    for path in settings.MIDDLEWARE:
        if path == _SOJOURN_MIDDLEWARE:
            return True
        middleware = import_string(path)
        if isinstance(middleware, type) and issubclass(middleware, SessionMiddleware):
            return True
    return False
