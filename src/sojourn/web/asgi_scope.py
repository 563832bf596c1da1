"""Reads an ASGI scope: headers, path and labels."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Protocol

from sojourn.errors import ConfigurationError, SojournError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class Framework(Protocol):
    """What errors need of a framework."""

    def make_request(self, scope: Scope, receive: Receive) -> Any:
        """Return the framework's request; for a WebSocket, the framework's base class of both."""
        ...

    async def call_handler(self, request: Any, error: SojournError) -> ASGIApp | None:
        """Call the application's handler for an error; return its response, None without one."""
        ...


class GivenRequest:
    """A ``Framework`` for one connection, whose request is given; no handler answers its errors."""

    __slots__ = ("_request",)

    def __init__(self, request: object) -> None:
        self._request = request

    def make_request(self, scope: Scope, receive: Receive) -> Any:
        """Return the given request."""
        del scope, receive
        return self._request

    async def call_handler(self, request: Any, error: SojournError) -> None:
        """Return None."""
        del request, error


#: The scope key of the ``HTTPExchange`` or ``WebSocketConnection``, for decorators, dependencies
#: and nested middleware.
CONNECTION: Final = "sojourn.connection"

#: Headers that only proxies add.
PROXY_HEADERS: Final = ("forwarded", "via", "x-forwarded-for", "x-forwarded-proto")

#: The headers that are read; every other header costs one set look-up.
WANTED_HEADERS: Final = frozenset(
    {b"cookie", b"host", b"origin", *(name.encode() for name in PROXY_HEADERS)}
)

#: The length to which labels of the client are cut, in characters. A proxy that is trusted
#: unconditionally passes on any text as the address.
MAX_LABEL_LENGTH: Final = 200


def read_headers(scope: Scope) -> tuple[bytes | None, bytes | None, bytes | None, bool]:
    """Read the headers that the lifecycle needs, in one pass.

    Returns:
        The Host header, all Cookie headers as one, the Origin header (None where absent), and
        whether a proxy passed the request on.
    """
    host = cookies = origin = parts = None
    proxied = False
    for name, value in scope["headers"]:
        if name in WANTED_HEADERS:
            if name == b"host":
                host = value
            elif name == b"cookie":
                if cookies is None:
                    cookies = value
                elif parts is None:
                    parts = [cookies, value]
                else:
                    parts.append(value)
            elif name == b"origin":
                origin = value
            else:
                proxied = True
    if parts is not None:  # joined once: there may be a hundred thousand (A19, B-57)
        cookies = b"; ".join(parts)
    return host, cookies, origin, proxied


#: Where Starlette's ``SessionMiddleware`` and the class of its sessions are.
_STARLETTE_SESSIONS: Final = "starlette.middleware.sessions"


def check_outer_session(scope: Scope) -> None:
    """Refuse a session that another middleware outside has put into the scope.

    Raises:
        ConfigurationError: there is one.
    """
    found = scope.get("session")
    if type(found) is dict or type(found).__module__ == _STARLETTE_SESSIONS:
        raise ConfigurationError(
            f"scope['session'] of the request to {scope['path']!r} is set already, to an object of "
            f"{type(found).__module__}.{type(found).__qualname__}: another session middleware is "
            "outside of sojourn's, such as Starlette's SessionMiddleware around the application or "
            "on an application that this one is mounted in. Remove it, or install sojourn there"
        )


def check_replacement(scope: Scope, replacement: object) -> None:
    """Refuse a session of Starlette's in place of the request's own.

    Raises:
        ConfigurationError: a ``SessionMiddleware`` of Starlette's is inside.
    """
    if type(replacement).__module__ == _STARLETTE_SESSIONS:
        raise ConfigurationError(
            f"Starlette's SessionMiddleware serves {scope['path']!r} inside of sojourn's, and "
            "replaced request.session there. Remove it from the mounted application or the route: "
            "it has the session of the outer application. If it shall keep its own cookie, leave "
            "the path to it with exclude=[...]"
        )


def read_header(scope: Scope, name: str) -> str | None:
    """Return a header, several of one name as one; None if absent.

    Args:
        scope: of the request.
        name: in lower case.
    """
    wanted = name.encode("latin-1")
    values = [value for each, value in scope["headers"] if each == wanted]
    return b", ".join(values).decode("latin-1") if values else None


def read_site(scope: Scope) -> bytes | None:
    """Return the Sec-Fetch-Site header; None if absent."""
    return next((value for name, value in scope["headers"] if name == b"sec-fetch-site"), None)


def read_accept(scope: Scope) -> bytes | None:
    """Return the Accept headers as one; None if absent."""
    values = [value for name, value in scope["headers"] if name == b"accept"]
    return b", ".join(values) if values else None


def read_path(scope: Scope) -> str:
    """Return the path without ``root_path``, as the routes of the application are written.

    Servers prepend ``root_path`` to the path. If a proxy removed the prefix, the path is unchanged:
    "/apikeys" is not below "/api".
    """
    path: str = scope["path"]
    own = path.removeprefix(scope.get("root_path", "")) or "/"
    return own if own[0] == "/" else path


def read_labels(scope: Scope) -> dict[str, str]:
    """Return the labels of a scope: address and browser of the client."""
    client = scope.get("client")
    browser = next((value for name, value in scope["headers"] if name == b"user-agent"), b"")
    return client_labels(client[0] if client else None, browser.decode("latin-1"))


def client_labels(address: str | None, browser: str | None) -> dict[str, str]:
    """Return the labels for an address and a User-Agent; unknown ones are omitted.

    aiohttp and Sanic decode bytes that are not UTF-8 to surrogates, which no record can hold.
    """
    labels = {}
    if address:
        labels["address"] = address[:MAX_LABEL_LENGTH]
    if browser:
        browser = browser[:MAX_LABEL_LENGTH]
        labels["browser"] = (
            browser if browser.isascii() else browser.encode(errors="replace").decode()
        )
    return labels
