"""Wires: a connection to one server with as little as possible between it and the batch.

What lives here: an asyncio protocol and a blocking socket, both with hiredis for the wire format.
What must not: TLS, Sentinel, clusters, and clients of the application; those go through redis-py
(``pools.py``, ``cluster.py``). It exists because redis-py's own cost for each batch, streams, locks
and callbacks, is a third of what a session may cost (``benchmarks/RESULTS.md``).

One batch at a time, so a reply needs no name; RESP2, because nothing here is pushed.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

import hiredis

from sojourn.stores.redis.address import Address
from sojourn.stores.redis.inspection import parse_info
from sojourn.stores.redis.links import Broken, probe_failed
from sojourn.stores.redis.replies import Refusal
from sojourn.stores.redis.requests import Command, Word

_READ_BYTES: Final = 65_536

#: Seconds of silence after which the system asks whether the other side is still there, the time
#: between two such questions, and how many may stay without an answer.
_KEEP_ALIVE: Final = (10, 5, 3)


def _pack(lines: Iterable[tuple[Word, ...]]) -> bytes:
    return b"".join([hiredis.pack_command(line) for line in lines])  # type: ignore[arg-type]


def _reader() -> hiredis.Reader:
    return hiredis.Reader(replyError=Refusal, protocolError=Broken)


def _greeting(address: Address) -> list[tuple[Word, ...]]:
    """Return what a new connection says first; INFO is also how it sees that it is let in."""
    lines: list[tuple[Word, ...]] = []
    if address.user is not None:  # one without a password is somebody else than nobody, too
        lines.append(("AUTH", address.user, address.password or ""))
    elif address.password is not None:
        lines.append(("AUTH", address.password))
    if address.database:
        lines.append(("SELECT", address.database))
    return [*lines, ("CLIENT", "SETNAME", "sojourn"), ("INFO",)]


def _welcome(replies: list[Any]) -> dict[str, str]:
    """Return what the server says of itself.

    Raises:
        Refusal: it does not let us in. That it hides INFO, or the name, from us is no harm.
    """
    *greeted, _, info = replies
    for reply in greeted:
        if isinstance(reply, Refusal):
            raise reply
    if isinstance(info, Refusal):
        if info.code != "NOPERM":
            raise info
        return {}
    facts = parse_info(info.decode("utf-8", "replace"))
    if facts.get("loading", "0") != "0":
        raise Refusal("LOADING the server is reading its data")
    return facts


class _Protocol(asyncio.Protocol):
    """Collects the replies of one batch after the other."""

    def __init__(self) -> None:
        self._reader = _reader()
        self._due = 0
        self._replies: list[Any] = []
        self._future: asyncio.Future[list[Any]] | None = None
        self.transport: asyncio.Transport | None = None
        self.lost: bool = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by class

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._end(Broken(f"the connection broke ({exc or 'closed by the server'})"))

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._replies.append(reply)
        except Broken as broken:
            self.abort()
            self._end(broken)
            return
        if self._future is None:  # nobody has asked: whatever it says, we are out of step
            self.abort()
        elif len(self._replies) >= self._due:
            self._end(None)

    def _end(self, error: Broken | None) -> None:
        future, self._future = self._future, None
        if future is None or future.done():
            return
        if error is None:
            future.set_result(self._replies)
        else:
            future.set_exception(error)

    def abort(self) -> None:
        self.lost = True
        if self.transport is not None:
            self.transport.abort()

    async def ask(self, data: bytes, due: int, deadline: float) -> list[Any]:
        if self.lost or self.transport is None:
            raise Broken("the connection broke")
        loop = asyncio.get_running_loop()
        self._future = future = loop.create_future()
        self._replies, self._due = [], due
        # Half the cost of asyncio.timeout, which also has to interrupt what is no bare future.
        timer = loop.call_later(max(deadline - time.monotonic(), 0), self._expire)
        self.transport.write(data)
        try:
            replies: list[Any] = await future
            return replies  # noqa: TRY300 - the other ways end the connection
        except BaseException:
            self.abort()
            raise
        finally:
            timer.cancel()

    def _expire(self) -> None:
        self._end(Broken("no answer in time", late=True))


class AsyncWire:
    """A link for one event loop.

    Args:
        address: of the server.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._protocol: _Protocol | None = None

    async def exchange(
        self, commands: Sequence[Command], deadline: float, *, whole: bool = False
    ) -> list[Any]:
        """Send commands and return their replies; see ``Link``."""
        if self._protocol is None or self._protocol.lost:
            await self.probe(deadline)
        assert self._protocol is not None  # noqa: S101 - probe connects
        data = _pack([command.line(whole=whole) for command in commands])
        return await self._protocol.ask(data, len(commands), deadline)

    async def probe(self, deadline: float) -> dict[str, str]:
        """Connect anew; see ``Link``."""
        self.drop()
        lines = _greeting(self._address)
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
                protocol = await self._connect()
        except (OSError, TimeoutError) as error:
            raise probe_failed(error) from error
        try:
            facts = _welcome(await protocol.ask(_pack(lines), len(lines), deadline))
        except BaseException:
            protocol.abort()
            raise
        self._protocol = protocol
        return facts

    async def _connect(self) -> _Protocol:
        loop = asyncio.get_running_loop()
        if self._address.path is not None:
            _, protocol = await loop.create_unix_connection(_Protocol, self._address.path)
            return protocol
        _, protocol = await loop.create_connection(
            _Protocol, self._address.host, self._address.port
        )
        assert protocol.transport is not None  # noqa: S101 - it is connected
        _keep_alive(protocol.transport.get_extra_info("socket"))
        return protocol

    def drop(self) -> None:
        """Let go of the connection."""
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            with contextlib.suppress(RuntimeError):  # its loop is closed, and so is its socket
                protocol.abort()

    close = drop


