"""Cross-origin protection: checks the pages that send unsafe requests and open WebSockets.

Requests with safe methods pass, so their handlers must not change anything (ASVS 3.5.3).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import Enum
from http import HTTPStatus
from typing import Final

from sojourn.errors import ConfigurationError
from sojourn.web.cache_headers import RawHeaders
from sojourn.web.error_response import error_response
from sojourn.web.transport_security import ENCRYPTED

_REFUSAL_HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"vary", b"Sec-Fetch-Site, Origin, Cookie"),
)

_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_ORIGIN: Final = re.compile(
    r"([a-z][a-z0-9+.-]*)://((?:[a-z0-9_-]+\.)*[a-z0-9_-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?"
)

#: RFC 9110 9.2.1. Methods are case-sensitive: "get" is not safe.
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class Refusal(Enum):
    """The reason why a request is refused; the value is shown to the client."""

    CROSS_SITE = "it was sent by a page of another site"
    SAME_SITE = "it was sent by a page of another origin of this site, which is not allowed here"
    ORIGIN = "it was sent by a page of another origin"
    UNKNOWN = "it does not say which page sent it (neither Sec-Fetch-Site nor Origin)"

    @property
    def remedy(self) -> str:
        """What the operator can do if the page belongs to the application; a sentence."""
        return _REMEDIES[self]


_ADD_ORIGIN: Final = "If that page is yours, add its origin to allowed_origins."
_REMEDIES: Final = {
    Refusal.CROSS_SITE: (
        "allowed_origins allows other origins of the same site only: serve the page from a "
        "subdomain of the same domain."
    ),
    Refusal.SAME_SITE: _ADD_ORIGIN,
    Refusal.ORIGIN: _ADD_ORIGIN,
    Refusal.UNKNOWN: (
        "A program must send an Origin header with the origin of this application, or one of "
        "allowed_origins."
    ),
}


def check_protect(*, protect: bool, allowed_origins: Collection[str]) -> bool:
    """Return a valid option ``protect``.

    Raises:
        ConfigurationError: ``allowed_origins`` accepts every origin.
    """
    if protect and "*" in allowed_origins:
        raise ConfigurationError(
            "protect=True refuses requests of other origins and allowed_origins='*' accepts them "
            "all; list the origins that you trust, or remove protect"
        )
    return protect


def check_request(
    method: str,
    scheme: str,
    *,
    site: str | None,
    origin: str | None,
    host: str | None,
    allowed: Collection[str],
    local: bool,
    ticket: bool,
) -> Refusal | None:
    """Return why a request must be refused; None if it may pass (ASVS 3.5.1, 3.5.3).

    Args:
        method: as sent.
        scheme: http or https.
        site: the Sec-Fetch-Site header; None if absent. Pages can set neither it nor Origin.
        origin: the Origin header; None if absent.
        host: the Host header; None if absent.
        allowed: further origins, from ``validate_origins``.
        local: the transport is LOCAL.
        ticket: the request has a valid ticket.
    """
    if method in SAFE_METHODS:
        return None
    if site in ("same-origin", "none"):  # "none": by the visitor, such as a reload
        return None
    if site == "cross-site":
        # Also from an allowed origin (security.md A.6): with same_site="none" browsers send the
        # cookie from every site, and there is no other protection.
        return Refusal.CROSS_SITE
    if site == "same-site":
        # Another subdomain may be hijacked or belong to a customer (B-27).
        trusted = origin is not None and origin.lower() in allowed
        return None if trusted else Refusal.SAME_SITE
    # Absent, as over unencrypted http and from browsers before 2023; or a future value, which
    # servers must ignore (W3C Fetch Metadata). Then Origin decides: browsers send it with every
    # unsafe request. "null", sent by sandboxes and after some redirects, equals no origin.
    if origin is not None:
        same = origin_allowed(origin, scheme, host=host, allowed=allowed, local=local)
        return None if same else Refusal.ORIGIN
    # Not a current browser. A program may pass without a ticket: there is no session to abuse.
    # With a ticket it may be a browser whose headers a proxy removed, so this is stricter than Go's
    # CrossOriginProtection; a program can send an Origin. On the same machine it need not: test
    # clients send none.
    return None if local or not ticket else Refusal.UNKNOWN


def refusal_response(refusal: Refusal, accept: bytes | None = None) -> tuple[RawHeaders, bytes]:
    """Return headers and body of the 403 response to a refused request.

    Accepted requests need no Vary: caches answer only safe methods, which are not checked (RFC 9110
    9.3.3, security.md A.6).

    Args:
        refusal: the reason.
        accept: the Accept header; None if there is none.
    """
    detail = f"This request was refused because {refusal.value}. {refusal.remedy}"
    return error_response(HTTPStatus.FORBIDDEN, detail, accept, _REFUSAL_HEADERS)


def origin_allowed(
    origin: str | None, scheme: str, *, host: str | None, allowed: Collection[str], local: bool
) -> bool:
    """Return whether the origin of a WebSocket handshake is allowed (ASVS 4.4.2, B-43).

    Browsers send cookies with handshakes from any site, without a preflight request. This check is
    the only protection against cross-site WebSocket hijacking.

    The application's own origin has the requested host and a matching scheme: https for wss; http
    or https for ws, because browsers let an https page open ws only to a proxy that terminates TLS.

    Args:
        origin: the Origin header; None if absent, as from most clients that are not browsers.
        scheme: ws or wss, or their http equivalents, in lower case.
        host: the Host header.
        allowed: further origins, from ``validate_origins``; ``"*"`` allows all.
        local: the transport is LOCAL, where tools and test clients need not send an Origin.
    """
    if "*" in allowed:
        return True
    if origin is None:
        return local
    origin = origin.lower()
    if origin in allowed:
        return True
    if not host:
        return False
    page_schemes = ("https",) if scheme in ENCRYPTED else ("http", "https")
    return any(origin == _serialise(page, host.lower()) for page in page_schemes)


def validate_origins(origins: Collection[str]) -> frozenset[str]:
    """Return the origins as browsers serialise them: lower case, no default port.

    Raises:
        ConfigurationError: an entry could not equal any Origin header.
    """
    return frozenset(map(_origin, [origins] if isinstance(origins, str) else origins))


def _origin(text: str) -> str:
    if text == "*":
        return text
    found = _ORIGIN.fullmatch(text.lower())
    if found is None:
        raise ConfigurationError(
            f"allowed_origins holds origins such as 'https://example.com' or "
            f"'http://localhost:3000', with a scheme and without path or trailing slash, or '*'; "
            f"found {text!r}"
        )
    scheme, host, port = found.groups(default="")
    if scheme in ("ws", "wss"):
        raise ConfigurationError(
            f"allowed_origins holds the origins of pages, found {text!r}; write "
            f"'{scheme.replace('ws', 'http')}://{host}{port}'"
        )
    return _serialise(scheme, host + port)


def _serialise(scheme: str, host: str) -> str:
    """Serialise an origin as browsers do (RFC 6454 6.2): without a default port."""
    return f"{scheme}://{host.removesuffix(_DEFAULT_PORTS.get(scheme, ':'))}"
