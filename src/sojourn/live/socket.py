"""Socket: the ``websocket`` half of the ASGI middleware.

What lives here: a WebSocket's session from the handshake to the close. What must not: who else is
open (``registry.py``), when a session ends (``_core/policy.py``), and how its socket is told
(``ending.py``); this file moves messages between server, gate and engine.

The socket has the session of the page that opened it (law W1). What a handler changes is committed
before each message it sends, each time it goes back to wait, and at the close (W2), so that whoever
got a message finds what it tells of on the next page. Each time a message is delivered, what others
wrote was taken in (W3). Cookies travel in the handshake, so a session may begin only before the
accept (W8).
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Any, Final

from sojourn._core.null_session import NullSession
from sojourn._core.session import Session
from sojourn.errors import StoreError, StoreUnavailable
from sojourn.live.ending import ENDED, Ending, SocketEnded
from sojourn.web import cache_headers as caching
from sojourn.web.lifecycle import Gate, OnStoreFailure
from sojourn.web.scope import (
    EXCHANGE,
    ASGIApp,
    Message,
    Receive,
    Scope,
    Send,
    read_headers,
    read_labels,
    read_path,
)
from sojourn.web.transport import Transport, origin_allowed

#: Close codes "policy violation" and "try again later" (RFC 6455 7.4.1 and the IANA registry).
_POLICY: Final = 1008
_TRY_AGAIN: Final = 1013

logger: logging.Logger = logging.getLogger("sojourn")


class _ForeignOrigin(Exception):
    """The handshake comes from a page of somebody else."""


class Socket:
    """One WebSocket connection; also who asks, for the labels of a new session."""

    __slots__ = (
        "_accepted",
        "_closed",
        "_ending",
        "_receive",
        "_scope",
        "_send",
        "_transport",
        "_turn",
        "gate",
        "session",
    )

    def __init__(self, gate: Gate, scope: Scope, receive: Receive, send: Send) -> None:
        self.gate: Gate = gate
        self.session: Session[Any] | None = None
        self._scope = scope
        self._receive = receive
        self._send = send
        # Handlers often read and push in two tasks: a message must not leave before the changes
        # that the other task is just writing, nor an older record be taken in over a newer one.
        self._turn = asyncio.Lock()
        self._ending = Ending(gate, send, self._turn)
        self._accepted = False
        self._closed = False

    async def load(self, policy: OnStoreFailure | None = None) -> Session[Any]:
        """Load the session of this socket, once, and show it to the application.

        Args:
            policy: what the route asks for where the store fails; None for the installation's.

        Raises:
            StoreUnavailable: the store failed.
        """
        if self.session is None:
            host, cookies, origin, proxied = read_headers(self._scope)
            scheme = self._scope.get("scheme", "ws")
            self._transport = self.gate.transport(scheme, host, proxied=proxied)
            if not origin_allowed(
                None if origin is None else origin.decode("latin-1"),
                scheme,
                host=None if host is None else host.decode("latin-1"),
                allowed=self.gate.rules.allowed_origins,
                local=self._transport is Transport.LOCAL,
            ):
                logger.warning(
                    "refused a WebSocket handshake from origin %.200r; if it is yours, add it to "
                    "allowed_origins",
                    origin,
                )
                raise _ForeignOrigin
            try:
                self.session = await self.gate.admit(self._transport, host, cookies, self)
            except StoreUnavailable as failure:
                path = read_path(self._scope)
                self.session = stranded = self.gate.strand(failure, path, self, policy=policy)
                if stranded._denied:
                    raise
            self.session._seen_at = self.gate.engine.clock()
            if self._accepted:  # the handler asked late: no cookie any more, all else as usual
                self.session._late()
                self._ending.watch(self.session)
                self._ending.begin()
        elif isinstance(self.session, NullSession):
            self.session._insist(wanted=policy == "error")
        self._scope["session"] = self.session
        return self.session

    def labels(self) -> dict[str, str]:
        """Return what the handshake says of its client."""
        return read_labels(self._scope)

    async def serve(self, app: ASGIApp, *, autoload: bool) -> None:
        """Run the application; refuse the handshake where it must not get that far."""
        self._scope[EXCHANGE] = self
        try:
            try:
                if autoload:
                    await self.load()
                await app(self._scope, self.receive, self.send)
            except SocketEnded:
                pass  # a handler without a try around its sends: this is how it should end
            except BaseException:
                # What came after the last message sent is dropped as with a failing request (law
                # A10); a client that left is no reason to drop what the handler did meanwhile.
                failed = not (self._closed or self.gate.rules.save_on_error)
                await asyncio.shield(self._finish(failed=failed))
                raise
            else:
                await self._finish(failed=False)
        except _ForeignOrigin:
            await self._refuse(HTTPStatus.FORBIDDEN)
        except StoreUnavailable as error:
            # One line: an outage has as many of them as there are visitors.
            logger.error("closed a WebSocket because the session store failed: %s", error)  # noqa: TRY400 - one line each
            await self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
        finally:
            await self._ending.leave()

    async def receive(self) -> Message:
        """Commit, wait for the next message, take in what others wrote, deliver it."""
        session = self.session
        if session is None or not self._accepted:
            return await self._receive()
        await self._commit(session)
        try:
            message = await self._ending.unless_ended(self._receive)
            if message["type"] == "websocket.receive":
                await self._take_in(session)
        except SocketEnded as ended:
            message = {"type": "websocket.disconnect", "code": ENDED, "reason": ended.reason}
        if message["type"] == "websocket.disconnect":
            self._closed = True
        return message

    async def _take_in(self, session: Session[Any]) -> None:
        """Load what others wrote, and note that the visitor is active (laws W3 and W6)."""
        engine = self.gate.engine
        session._seen_at = engine.clock()
        self._ending.stale = False
        async with self._turn:
            if await engine.refresh(session):
                await engine.commit(session)
        self._ending.look()

    async def _catch_up(self, session: Session[Any]) -> None:
        """Load what others wrote, as they said, for a handler that sends and never waits."""
        try:
            async with self._turn:
                await self.gate.engine.refresh(session)
        except StoreError:
            return  # the message does not depend on it; the next one tries again
        self._ending.stale = False
        self._ending.look()

    async def send(self, message: Message) -> None:
        """Pass a message to the server, having committed what must not come after it.

        Raises:
            OSError: the session has ended and the socket is closed (as servers do, ASGI 2.4).
        """
        kind = message["type"]
        session = self.session
        if kind == "websocket.send":
            await self._say(session, message)
        elif kind == "websocket.accept":
            await self._accept(session, message)
        elif kind == "websocket.close":
            await self._close(session, message)
        elif kind == "websocket.http.response.start":
            await self._deny(session, message)
        else:
            await self._send(message)

    async def _say(self, session: Session[Any] | None, message: Message) -> None:
        if session is None:
            await self._send(message)
        elif session._destroyed is None:
            await self._deliver(session, message)
        else:  # who destroys its own session may still tell its client: with one message
            with self._ending.held():
                await self._deliver(session, message)
            self._ending.end_now("destroyed")

    async def _deliver(self, session: Session[Any], message: Message) -> None:
        self._ending.check()
        await self._commit(session)
        if self._ending.stale:
            await self._catch_up(session)
        try:
            await self._ending.unless_ended(self._send, message)
        except SocketEnded:
            raise
        except OSError:  # how newer servers tell that the client has left
            self._closed = True
            raise

    async def _accept(self, session: Session[Any] | None, message: Message) -> None:
        if session is None:
            await self._send(message)
            self._accepted = True
            return
        stored = session._record is not None
        await self._commit(session)
        cookie = self.gate.set_cookie(session, self._transport)
        if cookie is not None:
            message = {**message, "headers": [*message.get("headers", ()), (b"set-cookie", cookie)]}
        session._started = True
        self._ending.watch(session)
        await self._send(message)
        self._accepted = True
        # Whoever ended the session before it was watched did not know of this socket (law W7).
        if stored and not session._gone:
            async with self._turn:
                await self.gate.engine.refresh(session)
        self._ending.begin()

    async def _close(self, session: Session[Any] | None, message: Message) -> None:
        if self._ending.reason is not None:
            return  # it is closed already, with the reason: nothing is wrong with closing it twice
        if session is not None:
            with self._ending.held():
                await self._commit(session, failed=self._unborn(session))
        self._closed = True
        self._ending.stop()
        await self._send(message)

    async def _deny(self, session: Session[Any] | None, message: Message) -> None:
        """Status the handshake with an http response, which can carry a cookie."""
        if session is not None:
            failed = message["status"] >= HTTPStatus.INTERNAL_SERVER_ERROR
            failed = failed and not self.gate.rules.save_on_error
            await self._commit(session, failed=failed)
            sent = caching.apply(
                list(message.get("headers", ())),
                looked=session._looked,
                private=session._user is not None,
                set_cookie=self.gate.set_cookie(session, self._transport),
            )
            message = {**message, "headers": sent}
            session._started = True
        self._closed = True
        await self._send(message)

    async def _commit(self, session: Session[Any], *, failed: bool = False) -> None:
        async with self._turn:
            await self.gate.engine.commit(session, failed=failed)
        self._ending.look()

    def _unborn(self, session: Session[Any]) -> bool:
        """Whether the session has no record and its cookie cannot be sent any more."""
        return session._record is None and not self._accepted

    async def _finish(self, *, failed: bool) -> None:
        session = self.session
        if session is not None:
            with self._ending.held():
                await self._commit(session, failed=failed or self._unborn(session))

    async def _refuse(self, status: HTTPStatus) -> None:
        """End the handshake or the socket: FORBIDDEN by its origin, SERVICE_UNAVAILABLE."""
        if self._closed or self._ending.reason is not None:
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
            code = _POLICY if forbidden else _TRY_AGAIN
            await self._send({"type": "websocket.close", "code": code})
