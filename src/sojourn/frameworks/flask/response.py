"""Headers of responses of Flask and Quart, which both are based on Werkzeug."""

from __future__ import annotations

from typing import Final, Protocol

from werkzeug.datastructures import Headers

from sojourn.web.cache_headers import RawHeaders
from sojourn.web.error_response import RETRY_HEADERS

#: The headers of the application that those of a session are combined with.
_TARGETED: Final = ("-cache-control", "surrogate-control")
_CACHING: Final = ("vary", "cache-control")

_SERVER_ERROR: Final = 500
_UNAVAILABLE: Final = 503


class HasHeaders(Protocol):
    """A response of Flask or Quart."""

    status_code: int
    headers: Headers


class HasBody(Protocol):
    """A response of Flask."""

    @property
    def is_sequence(self) -> bool:
        """Whether the body is a list or a tuple."""
        ...

    @property
    def direct_passthrough(self) -> bool:
        """Whether the body goes to the server as it is, such as a file."""
        ...


def is_complete(response: HasBody) -> bool:
    """Return whether the whole body is known, so that the view cannot use the session later."""
    return response.is_sequence or bool(response.direct_passthrough)


def caching_headers(response: HasHeaders) -> RawHeaders:
    """Return the headers that decide on caching, the only ones that a session changes."""
    return [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in response.headers
        if _is_caching(name)
    ]


def replace_caching_headers(response: HasHeaders, sent: RawHeaders) -> None:
    """Put the headers of a session on a response, in the place of those for caching."""
    headers = response.headers
    for name in [name for name, _ in headers if _is_caching(name)]:
        headers.remove(name)
    for raw_name, raw_value in sent:
        headers.add(raw_name.decode("latin-1").title(), raw_value.decode("latin-1"))


def add_retry_headers(response: HasHeaders) -> None:
    """Make an error response of the application one that says when to try again.

    Its 500 becomes 503; a Retry-After of the application is kept.
    """
    if response.status_code == _SERVER_ERROR:
        response.status_code = _UNAVAILABLE
    own = response.headers.get("Retry-After")
    for name, value in RETRY_HEADERS:
        response.headers[name.decode().title()] = value.decode()
    if own is not None:
        response.headers["Retry-After"] = own


def _is_caching(name: str) -> bool:
    lowered = name.lower()
    return lowered in _CACHING or lowered.endswith(_TARGETED)
