"""Cross-origin requests: which requests that change something come from our own pages.

What lives here: the judgement over ``Sec-Fetch-Site`` and ``Origin`` as a pure function, and the
answer to who is refused. What must not: reading requests (the adapters do) and tokens in forms
(``_crypto/csrf.py``). WebSocket handshakes are judged by ``origin_allowed`` alone (``transport.py``).

Safe methods pass, so a handler of theirs must change nothing (ASVS 3.5.3).
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from typing import Final

from sojourn.errors import ConfigurationError
from sojourn.web.cache_headers import RawHeaders
from sojourn.web.transport import origin_allowed

#: RFC 9110 9.2.1. Methods are case-sensitive: "get" is another one, and not safe.
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class Refusal(Enum):
    """Why a request is refused; the value is what its sender may read."""

    CROSS_SITE = "it was sent by a page of another site"
    SAME_SITE = "it was sent by a page of another origin of this site, which is not allowed here"
    ORIGIN = "it was sent by a page of another origin"
    UNKNOWN = "it does not say which page sent it (neither Sec-Fetch-Site nor Origin)"


def validate(*, protect: bool, allowed_origins: Collection[str]) -> bool:
    """Return the option ``protect``.

    Raises:
        ConfigurationError: ``allowed_origins`` lets everybody pass, so it would protect nothing.
    """
    if protect and "*" in allowed_origins:
        raise ConfigurationError(
            "protect=True refuses requests of other origins and allowed_origins='*' accepts them "
            "all; list the origins that you trust, or leave protect out"
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
    """Tell why a request must be refused, None if it may pass (ASVS 3.5.1, 3.5.3).

    Args:
        method: as sent.
        scheme: http or https.
        site: the Sec-Fetch-Site header, None if absent. Pages cannot set it, nor Origin.
        origin: the Origin header, None if absent.
        host: the Host header, None if absent.
        allowed: further origins, from ``validate_origins``.
        local: the transport is LOCAL.
        ticket: the request brings a ticket of ours.
    """
    if method in SAFE_METHODS:
        return None
    if site in ("same-origin", "none"):  # "none": the visitor's own doing, such as a reload
        return None
    if site == "cross-site":
        # Also from an allowed origin (security.md A.6): with same_site="none" our cookie comes
        # along from every site, and nothing else stands in the way.
        return Refusal.CROSS_SITE
    if site == "same-site":
        # A sibling that is taken over, or lent to a customer, is not our page (B-27).
        trusted = origin is not None and origin.lower() in allowed
        return None if trusted else Refusal.SAME_SITE
    # Absent, as over http to elsewhere and from browsers before 2023; or a value of the future,
    # which servers are to ignore (W3C Fetch Metadata). Then Origin decides: browsers send it with
    # every unsafe request. "null", of sandboxes and some redirects, equals no origin.
    if origin is not None:
        same = origin_allowed(origin, scheme, host=host, allowed=allowed, local=local)
        return None if same else Refusal.ORIGIN
    # No browser of this decade. Programs pass unless they bring a ticket: without one there is
    # nothing that a forger could use. With one it may be a browser whose headers a proxy took away,
    # so here we are stricter than Go's CrossOriginProtection; a program can send an Origin. On this
    # machine it need not: test clients send none.
    return None if local or not ticket else Refusal.UNKNOWN


def refusal_response(refusal: Refusal) -> tuple[RawHeaders, bytes]:
    """Return headers and body of the 403 for a refused request.

    A request that passes needs no Vary of ours: only safe ones are answered from a cache, and those
    are not judged (RFC 9110 9.3.3, security.md A.6).
    """
    body = f"This request was refused because {refusal.value}.\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"vary", b"Sec-Fetch-Site, Origin, Cookie"),
    ]
    return headers, body
