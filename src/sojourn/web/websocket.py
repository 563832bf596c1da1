"""WebSocketConnection: the session of one ASGI WebSocket, from its handshake to its close.

The socket has the session of the page that opened it (law W1). Changes are committed before each
message that the handler sends, each time it waits for the next message, and at the close (W2), so a
page that is loaded after a message shows what the message tells. Before a message is delivered, the
session takes in what others wrote (W3). The cookie travels in the handshake response, so a session
can be created only before the accept (W8).
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from types import CoroutineType
from typing import Any, Final

from sojourn._core.working_copy import WorkingCopy
from sojourn.errors import StoreError, StoreUnavailable
from sojourn.session import Session
from sojourn.web.asgi_scope import (
    CONNECTION,
    ASGIApp,
    Message,
    Receive,
    Scope,
    Send,
    read_headers,
    read_labels,
    read_path,
)
from sojourn.web.installation import OnStoreFailure, WebInstallation, decode_header
from sojourn.web.lifecycle import SessionLifecycle
from sojourn.web.transport import Transport, origin_allowed
from sojourn.web.websocket_close import CLOSE_CODE, SocketEnded, WebSocketCloser

#: Close codes "policy violation" and "try again later" (RFC 6455 7.4.1 and the IANA registry).
_POLICY_VIOLATION: Final = 1008
_TRY_AGAIN_LATER: Final = 1013

logger: logging.Logger = logging.getLogger("sojourn")


class _ForeignOriginError(Exception):
    """The handshake comes from a page of another origin."""


class WebSocketConnection(SessionLifecycle):
    """One WebSocket; the ``Request`` of its lifecycle."""

    __slots__ = (
        "_accepted",
        "_closed",
        "_closer",
        "_lock",
        "_receive",
        "_scope",
        "_send",
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
        self._accepted = False
        self._closed = False

    async def load(self, on_store_failure: OnStoreFailure | None = None) -> Session[Any]:
        """Load the session of this socket, once, and put it into the scope.

        Args:
            on_store_failure: the route's choice; None for the installation's.

        Raises:
            StoreUnavailable: the store failed.
        """
        first = self.session is None
        host, cookies, origin, proxied = read_headers(self._scope)
        scheme = self._scope.get("scheme", "ws")
        if first:
            self._check_origin(scheme, host, origin, proxied=proxied)
        waiting = self.begin(scheme, host, cookies, proxied, on_store_failure)
        if waiting is not None:
            await waiting
        session, copy = self.session, self.working_copy
        assert session is not None  # noqa: S101 - begin has set both
        assert copy is not None  # noqa: S101 - as above
        if first:
            copy.active_at = self.web.engine.clock()
            if self._accepted:  # the handler asked late: no cookie can be set
                copy.mark_response_started()
                self._closer.watch(copy)
                self._closer.start()
        self._scope["session"] = session
        return session

    def _check_origin(
        self, scheme: str, host: bytes | None, origin: bytes | None, *, proxied: bool
    ) -> None:
        if not origin_allowed(
            decode_header(origin),
            scheme,
            host=decode_header(host),
            allowed=self.web.config.allowed_origins,
            local=self.web.classify(scheme, host, proxied) is Transport.LOCAL,
        ):
            logger.warning(
                "refused a WebSocket handshake from origin %.200r; if it is yours, add it to "
                "allowed_origins",
                origin,
            )
            raise _ForeignOriginError

    def labels(self) -> dict[str, str]:
        """Return the labels of the client."""
        return read_labels(self._scope)

    def path(self) -> str:
        """Return the path of the handshake."""
        return read_path(self._scope)

    async def serve(self, app: ASGIApp, *, autoload: bool) -> None:
        """Run the application; refuse the handshake if its origin or the store demands it."""
        self._scope[CONNECTION] = self
        try:
            try:
                if autoload:
                    await self.load()
                await app(self._scope, self.receive, self.send)
            except SocketEnded:
                pass  # a handler that does not catch errors of its sends ends in this way
            except BaseException:
                # Changes after the last message are dropped as in a failing request (law A10); if
                # the client has disconnected, the handler did not fail.
                failed = not (self._closed or self.web.config.save_on_error)
                await asyncio.shield(self._finish(failed=failed))
                raise
            else:
                await self._finish(failed=False)
        except _ForeignOriginError:
            await self._refuse(HTTPStatus.FORBIDDEN)
        except StoreUnavailable as error:
            # One line: an outage has one for each visitor.
            logger.error(  # noqa: TRY400
                "closed a WebSocket because the session store failed: %s",
                error,
                exc_info=error.application_error,
            )
            await self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
        finally:
            try:
                await self._closer.stop_and_wait()
            finally:
                # Two reference cycles less: the socket is freed without the garbage collector.
                self._scope[CONNECTION] = None
                self.end()

    async def receive(self) -> Message:
        """Commit, wait for the next message, take in what others wrote, and deliver it."""
        copy = self.working_copy
        if copy is None or not self._accepted:
            return await self._receive()
        await self._commit_changes(copy)
        try:
            message = await self._closer.unless_ended(self._receive)
            if message["type"] == "websocket.receive":
                await self._refresh_after_message(copy)
        except SocketEnded as ended:
            message = {
                "type": "websocket.disconnect",
                "code": CLOSE_CODE,
                "reason": ended.reason,
            }
        if message["type"] == "websocket.disconnect":
            self._closed = True
        return message

    async def _refresh_after_message(self, copy: WorkingCopy) -> None:
        """Load what others wrote, and note that the client is active (laws W3 and W6)."""
        engine = self.web.engine
        copy.active_at = engine.clock()
        self._closer.outdated_record = False
        async with self._lock:
            if await engine.refresh(copy):
                await engine.commit(copy)
        self._closer.check_copy()

    async def _refresh_before_send(self, copy: WorkingCopy) -> None:
        """Load what others wrote, for a handler that sends and never receives."""
        try:
            async with self._lock:
                await self.web.engine.refresh(copy)
        except StoreError:
            return  # the message does not depend on it; the next one tries again
        self._closer.outdated_record = False
        self._closer.check_copy()

    async def send(self, message: Message) -> None:
        """Send a message to the server, after what has to be committed before it.

        Raises:
            OSError: the session has ended and the socket is closed (as in ASGI 2.4).
        """
        message_type = message["type"]
        copy = self.working_copy
        if message_type == "websocket.send":
            await self._send_data(copy, message)
        elif message_type == "websocket.accept":
            await self._accept(copy, message)
        elif message_type == "websocket.close":
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
        else:  # a handler that destroys its session may still tell its client, with one message
            with self._closer.close_delayed():
                await self._deliver(copy, message)
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
        if copy is None:
            await self._send(message)
            self._accepted = True
            return
        stored = copy.record is not None
        await self._commit_changes(copy)
        cookie = self.set_cookie()
        if cookie is not None:
            message = {**message, "headers": [*message.get("headers", ()), (b"set-cookie", cookie)]}
        copy.response_started = True
        self._closer.watch(copy)
        await self._send(message)
        self._accepted = True
        # A session that was revoked before it was watched did not reach this socket (law W7).
        if stored and not copy.revoked:
            async with self._lock:
                await self.web.engine.refresh(copy)
        self._closer.start()

    async def _close(self, copy: WorkingCopy | None, message: Message) -> None:
        if self._closer.reason is not None:
            return  # closed already, with the reason
        if copy is not None:
            with self._closer.close_delayed():
                await self._commit_changes(copy, failed=self._cannot_create(copy))
        self._closed = True
        self._closer.stop()
        await self._send(message)

    async def _send_denial(self, copy: WorkingCopy | None, message: Message) -> None:
        """Answer the handshake with an HTTP response, which can carry a cookie."""
        if copy is not None:
            headers = list(message.get("headers", ()))
            async with self._lock:
                sent = self.respond(message["status"], headers, complete=True)
                if isinstance(sent, CoroutineType):
                    sent = await sent
            self._closer.check_copy()
            message = {**message, "headers": sent}
        self._closed = True
        await self._send(message)

    async def _commit_changes(self, copy: WorkingCopy, *, failed: bool = False) -> None:
        async with self._lock:
            await self.web.engine.commit(copy, failed=failed)
        self._closer.check_copy()

    def _cannot_create(self, copy: WorkingCopy) -> bool:
        """Return whether the session is not stored and its cookie cannot be sent any more."""
        return copy.record is None and not self._accepted

    async def _finish(self, *, failed: bool) -> None:
        copy = self.working_copy
        if copy is not None:
            with self._closer.close_delayed():
                await self._commit_changes(copy, failed=failed or self._cannot_create(copy))

    async def _refuse(self, status: HTTPStatus) -> None:
        """Refuse the handshake or close the socket.

        Args:
            status: FORBIDDEN because of the origin, or SERVICE_UNAVAILABLE.
        """
        if self._closed or self._closer.reason is not None:
            return
        self._closed = True
        forbidden = status is HTTPStatus.FORBIDDEN
        denial = "websocket.http.response" in self._scope.get("extensions", {})
        if denial and not (forbidden or self._accepted):
            headers = [(b"retry-after", b"2"), (b"content-length", b"0")]
            await self._send(
                {"type": "websocket.http.response.start", "status": status, "headers": headers}
            )
            await self._send({"type": "websocket.http.response.body", "body": b""})
        else:
            code = _POLICY_VIOLATION if forbidden else _TRY_AGAIN_LATER
            await self._send({"type": "websocket.close", "code": code})
