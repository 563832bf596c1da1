"""The session of one WebSocket of aiohttp."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import Any, Final

from aiohttp import WSMessage, WSMsgType, hdrs, web

from sojourn.frameworks.aiohttp.exchange import (
    SESSION,
    read_request,
    replace_headers,
    set_item,
)
from sojourn.session import Session
from sojourn.web.asgi_scope import GivenRequest, Message, Scope
from sojourn.web.cache_headers import select_caching
from sojourn.web.header_transport import application_protocols
from sojourn.web.installation import OnStoreFailure, WebInstallation
from sojourn.web.lifecycle import SessionLifecycle, decode_headers
from sojourn.web.websocket import WebSocketConnection

#: Messages after which the socket is closed.
_CLOSING_TYPES: Final = frozenset(
    {WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR}
)

#: Messages of the application's protocol; others are pings and pongs.
_DATA_TYPES: Final = frozenset({WSMsgType.TEXT, WSMsgType.BINARY})

#: The methods of ``WebSocketResponse`` that send a message.
_SEND_METHODS: Final = ("send_str", "send_bytes", "send_frame")


def _make_scope(request: web.Request) -> Scope:
    scheme, host, cookies, proxied = read_request(request)
    del host, cookies, proxied  # read from the headers below, as from those of ASGI
    protocols = request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, "")
    return {
        "type": "websocket",
        "scheme": "wss" if scheme == "https" else "ws",
        "path": request.path,
        "headers": [(name.lower(), value) for name, value in request.raw_headers],
        "client": (request.remote, 0) if request.remote else None,
        "subprotocols": [each.strip() for each in protocols.split(",") if each.strip()],
        "extensions": {"websocket.http.response": {}},
    }


def redact_tickets(record: logging.LogRecord) -> bool:
    """Remove tickets from what aiohttp logs about unknown subprotocols; a filter.

    Returns:
        False if the client offered nothing else, so that there is nothing to log.
    """
    if not isinstance(record.args, tuple):
        return True
    shown = [application_protocols(a) if isinstance(a, list) else a for a in record.args]
    record.args = tuple(shown)
    return [] not in shown


class AiohttpSocket(WebSocketConnection):
    """One WebSocket of aiohttp.

    ``WebSocketConnection`` exchanges messages of ASGI. A handler of aiohttp calls the methods of
    its ``WebSocketResponse``, which this class replaces when the handshake is answered.

    Attributes:
        request: of aiohttp.
        displaced_by: the exchange of a nested installation; see ``FrameworkExchange``.
    """

    __slots__ = (
        "_connect_sent",
        "_preparing",
        "_raised",
        "_response",
        "_timeout",
        "_ws",
        "_ws_close",
        "_ws_receive",
        "displaced_by",
        "request",
        "scope",
    )

    def __init__(self, web_installation: WebInstallation, request: web.Request) -> None:
        self.scope: Scope = _make_scope(request)
        super().__init__(web_installation, self.scope, self._receive_native, self._send_native)
        self.request: web.Request = request
        self.displaced_by: SessionLifecycle | None = None
        self._response: web.StreamResponse | None = None
        self._raised: web.HTTPException | None = None
        self._ws: web.WebSocketResponse | None = None
        self._ws_receive: Callable[[float | None], Awaitable[WSMessage]] | None = None
        self._ws_close: Callable[..., Awaitable[bool]] | None = None
        self._preparing = False
        self._connect_sent = False
        self._timeout: float | None = None

    async def run(
        self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]], *, autoload: bool
    ) -> web.StreamResponse:
        """Run a handler, and return its response or that of the session.

        Raises:
            HTTPException: raised by the handler before the handshake was answered.
        """

        async def app(scope: object, receive: object, send: object) -> None:
            del scope, receive, send
            await self._run_handler(handler)

        await self.serve(app, autoload=autoload, framework=GivenRequest(self.request))
        if self._raised is not None:
            raise self._raised
        # A response without values is false in aiohttp before 3.14.
        response = self._ws if self._response is None else self._response
        if response is None:
            raise RuntimeError("the handler of a WebSocket returned no response")
        return response

    async def _run_handler(
        self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> None:
        await self.receive()  # "websocket.connect"
        if self.session is not None:
            set_item(self.request, SESSION, self.session)
        try:
            response = await handler(self.request)
        except web.HTTPException as raised:
            if self._ws is None:
                self._raised = raised
            response = raised
        self._response = response if self._ws is None else self._ws
        if self._ws is None:
            self._pass_replacement()
            headers = select_caching(response.headers.items())
            await self.send(
                {
                    "type": "websocket.http.response.start",
                    "status": response.status,
                    "headers": headers,
                    "selected": headers,
                    "response": response,
                }
            )

    # The session

    async def load(self, on_store_failure: OnStoreFailure | None = None) -> Session[Any]:
        """Load the session of this socket, once, for the handler."""
        self._pass_replacement()
        session = await super().load(on_store_failure)
        set_item(self.request, SESSION, session)
        return session

    def set_request_session(self, session: Session[Any]) -> None:
        """Set ``request["session"]``."""
        set_item(self.request, SESSION, session)

    def _pass_replacement(self) -> None:
        """Pass what is in place of the session to ``WebSocketConnection`` (law A24)."""
        if self.session is not None and self.displaced_by is None:
            self.scope["session"] = self.request.get(SESSION)
            self.set_request_session(self.session)

    # The handshake

    async def prepare(self, response: web.StreamResponse) -> None:
        """Commit before the handshake is answered, and add the cookie to the answer."""
        if not isinstance(response, web.WebSocketResponse) or self._ws is not None:
            return
        self._attach(response)
        self._preparing = True
        try:
            self._pass_replacement()
            chosen = response.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL)
            await self.send({"type": "websocket.accept", "subprotocol": chosen})
        finally:
            self._preparing = False

    def _attach(self, ws: web.WebSocketResponse) -> None:
        """Replace the methods of a socket by those that commit first."""
        self._ws = ws
        self._ws_receive = ws.receive
        self._ws_close = ws.close
        methods: dict[str, Any] = {"receive": self._receive_message_of, "close": self._close_socket}
        for name in _SEND_METHODS:
            methods[name] = functools.partial(self._send_message, getattr(ws, name))
        for name, method in methods.items():
            setattr(ws, name, method)

    # Called by the handler

    async def _receive_message_of(self, timeout: float | None = None) -> WSMessage:
        self._timeout = timeout
        self._pass_replacement()
        message = await self.receive()
        native: WSMessage | None = message.get("native")
        return WSMessage(WSMsgType.CLOSED, None, None) if native is None else native

    async def _send_message(
        self, sender: Callable[..., Awaitable[None]], *args: Any, **options: Any
    ) -> None:
        self._pass_replacement()
        await self.send(
            {"type": "websocket.send", "call": functools.partial(sender, *args, **options)}
        )

    async def _close_socket(
        self, *, code: int = 1000, message: bytes = b"", drain: bool = True
    ) -> bool:
        ws = self._ws
        if ws is None or ws.closed or self._ws_close is None:
            return False
        self._pass_replacement()
        close = functools.partial(self._ws_close, code=code, message=message, drain=drain)
        await self.send({"type": "websocket.close", "call": close})
        return True

    # Called by `WebSocketConnection`, with messages of ASGI

    async def _receive_native(self) -> Message:
        if not self._connect_sent:
            self._connect_sent = True
            return {"type": "websocket.connect"}
        assert self._ws_receive is not None  # noqa: S101 - the handshake was answered
        native = await self._ws_receive(self._timeout)
        if native.type in _CLOSING_TYPES:
            return {"type": "websocket.disconnect", "native": native}
        kind = "websocket.receive" if native.type in _DATA_TYPES else "websocket.control"
        return {"type": kind, "native": native}

    async def _send_native(self, message: Message) -> None:
        match message["type"]:
            case "websocket.send":
                await message["call"]()
            case "websocket.accept":
                await self._accept_native(message)
            case "websocket.close":
                await self._close_native(message)
            case "websocket.http.response.start":
                self._deny(message)
            case _:
                if message.get("body"):
                    response = self._response
                    assert isinstance(response, web.Response)  # noqa: S101 - set by `_deny`
                    response.body = message["body"]

    async def _accept_native(self, message: Message) -> None:
        ws, chosen = self._ws, message.get("subprotocol")
        if ws is None:  # the handler did not answer the handshake, and the session ends it
            ws = web.WebSocketResponse(protocols=[] if chosen is None else [chosen])
            self._ws = ws
            self._ws_receive, self._ws_close = ws.receive, ws.close
        elif chosen is None:
            ws.headers.popall(hdrs.SEC_WEBSOCKET_PROTOCOL, None)
        else:
            ws.headers[hdrs.SEC_WEBSOCKET_PROTOCOL] = chosen
        for name, value in decode_headers(message.get("headers", [])):
            ws.headers.add(name, value)
        if not self._preparing:
            await ws.prepare(self.request)

    async def _close_native(self, message: Message) -> None:
        if "call" in message:
            await message["call"]()
            return
        ws, close = self._ws, self._ws_close
        if ws is None or close is None:
            text = "The handshake was refused because it comes from a page of another origin.\n"
            self._response = web.Response(status=403, text=text)
            return
        reason = message.get("reason") or ""
        await close(code=message["code"], message=reason.encode())

    def _deny(self, message: Message) -> None:
        """Answer the handshake with an HTTP response."""
        response: web.StreamResponse | None = message.get("response")
        if response is not None:
            replace_headers(response, message["selected"], message["headers"])
            return
        headers = [(n, v) for n, v in decode_headers(message["headers"]) if n != "content-length"]
        self._response = web.Response(status=message["status"], headers=headers)

    async def send_answer(self, response: Any) -> None:
        """Return a response of ``on_error`` from ``run``, with the headers of the session."""
        selected = select_caching(response.headers.items())
        sent = self.error_headers(selected)
        assert not isinstance(sent, CoroutineType)  # noqa: S101 - nothing is committed here
        replace_headers(response, selected, sent)
        self._response = response
