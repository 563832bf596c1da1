"""Refuses requests with unsafe methods that a page of another origin may have sent."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from sojourn.admin.errors import PageError
from sojourn.admin.request import AdminRequest
from sojourn.web.asgi_scope import PROXY_HEADERS
from sojourn.web.installation import WebInstallation
from sojourn.web.origin import SAFE_METHODS, check_request
from sojourn.web.transport_security import TransportSecurity

#: The field of a form.
FIELD: Final = "csrf_token"

#: The header of a request without a form.
HEADER: Final = "x-csrf-token"


def check_csrf(request: AdminRequest, web: WebInstallation) -> None:
    """Check where a request with an unsafe method comes from, and its CSRF token (ASVS 3.5.1).

    Args:
        request: with its session and its form.
        web: of the installation, for its ``allowed_origins``.

    Raises:
        PageError: it is refused; nothing may be changed.
    """
    if request.method in SAFE_METHODS:
        return
    headers = request.headers
    host = headers.get("host")
    proxied = any(name in headers for name in PROXY_HEADERS)
    transport = web.classify(
        request.scheme, None if host is None else host.encode("latin-1", "replace"), proxied
    )
    refusal = check_request(
        request.method,
        request.scheme,
        site=headers.get("sec-fetch-site"),
        origin=headers.get("origin"),
        host=host,
        allowed=web.config.allowed_origins,
        local=transport is TransportSecurity.LOCAL,
        ticket=True,  # unlike a handler of the application, each of these acts for its visitor
    )
    if refusal is not None:
        raise PageError(
            HTTPStatus.FORBIDDEN,
            "This request was refused",
            f"Nothing was changed, because {refusal.value}. {refusal.remedy}",
        )
    if not request.visitor.check_csrf(request.form.get(FIELD) or headers.get(HEADER)):
        raise PageError(
            HTTPStatus.FORBIDDEN,
            "This form has expired",
            "Nothing was changed. The form was opened before your last login, or another page sent "
            "it. Go back, reload the page and send it again.",
        )
