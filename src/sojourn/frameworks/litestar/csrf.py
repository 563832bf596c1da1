"""CSRF tokens of the session: a guard for handlers, and the callable for templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.enums import RequestEncodingType
from litestar.exceptions import PermissionDeniedException
from litestar.handlers import BaseRouteHandler

from sojourn.frameworks.litestar.dependency import load
from sojourn.web.asgi_scope import CONNECTION
from sojourn.web.origin import SAFE_METHODS

#: The names that Litestar's own CSRF protection uses.
_HEADER: Final = "x-csrftoken"
_FIELD: Final = "_csrf_token"

_FORMS: Final = frozenset({RequestEncodingType.URL_ENCODED, RequestEncodingType.MULTI_PART})


async def require_csrf(
    connection: ASGIConnection[Any, Any, Any, Any],
    route_handler: BaseRouteHandler,  # noqa: ARG001 - a guard gets it
) -> None:
    """Require the CSRF token of the session with each request that changes something; a guard.

    The token is ``session.csrf_token``, in the header ``x-csrftoken`` or the form field
    ``_csrf_token``. A request that carries the ticket in a header, and no cookie, needs none.

    Raises:
        PermissionDeniedException: the token is absent or wrong.
    """
    if not isinstance(connection, Request) or connection.method in SAFE_METHODS:
        return
    token = connection.headers.get(_HEADER)
    if token is None and connection.content_type[0] in _FORMS:
        token = (await connection.form()).get(_FIELD)
    session = await load(connection.scope)
    scope: Any = connection.scope
    if not scope[CONNECTION].has_header_only() and not session.check_csrf(token):
        raise PermissionDeniedException(
            f"the CSRF token is missing or wrong; send session.csrf_token as {_HEADER} or {_FIELD}"
        )


def session_csrf_token(context: Mapping[str, Any]) -> str:
    """Return a CSRF token of the session of the request that a template is rendered for."""
    token: str = context["request"].session.csrf_token
    return token
