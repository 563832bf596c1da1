"""A connection to one server over TCP, a Unix socket or TLS, for asyncio and for threads.

redis-py's cost for each batch (streams, locks and callbacks) is a third of what a session may cost
(``benchmarks/RESULTS.md``). The protocol is RESP2: replies match the commands by their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import select
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, cast

import hiredis

from sojourn._core.concurrency import run
from sojourn.stores.redis.errors import (
    ConnectionLost,
    ServerError,
    connect_failed,
    connection_lost,
    has_code,
)
from sojourn.stores.redis.server_checks import parse_info

#: One argument of a command, and a command.
Argument = str | bytes | int
Line = tuple[Argument, ...]

DEFAULT_PORT: Final = 6379

_READ_BYTES: Final = 65_536

#: TCP keepalive: seconds of silence before the first probe, between probes, and lost probes.
_KEEPALIVE: Final = (10, 5, 3)

#: Seconds that a blocking socket call gets after the deadline: 0 would mean non-blocking.
_MIN_WAIT: Final = 0.001

#: Seconds by which SO_RCVTIMEO of a socket may be later than the deadline of a call.
_TIMEOUT_TOLERANCE: Final = 0.02

#: ``tcpi_state`` and ``tcpi_bytes_received`` in ``tcp_info`` (``include/uapi/linux/tcp.h``).
_TCP_INFO: Final = struct.Struct("=B127xQ")

#: ``TCP_ESTABLISHED`` (``include/net/tcp_states.h``).
_ESTABLISHED: Final = 1


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server is and how to authenticate.

    Attributes:
        host, port: of a TCP server; unused if there is a path.
        path: of a Unix socket.
        database: its number.
        user: ACL user; None for the default user.
        password: None if none is needed.
        tls: whether to use TLS.
        ca: path of a file with CA certificates; None for the system's.
    """

    host: str = "localhost"
    port: int = DEFAULT_PORT
    path: str | None = None
    database: int = 0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca: str | None = None

    def __str__(self) -> str:
        """Return the location without credentials."""
        return self.path if self.path is not None else f"{self.host}:{self.port}"


class Transport(Protocol):
    """Carries commands to one server or a cluster; used by one caller at a time.

    Methods of a transport for threads never suspend.
    """

    async def exchange(
        self, lines: Sequence[Line], keys: Sequence[str], deadline: float
    ) -> list[Any]:
        """Send commands and return their replies in order; connect first if necessary.

        Args:
            lines: one or more commands.
            keys: for each command, a key that determines its node in a cluster.
            deadline: by ``time.monotonic``; the connection is closed when it passes.

        Returns:
            A reply, a ``ServerError``, or (from a cluster) a ``ConnectionLost`` for each command.

        Raises:
            ConnectionLost: commands may have been executed.
            ServerError: the server rejected a new connection.
        """
        ...

    async def connect(self, deadline: float) -> dict[str, str]:
        """Establish a new connection and return the fields of INFO.

        Raises:
            ConnectionLost: the server is unreachable.
            ServerError: the server rejected the connection.
        """
        ...

    async def reset(self) -> None:
        """Close the connection, so that the next call connects to the present server."""
        ...

    def close(self) -> None:
        """Close the connection permanently."""
        ...


def pack(lines: Sequence[Line]) -> bytes:
    """Return the wire format of commands."""
    if len(lines) == 1:
        packed: bytes = hiredis.pack_command(lines[0])  # type: ignore[arg-type]
        return packed
    return b"".join([hiredis.pack_command(line) for line in lines])  # type: ignore[arg-type]


def _make_reader() -> hiredis.Reader:
    return hiredis.Reader(replyError=ServerError, protocolError=ConnectionLost)


def _remaining(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0)


