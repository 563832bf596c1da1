"""The option ``audit``: one line of JSON for each event of a session's life (ASVS 16.3)."""

from __future__ import annotations

import errno
import inspect
import io
import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Final, cast

import msgspec

from sojourn._core.concurrency import replace_locks_after_fork
from sojourn.errors import ConfigurationError
from sojourn.events import KINDS, Dispatcher, Event, Read, Written

logger: logging.Logger = logging.getLogger("sojourn")

#: A path, a text or binary file, or a function that is called with each line.
Sink = str | os.PathLike[str] | IO[str] | IO[bytes] | Callable[[str], object]

#: Not audited: ordinary traffic, which does not change the life of a session.
TRAFFIC: Final = frozenset({Read, Written})

#: Not on Windows, which has no named pipes in the file system.
_NONBLOCK: Final = getattr(os, "O_NONBLOCK", 0)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# Field types of future events must not raise.
_encode: Final = msgspec.json.Encoder(enc_hook=str).encode


def _now() -> int:
    return time.time_ns() // 1_000_000


class Audit:
    """Writes events as lines of JSON, synchronously in the thread of the event.

    A line has ``time``, ``event``, ``session`` and the fields of the event, which contain no secret
    (law A18). If a line cannot be written, the error is logged and the request continues (B-34).

    Args:
        sink: a path: the file is created if absent, for its owner only, and lines are appended. A
            file object: each line is one write, then flushed. A function: called with each line as
            text without the newline, such as ``logging.getLogger("audit").info``.
        clock: milliseconds since 1970 UTC.

    Raises:
        ConfigurationError: the sink is of another kind, or the file cannot be opened.
    """

    __slots__ = ("_clock", "_write_line")

    def __init__(self, sink: Sink, *, clock: Callable[[], int] = _now) -> None:
        self._clock = clock
        self._write_line: Callable[[str], object] = _open_sink(sink)

    def listen(self, dispatcher: Dispatcher) -> None:
        """Write all later events of a dispatcher."""
        for kind in KINDS - TRAFFIC:
            dispatcher.on(kind, self.write)

    def write(self, event: Event) -> None:
        """Write one event. Log errors instead of raising them."""
        try:
            line = self._line(event)
        except Exception:
            logger.exception("no audit line could be made of %r", event)
            return
        try:
            self._write_line(line)
        except Exception:
            logger.exception("an audit line could not be written: %s", line)

    def _line(self, event: Event) -> str:
        at = _EPOCH + timedelta(milliseconds=self._clock())
        entry: dict[str, object] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "event": type(event).__name__,
            "session": event.session_id or None,
        }
        for name in event.__struct_fields__:
            if name != "session_id":
                entry[name] = _escape(getattr(event, name))
        # JSON escapes control characters, so a field cannot start another line.
        return _encode(entry).decode()


def _escape(value: object) -> object:
    """Escape surrogates, which JSON cannot encode; paths of the system may contain them."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _open_sink(sink: object) -> Callable[[str], object]:
    if isinstance(sink, str | os.PathLike):
        return _AppendedFile(Path(cast("str | os.PathLike[str]", sink)))
    if not isinstance(sink, type):
        if callable(getattr(sink, "write", None)):
            return _OpenFile(cast("IO[str] | IO[bytes]", sink))
        if callable(sink) and not inspect.iscoroutinefunction(sink):
            return sink
    raise ConfigurationError(
        f"audit expects a path, a file open for writing or a plain function, found {sink!r}"
    )


class _AppendedFile:
    """A file that is opened for each line; events are rare.

    It survives log rotation and forks, and need not be closed. With O_APPEND and one write per
    line, lines of several processes do not interleave (POSIX write: the offset is set to the end
    and the data written without an intervening write).
    """

    __slots__ = ("_ends_in_part", "_path")

    def __init__(self, path: Path) -> None:
        self._ends_in_part = False
        self._path = path.absolute()  # a server may change its working directory later
        try:
            self._open().close()
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) == errno.ENXIO:  # a named pipe, to be read later
                return
            raise ConfigurationError(
                f"audit cannot write to {str(path)!r}: {getattr(error, 'strerror', error)}"
            ) from error

    def __call__(self, line: str) -> None:
        data = _encode_line(line)
        with self._open() as file:
            # A full disk has left a part of a line, which must not spoil the next one.
            if self._ends_in_part and os.fstat(file.fileno()).st_size:
                data = b"\n" + data
            written = file.write(data)
            self._ends_in_part = written != len(data)
            _check_complete(written, data)

    def _open(self) -> io.FileIO:
        return open(self._path, "ab", buffering=0, opener=_open_private)


class _OpenFile:
    """A file object of the application, which also closes it."""

    __slots__ = ("__weakref__", "_file", "_lock", "_text")

    def __init__(self, file: IO[str] | IO[bytes]) -> None:
        self._file = file
        self._text = isinstance(file, io.TextIOBase) or hasattr(file, "encoding")
        self.after_fork()
        replace_locks_after_fork(self)

    def after_fork(self) -> None:
        """Replace the lock, which a thread of the parent process may have held."""
        self._lock = threading.Lock()  # makes write and flush atomic

    def __call__(self, line: str) -> None:
        data = _encode_line(line)
        with self._lock:
            if self._text:
                cast("IO[str]", self._file).write(data.decode())
            else:
                _check_complete(cast("IO[bytes]", self._file).write(data), data)
            self._file.flush()


def _open_private(path: str, flags: int) -> int:
    # Logins and addresses are confidential (B-50). An existing file keeps its mode.
    # O_NONBLOCK: a named pipe without a reader is an error, while open() would wait for one.
    descriptor = os.open(path, flags | _NONBLOCK, 0o600)
    if _NONBLOCK:
        os.set_blocking(descriptor, True)  # a write waits for a reader that is slow
    return descriptor


def _encode_line(line: str) -> bytes:
    return line.encode() + b"\n"


def _check_complete(written: int, data: bytes) -> None:
    if written != len(data):
        raise OSError(f"only {written} of {len(data)} bytes were written")
