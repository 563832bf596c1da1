"""The session of one HTTP request of Sanic: load it, commit it, and add the headers."""

from __future__ import annotations

import sys
from typing import Any, Final

from sanic.request import Request
from sanic.response import BaseHTTPResponse, HTTPResponse

from sojourn.session import Session
from sojourn.web.asgi_scope import client_labels
from sojourn.web.cache_headers import replace_caching, select_caching
from sojourn.web.framework_exchange import (
    ErrorResponse,
    FrameworkExchange,
    RequestHeaders,
    read_request_headers,
)
from sojourn.web.installation import WebInstallation
from sojourn.web.lifecycle import SessionLifecycle
from sojourn.web.transport_security import ENCRYPTED

#: The place of the exchange in ``request.ctx``.
_EXCHANGE: Final = "sojourn_exchange"


class SanicExchange(FrameworkExchange):
    """One HTTP request of Sanic.

    Attributes:
        request: of Sanic.
        running: the handler of the request has not returned yet.
    """

    __slots__ = ("request", "running")

    def __init__(self, web: WebInstallation, request: Any) -> None:
        super().__init__(web)
        self.request: Any = request
        self.running: bool = False

    def read_request(self) -> RequestHeaders:
        """Return what the session needs of the request."""
        return read_request(self.request)

    def labels(self) -> dict[str, str]:
        """Return the labels of the client."""
        request = self.request
        return client_labels(request.remote_addr or request.ip, request.headers.get("user-agent"))

    def method(self) -> str:
        """Return the method of the request."""
        method: str = self.request.method
        return method

    def path(self) -> str:
        """Return the path of the request."""
        path: str = self.request.path
        return path

    def header(self, name: str) -> str | None:
        """Return a header of the request; several of one name as one."""
        values = self.request.headers.getall(name, None)
        return None if values is None else ", ".join(values)

    def request_session(self) -> object:
        """Return ``request.ctx.session``."""
        return getattr(self.request.ctx, "session", None)

    def set_request_session(self, session: Session[Any]) -> None:
        """Set ``request.ctx.session``."""
        self.request.ctx.session = session


def read_request(request: Any) -> RequestHeaders:
    """Return what the session needs of a request."""
    headers = request.headers
    scheme = request.scheme
    if request.app.asgi and scheme not in ENCRYPTED:
        # `request.scheme` is not the scheme that an ASGI server reports.
        scheme = request.transport.scope.get("scheme", scheme)
    return read_request_headers(scheme, headers, headers.getall("cookie", None))


def to_response(answer: ErrorResponse) -> HTTPResponse:
    """Return a built-in response as one of Sanic."""
    headers = dict(answer.headers)
    content_type = headers.pop("content-type")
    headers.pop("content-length", None)
    return HTTPResponse(answer.body, answer.status, headers, content_type)


def find(request: Any) -> Any:
    """Return the exchange or socket of a request; None if there is none."""
    return getattr(request.ctx, _EXCHANGE, None)


def attach(request: Any, lifecycle: SessionLifecycle) -> None:
    """Let ``find`` return the exchange or socket of a request."""
    setattr(request.ctx, _EXCHANGE, lifecycle)


class StreamedResponse(HTTPResponse):
    """The response of ``request.respond()``: commits before its end is sent (law A11)."""

    __slots__ = ("exchange",)

    exchange: SanicExchange

    async def send(
        self,
        data: Any = None,
        end_stream: bool | None = None,  # noqa: FBT001 - as in Sanic
    ) -> None:
        """Send a part of the body."""
        if end_stream or (data is None and end_stream is None):
            await self.exchange.finish_stream()
        try:
            await super().send(data, end_stream)
        except OSError:  # how ASGI servers report a disconnected client
            self.exchange.client_disconnected = True
            raise


class SessionRequest(Request):
    """Commits the session before the first byte of a response, and adds its headers.

    Every response passes ``respond``: returned by a handler or a middleware, of an exception
    handler, streamed. Sanic logs and drops an exception of an ``on_response`` middleware, so that a
    middleware cannot report that a commit has failed.
    """

    __slots__ = ()

    async def respond(
        self,
        response: Any = None,
        *,
        status: int = 200,
        headers: Any = None,
        content_type: str | None = None,
    ) -> Any:
        """Commit, run the response middleware, and add the headers; see ``Request.respond``."""
        exchange = find(self)
        if not isinstance(exchange, SanicExchange) or exchange.response_started:
            return await super().respond(
                response, status=status, headers=headers, content_type=content_type
            )
        streamed = response is None
        if response is None:
            response = StreamedResponse(status=status, headers=headers, content_type=content_type)
            response.exchange = exchange
        if not isinstance(response, BaseHTTPResponse):  # it calls `respond` again when it is sent
            return await super().respond(response)
        exchange.failure = exchange.failure or sys.exc_info()[1]
        waiting = exchange.commit_response(response.status)
        if waiting is not None:
            await waiting
        final = await super().respond(response)
        if isinstance(final, BaseHTTPResponse):
            await add_headers(exchange, final, complete=not streamed)
        return final


async def add_headers(
    exchange: SanicExchange, response: BaseHTTPResponse, *, complete: bool
) -> None:
    """Commit what is left, and add the headers of the session to a response.

    Args:
        exchange: of the request.
        response: before its first byte is sent.
        complete: the body cannot access the session any more.
    """
    headers: Any = response.headers
    selected = select_caching(headers.items())
    sent = exchange.start_response(response.status, selected, complete=complete)
    if not isinstance(sent, list):
        sent = await sent
    replace_caching(selected, sent, remove=lambda name: headers.popall(name, None), add=headers.add)
    response.status = exchange.final_status(response.status)
    if not exchange.running:
        exchange.end()
