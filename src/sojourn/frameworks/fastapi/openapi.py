"""The session's security schemes in an application's OpenAPI document."""

from __future__ import annotations

import functools
from typing import Any, Final

from fastapi import FastAPI

from sojourn.frameworks.fastapi.dependencies import SCHEME_NAME
from sojourn.sessions import Sessions
from sojourn.web.header_transport import AUTHORIZATION
from sojourn.web.installation import WebInstallation
from sojourn.web.transport_security import SECURE, TransportSecurity

COOKIE_SCHEME: Final = "SessionCookie"
HEADER_SCHEME: Final = "SessionHeader"

#: An operation with a session can also be used without one.
_OPTIONAL: Final[dict[str, list[str]]] = {}


def describe(app: FastAPI, sessions: Sessions[Any]) -> None:
    """Let ``app.openapi()`` name the cookie and the header of the installation.

    The operations that depend on ``SessionDep`` or have ``@sessions.route`` refer to them.
    """
    generate = app.openapi
    schemes = _schemes(sessions.web)

    @functools.wraps(generate)
    def generate_with_session() -> dict[str, Any]:
        document = generate()
        _replace_scheme(document, schemes)
        return document

    app.openapi = generate_with_session  # type: ignore[method-assign] # FastAPI documents it
    app.openapi_schema = None


def describe_drop_in(app: object, sessions: Sessions[Any]) -> None:
    """Do what ``describe`` does for the installation of a ``SessionMiddleware`` class."""
    if isinstance(app, FastAPI) and not hasattr(vars(app).get("openapi"), "__wrapped__"):
        describe(app, sessions)


def restore(app: FastAPI) -> None:
    """Remove what ``describe`` has added."""
    own = vars(app).get("openapi")
    generate = getattr(own, "__wrapped__", None)
    if generate is not None:
        app.openapi = generate  # type: ignore[method-assign] # as in `describe`
        app.openapi_schema = None


def _schemes(web: WebInstallation) -> dict[str, dict[str, Any]]:
    schemes: dict[str, dict[str, Any]] = {}
    headers = web.header_transport
    if headers is None or headers.cookies:
        encrypted, local = (
            web.cookie_variant(each).cookie.name for each in (SECURE, TransportSecurity.LOCAL)
        )
        schemes[COOKIE_SCHEME] = {"type": "apiKey", "in": "cookie", "name": encrypted}
        if local != encrypted:
            schemes[COOKIE_SCHEME]["description"] = f"On http to this machine: {local}"
    if headers is not None:
        name, _ = headers.request_header("")
        schemes[HEADER_SCHEME] = (
            {"type": "http", "scheme": "Session"}
            if name.lower() == AUTHORIZATION.lower()
            else {"type": "apiKey", "in": "header", "name": name}
        )
    return schemes


def _replace_scheme(document: dict[str, Any], schemes: dict[str, dict[str, Any]]) -> None:
    """Replace the scheme of ``SessionDependency``, once for each document."""
    known = document.get("components", {}).get("securitySchemes", {})
    if known.pop(SCHEME_NAME, None) is None:
        return
    known.update(schemes)
    for path in document.get("paths", {}).values():
        for operation in path.values():
            if isinstance(operation, dict) and "security" in operation:
                operation["security"] = _alternatives(operation["security"], list(schemes))


def _alternatives(security: list[dict[str, list[str]]], schemes: list[str]) -> list[Any]:
    """Return the requirements of an operation with the schemes in place of the general one."""
    if {SCHEME_NAME: []} not in security:
        return security
    others = [each for each in security if SCHEME_NAME not in each]
    return [*others, *({name: []} for name in schemes), *([] if others else [_OPTIONAL])]
