"""The session of one WebSocket of Tornado."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable
from types import CoroutineType
from typing import Any, Final

from tornado.web import RequestHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from sojourn.errors import ConfigurationError, SojournError
from sojourn.frameworks.tornado.exchange import read_request
from sojourn.frameworks.tornado.preparation import finish_preparation
from sojourn.session import Session
from sojourn.sessions import Sessions
from sojourn.web.asgi_scope import GivenRequest, Message, Scope
from sojourn.web.cache_headers import RawHeaders, replace_caching, select_caching
from sojourn.web.framework_exchange import is_answerable
from sojourn.web.header_transport import accepted_protocol, application_protocols
from sojourn.web.installation import OnStoreFailure, WebInstallation
from sojourn.web.lifecycle import decode_headers
from sojourn.web.websocket import WebSocketConnection
from sojourn.web.websocket_close import SocketEnded

#: Close code "internal error" (RFC 6455 7.4.1).
_INTERNAL_ERROR: Final = 1011


def _make_scope(handler: RequestHandler) -> Scope:
    request = handler.request
    protocols = request.headers.get("Sec-WebSocket-Protocol", "")
    return {
        "type": "websocket",
        "scheme": "wss" if read_request(request).scheme == "https" else "ws",
        "path": request.path,
        "headers": [
            (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
            for name, value in request.headers.get_all()
        ],
        "client": (request.remote_ip, 0) if request.remote_ip else None,
        "subprotocols": [each.strip() for each in protocols.split(",") if each.strip()],
        "extensions": {"websocket.http.response": {}},
    }


class TornadoSocket(WebSocketConnection):
    """One WebSocket of Tornado.

    ``WebSocketConnection`` receives messages as from an ASGI server; Tornado calls the
    handler with each message, which waits in ``incoming`` meanwhile.

    Attributes:
        handler: of Tornado.
        incoming: the message that Tornado has delivered.
        present: the session, or what the application has set instead.
        accepting: the handshake is answered by the handler now.
        failure: raised by the handler of a message.
    """

    __slots__ = ("_connect_sent", "accepting", "failure", "handler", "incoming", "present", "scope")

    def __init__(self, web: WebInstallation, handler: SocketMixin) -> None:
        self.scope: Scope = _make_scope(handler)
        super().__init__(web, self.scope, self._receive_native, self._send_native)
        self.handler: SocketMixin = handler
        self.incoming: str | bytes | None = None
        self.present: object = None
        self.accepting: bool = False
        self.failure: Exception | None = None
        self._connect_sent = False

    async def load(self, on_store_failure: OnStoreFailure | None = None) -> Session[Any]:
        """Load the session of this socket, once, for the handler."""
        self.pass_replacement()
        session = await super().load(on_store_failure)
        self.present = session
        return session

    def pass_replacement(self) -> None:
        """Pass what is in place of the session to ``WebSocketConnection`` (law A24)."""
        if self.session is not None:
            self.scope["session"] = self.present
            self.present = self.session

    def pending(self) -> bool:
        """Return whether the handler has changed something that is not committed."""
        copy = self.working_copy
        return copy is not None and (copy.modified() or self.present is not self.session)

    async def _receive_native(self) -> Message:
        if not self._connect_sent:
            self._connect_sent = True
            return {"type": "websocket.connect"}
        return {"type": "websocket.receive", "data": self.incoming}

    async def _send_native(self, message: Message) -> None:
        handler = self.handler
        match message["type"]:
            case "websocket.send":
                await message["call"]()
            case "websocket.accept":
                for name, value in decode_headers(message.get("headers", [])):
                    handler.add_header(name, value)
                if not self.accepting:
                    self.accepting = handler.accept_and_close = True
            case "websocket.close":
                code, reason = message.get("code"), message.get("reason")
                if handler.ws_connection is None and not handler.accept_and_close:
                    handler.refuse(403, [], b"The handshake was refused.\n")
                else:
                    await handler.close_socket(code, reason)
            case "websocket.http.response.start":
                handler.refuse(message["status"], decode_headers(message["headers"]), b"")
            case _:
                pass

    async def send_answer(self, response: Any) -> None:
        """Refuse the handshake with a response of ``on_error``: status, headers and body."""
        status, headers, body = response
        pairs = list(headers.items() if hasattr(headers, "items") else headers)
        selected = select_caching(pairs)
        sent = self.error_headers(selected)
        names = {name.decode("latin-1").lower() for name, _ in selected}
        kept = [(name, value) for name, value in pairs if name.lower() not in names]
        self.handler.refuse(status, [*kept, *decode_headers(sent)], body)


class SocketMixin(WebSocketHandler):
    """Gives a WebSocket its session, commits after each message, and closes it when that ends.

    ``install`` creates a subclass of this class and of each WebSocket handler of the application.
    """

    sojourn_sessions: Sessions[Any]
    sojourn_socket: TornadoSocket | None = None
    accept_and_close: bool = False
    sojourn_finishing: asyncio.Task[None] | None = None

    #: Code and reason of a socket that is closed as soon as it is open.
    ending: tuple[int | None, str | None] | None = None

    @property
    def session(self) -> Any:
        """The session of the page that opened this socket.

        Raises:
            ConfigurationError: it was not loaded, with ``autoload=False`` or ``include``.
        """
        socket = self.sojourn_socket
        if socket is None or socket.session is None:
            raise ConfigurationError(
                "this WebSocket has no session: its path is left out, or autoload=False. Call "
                "await self.load_session()"
            )
        return socket.present

    @session.setter
    def session(self, replacement: object) -> None:
        if self.sojourn_socket is not None:
            self.sojourn_socket.present = replacement  # adopted at the commit (law A24)

    async def load_session(self, on_store_failure: OnStoreFailure | None = None) -> Session[Any]:
        """Load the session of a socket that has none yet, and return it."""
        if self.sojourn_socket is None:
            raise ConfigurationError(
                "this handler needs a session, and sojourn was uninstalled from its application; "
                "call sojourn.install(application) again"
            )
        return await self.sojourn_socket.load(on_store_failure)

    async def _execute(self, transforms: Any, *args: bytes, **kwargs: bytes) -> None:
        """Load the session, serve the socket, and commit what it changed last."""
        web = self.sojourn_sessions.web
        run = functools.partial(super()._execute, transforms, *args, **kwargs)
        if not web.active:
            await run()
            return
        self._transforms = transforms  # also for a refusal, before Tornado sets them
        socket = self.sojourn_socket = TornadoSocket(web, self)
        patterns = web.config.patterns
        wanted = patterns.everything or patterns.match(self.request.path)

        async def app(scope: object, receive: object, send: object) -> None:
            del scope, receive, send
            await socket.receive()  # "websocket.connect"
            await run()
            if self.sojourn_finishing is not None:
                await self.sojourn_finishing
            socket.pass_replacement()
            if socket.failure is not None:
                raise socket.failure  # so that the changes are dropped (law A10)

        try:
            await socket.serve(
                app, autoload=wanted and web.config.autoload, framework=GivenRequest(self)
            )
        except Exception as error:
            if error is not socket.failure:
                raise
            # Tornado has logged it.

    def prepare(self) -> Awaitable[None] | None:
        """Run the handler's own, and wait for the commit if that has refused the handshake.

        Tornado answers the handshake of a handler that is not finished.
        """
        return finish_preparation(self, super().prepare())

    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Commit, so that the cookie travels in the handshake; then answer it and serve."""
        socket = self.sojourn_socket
        if socket is not None and self.request.headers.get("Upgrade", "").lower() == "websocket":
            socket.pass_replacement()
            socket.accepting = True
            await socket.send({"type": "websocket.accept"})
        await super().get(*args, **kwargs)

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Let the handler choose a subprotocol, except those of ``transport="header"``."""
        socket = self.sojourn_socket
        if socket is None or socket.web.header_transport is None:
            return super().select_subprotocol(subprotocols)
        chosen = super().select_subprotocol(application_protocols(subprotocols))
        return accepted_protocol(subprotocols, chosen)

    def open(self, *args: str, **kwargs: str) -> Awaitable[None] | None:
        """Open the socket, or close it because its session has ended."""
        if self.ending is not None:
            super().close(*self.ending)
            return None
        socket = self.sojourn_socket
        if socket is None:
            return super().open(*args, **kwargs)
        return self._sojourn_open(socket, functools.partial(super().open, *args, **kwargs))

    async def _sojourn_open(self, socket: TornadoSocket, call: Any) -> None:
        try:
            result = call()
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            if not await socket.close_after(error, None):
                socket.failure = error
                raise

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        """Adopt the newest record, call the handler, and commit."""
        socket = self.sojourn_socket
        if socket is None:
            return super().on_message(message)
        return self._sojourn_message(socket, message, super().on_message)

    async def _sojourn_message(self, socket: TornadoSocket, message: Any, call: Any) -> None:
        socket.pass_replacement()
        socket.incoming = message
        try:
            received = await socket.receive()
            if received["type"] == "websocket.disconnect":
                return
            result = call(received["data"])
            if inspect.isawaitable(result):
                await result
            socket.pass_replacement()
            await socket.commit_changes()
        except WebSocketClosedError:
            if self.ws_connection is not None and not self.ws_connection.is_closing():
                raise
        except Exception as error:
            if await socket.close_after(error, None):
                return
            socket.failure = error
            # Tornado before 6.5 goes on, and the next message would commit what is to be dropped.
            super().close(_INTERNAL_ERROR, "internal error")
            raise

    def write_message(
        self,
        message: bytes | str | dict[str, Any],
        binary: bool = False,  # noqa: FBT001, FBT002 - as in Tornado
    ) -> Any:
        """Commit what the handler has changed, then send a message."""
        socket = self.sojourn_socket
        if socket is None or self.ws_connection is None:
            return super().write_message(message, binary)
        if self.ws_connection.is_closing():
            raise WebSocketClosedError
        call = functools.partial(super().write_message, message, binary)
        future = asyncio.ensure_future(self._sojourn_write(socket, call))
        future.add_done_callback(_retrieve)
        return future

    async def _sojourn_write(self, socket: TornadoSocket, call: Any) -> None:
        socket.pass_replacement()
        try:
            await socket.send({"type": "websocket.send", "call": call})
        except SocketEnded:
            raise WebSocketClosedError from None

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Commit what the handler has changed, then close the socket."""
        socket = self.sojourn_socket
        if socket is None or not socket.pending():
            super().close(code, reason)
            return
        future = asyncio.ensure_future(self._sojourn_close(socket, code, reason))
        future.add_done_callback(_retrieve)

    async def _sojourn_close(
        self, socket: TornadoSocket, code: int | None, reason: str | None
    ) -> None:
        socket.pass_replacement()
        await socket.commit_changes()
        super().close(code, reason)

    async def close_socket(self, code: int | None, reason: str | None) -> None:
        """Close the socket because its session ends; answer the handshake first if necessary."""
        if self.ws_connection is None and self.accept_and_close:
            self.ending = (code, reason)
            await WebSocketHandler.get(self)
            return
        super().close(code, reason)

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Leave an error of the session to it, unless the handshake was answered."""
        socket = self.sojourn_socket
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        if (
            socket is not None
            and isinstance(error, SojournError)
            and is_answerable(error)
            and self.ws_connection is None
        ):
            socket.failure = error
            return
        super().send_error(status_code, **kwargs)

    def refuse(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Answer the handshake with an HTTP response."""
        if self._finished:
            return
        self.clear()
        self.set_status(status)
        for name, value in headers:
            self.set_header(name, value)
        super().finish(body)

    def finish(self, chunk: Any = None) -> Any:
        """Commit before a response in place of the handshake; see ``SessionHandler.finish``."""
        socket = self.sojourn_socket
        if (
            socket is None
            or self._finished
            or self._headers_written
            or socket.response_started
            or socket.accepting
        ):
            return super().finish(chunk)
        if self.sojourn_finishing is not None:
            return self.sojourn_finishing
        socket.pass_replacement()
        socket.adopt_replacement()
        selected = select_caching(self._headers.get_all())
        sent = socket.respond(self.get_status(), selected, complete=True)
        if isinstance(sent, CoroutineType):
            self.sojourn_finishing = asyncio.ensure_future(
                self._sojourn_finish(socket, selected, sent, chunk)
            )
            self.sojourn_finishing.add_done_callback(_retrieve)
            return self.sojourn_finishing
        replace_caching(selected, sent, remove=self.clear_header, add=self.add_header)
        return super().finish(chunk)

    async def _sojourn_finish(
        self,
        socket: TornadoSocket,
        selected: RawHeaders,
        waiting: Awaitable[RawHeaders],
        chunk: Any,
    ) -> None:
        try:
            sent = await waiting
        except Exception as error:
            self.sojourn_finishing = None
            socket.failure = error
            raise
        replace_caching(selected, sent, remove=self.clear_header, add=self.add_header)
        await super().finish(chunk)

    def flush(self, include_footers: bool = False) -> Any:  # noqa: FBT001, FBT002 - as in Tornado
        """Add the headers of the session to a response in place of the handshake."""
        socket = self.sojourn_socket
        if (
            socket is not None
            and not self._headers_written
            and not socket.response_started
            and not socket.accepting
        ):
            selected = select_caching(self._headers.get_all())
            sent = socket.respond(self.get_status(), selected, complete=True)
            if isinstance(sent, CoroutineType):
                sent.close()
                sent = socket.error_headers(selected)
            replace_caching(selected, sent, remove=self.clear_header, add=self.add_header)
        return super().flush(include_footers)


def _retrieve(future: asyncio.Future[None]) -> None:
    """Retrieve the error of a future that the handler may not await."""
    if not future.cancelled():
        future.exception()
