"""Built-in responses to errors, as text, JSON or problem details (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import msgspec

from sojourn.errors import RecentAuthRequired, SessionRequired
from sojourn.web.cache_headers import RawHeaders

#: Raised by handlers as a part of the ordinary course. If a handler of the application answers
#: them, the status of the response decides whether the request has failed (law A10).
EXPECTED_ERRORS: Final = (SessionRequired, RecentAuthRequired)

_TEXT: Final = "text/plain"
_JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"

#: What each range of an Accept header matches; the first is the default.
_MATCHES: Final = {
    _TEXT: _TEXT,
    "text/*": _TEXT,
    "*/*": _TEXT,
    _JSON: _JSON,
    "application/*": _JSON,
    _PROBLEM: _PROBLEM,
}

#: The ranges of an Accept header that are read; browsers send fewer than ten.
_MAX_RANGES: Final = 32

_UNAVAILABLE_DETAIL: Final = "The session store is unavailable. Please try again in a moment."

#: Headers that say when to try again; seconds.
RETRY_HEADERS: Final = ((b"retry-after", b"2"), (b"cache-control", b"no-store"))

_UNAUTHORIZED_DETAIL: Final = "This page requires a session. Please log in."

#: A 401 response names a scheme (RFC 9110 15.5.2). Browsers do not ask for a password by this one.
_CHALLENGE_HEADERS: Final = ((b"www-authenticate", b"Session"), (b"cache-control", b"no-store"))

_NO_STORE: Final = ((b"cache-control", b"no-store"),)


def unavailable_response(accept: bytes | None) -> tuple[RawHeaders, bytes]:
    """Return headers and body of the 503 response to a request whose store failed (law A23).

    Args:
        accept: the Accept header; None if there is none.
    """
    return error_response(
        HTTPStatus.SERVICE_UNAVAILABLE, _UNAVAILABLE_DETAIL, accept, RETRY_HEADERS
    )


def unauthorized_response(accept: bytes | None) -> tuple[RawHeaders, bytes]:
    """Return headers and body of the 401 response to a visitor without the required session.

    Args:
        accept: the Accept header; None if there is none.
    """
    return error_response(HTTPStatus.UNAUTHORIZED, _UNAUTHORIZED_DETAIL, accept, _CHALLENGE_HEADERS)


def error_response(
    status: HTTPStatus,
    detail: str,
    accept: bytes | None,
    headers: tuple[tuple[bytes, bytes], ...] = _NO_STORE,
) -> tuple[RawHeaders, bytes]:
    """Return headers and body of an error response in the form that the client prefers.

    Args:
        status: 4xx or 5xx.
        detail: one or more sentences for the client.
        accept: the Accept header; None if there is none.
        headers: besides those that describe the body.
    """
    form = _preferred(accept)
    if form == _TEXT:
        content_type, body = "text/plain; charset=utf-8", f"{detail}\n".encode()
    elif form == _JSON:  # the form of FastAPI's own errors
        content_type, body = _JSON, msgspec.json.encode({"detail": detail})
    else:
        problem = {"type": "about:blank", "title": status.phrase, "status": status.value}
        content_type, body = _PROBLEM, msgspec.json.encode({**problem, "detail": detail})
    return [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        *headers,
    ], body


def _preferred(accept: bytes | None) -> str:
    """Return the media type with the greatest weight; the first of several (RFC 9110 12.5.1)."""
    best, greatest = _TEXT, 0.0
    for media_range in (accept or b"").decode("latin-1").lower().split(",", _MAX_RANGES):
        name, *parameters = (part.strip() for part in media_range.split(";"))
        form = _MATCHES.get(name)
        weight = _weight(parameters)
        if form is not None and weight > greatest:
            best, greatest = form, weight
    return best


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0
