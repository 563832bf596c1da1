"""TransportSecurity: whether the transport of a request is encrypted, local or insecure."""

from __future__ import annotations

import re
from enum import Enum, auto
from functools import lru_cache
from typing import Final, Literal

from sojourn.errors import InsecureTransport

ENCRYPTED: Final = frozenset({"https", "wss"})
_MAX_HOST: Final = 262  # a host name of 255 and a port; longer ones are not cached

# RFC 6761 6.2 and 6.3: "test" and "localhost" with all names below them. The others are the hosts
# in the test clients of Starlette, Django, Litestar, Falcon and Sanic. "localhost.local" is
# "localhost" in the cookie jars of Python.
_THIS_MACHINE = re.compile(
    r"(?:(?:[a-z0-9_.-]+\.)?(?:localhost|test)\.?|testserver(?:\.local)?|localhost\.local"
    r"|falconframework\.org|mockserver|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]*)?",
    re.IGNORECASE,
)


class TransportSecurity(Enum):
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
SECURE: Final = TransportSecurity.SECURE
INSECURE: Final = TransportSecurity.INSECURE


def classify(scheme: str, host: str | None, *, secure: bool | Literal["auto"]) -> TransportSecurity:
    """Return how secure the transport of a request is.

    Args:
        scheme: http, https, ws or wss, in lower case.
        host: the Host header, with or without a port; None if absent.
        secure: the cookie option.
    """
    if scheme in ENCRYPTED:
        return TransportSecurity.SECURE
    if host is not None and len(host) <= _MAX_HOST and _is_this_machine(host):
        return TransportSecurity.LOCAL
    if secure == "auto":
        return TransportSecurity.INSECURE
    return TransportSecurity.SECURE if secure else TransportSecurity.PLAIN


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


@lru_cache(maxsize=256)
def _is_this_machine(host: str) -> bool:
    return _THIS_MACHINE.fullmatch(host) is not None
