"""HeaderTransport: the ticket in a request header or a WebSocket subprotocol, not in a cookie."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Final, Literal

from sojourn.errors import ConfigurationError

TransportName = Literal["cookie", "header"]

#: Returns a request header by its name in lower case; None if it is absent.
ReadHeader = Callable[[str], str | None]

AUTHORIZATION: Final = "Authorization"

#: The authentication scheme of ``Authorization`` (RFC 9110 11.4), as in the challenge of a 401.
_SCHEME: Final = "session"

#: The response header with a new ticket, if the request header is ``Authorization``: that one is
#: defined for requests only.
TICKET_HEADER: Final = b"Session-Ticket"

#: A client offers its ticket as a subprotocol: this prefix, then the ticket. Its characters are
#: those of tokens (RFC 9110 5.6.2), which RFC 6455 4.1 requires.
TICKET_PROTOCOL: Final = "sojourn-ticket."

#: What the server accepts if the application accepts no subprotocol of its own. A client that
#: offers subprotocols may require that one is accepted (WHATWG WebSockets, "establish a WebSocket
#: connection").
ACCEPTED_PROTOCOL: Final = "sojourn"

#: The request header with the subprotocols of a handshake, in lower case.
SUBPROTOCOLS: Final = "sec-websocket-protocol"

#: The number of subprotocols in which the ticket is looked for; clients offer a few.
_MAX_PROTOCOLS: Final = 64

_FIELD_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110 5.6.2

#: Headers that a page of another site can send without a preflight request (Fetch 2.2.2), and
#: headers with a meaning of their own in requests or responses.
_UNSUITABLE: Final = frozenset(
    (
        *("accept", "accept-language", "content-language", "content-type", "range"),
        *("cache-control", "connection", "content-length", "cookie", "cookie2", "date", "etag"),
        *("expires", "forwarded", "host", "keep-alive", "location", "origin", "referer"),
        *("set-cookie", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "vary"),
        *("via", "www-authenticate", "x-forwarded-for", "x-forwarded-proto"),
    )
)
_UNSUITABLE_PREFIXES: Final = ("sec-", "proxy-", "access-control-")


class HeaderTransport:
    """How requests and responses carry the ticket without a cookie.

    A request that carries the header, with any value, is answered with the response header. Every
    other request is answered with the cookie, if ``cookies`` allows it.

    Args:
        header: the request header, such as ``Authorization`` or ``X-Session``.
        cookies: requests may carry the cookie instead.

    Attributes:
        name: of the request header, in lower case.
        cookies: as given.
        response_header: the name of the response header with a new ticket.
        vary: the request headers on which responses depend, as in Vary.

    Raises:
        ConfigurationError: the header cannot carry a ticket.
    """

    __slots__ = ("_header", "_is_authorization", "cookies", "name", "response_header", "vary")

    def __init__(self, header: str, *, cookies: bool) -> None:
        self.name: str = _check_name(header)
        self._header = header
        self.cookies: bool = cookies
        self._is_authorization = self.name == AUTHORIZATION.lower()
        self.response_header: bytes = (
            TICKET_HEADER if self._is_authorization else header.encode()
        ).lower()
        self.vary: bytes = (b"Cookie, " if cookies else b"") + header.encode()

    def request_header(self, ticket: str) -> tuple[str, str]:
        """Return name and value of the header with which a client sends a ticket.

        Args:
            ticket: empty for a client that has none and requests one.
        """
        return self._header, f"Session {ticket}".strip() if self._is_authorization else ticket

    def find(self, read: ReadHeader) -> tuple[str, ...]:
        """Return the distinct values that a request carries, as ``CookieReader.find`` does.

        More than one is treated as none. An empty value requests a response with the header.

        Args:
            read: of the request.

        Returns:
            An empty tuple if the request carries neither the header nor a subprotocol.
        """
        found: dict[str, None] = {}
        value = read(self.name)
        if value is not None:
            if not self._is_authorization:
                found[value.strip()] = None
            else:
                scheme, _, credentials = value.strip().partition(" ")
                if scheme.lower() == _SCHEME:
                    found[credentials.strip()] = None
        offered = read(SUBPROTOCOLS)
        if offered is not None and TICKET_PROTOCOL in offered:
            for protocol in offered.split(",", _MAX_PROTOCOLS):
                name = protocol.strip()
                if name.startswith(TICKET_PROTOCOL):
                    found[name.removeprefix(TICKET_PROTOCOL)] = None
        if len(found) > 1:
            found.pop("", None)
        return tuple(found)


def application_protocols(offered: Collection[str]) -> list[str]:
    """Return the subprotocols of a handshake without those that carry a ticket.

    Args:
        offered: the subprotocols of the client, in its order.
    """
    return [
        name
        for name in offered
        if name != ACCEPTED_PROTOCOL and not name.startswith(TICKET_PROTOCOL)
    ]


def accepted_protocol(offered: Collection[str], chosen: str | None) -> str | None:
    """Return the subprotocol to accept a handshake with; never one that carries a ticket.

    Args:
        offered: the subprotocols of the client.
        chosen: by the application; None for none.
    """
    if chosen is not None and not chosen.startswith(TICKET_PROTOCOL):
        return chosen
    return ACCEPTED_PROTOCOL if ACCEPTED_PROTOCOL in offered else None


def header_transport(transports: Collection[str], header: str | None) -> HeaderTransport | None:
    """Return the header transport that the options configure; None for cookies only.

    Args:
        transports: "cookie", "header" or both.
        header: the request header; None for the default.

    Raises:
        ConfigurationError: the options contradict each other, or the header cannot be used.
    """
    if "header" not in transports:
        if header is not None:
            raise ConfigurationError(
                f'header={header!r} needs transport="header" or transport=["cookie", "header"]; '
                "without it, the ticket travels in a cookie"
            )
        return None
    name = AUTHORIZATION if header is None else header
    return HeaderTransport(name, cookies="cookie" in transports)


def _check_name(header: str) -> str:
    name = header.lower()
    if re.fullmatch(_FIELD_NAME, header) is None:
        raise ConfigurationError(
            f"a header name is one or more of letters, digits and !#$%&'*+-.^_`|~, found "
            f"{header!r}; choose a name such as 'X-Session'"
        )
    if name in _UNSUITABLE or name.startswith(_UNSUITABLE_PREFIXES):
        raise ConfigurationError(
            f"header={header!r} has a meaning of its own, or pages of other sites can send it; "
            "choose 'Authorization' or a name of your own such as 'X-Session'"
        )
    return name