class BlockingWire:
    """A link for threads without an event loop; one of them at a time.

    Args:
        address: of the server.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._socket: socket.socket | None = None
        self._reader = _reader()

    async def exchange(
        self, commands: Sequence[Command], deadline: float, *, whole: bool = False
    ) -> list[Any]:
        """Send commands and return their replies; see ``Link``."""
        # What it says before it was asked is that it has closed an idle connection, or a fault.
        if self._socket is None or _speaks(self._socket, within=0):
            await self.probe(deadline)
        return self._ask([command.line(whole=whole) for command in commands], deadline)

    async def probe(self, deadline: float) -> dict[str, str]:
        """Connect anew; see ``Link``."""
        self.drop()
        self._reader = _reader()
        try:
            self._socket = self._connect(max(deadline - time.monotonic(), 0.001))
            self._socket.settimeout(0)
        except OSError as error:
            raise probe_failed(error) from error
        try:
            return _welcome(self._ask(_greeting(self._address), deadline))
        except BaseException:
            self.drop()
            raise

    def _connect(self, timeout: float) -> socket.socket:
        address = self._address
        if address.path is None:
            connected = socket.create_connection((address.host, address.port), timeout)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_alive(connected)
            return connected
        connected = socket.socket(socket.AF_UNIX)
        try:
            connected.settimeout(timeout)
            connected.connect(address.path)
        except BaseException:
            connected.close()
            raise
        return connected

    def _ask(self, lines: list[tuple[Word, ...]], deadline: float) -> list[Any]:
        connected, reader = self._socket, self._reader
        assert connected is not None  # noqa: S101 - probe connects
        replies: list[Any] = []
        try:
            _send(connected, _pack(lines), deadline)
            while True:
                while (reply := reader.gets()) is not False:
                    replies.append(reply)
                if len(replies) >= len(lines):
                    return replies
                if not _speaks(connected, within=max(deadline - time.monotonic(), 0.001)):
                    raise TimeoutError  # noqa: TRY301 - what becomes of it is said once, below
                data = connected.recv(_READ_BYTES)
                if not data:
                    raise Broken("the connection broke (closed by the server)")  # noqa: TRY301
                reader.feed(data)
        except TimeoutError as error:
            self.drop()
            raise Broken("no answer in time", late=True) from error
        except OSError as error:
            self.drop()
            raise Broken(f"the connection broke ({error})") from error
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        """Let go of the connection."""
        connected, self._socket = self._socket, None
        if connected is not None:
            connected.close()

    close = drop


# A time limit of the socket itself would cost two calls of the system for each that does something,
# and each lets go of the interpreter, which sixteen threads wait for.


def _send(connected: socket.socket, data: bytes, deadline: float) -> None:
    """Send all of it; most batches fit into what the system takes at once."""
    try:
        sent = connected.send(data)
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        connected.settimeout(max(deadline - time.monotonic(), 0.001))
        connected.sendall(data[sent:])
        connected.settimeout(0)


def _speaks(connected: socket.socket, *, within: float) -> bool:
    """Wait until there is something to read, an end or an error; False if there was nothing."""
    if not hasattr(select, "poll"):  # Windows, whose select has no limit that matters
        return bool(select.select([connected], [], [], within)[0])
    poll = select.poll()
    poll.register(connected, select.POLLIN)
    return bool(poll.poll(within * 1000))


def _keep_alive(connected: socket.socket) -> None:
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
    for name, value in zip(names, _KEEP_ALIVE, strict=True):
        if hasattr(socket, name):  # not on every system
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
