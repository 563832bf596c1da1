"""CallbackStore: records behind two functions of yours, within limits that it states.

What lives here: the six calls of a store made from ``read`` and ``write``. What must not: a client
of any service.

Two functions have no compare-and-set. Within a process everything that changes a session takes its
turn, so every law of ``laws.md`` for stores holds there. Between processes a save that falls in the
instant between another's read and its write is overwritten. That a session ended by one process is
not revived by another's save is kept by a mark (see ``_settle``), except if a process dies in the
very instant between its write and its look at the mark. ``docs/stores.md`` says when that matters.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from sojourn._core.concurrency import KeyedLock, offload, run, running_loop
from sojourn._crypto.tickets import ID_BYTES
from sojourn.errors import ConfigurationError, StoreError, StoreUnavailable
from sojourn.record import Record, UnreadableRecord
from sojourn.store import GONE, SAVED, Conflict, Purged, SaveResult

ReadFunction = Callable[[str], bytes | Awaitable[bytes | None] | None]
"""``read(session_id)``: the bytes last written, None if there are none (any more)."""

WriteFunction = Callable[[str, bytes | None, int], object]
"""``write(session_id, value, seconds)``: keep the value for that long; None deletes."""

T = TypeVar("T")

#: What stands where a session was ended. Its first byte is no format of a record.
_MARK: Final = b"\0ended"

#: Far longer than any save may be under way.
_MARK_SECONDS: Final = 600

#: A record is forgotten a little late: when it ends is decided by its own times.
_MARGIN_SECONDS: Final = 60


class CallbackStore:
    """Keeps records through two functions, plain or ``async``.

    ``read`` gets a session ID (32 hex digits) and returns the bytes last written, or None.
    ``write`` gets a session ID, the bytes to keep or None to delete, and for how many seconds they
    must be kept at least; after that they may be forgotten. A function that fails raises: that is
    answered with 503, never taken for an empty session.

    Plain functions run in a worker thread where there is an event loop. ``async`` ones need one, so
    they do not serve WSGI. Both must finish within ``store_timeout``; a plain one cannot be stopped
    and goes on unheard, so give your client a timeout as well.

    Args:
        read: may also be given later, with ``sessions.on_read``.
        write: may also be given later, with ``sessions.on_write``.

    Raises:
        ConfigurationError: one of them cannot be called.
    """

    def __init__(
        self, *, read: ReadFunction | None = None, write: WriteFunction | None = None
    ) -> None:
        self._read = _Function("read", read)
        self._write = _Function("write", write)
        self._turns = KeyedLock()
        self._timeout = 2.0

    def __repr__(self) -> str:
        """Show the functions, and what they cannot do."""
        return f"CallbackStore({self._read!r}, {self._write!r}, no compare-and-set)"

    def on_read(self, function: ReadFunction) -> None:
        """Read with this function from now on."""
        self._read = _Function("read", function)

    def on_write(self, function: WriteFunction) -> None:
        """Write with this function from now on."""
        self._write = _Function("write", function)

    def set_timeout(self, seconds: float) -> None:
        """Take the deadline of every call."""
        self._timeout = seconds

    def requires_event_loop(self) -> str | None:
        """Return what to use where no loop runs, None if both functions are plain."""
        if not (self._read.is_async or self._write.is_async):
            return None
        return "give CallbackStore plain functions (def, over a blocking client)"

    # The six calls

    async def load(self, session_id: bytes) -> Record | None:
        """Return the record, None if there is none."""
        return await self._do(self._get, session_id)

    async def create(self, record: Record) -> bool:
        """Insert a record; False if its ID is taken."""
        return await self._do(self._in_turn, self._create, record.id, record)

    async def save(self, record: Record, expected_version: int) -> SaveResult:
        """Replace the record whose version is the expected one."""
        return await self._do(self._in_turn, self._save, record.id, record, expected_version)

    async def touch(self, record: Record) -> bool:
        """Move ``seen_at`` forward, never backward."""
        return await self._do(self._in_turn, self._touch, record.id, record)

    async def delete(self, session_id: bytes) -> bool:
        """Remove a record; tell whether there was one."""
        return await self._do(self._in_turn, self._delete, session_id, session_id)

    async def purge(self, now: int, limit: int) -> Purged:
        """Do nothing: whoever keeps the bytes forgets them after the seconds it was told."""
        del now, limit
        return Purged(0, finished=True)

    # What they do, each in its turn

    async def _create(self, record: Record) -> bool:
        if await self._call_read(record.id) is not None:
            return False
        await self._put(record)
        return True

    async def _save(self, record: Record, expected_version: int) -> SaveResult:
        stored = await self._find(record.id)
        if stored is None:
            return GONE
        if stored.version != expected_version:
            return Conflict(stored)
        await self._put(record.with_seen_at(stored.seen_at))
        return SAVED if await self._settle(stored) else GONE

    async def _touch(self, record: Record) -> bool:
        stored = await self._find(record.id)
        if stored is None:
            return False
        if record.seen_at <= stored.seen_at:
            return True
        await self._put(stored.with_seen_at(record.seen_at))
        return await self._settle(stored)

    async def _delete(self, session_id: bytes) -> bool:
        try:
            stored = await self._get(session_id)
        except UnreadableRecord:
            pass  # no save can revive this
        else:
            if stored is None:
                return False
            await self._call_write(_mark(stored), _MARK, _MARK_SECONDS)
        await self._call_write(session_id, None, 0)
        return True

    async def _settle(self, stored: Record) -> bool:
        """Take back a write that revived a session which another process ended meanwhile.

        Whoever ends a session marks it before removing its record. So a write that came after the
        removal finds the mark. The mark has an ID of its own: in the record's place, the very write
        it is there to stop would wipe it out.
        """
        if await self._call_read(_mark(stored)) is None:
            return True
        await self._call_write(stored.id, None, 0)
        return False

    # Records and bytes

    async def _get(self, session_id: bytes) -> Record | None:
        data = await self._call_read(session_id)
        return None if data is None else Record.from_bytes(session_id, data)

    async def _find(self, session_id: bytes) -> Record | None:
        """Return the record, None if there is none or what is there is none of ours (law S9)."""
        try:
            return await self._get(session_id)
        except UnreadableRecord:
            return None

    async def _put(self, record: Record) -> None:
        # From its last activity, not from now: a store has no clock. Never less than is left.
        seconds = (record.expires_at - record.seen_at) // 1000 + _MARGIN_SECONDS
        await self._call_write(record.id, record.to_bytes(), seconds)

    # Calling the functions

    async def _do(self, work: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """Do one call of a store within the deadline.

        With plain functions under an event loop all of it moves to one worker thread and runs to
        its end there, also when nobody waits any more: its effect is whole, and in its turn.
        """
        advice = self.requires_event_loop()
        if running_loop() is None:
            if advice is not None:
                raise ConfigurationError(f"{self!r} waits for an event loop, none runs: {advice}")
            return await work(*args)
        try:
            async with asyncio.timeout(self._timeout):
                if advice is None:
                    return await offload(_run, work, *args)
                return await work(*args)
        except TimeoutError as error:
            raise self._late() from error

    async def _in_turn(
        self, work: Callable[..., Coroutine[Any, Any, T]], session_id: bytes, *args: Any
    ) -> T:
        try:
            await self._turns.begin(session_id, timeout=self._timeout)
        except TimeoutError as error:
            raise self._late() from error
        try:
            return await work(*args)
        finally:
            self._turns.end(session_id)

    async def _call_read(self, session_id: bytes) -> bytes | None:
        data = await self._call(self._read, session_id.hex())
        if data is None or isinstance(data, bytes):
            return data
        if isinstance(data, bytearray | memoryview):
            return bytes(data)
        raise ConfigurationError(
            f"the read function of {self!r} must return the bytes that were written, or None; it "
            f"returned {type(data).__qualname__}. Does the client decode what it reads "
            "(decode_responses=True)?"
        )

    async def _call_write(self, session_id: bytes, value: bytes | None, seconds: int) -> None:
        await self._call(self._write, session_id.hex(), value, seconds)

    async def _call(self, function: _Function, *args: Any) -> Any:
        try:
            return await function.call(*args)
        except (StoreError, ConfigurationError):
            raise
        except Exception as error:
            raise StoreUnavailable(
                f"the {function.role} function of {self!r} raised {type(error).__qualname__}"
            ) from error

    def _late(self) -> StoreUnavailable:
        return StoreUnavailable(f"{self!r} did not answer within {self._timeout:g} seconds")


class _Function:
    """One of the two functions, or the place where it is missing."""

    __slots__ = ("_function", "is_async", "role")

    def __init__(self, role: str, function: Callable[..., Any] | None) -> None:
        if function is not None and not callable(function):
            raise ConfigurationError(
                f"CallbackStore({role}=) expects a function, found {function!r}"
            )
        self.role = role
        self.is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - objects with `async def __call__`
        )
        self._function = function

    def __repr__(self) -> str:
        """Show its name."""
        if self._function is None:
            return f"{self.role}=None"
        return f"{self.role}={getattr(self._function, '__qualname__', repr(self._function))}"

    async def call(self, *args: Any) -> Any:
        """Return what the function does; a plain one leaves the event loop, if there is one."""
        if self._function is None:
            raise ConfigurationError(
                f"CallbackStore has no {self.role} function; give it one, "
                f"CallbackStore({self.role}=...), or later with sessions.on_{self.role}(...)"
            )
        if self.is_async:
            return await self._function(*args)
        answer = await offload(self._function, *args)
        if not inspect.isawaitable(answer):
            return answer
        if inspect.iscoroutine(answer):
            answer.close()
        raise ConfigurationError(
            f"{self!r} is a plain function and returned something to await; write it as "
            "`async def`, so that it is known to need an event loop"
        )


def _run(work: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
    return run(work(*args))


def _mark(record: Record) -> bytes:
    """Return the ID under which the end of a session is noted: one like any other, 16 bytes.

    The beginning goes into it, so that the mark says nothing of a later session with this ID.
    """
    life = record.id + record.created_at.to_bytes(8)
    return hashlib.sha256(b"sojourn ended" + life).digest()[:ID_BYTES]
