"""WebSocketCloser: closes one socket when its session ends."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, ParamSpec, TypeVar

from sojourn._core.concurrency import running_loop
from sojourn._core.policy import expired
from sojourn._core.working_copy import WorkingCopy
from sojourn.errors import StoreError
from sojourn.live.connections import LOGGED_IN
from sojourn.record import Record
from sojourn.web.asgi_scope import Send
from sojourn.web.installation import WebInstallation

#: A close frame has room for 123 bytes of reason (RFC 6455 5.5).
_MAX_REASON_BYTES: Final = 123

#: The reason if none is known.
_ENDED: Final = "ended"

#: The least part of the re-check interval that passes: sockets that were opened together, such as
#: after a restart, must not all check together.
_MIN_INTERVAL_SHARE: Final = 0.7

#: Seconds until an expired session is checked again if the store failed.
_RETRY_INTERVAL: Final = 1.0

#: Seconds for the reason of a revocation to arrive after the revocation.
_REASON_TIMEOUT: Final = 0.1

#: Seconds for a close frame to be sent; a client that reads nothing is then left to the server.
_CLOSE_TIMEOUT: Final = 1.0

T = TypeVar("T")
P = ParamSpec("P")


class SocketEnded(OSError):
    """The session has ended and the socket is closed; an ``OSError``, as servers raise it.

    Attributes:
        reason: why the session ended.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the socket was closed because its session ended: {reason}")


