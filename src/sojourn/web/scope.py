"""Reading an ASGI scope: what http and websocket have in common.

What lives here: the protocol's types and pure functions from a scope. What must not: messages
(``asgi.py``, ``live/socket.py``) and decisions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, NamedTuple

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Where the ``Exchange`` or ``Socket`` of a connection is found, for decorators and dependencies.
EXCHANGE: Final = "sojourn.exchange"

#: Headers that only a proxy adds.
_PROXY: Final = frozenset({b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-proto"})

#: How much of a User-Agent header is worth keeping as a label.
LABEL_LENGTH: Final = 200


class Found(NamedTuple):
    """What the gate needs of a request's headers.

    Attributes:
        host: the Host header.
        cookies: all Cookie headers as one.
        origin: the Origin header.
        proxied: a proxy passed the request on.
    """

    host: str | None
    cookies: bytes | None
    origin: str | None
    proxied: bool


def read_headers(scope: Scope) -> Found:
    """Pick from a scope's headers, in one pass, what the gate needs."""
    host = cookies = origin = None
    proxied = False
    for name, value in scope["headers"]:
        if name == b"cookie":
            cookies = value if cookies is None else cookies + b"; " + value
        elif name == b"host":
            host = value.decode("latin-1")
        elif name == b"origin":
            origin = value.decode("latin-1")
        elif name in _PROXY:
            proxied = True
    return Found(host, cookies, origin, proxied)


def read_labels(scope: Scope) -> dict[str, str]:
    """Return the labels that a scope brings: the client's address and browser."""
    client = scope.get("client")
    browser = next((value for name, value in scope["headers"] if name == b"user-agent"), b"")
    return describe(client[0] if client else None, browser.decode("latin-1"))


def describe(address: str | None, browser: str | None) -> dict[str, str]:
    """Return the labels for an address and a User-Agent; what is unknown is left out."""
    labels = {}
    if address:
        labels["address"] = address
    if browser:
        labels["browser"] = browser[:LABEL_LENGTH]
    return labels
