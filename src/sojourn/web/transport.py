"""How a request reached us, and whether a WebSocket handshake comes from our own page.

What lives here: telling https, http to this machine and http to elsewhere apart, and comparing a
handshake's Origin with the host it asked for. What must not: reading requests or headers; the
adapters hand over scheme, host and origin as text. Read next: ``cookies.py``, which has one cookie
for each of the two transports that are let through.
"""

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
_MAX_HOST: Final = 262  # a host name of 255 and a port; longer ones are not worth remembering

# RFC 6761 6.2 and 6.3: "test" and "localhost" with all names below them. "testserver" is what the
# test clients of the frameworks call the application.
_THIS_MACHINE = re.compile(
    r"(?:(?:[a-z0-9_.-]+\.)?(?:localhost|test)\.?|testserver|127(?:\.[0-9]{1,3}){3}|\[::1\])"
    r"(?::[0-9]*)?",
    re.IGNORECASE,
)
_ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]*)://((?:[a-z0-9_-]+\.)*[a-z0-9_-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?"
)


class Transport(Enum):
    """How far what we send can be read by others."""

    SECURE = auto()
    """https or wss, or ``secure=True`` says that TLS ends before us."""
    LOCAL = auto()
    """http or ws to this machine: it leaves no network interface."""
    PLAIN = auto()
    """http or ws to elsewhere, accepted by the developer with ``secure=False``."""
    INSECURE = auto()
    """http or ws to elsewhere, which nobody accepted: refuse to read or send a session."""


#: Members by names of their own: to look one up in the class costs a thousand instructions.
SECURE: Final = Transport.SECURE
INSECURE: Final = Transport.INSECURE


def classify(scheme: str, host: str | None, *, secure: bool | Literal["auto"]) -> Transport:
    """Tell how a request reached us.

    Args:
        scheme: http, https, ws or wss, in lower case.
        host: the Host header, with or without a port; None if the request had none.
        secure: the cookie setting of that name.
    """
    if scheme in ENCRYPTED:
        return Transport.SECURE
    if host is not None and len(host) <= _MAX_HOST and _is_this_machine(host):
        return Transport.LOCAL
    if secure == "auto":
        return Transport.INSECURE
    return Transport.SECURE if secure else Transport.PLAIN


def refusal(host: str | None) -> InsecureTransport:
    """Return the error for a request that ``classify`` found INSECURE, with the remedies."""
    return InsecureTransport(
        f"expected https, or http to this machine, found http to {(host or 'no host')[:80]!r}, "
        "where everybody on the way could read and take over the session. Serve https. If a proxy "
        "in front of the application already does, have it forward the scheme and have the server "
        "believe it (uvicorn: --proxy-headers --forwarded-allow-ips=<address of the proxy>), or "
        "pass secure=True if that cannot be. While developing, open http://localhost. To accept "
        "the danger, pass secure=False."
    )


def origin_allowed(
    origin: str | None, scheme: str, *, host: str | None, allowed: Collection[str], local: bool
) -> bool:
    """Tell whether a WebSocket handshake comes from where it may (ASVS 4.4.2, B-43).

    Browsers send cookies along with handshakes from any site and ask no permission for them, so
    nothing but this comparison keeps a foreign page from talking as our visitor.

    Our own page is the one with the host that was asked for and a matching scheme: https for wss;
    http or https for ws, because no browser lets an https page open ws elsewhere than behind a
    proxy that took the encryption off.

    Args:
        origin: the Origin header; None if absent, as from most programs that are not browsers.
        scheme: ws or wss, or their http equivalents, in lower case.
        host: the Host header.
        allowed: further origins, from ``validate_origins``. ``"*"`` switches the check off.
        local: the transport is LOCAL; tools and test clients then need not send an Origin.
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
    """Return the origins as browsers spell them: lower case, no default port.

    Raises:
        ConfigurationError: an entry could never equal an Origin header.
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
    """Spell an origin as browsers do (RFC 6454 6.2): the port only if it is not the default."""
    return f"{scheme}://{host.removesuffix(_DEFAULT_PORTS.get(scheme, ':'))}"


@lru_cache(maxsize=256)
def _is_this_machine(host: str) -> bool:
    return _THIS_MACHINE.fullmatch(host) is not None
