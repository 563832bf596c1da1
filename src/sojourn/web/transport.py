"""Transport of a request (encrypted, local, insecure), and the Origin check of WebSockets."""

from __future__ import annotations

import re
from enum import Enum, auto
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

from sojourn.errors import ConfigurationError, InsecureTransport

if TYPE_CHECKING:
    from collections.abc import Collection

ENCRYPTED: Final = frozenset({"https", "wss"})
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_MAX_HOST: Final = 262  # a host name of 255 and a port; longer ones are not cached

# RFC 6761 6.2 and 6.3: "test" and "localhost" with all names below them. The others are the hosts
# in the test clients of Starlette, Django, Litestar, Falcon and Sanic. "localhost.local" is
# "localhost" in the cookie jars of Python.
_THIS_MACHINE = re.compile(
    r"(?:(?:[a-z0-9_.-]+\.)?(?:localhost|test)\.?|testserver(?:\.local)?|localhost\.local"
    r"|falconframework\.org|mockserver|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]*)?",
    re.IGNORECASE,
)
_ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]*)://((?:[a-z0-9_-]+\.)*[a-z0-9_-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?"
)


class Transport(Enum):
    """Whether others can read the traffic of a request."""

    SECURE = auto()
    """https or wss, or ``secure=True``: a proxy terminates TLS."""
    LOCAL = auto()
    """http or ws to the same machine: nothing is sent over a network."""
    PLAIN = auto()
    """http or ws to another machine, allowed with ``secure=False``."""
    INSECURE = auto()
    """http or ws to another machine, not allowed: no session is read or sent."""


#: Aliases: to look a member up in its class costs a thousand instructions.
SECURE: Final = Transport.SECURE
INSECURE: Final = Transport.INSECURE


def classify(scheme: str, host: str | None, *, secure: bool | Literal["auto"]) -> Transport:
    """Return the transport of a request.

    Args:
        scheme: http, https, ws or wss, in lower case.
        host: the Host header, with or without a port; None if absent.
        secure: the cookie option.
    """
    if scheme in ENCRYPTED:
        return Transport.SECURE
    if host is not None and len(host) <= _MAX_HOST and _is_this_machine(host):
        return Transport.LOCAL
    if secure == "auto":
        return Transport.INSECURE
    return Transport.SECURE if secure else Transport.PLAIN


def refusal(host: str | None) -> InsecureTransport:
    """Return the exception for an insecure request, with the possible remedies."""
    return InsecureTransport(
        f"expected https, or http to this machine, found http to {(host or 'no host')[:80]!r}, "
        "where the session could be read and hijacked in transit. Serve https. If a proxy in front "
        "of the application does, have it forward the scheme and have the server trust it "
        "(uvicorn: --proxy-headers --forwarded-allow-ips=<address of the proxy>), or pass "
        "secure=True. During development, open http://localhost. To accept the risk, pass "
        "secure=False."
    )


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


@lru_cache(maxsize=256)
def _is_this_machine(host: str) -> bool:
    return _THIS_MACHINE.fullmatch(host) is not None
