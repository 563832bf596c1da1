"""CallbackStore: records behind two functions of the application."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, Literal, TypeVar, overload

import msgspec

from sojourn._core.concurrency import KeyedLock, offload, run, running_loop
from sojourn._core.json_records import FORMAT, JSONRecord, check_value, from_json, to_json
from sojourn.errors import ConfigurationError, StoreError, StoreUnavailable
from sojourn.record import ID_BYTES, Record, UnreadableRecord
from sojourn.store import GONE, SAVED, Conflict, Purged, SaveResult, ValueCheck

ReadFunction = Callable[[str], bytes | Awaitable[bytes | None] | None]
"""``read(session_id)``: return the bytes written last, None if there are none."""

WriteFunction = Callable[[str, bytes | None, int], object]
"""``write(session_id, value, seconds)``: store the value for that long; None deletes."""

JSONReadFunction = Callable[
    [str], JSONRecord | str | bytes | Awaitable[JSONRecord | str | bytes | None] | None
]
"""``read(session_id)`` of ``format="json"``: the dict written last, or its JSON text."""

JSONWriteFunction = Callable[[str, JSONRecord | None, int], object]
"""``write(session_id, value, seconds)`` of ``format="json"``: the value is a dict."""

StoredFormat = Literal["bytes", "json"]

T = TypeVar("T")

#: Seconds. Far longer than a save may take.
_TOMBSTONE_LIFETIME: Final = 600

#: Seconds that values are stored beyond the expiry of their record, which the record states.
_EXPIRY_MARGIN: Final = 60


class CallbackStore:
    """Stores records through two functions, plain or ``async``.

    Two functions provide no compare-and-set. Within a process, changes of one session are
    serialized, so every law of ``docs/laws.md`` for stores holds. Between processes, a save is lost
    if another process writes between its read and its write. A session that one process ended is
    not revived by the save of another: a tombstone prevents it (see ``_undo_if_ended``), unless a
    process dies between its write and its check for the tombstone. ``docs/stores.md`` says when
    that matters.

    ``read`` gets a session ID (32 hex digits) and returns the value written last, or None.
    ``write`` gets a session ID, the value to store or None to delete, and the minimum number of
    seconds for which it must be stored. A function reports a failure by raising; the visitor gets
    status 503, never an empty session.

    Plain functions run in a worker thread if there is an event loop. ``async`` functions need one,
    so they do not serve WSGI. Both must finish within ``store_timeout``. A plain function cannot be
    interrupted and continues after that, so its client needs a timeout as well.

    Args:
        read: may also be given later, with ``sessions.on_read``.
        write: may also be given later, with ``sessions.on_write``.
        format: of the values. "bytes": opaque, for any session and with ``encrypt``. "json": a dict
            for ``json.dumps``, readable by other programs; ``read`` returns it or its JSON text.
            Sessions then hold only values that JSON can hold; others are ``NotSerializable``.

    Raises:
        ConfigurationError: a function is not callable, or the format is unknown.
    """

    @overload
    def __init__(
        self,
        *,
        read: ReadFunction | None = None,
        write: WriteFunction | None = None,
        format: Literal["bytes"] = "bytes",
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        read: JSONReadFunction | None = None,
        write: JSONWriteFunction | None = None,
        format: Literal["json"],
    ) -> None: ...

    def __init__(
        self,
        *,
        read: JSONReadFunction | None = None,
        write: WriteFunction | JSONWriteFunction | None = None,
        format: StoredFormat = "bytes",  # noqa: A002 - as other libraries name it
    ) -> None:
        if format not in _FORMATS:
            raise ConfigurationError(
                f"CallbackStore(format=) expects 'bytes' or 'json', found {format!r}"
            )
        self._format = _FORMATS[format]
        self._read = _Callback("read", read)
        self._write = _Callback("write", write)
        self._locks = KeyedLock()
        self._timeout = 2.0

    def __repr__(self) -> str:
        """Show the functions and the missing guarantee."""
        json = ", format='json'" if self._format is _FORMATS["json"] else ""
        return f"CallbackStore({self._read!r}, {self._write!r}{json}, no compare-and-set)"

    def on_read(self, function: ReadFunction | JSONReadFunction) -> None:
        """Set the read function."""
        self._read = _Callback("read", function)

    def on_write(self, function: WriteFunction | JSONWriteFunction) -> None:
        """Set the write function."""
        self._write = _Callback("write", function)

    def set_timeout(self, seconds: float) -> None:
        """Set the deadline of every call."""
        self._timeout = seconds

    def requires_event_loop(self) -> str | None:
        """Return advice if a function is ``async``, None if both are plain."""
        if not (self._read.is_async or self._write.is_async):
            return None
        return "give CallbackStore plain functions (def, over a blocking client)"

    def value_check(self) -> ValueCheck | None:
        """Return the check of JSON values, None for the format of bytes."""
        return self._format.value_check

    # Store

    async def load(self, session_id: bytes) -> Record | None:
        """Return the record, None if there is none."""
        return await self._execute(self._read_record, session_id)

    async def create(self, record: Record) -> bool:
        """Insert a record; return False if its ID is taken."""
        return await self._execute(self._locked, self._create, record.id, record)

    async def save(self, record: Record, expected_version: int) -> SaveResult:
        """Replace the record whose version is ``expected_version``."""
        return await self._execute(self._locked, self._save, record.id, record, expected_version)

    async def touch(self, record: Record) -> bool:
        """Move ``seen_at`` forward, never backward."""
        return await self._execute(self._locked, self._touch, record.id, record)

    async def delete(self, session_id: bytes) -> bool:
        """Delete a record; return whether there was one."""
        return await self._execute(self._locked, self._delete, session_id, session_id)

    async def purge(self, now: int, limit: int) -> Purged:
        """Do nothing: the functions discard the values after the seconds that they were given."""
        del now, limit
        return Purged(0, finished=True)

    # The same calls with the session locked

    async def _create(self, record: Record) -> bool:
        if await self._call_read(record.id) is not None:
            return False
        await self._write_record(record)
        return True

    async def _save(self, record: Record, expected_version: int) -> SaveResult:
        stored = await self._read_readable_record(record.id)
        if stored is None:
            return GONE
        if stored.version != expected_version:
            return Conflict(stored)
        await self._write_record(record.with_seen_at(stored.seen_at))
        return GONE if await self._undo_if_ended(stored) else SAVED

    async def _touch(self, record: Record) -> bool:
        stored = await self._read_readable_record(record.id)
        if stored is None:
            return False
        if record.seen_at <= stored.seen_at:
            return True
        await self._write_record(stored.with_seen_at(record.seen_at))
        return not await self._undo_if_ended(stored)

    async def _delete(self, session_id: bytes) -> bool:
        try:
            stored = await self._read_record(session_id)
        except UnreadableRecord:
            pass  # no save can revive it
        else:
            if stored is None:
                return False
            tombstone = self._format.tombstone()
            await self._call_write(_tombstone_id(stored), tombstone, _TOMBSTONE_LIFETIME)
        await self._call_write(session_id, None, 0)
        return True

    async def _undo_if_ended(self, stored: Record) -> bool:
        """Delete the record just written if another process ended the session meanwhile.

        ``delete`` writes a tombstone before it removes the record, so a write that came after the
        removal finds the tombstone. The tombstone has its own ID: in place of the record, the
        write that it must prevent would overwrite it.

        Returns:
            Whether the session had ended.
        """
        if await self._call_read(_tombstone_id(stored)) is None:
            return False
        await self._call_write(stored.id, None, 0)
        return True

    # Records and stored values

    async def _read_record(self, session_id: bytes) -> Record | None:
        value = await self._call_read(session_id)
        return None if value is None else self._format.decode(session_id, value)

    async def _read_readable_record(self, session_id: bytes) -> Record | None:
        """Return the record, None if there is none or if it is unreadable (law S9)."""
        try:
            return await self._read_record(session_id)
        except UnreadableRecord:
            return None

    async def _write_record(self, record: Record) -> None:
        # Counted from the last activity, since a store has no clock: never less than what is left.
        seconds = (record.expires_at - record.seen_at) // 1000 + _EXPIRY_MARGIN
        await self._call_write(record.id, self._format.encode(record), seconds)

    # Calling the functions

    async def _execute(self, operation: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """Execute one store call within the deadline.

        With plain functions under an event loop, the whole call runs in one worker thread. It is
        completed there, with the session locked, even if the caller is cancelled.
        """
        advice = self.requires_event_loop()
        if running_loop() is None:
            if advice is not None:
                raise ConfigurationError(
                    f"{self!r} needs an event loop, and none runs in this thread: {advice}"
                )
            return await operation(*args)
        try:
            async with asyncio.timeout(self._timeout):
                if advice is None:
                    return await offload(_run, operation, *args)
                return await operation(*args)
        except TimeoutError as error:
            raise self._timed_out() from error

    async def _locked(
        self, operation: Callable[..., Coroutine[Any, Any, T]], session_id: bytes, *args: Any
    ) -> T:
        """Execute an operation while no other changes the same session in this process."""
        try:
            await self._locks.acquire(session_id, timeout=self._timeout)
        except TimeoutError as error:
            raise self._timed_out() from error
        try:
            return await operation(*args)
        finally:
            self._locks.release(session_id)

    async def _call_read(self, session_id: bytes) -> object:
        value = await self._call(self._read, session_id.hex())
        if value is None or isinstance(value, self._format.readable_types):
            return value
        raise ConfigurationError(
            f"the read function of {self!r} must return {self._format.expected}, or None; it "
            f"returned {type(value).__qualname__}. {self._format.advice}"
        )

    async def _call_write(self, session_id: bytes, value: object, seconds: int) -> None:
        await self._call(self._write, session_id.hex(), value, seconds)

    async def _call(self, callback: _Callback, *args: Any) -> Any:
        try:
            return await callback.call(*args)
        except (StoreError, ConfigurationError):
            raise
        except Exception as error:
            raise self._failed(callback, error) from error

    def _failed(self, callback: _Callback, error: Exception) -> StoreUnavailable:
        text = f": {error}" if str(error) else ""
        unavailable = StoreUnavailable(
            f"the {callback.role} function of {self!r} raised {type(error).__qualname__}{text}"
        )
        unavailable.application_error = error
        return unavailable

    def _timed_out(self) -> StoreUnavailable:
        return StoreUnavailable(f"{self!r} did not answer within {self._timeout:g} seconds")


class _Format(msgspec.Struct, frozen=True, kw_only=True):
    """The form in which the functions get records.

    Attributes:
        encode: returns the value of a record for the write function.
        decode: returns the record of a value that was read, or raises ``UnreadableRecord`` if it is
            damaged, foreign or of a newer format (law S9).
        tombstone: returns the value of a tombstone, which ``decode`` rejects.
        readable_types: what the read function may return.
        expected, advice: for the message if it returns something else.
        value_check: rejects values that the format cannot hold; None if there are none.
    """

    encode: Callable[[Record], object]
    decode: Callable[[bytes, Any], Record]
    tombstone: Callable[[], object]
    readable_types: tuple[type, ...]
    expected: str
    advice: str
    value_check: ValueCheck | None


def _decode_json(session_id: bytes, value: object) -> Record:
    """Return the record of a dict that was read, or of its JSON text."""
    if isinstance(value, str | bytes | bytearray | memoryview):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UnreadableRecord(
                f"record {session_id.hex()}: expected JSON text, found damaged text: {error}"
            ) from error
    return from_json(session_id, value)


_FORMATS: Final[Mapping[str, _Format]] = {
    "bytes": _Format(
        encode=Record.to_bytes,
        decode=lambda session_id, value: Record.from_bytes(session_id, bytes(value)),
        tombstone=lambda: b"\0ended",  # the first byte is not a format of records
        readable_types=(bytes, bytearray, memoryview),
        expected="the bytes that were written",
        advice="Does the client decode what it reads (decode_responses=True)?",
        value_check=None,
    ),
    "json": _Format(
        encode=to_json,
        decode=_decode_json,
        tombstone=lambda: {"format": FORMAT, "ended": True},
        # Damaged text may be any JSON value: that is an unreadable record, not a wrong function.
        readable_types=(dict, list, str, int, float, bytes, bytearray, memoryview),
        expected="the dict that was written or its JSON text",
        advice="Return the content of a response, not the response.",
        value_check=check_value,
    ),
}


class _Callback:
    """One of the two functions; it may be missing."""

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
        """Show the role and the name of the function."""
        if self._function is None:
            return f"{self.role}=None"
        return f"{self.role}={getattr(self._function, '__qualname__', repr(self._function))}"

    async def call(self, *args: Any) -> Any:
        """Call the function; a plain one runs in a worker thread if there is an event loop."""
        if self._function is None:
            raise ConfigurationError(
                f"CallbackStore has no {self.role} function; give it one, "
                f"CallbackStore({self.role}=...), or later with sessions.on_{self.role}(...)"
            )
        if self.is_async:
            return await self._function(*args)
        result = await offload(self._function, *args)
        if not inspect.isawaitable(result):
            return result
        if inspect.iscoroutine(result):
            result.close()
        raise ConfigurationError(
            f"{self!r} is a plain function and returned an awaitable; write it as `async def`, "
            "so that the store requires an event loop"
        )


def _run(operation: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
    return run(operation(*args))


def _tombstone_id(record: Record) -> bytes:
    """Return the ID of a session's tombstone: like any other, 16 bytes.

    It depends on the creation time as well, so that a later session with the same ID has another.
    """
    life = record.id + record.created_at.to_bytes(8)
    return hashlib.sha256(b"sojourn ended" + life).digest()[:ID_BYTES]
