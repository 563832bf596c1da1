"""Ending: how a socket is told that its session has ended, whoever speaks or does not.

What lives here: the close frame with 4401 and the reason, waking whoever waits for the client, and
the timer (laws W4, W6, W7). What must not: messages of the application (``socket.py``), who is open
(``registry.py``) and what other processes tell (``announcer.py``).

An open socket costs one timer. It rings when the session ends if nobody does anything, and within
the re-check interval, because whoever ended the session elsewhere may have been unable to say so:
one load for each socket and interval, so that 10,000 of them ask a store for 400 records a second,
and the process needs a fiftieth of a core for it (W10).

A look never changes what the handler sees: what others wrote is taken in when it sends, or is given
a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, ParamSpec, TypeVar

from sojourn._core.concurrency import running_loop
from sojourn._core.null_session import NullSession
from sojourn._core.policy import expired
from sojourn._core.session import Session
from sojourn.errors import StoreError
from sojourn.live.connections import LOGGED_IN
from sojourn.record import Record
from sojourn.web.lifecycle import Gate
from sojourn.web.scope import Send

#: Close code for "your session has ended": 4000 to 4999 are the application's (RFC 6455 7.4.2),
#: and 401 is what http says in this case.
ENDED: Final = 4401

#: A close frame has room for 123 bytes of reason (RFC 6455 5.5).
_REASON_BYTES: Final = 123

#: The part of the re-check interval that passes at least: sockets that opened together, such as
#: after a restart, must not all look together.
_SPREAD: Final = 0.7

#: Seconds until a deadline is looked at again when the store failed.
_RETRY: Final = 1.0

#: Seconds for the reason of an end to arrive after the end itself.
_SAID: Final = 0.1

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
        stale: others wrote what this socket has not taken in.
    """

    __slots__ = (
        "_again",
        "_blocked",
        "_checking",
        "_closing",
        "_gate",
        "_held",
        "_hint",
        "_loop",
        "_open",
        "_over",
        "_send",
        "_session",
        "_timer",
        "_turn",
        "_watched",
        "reason",
        "stale",
    )

    def __init__(self, gate: Gate, send: Send, turn: asyncio.Lock) -> None:
        self._gate = gate
        self._send = send
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self.reason: str | None = None
        self.stale: bool = False
        self._session: Session[Any] | None = None
        self._watched: str | None = None
        self._open = False
        self._over = False
        self._held = 0
        self._blocked: list[asyncio.Timeout] = []
        self._timer: asyncio.TimerHandle | None = None
        self._checking: asyncio.Task[None] | None = None
        self._again = False
        self._hint = ""
        self._closing: asyncio.Task[None] | None = None

    # From handshake to close

    def watch(self, session: Session[Any]) -> None:
        """Hear of the end of this session from now on."""
        if isinstance(session, NullSession):
            return  # it has no session that could end
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
        if self._session is not None:
            self._arm(self._session._record)

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
        self._in_loop(self.end_now, reason)

    def recheck(self, reason: str) -> None:
        """Look whether the session lives, and close if not; callable from any thread."""
        self._in_loop(self._look_again, reason)

    def outdated(self, version: int) -> None:
        """Have what others wrote taken in soon; callable from any thread."""
        self._in_loop(self._compare, version)

    def _in_loop(self, function: Callable[[T], object], argument: T) -> None:
        if running_loop() is self._loop:
            function(argument)
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed, and every socket with it
            self._loop.call_soon_threadsafe(function, argument)

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

    def look(self, reason: str = "") -> None:
        """End if the last commit or refresh found that the session is gone."""
        if self._session is not None and self._session._gone:
            self.end_now(reason or self._hint or "ended")

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

    # Looking

    def _arm(self, record: Record | None) -> None:
        """Set the timer to the moment the session ends if nobody does anything (law W6), or sooner.

        Activity is not followed: the timer finds out when it rings, and is set anew.
        """
        if record is None or self._over:
            return
        interval = self._gate.rules.recheck_interval * secrets.SystemRandom().uniform(_SPREAD, 1)
        seconds = (record.expires_at - self._gate.engine.clock()) / 1000
        self._ring_in(max(0.0, min(seconds, interval)))

    def _ring_in(self, seconds: float) -> None:
        self._disarm()
        self._timer = self._loop.call_later(seconds, self._look_again, "")

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_again(self, hint: str) -> None:
        if self._over:
            return
        self._hint = hint or self._hint
        if self._checking is not None and not self._checking.done():
            self._again = True  # what it reads just now may be older than what we were told
            return
        self._checking = self._loop.create_task(self._check())

    def _compare(self, version: int) -> None:
        known = None if self._session is None else self._session._record
        if known is not None and known.version < version:
            self.stale = True

    async def _check(self) -> None:
        """Look whether the session lives: others may have used it, or have ended it."""
        record = None if self._session is None else self._session._record
        if self._session is None or record is None:
            return
        engine = self._gate.engine
        try:
            newest, reason = await self._examine(record)
            if newest is None:
                async with self._turn:
                    await engine.refresh(self._session)
        except StoreError:
            # Nobody knows. A session that is over as far as we know is not left open for long.
            over = expired(record, engine.clock()) is not None
            self._ring_in(_RETRY if over else self._gate.rules.recheck_interval)
            return
        self.look(reason)
        if self._again:
            self._again = False
            self._checking = self._loop.create_task(self._check())
        else:
            self._hint = ""
            self._arm(newest or self._session._record)

    async def _examine(self, known: Record) -> tuple[Record | None, str]:
        """Return the newest record; if it has ended or is to be looked at, None and the reason."""
        engine = self._gate.engine
        newest = await engine.fetch(known.id)
        if newest is None:
            return None, await self._ask_why(known.id)
        if newest.authenticated_at != known.authenticated_at:
            return None, LOGGED_IN
        if expired(newest, engine.clock()) is not None:
            return None, ""  # the refresh tells
        self.stale = self.stale or newest.version > known.version
        return newest, ""

    async def _ask_why(self, session_id: bytes) -> str:
        """Return what we were told of a session's end, or else what was noted; empty if nothing.

        Whoever ends a session says why when it has ended: what is not known yet may be soon.
        """
        for seconds in (0.0, _SAID):
            await asyncio.sleep(seconds)
            if self._hint:
                break
            with contextlib.suppress(StoreError):  # it has ended all the same
                noted = await self._gate.engine.ender.reason(session_id)
                if noted:
                    return noted
        return self._hint
