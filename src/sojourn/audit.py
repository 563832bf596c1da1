"""Audit: one line of JSON for each event of a session's life (ASVS 16.3).

What lives here: the option ``audit``: where the lines go and what they say. What must not: which
events there are (``events.py``); every kind is written, also those that are added later, but
``Read`` and ``Written``, which are traffic and not the life of a session.

A line has ``time``, ``event``, ``session`` and the fields of the event, which carry no secret (law
A18). One that cannot be written goes to the log instead, and the request goes on (B-34).
"""

from __future__ import annotations

import inspect
import io
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Final, cast

import msgspec

from sojourn.errors import ConfigurationError
from sojourn.events import KINDS, Dispatcher, Event, Read, Written

logger: logging.Logger = logging.getLogger("sojourn")

#: A path, a file opened for text or for bytes, or a function that is given each line.
Sink = str | os.PathLike[str] | IO[str] | IO[bytes] | Callable[[str], object]

#: Not audited: they tell that a session is used, not what becomes of it.
TRAFFIC: Final = frozenset({Read, Written})

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# Whatever a field of a later kind holds, its line must not fail.
_encode: Final = msgspec.json.Encoder(enc_hook=str).encode


def _now() -> int:
    return time.time_ns() // 1_000_000


class Audit:
    """Writes events to one place.

    Args:
        sink: a path: the file is made if absent, for its owner only, and lines are appended. A
            file object: each line is one write, then flushed. A plain function: called with each
            line as text without its end, such as ``logging.getLogger("audit").info``.
        clock: milliseconds since 1970 UTC.

    Raises:
        ConfigurationError: it is none of these, or the file cannot be opened.

    Lines are written at once, in the thread where the event happened.
    """

    __slots__ = ("_clock", "_put")

    def __init__(self, sink: Sink, *, clock: Callable[[], int] = _now) -> None:
        self._clock = clock
        self._put: Callable[[str], object] = _putter(sink)

    def listen(self, dispatcher: Dispatcher) -> None:
        """Write all further events of a dispatcher."""
        for kind in KINDS - TRAFFIC:
            dispatcher.on(kind, self.write)

    def write(self, event: Event) -> None:
        """Write one event; log what goes wrong, and raise nothing."""
        try:
            line = self._line(event)
        except Exception:
            logger.exception("no audit line could be made of %r", event)
            return
        try:
            self._put(line)
        except Exception:
            logger.exception("an audit line could not be written: %s", line)

    def _line(self, event: Event) -> str:
        at = _EPOCH + timedelta(milliseconds=self._clock())
        entry: dict[str, object] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "event": type(event).__name__,
            "session": event.session_id or None,
        }
        for field in fields(event):
            if field.name != "session_id":
                entry[field.name] = _printable(getattr(event, field.name))
        # JSON escapes control characters, so nothing in a field begins another line.
        return _encode(entry).decode()


def _printable(value: object) -> object:
    """Return text as JSON can carry it: a path of the system may hold what is no UTF-8."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _putter(sink: object) -> Callable[[str], object]:
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
    """A file by its path, opened for each line.

    So it may be renamed by a log rotation or stay behind in a fork, and nothing has to be closed;
    events are rare enough. With O_APPEND and one write each, lines of several processes do not mix
    (POSIX write: no other write happens between finding the end and writing there).
    """

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()  # a server may change its folder later
        try:
            self._open().close()
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"audit cannot write to {str(path)!r}: {getattr(error, 'strerror', error)}"
            ) from error

    def __call__(self, line: str) -> None:
        data = _ended(line)
        with self._open() as file:
            _complete(file.write(data), data)

    def _open(self) -> io.FileIO:
        return open(self._path, "ab", buffering=0, opener=_open_private)


class _OpenFile:
    """A file object of the application, which also closes it."""

    __slots__ = ("_file", "_text", "_turn")

    def __init__(self, file: IO[str] | IO[bytes]) -> None:
        self._file = file
        self._text = isinstance(file, io.TextIOBase) or hasattr(file, "encoding")
        self._turn = threading.Lock()  # a line and its flush are one, whatever the file does

    def __call__(self, line: str) -> None:
        data = _ended(line)
        with self._turn:
            if self._text:
                cast("IO[str]", self._file).write(data.decode())
            else:
                _complete(cast("IO[bytes]", self._file).write(data), data)
            self._file.flush()


def _open_private(path: str, flags: int) -> int:
    # Who logged in when and from where is nobody else's business (B-50); a file that is there keeps
    # the mode that its owner gave it.
    return os.open(path, flags, 0o600)


def _ended(line: str) -> bytes:
    return line.encode() + b"\n"


def _complete(written: int, data: bytes) -> None:
    if written != len(data):
        raise OSError(f"only {written} of {len(data)} bytes were written")
