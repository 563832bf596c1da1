"""SocketDriver: serves an application with its framework's own server, and sends it HTTP."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import cache
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sojourn.testing.app_suite.drivers import ClientResponse, Request, RunningRequest
from sojourn.testing.decorators import WAIT_TIMEOUT

Serve = Callable[[Any, "ssl.SSLContext | None"], AbstractAsyncContextManager[int]]
"""Serves an application on a free port of 127.0.0.1, which the context manager returns."""

#: Statuses of responses without a body (RFC 9110 15.3.5 and 15.4.5).
_WITHOUT_BODY: Final = frozenset({204, 304})

#: The length of a chunk after which the body ends (RFC 9112 7.1).
_LAST_CHUNK: Final = 0


class SocketDriver:
    """Serves an application with a server that runs in the event loop of the test.

    What the server does after a client has disconnected cannot be observed from outside. A request
    that is disconnected or cancelled is therefore done when the tasks have ended that the server
    has started since the request began: let no other request run meanwhile.

    Args:
        app: the application.
        trace: "start", "body" and "end" are appended as the client receives them.
        serve: serves the application, with TLS if it gets a context; called once for each scheme.
    """

    def __init__(self, app: Any, trace: list[str], serve: Serve) -> None:
        self._app = app
        self._trace = trace
        self._serve = serve
        self._servers = AsyncExitStack()
        self._ports: dict[str, asyncio.Task[int]] = {}

    async def close(self) -> None:
        """Stop the servers."""
        await self._servers.aclose()

    def start(self, request: Request) -> RunningRequest:
        """Start a request."""
        return RunningRequest().start(lambda running: self._send(request, running))

    async def _start_server(self, scheme: str) -> int:
        tls = None if scheme == "http" else _server_context()
        return await self._servers.enter_async_context(self._serve(self._app, tls))

    async def _send(self, request: Request, running: RunningRequest) -> None:
        scheme = request.scheme
        loop = asyncio.get_running_loop()
        if scheme not in self._ports:
            self._ports[scheme] = loop.create_task(self._start_server(scheme))
        port = await asyncio.shield(self._ports[scheme])
        client = _Client(running.reply, self._trace, head=request.method == "HEAD")
        earlier = asyncio.all_tasks()
        transport, _ = await loop.create_connection(
            lambda: client, "127.0.0.1", port, ssl=None if scheme == "http" else _client_context()
        )
        transport.write(_message(request))
        disconnect = loop.create_task(_wait_for(running.disconnected))
        try:
            await asyncio.wait({client.ended, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            for task in asyncio.all_tasks() - earlier - {disconnect}:
                task.cancel()
            await _end_of(asyncio.all_tasks() - earlier - {disconnect})
            raise
        finally:
            disconnect.cancel()
            transport.close()
        if not client.ended.done():
            await _end_of(asyncio.all_tasks() - earlier - {disconnect})


async def _wait_for(event: asyncio.Event) -> None:
    await event.wait()


async def _end_of(tasks: set[asyncio.Task[Any]]) -> None:
    """Wait until tasks have ended, whatever their result is."""
    if tasks:
        await asyncio.wait(tasks, timeout=WAIT_TIMEOUT)


def _message(request: Request) -> bytes:
    """Return a request without a body, for a connection that the server closes after it."""
    lines = [f"{request.method} {request.path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in request.all_headers()]
    return "\r\n".join([*lines, "connection: close", "", ""]).encode("latin-1")


class _Client(asyncio.Protocol):
    """Receives one response of HTTP/1.1.

    Args:
        reply: what was received.
        trace: see ``SocketDriver``.
        head: the method of the request is HEAD.

    Attributes:
        ended: done when the response is complete, or the server has closed the connection.
    """

    def __init__(self, reply: ClientResponse, trace: list[str], *, head: bool) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reply = reply
        self._trace = trace
        self._head = head
        self._received = b""
        self._remaining: int | None = None  # of the body, or of the present chunk; None: unknown
        self._chunked = False

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived."""
        self._received += data
        if not self._reply.status:
            head, separator, rest = self._received.partition(b"\r\n\r\n")
            if not separator:
                return
            self._received = rest
            self._start(head.decode("latin-1").split("\r\n"))
        if self._chunked:
            self._read_chunks()
        else:
            self._read_body()

    def connection_lost(self, exc: Exception | None) -> None:
        """Record that no more data will arrive."""
        del exc
        if not self.ended.done():
            if self._reply.status and self._remaining is None and not self._chunked:
                self._trace.append("end")
            self.ended.set_result(None)

    def _start(self, lines: list[str]) -> None:
        reply = self._reply
        self._trace.append("start")
        reply.status = int(lines[0].split(" ", 2)[1])
        fields = [line.partition(":") for line in lines[1:]]
        reply.headers = [(name.lower(), value.strip()) for name, _, value in fields]
        length = reply.get("content-length")
        if self._head or reply.status in _WITHOUT_BODY:
            self._remaining = 0
        elif reply.get("transfer-encoding") == "chunked":
            self._chunked = True
        elif length is not None:
            self._remaining = int(length)

    def _read_body(self) -> None:
        part = self._received if self._remaining is None else self._received[: self._remaining]
        self._received = b""
        self._add(part)
        if self._remaining is not None:
            self._remaining -= len(part)
            if not self._remaining:
                self._end()

    def _read_chunks(self) -> None:
        while not self.ended.done():
            line, separator, rest = self._received.partition(b"\r\n")
            if not separator:
                return
            length = int(line.partition(b";")[0], 16)
            if len(rest) < length + 2:
                return
            self._received = rest[length + 2 :]
            self._add(rest[:length])
            if length == _LAST_CHUNK:
                self._end()

    def _add(self, part: bytes) -> None:
        if part:
            self._trace.append("body")
            self._reply.body += part

    def _end(self) -> None:
        self._trace.append("end")
        if not self.ended.done():
            self.ended.set_result(None)


@cache
def _server_context() -> ssl.SSLContext:
    """Return the context of a server whose certificate is signed by its own key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:  # the module ssl reads certificates from files
        path = Path(folder) / "server.pem"
        path.write_bytes(pem)
        context.load_cert_chain(path)
    return context


@cache
def _client_context() -> ssl.SSLContext:
    """Return the context of a client that accepts the certificate above."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
