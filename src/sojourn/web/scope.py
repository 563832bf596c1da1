"""Reading an ASGI scope: what http and websocket have in common.

What lives here: the protocol's types and pure functions from a scope. What must not: messages
(``asgi.py``, ``live/socket.py``) and decisions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Where the ``Exchange`` or ``Socket`` of a connection is found, for decorators and dependencies.
EXCHANGE: Final = "sojourn.exchange"

#: Answers from here on mean that the request failed (law A10).
SERVER_ERROR: Final = 500

#: Headers that only a proxy adds.
_PROXY: Final = frozenset({b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-proto"})

#: All that are looked at; the others of a request cost one look-up each.
_WANTED: Final = frozenset({b"cookie", b"host", b"origin"}) | _PROXY

#: How much of a User-Agent header is worth keeping as a label.
LABEL_LENGTH: Final = 200


def read_headers(scope: Scope) -> tuple[bytes | None, bytes | None, bytes | None, bool]:
    """Pick from a scope's headers, in one pass, what the gate needs.

    Returns:
        The Host header, all Cookie headers as one, the Origin header (None where absent), and
        whether a proxy passed the request on.
    """
    host = cookies = origin = None
    proxied = False
    for name, value in scope["headers"]:
        if name in _WANTED:
            if name == b"host":
                host = value
            elif name == b"cookie":
                cookies = value if cookies is None else cookies + b"; " + value
            elif name == b"origin":
                origin = value
            else:
                proxied = True
    return host, cookies, origin, proxied


def read_site(scope: Scope) -> bytes | None:
    """Return the Sec-Fetch-Site header, None where absent."""
    return next((value for name, value in scope["headers"] if name == b"sec-fetch-site"), None)


def read_path(scope: Scope) -> str:
    """Return the path as the application's own routes are written: without ``root_path``.

    Servers put the prefix under which a proxy or a mount serves the application into both; where
    the proxy took it off, "/apikeys" is no path below "/api".
    """
    path: str = scope["path"]
    own = path.removeprefix(scope.get("root_path", "")) or "/"
    return own if own[0] == "/" else path


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
