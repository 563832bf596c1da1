"""Ending: how a socket is told that its session has ended, whoever speaks or does not.

What lives here: the close frame with 4401 and the reason, waking whoever waits for the client, and
the timer of idle and absolute limits (laws W4, W6, W7). What must not: messages of the application
(``socket.py``) and who is open (``registry.py``).

Nothing here polls: an open socket costs one timer, which is set to the moment the session ends if
nobody does anything, and looks again when that moment comes (W10).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, ParamSpec, TypeVar

from sojourn.core.drive import running_loop
from sojourn.core.record import FOREVER
from sojourn.core.session import Session
from sojourn.errors import StoreError
from sojourn.web.gate import Gate
from sojourn.web.scope import Send

#: Close code for "your session has ended": 4000 to 4999 are the application's (RFC 6455 7.4.2),
#: and 401 is what http says in this case.
ENDED: Final = 4401

#: A close frame has room for 123 bytes of reason (RFC 6455 5.5).
_REASON_BYTES: Final = 123

#: Seconds; timers are set anew at least once a day, so that no deadline is too far for a timer.
_LONGEST_TIMER: Final = 86_400.0

#: Seconds until a deadline is looked at again when the store failed.
_RETRY: Final = 1.0

#: Seconds for a close frame to leave; a client that reads nothing is then left to the server.
_PATIENCE: Final = 1.0

T = TypeVar("T")
P = ParamSpec("P")


class SocketEnded(OSError):
    """The session has ended and the socket is closed; an ``OSError`` as servers raise it."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the socket was closed because its session ended: {reason}")


class Ending:
    """The end of one socket: a ``Connection`` of the registry.

    Args:
        gate: whose engine knows the limits, and whose registry tells of revocations.
        send: the server's; used for the close frame alone.
        turn: held by whoever reads or writes the session's record for this socket.

    Attributes:
        reason: why the session ended; None while it has not.
    """

    __slots__ = (
        "_blocked",
        "_checking",
        "_closing",
        "_gate",
        "_held",
        "_loop",
        "_open",
        "_over",
        "_send",
        "_session",
        "_timer",
        "_turn",
        "_watched",
        "reason",
    )

    def __init__(self, gate: Gate, send: Send, turn: asyncio.Lock) -> None:
        self._gate = gate
        self._send = send
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self.reason: str | None = None
        self._session: Session[Any] | None = None
        self._watched: str | None = None
        self._open = False
        self._over = False
        self._held = 0
        self._blocked: list[asyncio.Timeout] = []
        self._timer: asyncio.TimerHandle | None = None
        self._checking: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    # From handshake to close

    def watch(self, session: Session[Any]) -> None:
        """Hear of the end of this session from now on."""
        self._session = session
        if session._record is not None:
            self._watched = session._record.session_id
            self._gate.live.add(self._watched, self)

    def begin(self) -> None:
        """The socket is accepted: close it when the session ends, or has ended meanwhile."""
        self._open = True
        if self.reason is not None:
            self._hang_up()
            return
        self.look()
        self._arm()

    def stop(self) -> None:
        """The socket is being closed for another reason; nothing is left to end."""
        self._over = True
        self._disarm()
        if self._watched is not None:
            self._gate.live.remove(self._watched, self)
            self._watched = None

    async def leave(self) -> None:
        """Stop, and see to it that nothing of this socket goes on."""
        self.stop()
        if self._checking is not None:
            self._checking.cancel()
        if self._closing is not None and not self._closing.done():
            try:
                await asyncio.wait({self._closing}, timeout=_PATIENCE)
            finally:
                self._closing.cancel()

    # The session ends

    def end(self, reason: str) -> None:
        """Close with 4401; callable from any thread, more than once."""
        if running_loop() is self._loop:
            self.end_now(reason)
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed, and every socket with it
            self._loop.call_soon_threadsafe(self.end_now, reason)

    def end_now(self, reason: str) -> None:
        """Do the same from the socket's own event loop."""
        if self.reason is not None or self._held or self._over:
            return
        self.reason = reason.encode()[:_REASON_BYTES].decode(errors="ignore")
        self.stop()
        # First those who wait for the client, so that none of them is in the close frame's way.
        for patience in self._blocked:
            patience.reschedule(self._loop.time())
        if self._open:
            self._hang_up()

    def look(self) -> None:
        """End if the last commit or refresh found that the session is gone."""
        if self._session is not None and self._session._gone:
            self.end_now("ended")

    def check(self) -> None:
        """Raise ``SocketEnded`` if the session has ended."""
        if self.reason is not None:
            raise SocketEnded(self.reason)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Do not close while the handler's own last message or close frame is leaving."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    async def unless_ended(
        self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Wait for the server, but no longer than the session lasts.

        Raises:
            SocketEnded: the session had ended, or ended while the client kept us waiting.
        """
        self.check()
        try:
            async with asyncio.timeout(None) as patience:
                self._blocked.append(patience)
                try:
                    result = await function(*args, **kwargs)
                finally:
                    self._blocked.remove(patience)
        except TimeoutError:
            self.check()
            raise
        return result

    def _hang_up(self) -> None:
        self._closing = self._loop.create_task(self._close())

    async def _close(self) -> None:
        # The client, the server or the handler may have been faster: then it is closed.
        with contextlib.suppress(OSError, RuntimeError):
            await self._send({"type": "websocket.close", "code": ENDED, "reason": self.reason})

    # Deadlines

    def _arm(self) -> None:
        """Set the timer to the moment the session ends if nobody does anything (law W6).

        Activity is not followed: the timer finds out when it rings, and is set anew.
        """
        record = None if self._session is None else self._session._record
        if record is None or record.expires_at >= FOREVER:
            return
        seconds = (record.expires_at - self._gate.engine.clock()) / 1000
        self._ring_in(max(0.0, min(seconds, _LONGEST_TIMER)))

    def _ring_in(self, seconds: float) -> None:
        if not self._over:
            self._timer = self._loop.call_later(seconds, self._ring)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._checking = self._loop.create_task(self._check())

    async def _check(self) -> None:
        """Look whether the session really is over: a page elsewhere may have been active."""
        if self._session is None:
            return
        try:
            async with self._turn:
                await self._gate.engine.refresh(self._session)
        except StoreError:
            self._ring_in(_RETRY)
            return
        self.look()
        self._arm()
