"""Socket: the ``websocket`` half of the ASGI middleware.

What lives here: a WebSocket's session from the handshake to the close. What must not: who else is
open (``registry.py``) and when a session ends (``core/policy.py``); this file carries it out.

The socket has the session of the page that opened it (law W1). Each time the handler goes back to
wait, its changes are committed (W2); each time a message is delivered, what others wrote was taken
in (W3). When the session ends, the socket is closed with 4401 and the reason, whoever speaks or does
not (W6, W7). Cookies travel in the handshake, so a session may begin only before the accept (W8).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, Final

from sojourn.core.record import FOREVER
from sojourn.core.session import Session
from sojourn.errors import StoreUnavailable
from sojourn.web.gate import Gate
from sojourn.web.scope import (
    EXCHANGE,
    ASGIApp,
    Message,
    Receive,
    Scope,
    Send,
    read_headers,
    read_labels,
)
from sojourn.web.transport import Transport, origin_allowed

#: Close code for "your session has ended": 4000 to 4999 are the application's (RFC 6455 7.4.2),
#: and 401 is what http says in this case.
ENDED: Final = 4401

#: Close code for "come back later" (IANA registry of WebSocket close codes).
_TRY_AGAIN: Final = 1013

#: A close frame has room for 123 bytes of reason (RFC 6455 5.5).
_REASON_BYTES: Final = 123

#: Seconds; timers are set anew at least once a day, so that no deadline is too far for a timer.
_LONGEST_TIMER: Final = 86_400.0

logger = logging.getLogger("sojourn")


class _ForeignOrigin(Exception):
    """The handshake comes from a page of somebody else."""


class Socket:
    """One WebSocket connection; also who asks, for the labels of a new session."""

    __slots__ = (
        "_accepted",
        "_closed",
        "_closing",
        "_ended",
        "_loop",
        "_receive",
        "_registered",
        "_scope",
        "_send",
        "_timer",
        "_transport",
        "_waiting",
        "gate",
        "session",
    )

    def __init__(self, gate: Gate, scope: Scope, receive: Receive, send: Send) -> None:
        self.gate = gate
        self.session: Session[Any] | None = None
        self._scope = scope
        self._receive = receive
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._accepted = False
        self._closed = False
        self._ended: str | None = None
        self._registered: str | None = None
        self._waiting: asyncio.Timeout | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None

    async def load(self) -> Session[Any]:
        """Load the session of this socket, once, and show it to the application.

        Raises:
            StoreUnavailable: the store failed.
        """
        if self.session is None:
            found = read_headers(self._scope)
            scheme = self._scope.get("scheme", "ws")
            self._transport = self.gate.transport(scheme, found.host, proxied=found.proxied)
            if not origin_allowed(
                found.origin,
                scheme,
                host=found.host,
                allowed=self.gate.rules.allowed_origins,
                local=self._transport is Transport.LOCAL,
            ):
                logger.warning(
                    "refused a WebSocket handshake from origin %r; if it is yours, add it to "
                    "allowed_origins",
                    found.origin,
                )
                raise _ForeignOrigin
            self.session = await self.gate.admit(self._transport, found.host, found.cookies, self)
            self.session._started = self._accepted
        self._scope["session"] = self.session
        return self.session

    def labels(self) -> dict[str, str]:
        """Return what the handshake says of its client."""
        return read_labels(self._scope)

    async def serve(self, app: ASGIApp, *, autoload: bool) -> None:
        """Run the application; refuse the handshake where it must not get that far."""
        self._scope[EXCHANGE] = self
        try:
            if autoload:
                await self.load()
            await app(self._scope, self.receive, self.send)
        except _ForeignOrigin:
            await self._refuse(403)
        except StoreUnavailable:
            if self._accepted:
                raise
            logger.exception("refused a WebSocket because the session store failed")
            await self._refuse(503)
        except BaseException:
            # What came after a message that was answered by an exception is dropped (law A10);
            # a client that left is no reason to drop what the handler did meanwhile.
            await asyncio.shield(self._finish(failed=not self._closed))
            raise
        else:
            await self._finish(failed=False)
        finally:
            self._disarm()
            if self._registered is not None:
                self.gate.live.remove(self._registered, self)

    async def receive(self) -> Message:
        """Commit, wait for the next message, take in what others wrote, deliver it."""
        session = self.session
        if session is None or not self._accepted:
            return await self._receive()
        engine = self.gate.engine
        await engine.commit(session)
        if session._gone:
            self._end("ended")
        message = await self._wait()
        if message["type"] == "websocket.receive":
            if not await engine.refresh(session):
                self._end("ended")
                return await self._wait()
            self._arm()
        return message

    async def _wait(self) -> Message:
        """Return the next message, a disconnect as soon as the session has ended."""
        message: Message | None = None
        if self._ended is None:
            try:
                async with asyncio.timeout(None) as self._waiting:
                    message = await self._receive()
            except TimeoutError:
                if self._ended is None:
                    raise
            finally:
                self._waiting = None
        if message is None:
            message = {"type": "websocket.disconnect", "code": ENDED, "reason": self._ended}
        if message["type"] == "websocket.disconnect":
            self._closed = True
        return message

    async def send(self, message: Message) -> None:
        """Pass a message to the server; commit and register before the accept.

        Raises:
            OSError: the session has ended and the socket is closed (as servers do, ASGI 2.4).
        """
        kind = message["type"]
        if self._ended is not None and self._accepted:
            raise OSError(f"the socket was closed because its session ended: {self._ended}")
        if kind == "websocket.accept":
            await self._accept(message)
            return
        if kind == "websocket.close":
            self._closed = True
        await self._send(message)

    async def _accept(self, message: Message) -> None:
        session = self.session
        if session is None:
            self._accepted = True
            await self._send(message)
            return
        engine = self.gate.engine
        stored = session._record is not None
        await engine.commit(session)
        cookie = self.gate.set_cookie(session, self._transport)
        if cookie is not None:
            message["headers"] = [*message.get("headers", ()), (b"set-cookie", cookie)]
        session._started = True
        if session._record is not None:
            self._registered = session._record.session_id
            self.gate.live.add(self._registered, self)
        self._accepted = True
        await self._send(message)
        # Whoever revoked the session before it was registered did not know of this socket (W7).
        if session._gone or (stored and not await engine.refresh(session)):
            self._end("ended")
        else:
            self._arm()

    async def _finish(self, *, failed: bool) -> None:
        self._closed = True
        if self.session is not None:
            await self.gate.engine.commit(self.session, failed=failed)

    # Ending from outside

    def end(self, reason: str) -> None:
        """Close with 4401; callable from any thread, more than once."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and every socket with it
            self._loop.call_soon_threadsafe(self._end, reason)

    def _end(self, reason: str) -> None:
        if self._ended is not None:
            return
        self._ended = reason.encode()[:_REASON_BYTES].decode(errors="ignore")
        self._disarm()
        if self._accepted and not self._closed:
            self._closing = self._loop.create_task(self._close(self._ended))
        if self._waiting is not None:
            self._waiting.reschedule(self._loop.time())

    async def _close(self, reason: str) -> None:
        with contextlib.suppress(OSError):  # the client was faster
            await self._send({"type": "websocket.close", "code": ENDED, "reason": reason})

    def _arm(self) -> None:
        """Set the timer to the moment the session ends if nobody does anything (law W6)."""
        self._disarm()
        record = self.session._record if self.session is not None else None
        if record is None or record.expires_at >= FOREVER:
            return
        seconds = (record.expires_at - self.gate.engine.clock()) / 1000
        self._timer = self._loop.call_later(
            max(0.0, min(seconds, _LONGEST_TIMER)), self._on_deadline
        )

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_deadline(self) -> None:
        self._closing = self._loop.create_task(self._check())

    async def _check(self) -> None:
        """Look whether the session really is over: a page elsewhere may have been active."""
        if self.session is None:
            return
        try:
            alive = await self.gate.engine.refresh(self.session)
        except StoreUnavailable:
            self._timer = self._loop.call_later(1.0, self._on_deadline)
            return
        if alive:
            self._arm()
        else:
            self._end("ended")

    async def _refuse(self, status: int) -> None:
        """End the handshake: 403 for a foreign origin, 503 where the store failed."""
        if status != 403 and "websocket.http.response" in self._scope.get("extensions", {}):
            await self._send(
                {
                    "type": "websocket.http.response.start",
                    "status": status,
                    "headers": [(b"retry-after", b"2"), (b"content-length", b"0")],
                }
            )
            await self._send({"type": "websocket.http.response.body", "body": b""})
        else:
            code = ENDED if status == 403 else _TRY_AGAIN
            await self._send({"type": "websocket.close", "code": code})
