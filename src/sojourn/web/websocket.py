"""WebSocketConnection: the session of one ASGI WebSocket, from its handshake to its close."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
from collections.abc import Coroutine
from types import CoroutineType
from typing import Any, Final, TypeVar

from sojourn._core.working_copy import WorkingCopy
from sojourn.errors import (
    ConfigurationError,
    RecentAuthRequired,
    SessionGone,
    SessionRequired,
    SojournError,
    StoreError,
    StoreUnavailable,
)
from sojourn.session import Session
from sojourn.web.asgi_scope import (
    CONNECTION,
    ASGIApp,
    Framework,
    Message,
    Receive,
    Scope,
    Send,
    check_replacement,
    read_header,
    read_headers,
    read_labels,
    read_path,
)
from sojourn.web.header_transport import (
    SUBPROTOCOLS,
    accepted_protocol,
    application_protocols,
)
from sojourn.web.installation import OnStoreFailure, WebInstallation, decode_header
from sojourn.web.lifecycle import SessionLifecycle
from sojourn.web.origin import origin_allowed
from sojourn.web.transport_security import TransportSecurity
from sojourn.web.websocket_close import SocketEnded, WebSocketCloser, close_reason

#: Close codes "policy violation", "internal error" and "try again later" (RFC 6455 7.4.1 and the
#: IANA registry).
_POLICY_VIOLATION: Final = 1008
_INTERNAL_ERROR: Final = 1011
_TRY_AGAIN_LATER: Final = 1013

#: The least close code (RFC 6455 7.4.2).
_NORMAL_CLOSURE: Final = 1000

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("sojourn")


class ForeignOriginError(Exception):
    """The handshake comes from a page of another origin."""


#: The ASGI extension for an HTTP response in place of the accept.
_DENIAL: Final = "websocket.http.response"

#: What ends a socket in an orderly way if the handler does not catch it.
_ENDINGS: Final = (SocketEnded, SessionGone, SessionRequired, RecentAuthRequired, StoreError)


class WebSocketConnection(SessionLifecycle):
    """One WebSocket.

    The socket has the session of the page that opened it (law W1). Changes are committed before
    each message that the handler sends, each time it waits for the next message, and at the close
    (W2), so a page that is loaded after a message shows what the message reports. Before a message
    is delivered, the session adopts the newest record (W3). The cookie travels in the handshake
    response, so a session can be created only before the accept (W8).

    A handler may cancel any of its calls, mostly by a timeout around ``receive``. A message that
    was received by then is delivered by the next ``receive`` (A21). If several tasks receive, they
    wait for each other, and get the messages in their order.
    """

    __slots__ = (
        "_accepted",
        "_closed",
        "_closer",
        "_connected",
        "_loaded",
        "_lock",
        "_offered",
        "_receive",
        "_receiving",
        "_scope",
        "_send",
        "_undelivered",
    )

    def __init__(self, web: WebInstallation, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(web)
        self._scope = scope
        self._receive = receive
        self._send = send
        # Handlers often read and write in two tasks: a message must not be sent before the changes
        # that the other task is committing, and an older record must not replace a newer one.
        self._lock = asyncio.Lock()
        self._closer = WebSocketCloser(web, send, self._lock)
        self._offered: tuple[str, ...] = ()
        if web.header_transport is not None:
            self._offered = tuple(scope.get("subprotocols") or ())
            if self._offered:
                scope["subprotocols"] = application_protocols(self._offered)
        self._loaded = False
        self._connected = False  # the server's first message was received
        self._accepted = False
        self._closed = False
        # Held while a task receives: it delivers its message, or leaves it to the next task, before
        # that one receives another message.
        self._receiving = asyncio.Lock()
        self._undelivered: Message | None = None  # received; its delivery was cancelled or failed

    async def load(self, on_store_failure: OnStoreFailure | None = None) -> Session[Any]:
        """Load the session of this socket, once, and put it into the scope.

        Args:
            on_store_failure: the route's choice; None for the installation's.

        Raises:
            StoreUnavailable: the store failed.
        """
        self.adopt_replacement()
        host, cookies, origin, proxied = read_headers(self._scope)
        scheme = self._scope.get("scheme", "ws")
        if self.session is None:
            self._check_origin(scheme, host, cookies, origin, proxied=proxied)
        waiting = self.begin(scheme, host, cookies, proxied, on_store_failure)
        if waiting is not None:
            await waiting
        session, copy = self.session, self.working_copy
        assert session is not None  # noqa: S101 - begin has set both
        assert copy is not None  # noqa: S101 - begin has set it
        if not self._loaded:
            self._loaded = True
            copy.active_at = self.web.engine.clock()
            if self._accepted:  # the session was requested late: no cookie can be set
                copy.mark_response_started()
                self._closer.watch(copy)
                self._closer.start()
        self._scope["session"] = session
        return session

    def _check_origin(
        self,
        scheme: str,
        host: bytes | None,
        cookies: bytes | None,
        origin: bytes | None,
        *,
        proxied: bool,
    ) -> None:
        web = self.web
        transport = web.classify(scheme, host, proxied)
        if not origin_allowed(
            decode_header(origin),
            scheme,
            host=decode_header(host),
            allowed=web.config.allowed_origins,
            local=transport is TransportSecurity.LOCAL,
        ) and not web.handshake_allowed(transport, cookies, origin, self.header):
            web.log_refused_handshake(origin)
            raise ForeignOriginError

    def labels(self) -> dict[str, str]:
        """Return the labels of the client."""
        return read_labels(self._scope)

    def header(self, name: str) -> str | None:
        """Return a header of the handshake."""
        if name == SUBPROTOCOLS:  # uvicorn over wsproto has it in the scope only
            return ", ".join(self._offered) or None
        return read_header(self._scope, name)

    def path(self) -> str:
        """Return the path of the handshake."""
        return read_path(self._scope)

    async def serve(
        self, app: ASGIApp, *, autoload: bool, framework: Framework | None = None
    ) -> None:
        """Run the application; refuse the handshake if its origin or the store demands it.

        Args:
            app: the application.
            autoload: load the session first.
            framework: of the application; None for none: the request of ``on_error`` is the scope.
        """
        self._scope[CONNECTION] = self
        try:
            await self._run(app, autoload=autoload)
        except ForeignOriginError:
            await self._send_end({"type": "websocket.close", "code": _POLICY_VIOLATION})
        except BaseException as error:
            if not await self._end_after(error, framework):
                raise
        finally:
            try:
                await self._closer.stop_and_wait()
            finally:
                # Break two reference cycles: the socket is freed without the garbage collector.
                self._scope[CONNECTION] = None
                self.end()

    async def close_after(self, error: Exception, framework: Framework | None) -> bool:
        """End the socket for an error that the framework is about to catch.

        Changes after the last message are dropped. A close frame of the framework that follows is
        not sent if the error is about the session, because the socket is closed then.

        Args:
            error: raised by the handler.
            framework: as for ``serve``.

        Returns:
            False if the error is the framework's to handle.
        """
        self.mark_failed()
        return await self._end_after(error, framework)

    async def _end_after(self, error: BaseException, framework: Framework | None) -> bool:
        """Refuse or close the socket for an error; return False if the error is not answered."""
        ending = _error_of_kinds(error, _ENDINGS)
        return await self._answer(error, framework) or (
            ending is not None and await self._close_for_error(ending)
        )

    async def _run(self, app: ASGIApp, *, autoload: bool) -> None:
        """Run the application, then commit what it changed last."""
        try:
            if autoload:
                await self.load()
            await app(self._scope, self.receive, self.send)
        except BaseException as error:
            # Changes after the last message are dropped as in a failing request (law A10), unless
            # the handler did not fail: the client has disconnected, or the session has ended.
            ended = isinstance(error, SocketEnded)
            replacement = self._pop_replacement()
            if replacement is not self.session:
                self.adopt_after_error(replacement)
            failed = not (ended or self._closed or self.web.config.save_on_error)
            try:
                await _complete(self._finish(failed=failed))
            except StoreError as failure:
                if not ended:
                    self.web.event_log.log_failure(
                        "the session of a failed socket was not committed: %s", failure
                    )
            raise
        self.adopt_replacement()
        await _complete(self._finish(failed=self.failed))

    def adopt_replacement(self) -> None:
        """Adopt what the handler has set in place of ``scope["session"]`` (law A24).

        Raises:
            SessionError: it is no mapping.
        """
        replacement = self._pop_replacement()
        if replacement is not self.session:
            check_replacement(self._scope, replacement)
            self.adopt(replacement)

    def _pop_replacement(self) -> object:
        """Return what is in place of the session, and put the session back."""
        scope, session = self._scope, self.session
        if session is None or scope.get(CONNECTION) is not self:
            return session  # not loaded, or the place of a nested installation's session
        replacement = scope.get("session")
        scope["session"] = session
        return replacement

    async def receive(self) -> Message:
        """Commit, wait for the next message, adopt the newest record, and deliver it."""
        copy = self.working_copy
        self.adopt_replacement()
        if copy is None or not self._accepted:
            message = await self._receive()
            self._connected = self._connected or message["type"] == "websocket.connect"
            return message
        try:
            message = await self._receive_message(copy)
        except SocketEnded as ended:
            message = self._disconnect_message(ended)
        if message["type"] == "websocket.disconnect":
            self._closed = True
        return message

    async def receive_ahead(self) -> Message:
        """Wait for the next message and deliver it, without a commit and without a refresh.

        For a framework that receives in a task of its own and keeps messages for the handler. It
        calls ``commit_before_wait`` and ``refresh_for_delivery`` when the handler waits for one.
        """
        copy = self.working_copy
        if copy is None or not self._accepted:
            return await self.receive()
        try:
            self._closer.raise_if_ended()
            message = await self._closer.unless_ended(self._receive)
        except SocketEnded as ended:
            message = self._disconnect_message(ended)
        if message["type"] == "websocket.disconnect":
            self._closed = True
        return message

    async def commit_before_wait(self) -> None:
        """Commit, because the handler waits for the next message (law W2).

        Raises:
            SocketEnded: the session has ended.
            StoreError: the store failed.
        """
        copy = self.working_copy
        if copy is not None and self._accepted:
            self.adopt_replacement()
            await self._commit_changes(copy)
            self._closer.raise_if_ended()

    async def refresh_for_delivery(self) -> None:
        """Adopt the newest record, because a message is delivered (laws W3 and W6).

        Raises:
            SocketEnded: the session has ended.
            StoreError: the store failed.
        """
        copy = self.working_copy
        if copy is not None and self._accepted:
            await self._refresh_after_message(copy)
            self._closer.raise_if_ended()

    def _disconnect_message(self, ended: SocketEnded) -> Message:
        return {
            "type": "websocket.disconnect",
            "code": self.web.config.close_code,
            "reason": ended.reason,
        }

    async def _receive_message(self, copy: WorkingCopy) -> Message:
        await self._commit_changes(copy)
        async with self._receiving:
            self._closer.raise_if_ended()
            message, self._undelivered = self._undelivered, None
            if message is None:
                message = await self._closer.unless_ended(self._receive)
            if message["type"] == "websocket.receive":
                try:
                    await self._refresh_after_message(copy)
                except BaseException:  # a timeout of the handler, or of the store
                    self._undelivered = message
                    raise
                self._closer.raise_if_ended()
            return message

    async def _refresh_after_message(self, copy: WorkingCopy) -> None:
        """Load what others wrote, and record that the client is active (laws W3 and W6)."""
        engine = self.web.engine
        copy.active_at = engine.clock()
        self._closer.outdated_record = False
        try:
            async with self._lock:
                if await engine.refresh(copy):
                    await engine.commit(copy)
        except BaseException:
            self._closer.outdated_record = True
            raise
        await self._closer.check_copy()

    async def _refresh_before_send(self, copy: WorkingCopy) -> None:
        """Load what others wrote, for a handler that sends and never receives."""
        self._closer.outdated_record = False
        try:
            async with self._lock:
                await self.web.engine.refresh(copy)
        except BaseException as error:
            self._closer.outdated_record = True
            if isinstance(error, StoreError):
                return  # the message does not depend on it; the next one tries again
            raise
        await self._closer.check_copy()

    async def send(self, message: Message) -> None:
        """Send a message to the server, after what has to be committed before it.

        Raises:
            OSError: the session has ended and the socket is closed (as in ASGI 2.4).
        """
        message_type = message["type"]
        copy = self.working_copy
        self.adopt_replacement()
        if message_type == "websocket.send":
            await self._send_data(copy, message)
        elif message_type == "websocket.accept":
            await self._accept(copy, message)
        elif message_type == "websocket.close":
            if message.get("code", _NORMAL_CLOSURE) >= _NORMAL_CLOSURE or not (
                await self._close_with_status()
            ):
                await self._close(copy, message)
        elif message_type == "websocket.http.response.start":
            await self._send_denial(copy, message)
        else:
            await self._send(message)

    async def _send_data(self, copy: WorkingCopy | None, message: Message) -> None:
        if copy is None:
            await self._send(message)
        elif copy.destroyed_record is None:
            await self._deliver(copy, message)
        else:  # a handler that destroys its session may still send its client one message
            with self._closer.close_delayed():
                try:
                    await self._deliver(copy, message)
                finally:
                    if copy.destroyed_record is None:  # also if the send was cancelled after that
                        self._closer.end_now("destroyed")

    async def _deliver(self, copy: WorkingCopy, message: Message) -> None:
        self._closer.raise_if_ended()
        await self._commit_changes(copy)
        if self._closer.outdated_record:
            await self._refresh_before_send(copy)
        try:
            await self._closer.unless_ended(self._send, message)
        except SocketEnded:
            raise
        except OSError:  # how servers report a disconnected client (ASGI 2.4)
            self._closed = True
            raise

    async def _accept(self, copy: WorkingCopy | None, message: Message) -> None:
        if self._offered:
            chosen = accepted_protocol(self._offered, message.get("subprotocol"))
            message = {**message, "subprotocol": chosen}
        if copy is None:
            await self._send(message)
            self._accepted = True
            return
        stored = copy.record is not None
        await self._commit_changes(copy)
        cookie_change = copy.cookie_change
        headers = self.handshake_headers()
        if headers:
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        copy.response_started = True
        self._closer.watch(copy)
        try:
            await self._send(message)
        except BaseException:
            # The server may have sent it or not: the socket is watched, and another accept has the
            # cookie too.
            copy.cookie_change = cookie_change
            raise
        finally:
            self._accepted = True
            self._closer.start()
        # A session that was revoked before it was watched did not reach this socket (law W7).
        if stored and not copy.revoked:
            try:
                async with self._lock:
                    await self.web.engine.refresh(copy)
            except BaseException:
                self._closer.recheck("")
                raise
        await self._closer.check_copy()

    async def _close_with_status(self) -> bool:
        """End the socket for an error that the framework closes it for with a status of HTTP.

        Lilya does so for each exception of a handler, which it does not raise again.

        Returns:
            False if the error is the framework's to handle.
        """
        error = sys.exc_info()[1]
        return isinstance(error, Exception) and await self.close_after(error, None)

    async def _close(self, copy: WorkingCopy | None, message: Message) -> None:
        if self._closer.reason is not None or self._closed:
            return  # closed already, with the reason, or by the client
        with self._closer.close_delayed():
            if copy is not None:
                await self._commit_changes(copy, failed=self.failed or self._cannot_create(copy))
            self._closer.stop()
        self._closed = True
        await self._send(message)

    async def _send_denial(self, copy: WorkingCopy | None, message: Message) -> None:
        """Answer the handshake with an HTTP response, which can carry a cookie."""
        if copy is not None:
            headers = list(message.get("headers", ()))
            async with self._lock:
                sent = self.respond(message["status"], headers, complete=True)
                if isinstance(sent, CoroutineType):
                    sent = await sent
            message = {**message, "headers": sent}
        self._closed = True
        await self._send(message)

    async def _commit_changes(self, copy: WorkingCopy, *, failed: bool = False) -> None:
        async with self._lock:
            await self.web.engine.commit(copy, failed=failed or self.failed)
        if copy.revoked:
            await self._closer.check_copy()

    def _cannot_create(self, copy: WorkingCopy) -> bool:
        """Return whether the session is not stored and its cookie cannot be sent any more."""
        return copy.record is None and not self._accepted

    async def _finish(self, *, failed: bool) -> None:
        """Commit what the handler changed last, after it has ended."""
        copy = self.working_copy
        if copy is None:
            return
        with self._closer.close_delayed():
            try:
                await self._commit_changes(copy, failed=failed or self._cannot_create(copy))
            finally:
                self._closer.stop()

    # Errors that the handler has not caught

    async def _answer(self, raised: BaseException, framework: Framework | None) -> bool:
        """Refuse the handshake with the response of ``on_error`` (law A23).

        A server without the extension for denial responses cannot send one.

        Returns:
            False if ``on_error`` was not called or has no response.
        """
        on_error = self.web.config.on_error
        error = _error_of_kinds(raised, (SojournError,))
        if (
            on_error is None
            or self._accepted
            or self._closed
            or not isinstance(error, SojournError)
            or isinstance(error, ConfigurationError)
            or _DENIAL not in self._extensions()
        ):
            return False
        scope, receive = self._scope, self._receive
        request = scope if framework is None else framework.make_request(scope, receive)
        response = on_error(request, error)
        if inspect.isawaitable(response):
            response = await response
        if response is None:
            return False
        self.mark_failed()
        waiting = self.commit_after_error(store_failed=isinstance(error, StoreError))
        if waiting is not None and not await waiting:
            await self._send_unavailable()
            return True
        self._closed = True
        try:
            if not self._connected:
                await receive()  # the server's "websocket.connect"
            await self.send_answer(response)
        except OSError:
            logger.debug("a WebSocket was closed by its client already", exc_info=True)
        return True

    async def send_answer(self, response: Any) -> None:
        """Send a response of ``on_error``, an ASGI application; overridden for other frameworks."""
        await response(self._scope, self._receive, self._send_response)

    async def commit_changes(self) -> None:
        """Commit what the handler has changed, for frameworks that call it for each message."""
        self.adopt_replacement()
        copy = self.working_copy
        if copy is not None:
            await self._commit_changes(copy)

    async def _send_response(self, message: Message) -> None:
        """Send a message of an HTTP response as one of a denial response."""
        message_type = message["type"].removeprefix("websocket.")
        message = {**message, "type": f"websocket.{message_type}"}
        if message_type == "http.response.start":
            message["headers"] = self.error_headers(list(message.get("headers", ())))
        await self._send(message)

    async def _close_for_error(self, error: BaseException) -> bool:
        """End the socket as an error of the session demands.

        Returns:
            False if the error is not about the session of this socket.
        """
        code, reason = self.web.config.close_code, "recent login required"
        match error:
            case SocketEnded():
                return True  # closed already
            case SessionGone():
                copy = self.working_copy
                if copy is None or not copy.revoked:
                    return False  # another session, which the handler opened itself
                reason = await self._closer.find_reason(copy.session_id()) or "ended"
            case SessionRequired():
                reason = error.reason
            case StoreError():
                unavailable = isinstance(error, StoreUnavailable)
                code = _TRY_AGAIN_LATER if unavailable else _INTERNAL_ERROR
                reason = "session store unavailable" if unavailable else "session store failed"
                self.web.event_log.log_failure(
                    "closed a WebSocket because the session store failed: %s", error
                )
                if not self._accepted and _DENIAL in self._extensions():
                    await self._send_unavailable()
                    return True
            case _:
                pass
        await self._accept_and_close(code, reason)
        return True

    def _extensions(self) -> Any:
        return self._scope.get("extensions") or {}

    async def _send_unavailable(self) -> None:
        """Refuse the handshake with 503: to continue would lose what the store holds (law A15)."""
        headers = [(b"retry-after", b"2"), (b"content-length", b"0")]
        await self._send_end(
            {"type": "websocket.http.response.start", "status": 503, "headers": headers},
            {"type": "websocket.http.response.body", "body": b""},
        )

    async def _accept_and_close(self, code: int, reason: str) -> None:
        """Close the socket, and accept it before that.

        Browsers report a refused handshake with code 1006 and no reason, so that pages connect
        again and again.
        """
        messages: list[Message] = []
        if not self._accepted:
            accept: Message = {"type": "websocket.accept"}
            # Browsers fail a handshake that names none of the subprotocols they offered.
            subprotocols = self._scope.get("subprotocols")
            if self._offered:
                first = next(iter(subprotocols or ()), None)
                accept["subprotocol"] = accepted_protocol(self._offered, first)
            elif subprotocols:
                accept["subprotocol"] = subprotocols[0]
            headers = self.handshake_headers()
            if headers:
                accept["headers"] = headers
            messages.append(accept)
        close = {"type": "websocket.close", "code": code, "reason": close_reason(reason)}
        await self._send_end(*messages, close)

    async def _send_end(self, *messages: Message) -> None:
        """Send the last messages of a socket that is still open."""
        if self._closed or self._closer.reason is not None:
            return
        self._closed = True
        try:
            if not self._connected:
                await self._receive()  # the server's "websocket.connect"
            for message in messages:
                await self._send(message)
        except (OSError, RuntimeError):
            logger.debug("a WebSocket was closed by its client or server already", exc_info=True)


def _error_of_kinds(
    error: BaseException, kinds: tuple[type[BaseException], ...]
) -> BaseException | None:
    """Return the error if it is of these kinds; None for any other.

    Tasks of a handler raise it in an exception group.
    """
    if isinstance(error, BaseExceptionGroup):
        _, others = error.split(kinds)
        while others is None and isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
    return error if isinstance(error, kinds) else None


async def _complete(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also if this task is cancelled meanwhile (law A21).

    Raises:
        CancelledError: this task was cancelled; the coroutine has ended nevertheless.
    """
    task = asyncio.ensure_future(coroutine)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled() and task.exception() is not None:
        logger.error("the session of a cancelled socket was not committed: %s", task.exception())
    raise cancelled