class AsyncStream(asyncio.Protocol):
    """A stream for one event loop."""

    def __init__(self) -> None:
        self._reader = _make_reader()
        self._expected = 0
        self._replies: list[Any] = []
        self._future: asyncio.Future[list[Any]] | None = None
        self._transport: asyncio.Transport | None = None
        self._is_lost = False

    @classmethod
    async def open(cls, address: ServerAddress, deadline: float) -> AsyncStream:
        """Connect to a server.

        Raises:
            OSError, TimeoutError: the server is unreachable.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_remaining(deadline)):
            if address.path is not None:
                return (await loop.create_unix_connection(cls, address.path))[1]
            context = tls_context(address.ca) if address.tls else None
            transport, stream = await loop.create_connection(
                cls, address.host, address.port, ssl=context
            )
        _set_keepalive(transport.get_extra_info("socket"))
        return stream

    def is_usable(self) -> bool:
        """Return whether the stream is open; unsolicited data closes it."""
        return not self._is_lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the batch in flight."""
        self._is_lost = True
        self._finish(connection_lost(exc))

    def data_received(self, data: bytes) -> None:
        """Parse replies and complete the batch in flight."""
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._replies.append(reply)
        except ConnectionLost as error:
            self.close()
            self._finish(error)
            return
        if self._future is None:  # unsolicited data: replies would not match commands any more
            self.close()
        elif len(self._replies) >= self._expected:
            self._finish(None)

    def _finish(self, error: ConnectionLost | None) -> None:
        future, self._future = self._future, None
        if future is None or future.done():
            return
        if error is None:
            future.set_result(self._replies)
        else:
            future.set_exception(error)

    async def roundtrip(self, data: bytes, count: int, deadline: float) -> list[Any]:
        """Send packed commands and return ``count`` replies; close the stream on any failure.

        Raises:
            ConnectionLost: the stream failed or the deadline passed.
        """
        if self._is_lost or self._transport is None:
            raise connection_lost(None)
        loop = asyncio.get_running_loop()
        self._future = future = loop.create_future()
        self._replies, self._expected = [], count
        # Half the cost of asyncio.timeout, which can interrupt more than a bare future.
        timer = loop.call_later(_remaining(deadline), self._expire)
        self._transport.write(data)
        try:
            replies: list[Any] = await future
            return replies  # noqa: TRY300 - every exception closes the stream
        except BaseException:
            self.close()
            raise
        finally:
            timer.cancel()

    def _expire(self) -> None:
        self._finish(connection_lost(TimeoutError()))

    def close(self) -> None:
        """Close the stream without waiting."""
        self._is_lost = True
        if self._transport is not None:
            with contextlib.suppress(RuntimeError):  # the loop and its sockets are closed
                self._transport.abort()


