"""Drivers: call an ASGI or WSGI application as its server does, message by message.

What lives here: one request at a time, what came back and in which order, a client that leaves, a
handler that is cancelled. What must not: the test clients of frameworks, which wait for the whole
answer and hide the order, and sessions.

Messages to the client are noted in the list that a ``FaultyStore`` keeps of its calls, so a test
can say that a save came before the first byte.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol
from urllib.parse import quote

from sojourn.testing.running import PATIENCE

Headers = Sequence[tuple[str, str]]

#: More requests than this are never under way at the same time in a test.
_THREADS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as a server would hand it to an application."""

    path: str = "/"
    method: str = "GET"
    cookie: str | None = None
    headers: Headers = ()
    scheme: Literal["http", "https"] = "http"
    host: str = "localhost"

    def all_headers(self) -> list[tuple[str, str]]:
        """Return Host, Cookie and the others, names in lower case."""
        cookie = [] if self.cookie is None else [("cookie", self.cookie)]
        others = [(name.lower(), value) for name, value in self.headers]
        return [("host", self.host), ("user-agent", "sojourn.testing"), *cookie, *others]


@dataclass(slots=True)
class Reply:
    """What a client got.

    Attributes:
        status: 0 if nothing arrived.
        headers: in the order they were sent, names in lower case.
        body: whatever arrived of it.
        error: what the application raised into its server, None if nothing.
    """

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    error: BaseException | None = None

    def get(self, name: str) -> str | None:
        """Return the values of a header joined by commas, None if it was not sent."""
        values = self.all(name)
        return ", ".join(values) if values else None

    def all(self, name: str) -> list[str]:
        """Return the values of a header, one for each line of it."""
        return [value for key, value in self.headers if key == name]


class Running:
    """A request under way."""

    def __init__(self) -> None:
        self.reply: Reply = Reply()
        self.left: bool = False
        self._task: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()

    def begin(self, work: Callable[[Running], Awaitable[None]]) -> Running:
        """Start the work on it."""

        async def whole() -> None:
            try:
                await work(self)
            except asyncio.CancelledError as error:
                self.reply.error = error
            except Exception as error:  # noqa: BLE001 - a server logs it; a test wants to see it
                self.reply.error = error

        self._task = asyncio.get_running_loop().create_task(whole())
        return self

    def leave(self) -> None:
        """Let the client go away: nothing more arrives, and the server notices."""
        self.left = True
        self._gone.set()

    def cancel(self) -> None:
        """Cancel the application's task, as some ASGI servers do at their end."""
        assert self._task is not None
        self._task.cancel()

    async def done(self) -> Reply:
        """Wait until the application has returned or raised; return what arrived."""
        assert self._task is not None
        async with asyncio.timeout(PATIENCE):
            await self._task
        return self.reply

    async def wait_until_left(self) -> None:
        """Wait until the client goes away."""
        await self._gone.wait()


class Driver(Protocol):
    """Serves an application in this process."""

    def start(self, request: Request) -> Running:
        """Begin a request and return at once."""
        ...

    def close(self) -> None:
        """Let go of threads."""
        ...


class ASGIDriver:
    """Serves an ASGI application.

    Args:
        app: the application.
        trace: gets "start", "body" and "end" as they are sent.
        spec_version: of ASGI. From 2.4 on, a send to a client that left raises ``OSError``; before,
            it goes nowhere, and only ``http.disconnect`` tells.
    """

    def __init__(self, app: Any, trace: list[str], *, spec_version: str = "2.4") -> None:
        self._app = app
        self._trace = trace
        self._spec_version = spec_version

    def close(self) -> None:
        """Nothing to let go of."""

    def start(self, request: Request) -> Running:
        """Begin a request and return at once."""
        return Running().begin(lambda running: self._serve(request, running))

    async def _serve(self, request: Request, running: Running) -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": self._spec_version},
            "http_version": "1.1",
            "method": request.method,
            "scheme": request.scheme,
            "path": request.path,
            "raw_path": quote(request.path).encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(k.encode(), v.encode("latin-1")) for k, v in request.all_headers()],
            "client": ("127.0.0.1", 40_000),
            "server": (request.host, 80),
            "state": {},
        }
        body_sent = False

        async def receive() -> dict[str, Any]:
            nonlocal body_sent
            if not body_sent:
                body_sent = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await running.wait_until_left()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if running.left:
                if self._spec_version >= "2.4":
                    raise OSError("the client has left")
                return
            _note_message(self._trace, running.reply, message, head=request.method == "HEAD")
            await asyncio.sleep(0)

        await self._app(scope, receive, send)


def _note_message(trace: list[str], reply: Reply, message: dict[str, Any], *, head: bool) -> None:
    if message["type"] == "http.response.start":
        assert reply.status == 0, "the response was started twice"
        trace.append("start")
        reply.status = message["status"]
        reply.headers = [
            (name.decode("latin-1").lower(), value.decode("latin-1"))
            for name, value in message.get("headers", ())
        ]
        return
    assert message["type"] == "http.response.body", message["type"]
    assert reply.status, "a body before the start of its response"
    body = message.get("body", b"")
    if body and not head:
        trace.append("body")
        reply.body += body
    if not message.get("more_body", False):
        trace.append("end")


class WSGIDriver:
    """Serves a WSGI application in threads that are used again and again.

    Args:
        app: the application.
        trace: gets "start", "body" and "end" as they are sent.
    """

    def __init__(self, app: Any, trace: list[str]) -> None:
        self._app = app
        self._trace = trace
        self._threads = ThreadPoolExecutor(_THREADS, "wsgi")

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown()

    def start(self, request: Request) -> Running:
        """Begin a request and return at once."""
        loop = asyncio.get_running_loop()

        async def work(running: Running) -> None:
            await loop.run_in_executor(self._threads, self._serve, request, running)

        return Running().begin(work)

    def _serve(self, request: Request, running: Running) -> None:
        reply = running.reply

        def write(data: bytes) -> None:
            if running.left:
                raise BrokenPipeError("the client has left")
            if data and request.method != "HEAD":
                self._trace.append("body")
                reply.body += data

        def start_response(
            status: str, headers: list[tuple[str, str]], exc_info: Any = None, /
        ) -> Callable[[bytes], object]:
            if exc_info is not None and reply.status:
                raise exc_info[1]
            self._trace.append("start")
            reply.status = int(status[:3])
            reply.headers = [(name.lower(), value) for name, value in headers]
            return write

        result: Iterable[bytes] = self._app(_environ(request), start_response)
        try:
            for data in result:
                assert reply.status, "a body before start_response"
                write(data)
            assert reply.status, "no start_response"
            if running.left:
                raise BrokenPipeError("the client has left")
            self._trace.append("end")
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()


def _environ(request: Request) -> dict[str, Any]:
    """Return the environment of a request (PEP 3333)."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.path,
        "QUERY_STRING": "",
        "SERVER_NAME": request.host,
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in request.all_headers():
        environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
    return environ
