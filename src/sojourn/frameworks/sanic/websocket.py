"""The session of one WebSocket of Sanic."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from sanic.response import HTTPResponse
from websockets.exceptions import ConnectionClosed

from sojourn.frameworks.sanic.exchange import read_request
from sojourn.session import Session
from sojourn.web.asgi_scope import Message, Scope
from sojourn.web.header_transport import ACCEPTED_PROTOCOL, SUBPROTOCOLS, accepted_protocol
from sojourn.web.installation import OnStoreFailure, WebInstallation
from sojourn.web.lifecycle import decode_headers
from sojourn.web.websocket import WebSocketConnection
from sojourn.web.websocket_close import SocketEnded


def _make_scope(request: Any) -> Scope:
    headers = request.headers
    address = request.remote_addr or request.ip
    return {
        "type": "websocket",
        "scheme": "wss" if read_request(request).scheme in ("https", "wss") else "ws",
        "path": request.path,
        "headers": [
            (name.lower().encode(), value.encode("utf-8", "surrogateescape"))
            for name, value in headers.items()
        ],
        "client": (address, 0) if address else None,
        "subprotocols": _read_protocols(request),
    }


def _read_protocols(request: Any) -> list[str]:
    """Return the subprotocols that the client offers."""
    if request.app.asgi:  # uvicorn over wsproto has them in the scope only
        return list(request.transport.scope.get("subprotocols") or ())
    offered = ",".join(request.headers.getall(SUBPROTOCOLS, ()))
    return [each.strip() for each in offered.split(",") if each.strip()]


class SanicSocket(WebSocketConnection):
    """One WebSocket of Sanic.

    Sanic answers the handshake before it calls the handler, so a handler cannot create a session:
    the cookie cannot be sent any more. ``WebSocketConnection`` exchanges messages of ASGI; this
    class replaces the methods of the socket that the handler gets.
    """

    __slots__ = (
        "_connect_sent",
        "_failure",
        "_request",
        "_response",
        "_ws",
        "_ws_close",
        "_ws_recv",
        "scope",
    )

    def __init__(self, web: WebInstallation, request: Any) -> None:
        self.scope: Scope = _make_scope(request)
        super().__init__(web, self.scope, self._receive_native, self._send_native)
        self._request = request
        self._failure: Exception | None = None
        self._response: HTTPResponse | None = None
        self._connect_sent = False
        self._ws: Any = None
        self._ws_recv: Callable[..., Awaitable[Any]] | None = None
        self._ws_close: Callable[..., Awaitable[None]] | None = None

    async def run(self, serve: Callable[[], Awaitable[Any]]) -> Any:
        """Answer the handshake and run the handler; return a response instead of the handshake."""

        async def app(scope: object, receive: object, send: object) -> None:
            del scope, receive, send
            await self.receive()  # "websocket.connect"
            await serve()
            if self._failure is not None:
                raise self._failure  # so that the changes are dropped (law A10)

        try:
            await self.serve(app, autoload=False)
        except Exception as error:
            if error is not self._failure:
                raise
            # Sanic has logged it.
        return self._response

    async def load(self, on_store_failure: OnStoreFailure | None = None) -> Session[Any]:
        """Load the session of this socket, once, for the handler."""
        self._pass_replacement()
        session = await super().load(on_store_failure)
        copy = self.working_copy
        assert copy is not None  # noqa: S101 - set with the session
        copy.mark_response_started()  # the handshake is answered without the session's headers
        self._request.ctx.session = session
        return session

    def _pass_replacement(self) -> None:
        """Pass what is in place of the session to ``WebSocketConnection`` (law A24)."""
        if self.session is not None:
            context = self._request.ctx
            self.scope["session"] = getattr(context, "session", None)
            context.session = self.session

    async def run_handler(self, ws: Any, handler: Callable[[], Awaitable[Any]]) -> None:
        """Run the application's handler, after the handshake was answered."""
        self._ws = ws
        self._ws_recv, self._ws_close = ws.recv, ws.close
        replaced = {"recv": self._recv, "send": functools.partial(self._send_data_of, ws.send)}
        replaced["close"] = self._close_of
        if hasattr(ws, "receive"):  # the socket of Sanic under an ASGI server
            replaced["receive"] = self._recv
        originals = {name: getattr(ws, name) for name in replaced}
        await self.send({"type": "websocket.accept"})
        for name, method in replaced.items():
            setattr(ws, name, method)
        try:
            await handler()
            self._pass_replacement()
        except SocketEnded:
            pass  # closed already
        except Exception as error:
            if not await self.close_after(error, None):  # here, because Sanic closes with 1000
                self._failure = error
                raise
        finally:
            for name, method in originals.items():
                setattr(ws, name, method)

    def protocols(self, supported: Collection[str] | None) -> list[str] | None:
        """Return the subprotocols that Sanic may accept; never one that carries a ticket.

        Args:
            supported: by the route; None for none.
        """
        offered = _read_protocols(self._request)
        if self.web.header_transport is None or accepted_protocol(offered, None) is None:
            return None if supported is None else list(supported)
        return [*(supported or ()), ACCEPTED_PROTOCOL]

    # Called by the handler

    async def _recv(self, *args: Any, **kwargs: Any) -> Any:
        self._pass_replacement()
        self._ws_recv = functools.partial(type(self._ws).recv, self._ws, *args, **kwargs)
        message = await self.receive()
        if "error" in message:
            raise message["error"]
        if "data" not in message:
            raise SocketEnded(message["reason"])
        return message["data"]

    async def _send_data_of(
        self, send: Callable[..., Awaitable[None]], *args: Any, **kwargs: Any
    ) -> None:
        self._pass_replacement()
        await self.send(
            {"type": "websocket.send", "call": functools.partial(send, *args, **kwargs)}
        )

    async def _close_of(self, code: int = 1000, reason: str = "") -> None:
        self._pass_replacement()
        await self.send({"type": "websocket.close", "code": code, "reason": reason})

    # Called by `WebSocketConnection`, with messages of ASGI

    async def _receive_native(self) -> Message:
        if not self._connect_sent:
            self._connect_sent = True
            return {"type": "websocket.connect"}
        assert self._ws_recv is not None  # noqa: S101 - the handshake was answered
        try:
            data = await self._ws_recv()
        except ConnectionClosed as error:
            return {"type": "websocket.disconnect", "error": error}
        if data is None:  # no message within the time that the handler waits
            return {"type": "websocket.timeout", "data": None}
        return {"type": "websocket.receive", "data": data}

    async def _send_native(self, message: Message) -> None:
        match message["type"]:
            case "websocket.send":
                await message["call"]()
            case "websocket.close":
                await self._close_native(message)
            case "websocket.http.response.start":
                headers = dict(decode_headers(message["headers"]))
                headers.pop("content-length", None)
                self._response = HTTPResponse(status=message["status"], headers=headers)
            case _:
                pass  # Sanic has answered the handshake itself

    async def _close_native(self, message: Message) -> None:
        code, reason = message["code"], message.get("reason") or ""
        if self._ws_close is None:
            self._response = HTTPResponse(status=403)
        elif self._request.app.asgi:  # `close` of Sanic does nothing there
            await self._request.transport.send(
                {"type": "websocket.close", "code": code, "reason": reason}
            )
        else:
            await self._ws_close(code, reason)