class BlockingStream:
    """A stream for threads, one at a time.

    Each system call releases the GIL, which costs a context switch if another thread waits for it.
    So a plain socket of Linux waits in ``recv``, with the system's own timeout, and its state is
    read without releasing the GIL. Other sockets (TLS, gevent's) are non-blocking and wait in
    ``poll``: a timeout of the socket object would cost two system calls for each transfer.

    Args:
        connected: a connected socket.

    Attributes:
        info: the fields of INFO; set by ``open_push_stream``.
    """

    def __init__(self, connected: socket.socket) -> None:
        self.info: dict[str, str] = {}
        # TLS and gevent replace `recv` by a function of their own.
        self._is_plain = sys.platform == "linux" and inspect.isbuiltin(connected.recv)
        self._is_tcp = self._is_plain and connected.family != socket.AF_UNIX
        self._receive_timeout = 0.0  # of the system; 0 for none
        self._received_bytes = 0
        self._idle_timeout = None if self._is_plain else 0.0  # of the socket object
        self._send_flags = socket.MSG_DONTWAIT if self._is_plain else 0
        connected.settimeout(self._idle_timeout)
        self._socket = connected
        self._reader = _make_reader()

    @classmethod
    async def open(cls, address: ServerAddress, deadline: float) -> BlockingStream:
        """Connect to a server without suspending.

        Raises:
            OSError, TimeoutError: the server is unreachable.
        """
        return cls.connect(address, deadline)

    @classmethod
    def connect(cls, address: ServerAddress, deadline: float) -> BlockingStream:
        """Connect to a server.

        Raises:
            OSError, TimeoutError: the server is unreachable.
        """
        timeout = max(_remaining(deadline), _MIN_WAIT)
        if address.path is None:
            connected = socket.create_connection((address.host, address.port), timeout)
        else:
            connected = socket.socket(socket.AF_UNIX)
        try:
            if address.path is not None:
                connected.settimeout(timeout)
                connected.connect(address.path)
            else:
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _set_keepalive(connected)
            if address.tls:
                connected.settimeout(max(_remaining(deadline), _MIN_WAIT))
                context = tls_context(address.ca)
                connected = context.wrap_socket(connected, server_hostname=address.host)
        except BaseException:
            connected.close()
            raise
        return cls(connected)

    def fileno(self) -> int:
        """Return the socket's file descriptor, for selectors."""
        return self._socket.fileno()

    def is_usable(self) -> bool:
        """Return whether the stream is open and has no unsolicited data."""
        if self._reader.has_data():
            return False
        if self._is_tcp:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            expected = _ESTABLISHED, self._received_bytes
            if len(info) == _TCP_INFO.size and _TCP_INFO.unpack(info) == expected:
                return True
        # Readable without a command means that the server closed it, or TLS session tickets.
        if not self._wait_readable(0):
            return True
        try:
            return isinstance(self._socket, ssl.SSLSocket) and self._receive() is None
        except ConnectionLost:
            return False

    async def roundtrip(self, data: bytes, count: int, deadline: float) -> list[Any]:
        """Send packed commands and return their replies; see ``AsyncStream``."""
        replies: list[Any] = []
        try:
            self.send(data, deadline)
            gets = self._reader.gets
            while len(replies) < count:
                reply = gets()
                if reply is False:
                    self._feed_before(deadline)
                else:
                    replies.append(reply)
            return replies  # noqa: TRY300 - every exception closes the stream
        except BaseException:
            self.close()
            raise

    def _feed_before(self, deadline: float) -> None:
        """Wait for data and parse it.

        Raises:
            ConnectionLost: the stream failed or the deadline passed.
        """
        remaining = deadline - time.monotonic()
        remaining = max(remaining, _MIN_WAIT)
        # The timeout of the system begins again after a signal (PEP 475). Signals of the process
        # reach the main thread, which therefore waits in `poll`.
        if not self._is_plain or threading.get_ident() == threading.main_thread().ident:
            if not self._wait_readable(remaining):
                raise connection_lost(TimeoutError())
            self._feed()
            return
        if not remaining <= self._receive_timeout <= remaining + _TIMEOUT_TOLERANCE:
            self._receive_timeout = remaining + _TIMEOUT_TOLERANCE / 2
            seconds, rest = divmod(self._receive_timeout, 1)
            timeval = struct.pack("ll", int(seconds), int(rest * 1e6))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            raise connection_lost(TimeoutError()) from None
        except OSError as error:
            raise connection_lost(error) from error
        if not data:
            raise connection_lost(None)
        self._received_bytes += len(data)
        self._reader.feed(data)

    def send(self, data: bytes, deadline: float) -> None:
        """Send packed commands without waiting for replies.

        Raises:
            ConnectionLost: the stream failed or the deadline passed.
        """
        try:
            # Most batches fit into the socket's buffer.
            try:
                sent = self._socket.send(data, self._send_flags)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                sent = 0
            if sent < len(data):
                self._socket.settimeout(max(_remaining(deadline), _MIN_WAIT))
                self._socket.sendall(data[sent:])
                self._socket.settimeout(self._idle_timeout)
        except OSError as error:
            raise connection_lost(error) from error

    def receive_available(self) -> list[Any]:
        """Return the replies that have arrived, without waiting.

        Raises:
            ConnectionLost: the stream failed.
        """
        replies: list[Any] = []
        try:
            while self._wait_readable(0) and self._feed():
                while (reply := self._reader.gets()) is not False:
                    replies.append(reply)
        except ConnectionLost:
            if not replies:  # otherwise the next call raises it
                raise
        return replies

    def _feed(self) -> bool:
        data = self._receive()
        if data is None:
            return False
        if not data:
            raise connection_lost(None)
        self._received_bytes += len(data)
        self._reader.feed(data)
        return True

    def _receive(self) -> bytes | None:
        """Return received data, empty at the end of the stream; None if it was no payload."""
        try:
            return self._socket.recv(_READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        except OSError as error:
            raise connection_lost(error) from error

    def _wait_readable(self, timeout: float) -> bool:
        """Wait for data, an end or an error; return False if there is none."""
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True
        if not hasattr(select, "poll"):  # Windows, whose select has no relevant limit
            return bool(select.select([self._socket], [], [], timeout)[0])
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def close(self) -> None:
        """Close the stream without waiting."""
        self._socket.close()


Stream = AsyncStream | BlockingStream


class Connection:
    """A ``Transport`` to one server that connects on demand; the same for both kinds of stream.

    Args:
        locate: returns the server's present address.
        open_stream: opens a stream to it; ``AsyncStream.open`` or ``BlockingStream.open``.
    """

    __slots__ = ("_is_closed", "_locate", "_open_stream", "_stream")

    def __init__(
        self,
        locate: Callable[[float], Awaitable[ServerAddress]],
        open_stream: Callable[[ServerAddress, float], Awaitable[Stream]],
    ) -> None:
        self._locate = locate
        self._open_stream = open_stream
        self._stream: Stream | None = None
        self._is_closed = False

    async def exchange(
        self,
        lines: Sequence[Line],
        keys: Sequence[str],  # noqa: ARG002 - there is one node
        deadline: float,
    ) -> list[Any]:
        """Send commands and return their replies; see ``Transport``."""
        if self._stream is None or not self._stream.is_usable():
            await self.connect(deadline)
        stream = self._stream
        assert stream is not None  # noqa: S101 - connect sets it
        try:
            return await stream.roundtrip(pack(lines), len(lines), deadline)
        except BaseException:  # such as the timeout of a greenlet: the stream has closed itself
            if self._stream is stream:
                self._disconnect()
            raise

    async def connect(self, deadline: float) -> dict[str, str]:
        """Establish a new connection; see ``Transport``."""
        self._disconnect()
        try:
            address = await self._locate(deadline)
            stream = await self._open_stream(address, deadline)
        except OSError as error:  # includes TimeoutError and ssl.SSLError
            raise connect_failed(error) from error
        try:
            info = await _handshake(stream, address, deadline)
        except BaseException:
            stream.close()
            raise
        self._stream = stream
        if self._is_closed:  # by another thread, while this one connected
            self._disconnect()
            raise connection_lost(None)
        return info

    async def reset(self) -> None:
        """Close the connection; see ``Transport``."""
        self._disconnect()

    def close(self) -> None:
        """Close the connection permanently; see ``Transport``."""
        self._is_closed = True
        self._disconnect()

    def _disconnect(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


def open_push_stream(address: ServerAddress, timeout: float) -> BlockingStream:
    """Return a stream for a subscriber, after the handshake.

    Raises:
        ConnectionLost: the server is unreachable.
        ServerError: the server rejected the connection.
    """
    deadline = time.monotonic() + timeout
    try:
        stream = BlockingStream.connect(address, deadline)
    except OSError as error:
        raise connect_failed(error) from error
    try:
        stream.info = run(_handshake(stream, address, deadline))
    except BaseException:
        stream.close()
        raise
    return stream


async def _handshake(stream: Stream, address: ServerAddress, deadline: float) -> dict[str, str]:
    """Authenticate, select the database, and return the fields of INFO.

    Raises:
        ServerError: the server rejects the connection. A denied INFO or CLIENT SETNAME is ignored.
    """
    lines: list[Line] = []
    if address.user is not None:  # a user without a password is not the default user either
        lines.append(("AUTH", address.user, address.password or ""))
    elif address.password is not None:
        lines.append(("AUTH", address.password))
    if address.database:
        lines.append(("SELECT", address.database))
    lines += [("CLIENT", "SETNAME", "sojourn"), ("INFO",)]
    *required, _, info = await stream.roundtrip(pack(lines), len(lines), deadline)
    for reply in required:
        if isinstance(reply, ServerError):
            raise reply
    return read_info(info)


def read_info(reply: Any) -> dict[str, str]:
    """Return the fields of an INFO reply; none if the ACL denies INFO.

    Raises:
        ServerError: the server cannot work.
    """
    if has_code(reply, "NOPERM"):
        return {}
    if isinstance(reply, ServerError):
        raise reply
    if not isinstance(reply, bytes):
        raise ServerError("the reply to INFO is none of Valkey or Redis")
    info = parse_info(reply.decode("utf-8", "replace"))
    if info.get("loading", "0") != "0":
        raise ServerError("LOADING the server is reading its data")
    return info


def tls_context(ca: str | None) -> ssl.SSLContext:
    """Return a context that verifies the server's certificate and host name.

    Args:
        ca: path of a file with CA certificates that are trusted beside the system's, if any.

    Raises:
        OSError: the file is unreadable or has no certificates.
    """
    return _make_tls_context(ca, Path(ca).stat().st_mtime_ns if ca is not None else 0)


@functools.lru_cache(maxsize=8)  # the system's certificates take milliseconds to load
def _make_tls_context(ca: str | None, modified_at: int) -> ssl.SSLContext:  # noqa: ARG001 - a key
    context = ssl.create_default_context()
    if ca is not None:
        context.load_verify_locations(cafile=ca)
    return context


def _set_keepalive(connected: socket.socket) -> None:
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
    for name, value in zip(names, _KEEPALIVE, strict=True):
        if hasattr(socket, name):  # not on every system
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
