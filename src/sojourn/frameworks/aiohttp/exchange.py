"""The session of one HTTP request of aiohttp."""

from __future__ import annotations

import warnings
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.payload import AsyncIterablePayload

from sojourn.session import Session
from sojourn.web.asgi_scope import client_labels
from sojourn.web.cache_headers import RawHeaders, replace_caching, select_caching
from sojourn.web.framework_exchange import (
    ErrorResponse,
    FrameworkExchange,
    RequestHeaders,
    read_request_headers,
)
from sojourn.web.installation import WebInstallation
from sojourn.web.ticket_protection import find_added, protect_ticket

#: The key of the session in the request, as handlers use it.
SESSION: Final = "session"

#: The key of the exchanges of a request, outermost first.
_EXCHANGES: Final = "sojourn.exchanges"


class AiohttpExchange(FrameworkExchange):
    """One HTTP request of aiohttp.

    Attributes:
        request: of aiohttp.
        entered: the inner layer serves the request.
    """

    __slots__ = ("entered", "request")

    def __init__(self, web_installation: WebInstallation, request: web.Request) -> None:
        super().__init__(web_installation)
        self.request: web.Request = request
        self.entered: bool = False

    def read_request(self) -> RequestHeaders:
        """Return what the session needs of the request."""
        return read_request(self.request)

    def labels(self) -> dict[str, str]:
        """Return the labels of the client."""
        request = self.request
        return client_labels(request.remote, request.headers.get(hdrs.USER_AGENT))

    def method(self) -> str:
        """Return the method of the request."""
        method: str = self.request.method
        return method

    def path(self) -> str:
        """Return the path of the request."""
        return self.request.path

    def header(self, name: str) -> str | None:
        """Return a header of the request; several of one name as one."""
        values = self.request.headers.getall(name, None)
        return None if values is None else ", ".join(values)

    def request_session(self) -> object:
        """Return ``request["session"]``."""
        return self.request.get(SESSION)

    def set_request_session(self, session: Session[Any]) -> None:
        """Set ``request["session"]``."""
        set_item(self.request, SESSION, session)

    async def prepare(self, response: web.StreamResponse) -> None:
        """Commit, and add the headers of the session; called before the first byte is sent."""
        headers = response.headers
        selected = select_caching(headers.items())
        status = response.status
        streamed = streams(response)
        sent = self.start_response(status, selected, complete=not streamed)
        if not isinstance(sent, list):
            sent = await sent
        replace_headers(response, selected, sent)
        if len(self.request.match_info.apps) > 1:
            added = find_added(self.web, sent)
            if added:
                _protect_ticket(self, added)
        if streamed:
            _commit_before_end(self, response)


def streams(response: web.StreamResponse) -> bool:
    """Return whether the body of a response may access the session after its first byte."""
    if isinstance(response, web.Response):
        return isinstance(response.body, AsyncIterablePayload)
    return not isinstance(response, web.FileResponse)


def _protect_ticket(exchange: AiohttpExchange, added: RawHeaders) -> None:
    """Let no cache store a ticket, whatever the signals of sub applications change (law A13).

    They are called after those of the application, and aiohttp has frozen them before.
    """
    web, writer = exchange.web, exchange.request.writer

    async def protect_and_write(status_line: str, headers: Any) -> None:
        selected = select_caching(headers.items())
        sent = protect_ticket(web, selected, added)
        if sorted(sent) != sorted(selected):
            replace_caching(
                selected, sent, remove=lambda name: headers.popall(name, None), add=headers.add
            )
        del vars(writer)["write_headers"]  # breaks a reference cycle
        await writer.write_headers(status_line, headers)

    writer.write_headers = protect_and_write  # type: ignore[method-assign] # aiohttp calls it as an attribute


def replace_headers(response: web.StreamResponse, selected: RawHeaders, sent: RawHeaders) -> None:
    """Replace the selected headers of a response by those that are sent."""
    headers = response.headers
    replace_caching(selected, sent, remove=lambda name: headers.popall(name, None), add=headers.add)


def _commit_before_end(exchange: AiohttpExchange, response: web.StreamResponse) -> None:
    """Commit what a stream changes before the client receives its end (law A11)."""
    if isinstance(response, web.Response):
        payload: Any = response.body
        write_body = payload.write

        async def write(writer: Any) -> None:
            await write_body(writer)
            await exchange.finish_stream()

        payload.write = write
        return
    write_eof = response.write_eof

    async def commit_and_write_eof(data: bytes = b"") -> None:
        await exchange.finish_stream()
        await write_eof(data)

    response.write_eof = commit_and_write_eof  # type: ignore[method-assign] # aiohttp calls it as an attribute


def read_request(request: web.BaseRequest) -> RequestHeaders:
    """Return what the session needs of a request."""
    headers = request.headers
    return read_request_headers(request.scheme, headers, headers.getall(hdrs.COOKIE, None))


def to_response(answer: ErrorResponse) -> web.Response:
    """Return a built-in response as one of aiohttp."""
    headers = dict(answer.headers)
    headers.pop("content-length", None)
    return web.Response(status=answer.status, headers=headers, body=answer.body)


_unwarned: bool = True


def set_item(request: web.BaseRequest, key: str, value: object) -> None:
    """Store a value in a request under a text.

    aiohttp warns once about the first use of a text, because an application should use
    ``web.RequestKey``. ``request["session"]`` is the place that applications use.
    """
    global _unwarned  # noqa: PLW0603 - one flag for the process, as in aiohttp
    if not _unwarned:
        request[key] = value
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in (SESSION, _EXCHANGES):
            if name not in request:
                request[name] = None
                del request[name]
        request[key] = value
    _unwarned = False


def exchanges_of(request: web.BaseRequest) -> list[Any]:
    """Return the exchanges and sockets of a request, outermost first."""
    found: list[Any] | None = request.get(_EXCHANGES)
    if found is None:
        found = []
        set_item(request, _EXCHANGES, found)
    return found