class WebSocketCloser:
    """Watches the session of one socket; a ``Connection`` of the registry.

    It sends the close frame with ``close_code`` and the reason, interrupts handlers that wait for
    the client, and owns the socket's only timer (laws W4, W6, W7). The timer fires when the session
    would expire, and within the re-check interval, because the message of a revocation may be lost:
    one load for each socket and interval, so 10,000 sockets load 400 records a second, at 2 % of a
    core.

    A check never changes the handler's session. The newest record is adopted when it sends, or when
    a message is delivered to it.

    Args:
        web: its engine has the limits, its registry reports revocations.
        send: of the server; used for the close frame only.
        lock: held while the session's record is read or written for this socket.

    Attributes:
        reason: why the session ended; None while it is alive.
        outdated_record: others wrote changes that this socket has not adopted.
    """

    __slots__ = (
        "_check_task",
        "_close_delays",
        "_close_task",
        "_copy",
        "_delayed_reason",
        "_lock",
        "_loop",
        "_open",
        "_recheck_again",
        "_reported_reason",
        "_send",
        "_stopped",
        "_timer",
        "_waiting",
        "_watched_id",
        "_web",
        "outdated_record",
        "reason",
    )

    def __init__(self, web: WebInstallation, send: Send, lock: asyncio.Lock) -> None:
        self._web = web
        self._send = send
        self._lock = lock
        self._loop = asyncio.get_running_loop()
        self.reason: str | None = None
        self.outdated_record: bool = False
        self._copy: WorkingCopy | None = None
        self._watched_id: str | None = None
        self._open = False
        self._stopped = False
        self._close_delays = 0
        self._delayed_reason: str | None = None
        self._waiting: list[asyncio.Timeout] = []
        self._timer: asyncio.TimerHandle | None = None
        self._check_task: asyncio.Task[None] | None = None
        self._recheck_again = False
        self._reported_reason = ""
        self._close_task: asyncio.Task[None] | None = None

    # From the handshake to the close

    def watch(self, copy: WorkingCopy) -> None:
        """Receive the end of this session from now on. Idempotent."""
        if copy.store_error is not None or self._watched_id is not None:
            return  # without a session that could end, or watched already
        self._copy = copy
        if copy.record is not None:
            self._watched_id = copy.record.session_id
            self._web.connections.add(self._watched_id, self)

    def start(self) -> None:
        """Close the socket, now accepted, when the session ends or if it has ended."""
        self._open = True
        if self.reason is not None:
            self._start_close()
        elif self._copy is not None:
            self._set_timer(self._copy.record)

    def stop(self) -> None:
        """Stop watching: the socket is being closed for another reason."""
        self._stopped = True
        self._cancel_timer()
        if self._watched_id is not None:
            self._web.connections.remove(self._watched_id, self)
            self._watched_id = None

    async def stop_and_wait(self) -> None:
        """Stop, and end the tasks of this socket."""
        self.stop()
        if self._check_task is not None:
            self._check_task.cancel()
        if self._close_task is not None and not self._close_task.done():
            try:
                await asyncio.wait({self._close_task}, timeout=_CLOSE_TIMEOUT)
            finally:
                self._close_task.cancel()

    # The session ends

    def end(self, reason: str) -> None:
        """Close the socket; thread-safe, idempotent."""
        self._call_in_loop(self.end_now, reason)

    def recheck(self, reason: str) -> None:
        """Load the session and close if it has ended; thread-safe."""
        self._call_in_loop(self._start_check, reason)

    def mark_outdated(self, version: int) -> None:
        """Adopt the newest record before the next message; thread-safe."""
        self._call_in_loop(self._compare_version, version)

    def _call_in_loop(self, function: Callable[[T], object], argument: T) -> None:
        if running_loop() is self._loop:
            function(argument)
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed, and its sockets with it
            self._loop.call_soon_threadsafe(function, argument)

    def end_now(self, reason: str) -> None:
        """Close the socket; call it in its event loop."""
        if self.reason is not None or self._stopped:
            return
        if self._close_delays:
            self._delayed_reason = self._delayed_reason or reason
            return
        self.reason = close_reason(reason)
        self.stop()
        # First those that wait for the client, so that none of them delays the close frame.
        for timeout in self._waiting:
            timeout.reschedule(self._loop.time())
        if self._open:
            self._start_close()

    async def check_copy(self) -> None:
        """Close if the last commit or refresh found that the session has ended."""
        copy = self._copy
        if copy is None or not copy.revoked or self.reason is not None or self._stopped:
            return
        reason = ""
        try:
            reason = await self.find_reason(copy.session_id())
        finally:  # also if this task is cancelled meanwhile
            self.end_now(reason or _ENDED)

    def raise_if_ended(self) -> None:
        """Raise ``SocketEnded`` if the session has ended."""
        if self.reason is not None:
            raise SocketEnded(self.reason)

    @contextlib.contextmanager
    def close_delayed(self) -> Iterator[None]:
        """Do not close while the handler's own last message or close frame is sent."""
        self._close_delays += 1
        try:
            yield
        finally:
            self._close_delays -= 1
            if self._delayed_reason is not None and not self._close_delays:
                self.end_now(self._delayed_reason)

    async def unless_ended(
        self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call a function of the server, and stop waiting for it if the session ends.

        Raises:
            SocketEnded: the session had ended, or ended meanwhile.
        """
        self.raise_if_ended()
        try:
            async with asyncio.timeout(None) as timeout:
                self._waiting.append(timeout)
                try:
                    result = await function(*args, **kwargs)
                finally:
                    self._waiting.remove(timeout)
        except TimeoutError:
            self.raise_if_ended()
            raise
        return result

    def _start_close(self) -> None:
        self._close_task = self._loop.create_task(self._close())

    async def _close(self) -> None:
        # The client, the server or the handler may have closed it already.
        with contextlib.suppress(OSError, RuntimeError):
            code = self._web.config.close_code
            await self._send({"type": "websocket.close", "code": code, "reason": self.reason})

    # Checking

    def _set_timer(self, record: Record | None) -> None:
        """Set the timer to the expiry of the session without activity (law W6), or earlier.

        Activity does not move it: the check finds the new deadline and sets it again.
        """
        if record is None or self._stopped:
            return
        share = secrets.SystemRandom().uniform(_MIN_INTERVAL_SHARE, 1)
        interval = self._web.config.recheck_interval * share
        seconds = (record.expires_at - self._web.engine.clock()) / 1000
        self._call_later(max(0.0, min(seconds, interval)))

    def _call_later(self, seconds: float) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_later(seconds, self._start_check, "")

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start_check(self, reason: str) -> None:
        if self._stopped:
            return
        self._reported_reason = reason or self._reported_reason
        if self._check_task is not None and not self._check_task.done():
            self._recheck_again = True  # what it reads now may be older than this message
            return
        self._check_task = self._loop.create_task(self._check())

    def _compare_version(self, version: int) -> None:
        known = None if self._copy is None else self._copy.record
        if known is not None and known.version < version:
            self.outdated_record = True

    async def _check(self) -> None:
        """Check that the session is alive; another request may have extended or ended it."""
        record = None if self._copy is None else self._copy.record
        if self._copy is None or record is None:
            return
        engine = self._web.engine
        try:
            newest = await self._load_newest(record)
            if newest is None:
                async with self._lock:
                    await engine.refresh(self._copy)
        except StoreError:
            # Unknown. A session that should have expired is not left open for long.
            over = expired(record, engine.clock()) is not None
            self._call_later(_RETRY_INTERVAL if over else self._web.config.recheck_interval)
            return
        await self.check_copy()
        if self._recheck_again:
            self._recheck_again = False
            self._check_task = self._loop.create_task(self._check())
        else:
            self._reported_reason = ""
            self._set_timer(newest or self._copy.record)

    async def _load_newest(self, known: Record) -> Record | None:
        """Return the newest record; None if the session may have ended."""
        engine = self._web.engine
        newest = await engine.fetch(known.id)
        if (
            newest is None
            or newest.authenticated_at != known.authenticated_at
            or expired(newest, engine.clock()) is not None
        ):
            return None
        self.outdated_record = self.outdated_record or newest.version > known.version
        return newest

    async def find_reason(self, session_id: bytes) -> str:
        """Return why a session has ended: as reported, or as its tombstone says; "" if unknown.

        The reason is recorded after the session is deleted, so it may arrive a moment later.

        Args:
            session_id: 16 bytes.
        """
        engine = self._web.engine
        for seconds in (0.0, _REASON_TIMEOUT):
            await asyncio.sleep(seconds)
            if self._reported_reason:
                break
            with contextlib.suppress(StoreError):  # it has ended nevertheless
                reason = await engine.revoker.reason(session_id)
                if reason:
                    return reason
                if await engine.fetch(session_id) is not None:  # it lives on with another ticket
                    return LOGGED_IN
        return self._reported_reason


def close_reason(text: str) -> str:
    """Return a text cut to what a close frame can carry."""
    return text.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
