"""In-process servers: call an ASGI or WSGI application one message at a time.

Messages to the client are appended to a trace, the list in which ``FaultyStore`` records calls, so
that a test can compare their order.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol
from urllib.parse import quote

from sojourn.testing.decorators import WAIT_TIMEOUT

Headers = Sequence[tuple[str, str]]

#: More than any test has requests in progress.
_MAX_THREADS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request of a client."""

    path: str = "/"
    method: str = "GET"
    cookie: str | None = None
    headers: Headers = ()
    scheme: Literal["http", "https"] = "http"
    host: str = "localhost"

    def all_headers(self) -> list[tuple[str, str]]:
        """Return Host, Cookie and the other headers, names in lower case."""
        cookie = [] if self.cookie is None else [("cookie", self.cookie)]
        others = [(name.lower(), value) for name, value in self.headers]
        return [("host", self.host), ("user-agent", "sojourn.testing"), *cookie, *others]


@dataclass(slots=True)
class ClientResponse:
    """What a client received.

    Attributes:
        status: 0 if nothing was received.
        headers: in order, names in lower case.
        body: the received part.
        error: the exception that the application raised into its server.
    """

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    error: BaseException | None = None

    def get(self, name: str) -> str | None:
        """Return the values of a header joined by commas; None without this header."""
        return ", ".join(self.all(name)) if self.all(name) else None

    def all(self, name: str) -> list[str]:
        """Return the value of each header line with this name."""
        return [value for key, value in self.headers if key == name]


class RunningRequest:
    """A request in progress.

    Attributes:
        reply: what the client has received so far.
        disconnected: whether the client has closed the connection.
    """

    def __init__(self) -> None:
        self.reply: ClientResponse = ClientResponse()
        self.disconnected: asyncio.Event = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, serve: Callable[[RunningRequest], Any]) -> RunningRequest:
        """Start the task that serves the request."""

        async def serve_and_keep_error() -> None:
            try:
                await serve(self)
            except asyncio.CancelledError as error:
                self.reply.error = error
            except Exception as error:  # noqa: BLE001 - a server logs it; tests check it
                self.reply.error = error

        self._task = asyncio.get_running_loop().create_task(serve_and_keep_error())
        return self

    def disconnect(self) -> None:
        """Close the client's connection."""
        self.disconnected.set()

    def cancel(self) -> None:
        """Cancel the application's task, as some ASGI servers do at shutdown."""
        assert self._task is not None
        self._task.cancel()

    async def done(self) -> ClientResponse:
        """Wait until the application has returned or raised; return what the client received."""
        assert self._task is not None
        async with asyncio.timeout(WAIT_TIMEOUT):
            await self._task
        return self.reply


class Driver(Protocol):
    """Serves an application in this process."""

    def start(self, request: Request) -> RunningRequest:
        """Start a request."""
        ...

    def close(self) -> None:
        """Stop threads."""
        ...


class ASGIDriver:
    """Serves an ASGI application.

    Args:
        app: the application.
        trace: "start", "body" and "end" are appended as they are sent.
        spec_version: of ASGI. From 2.4 on, ``send`` raises ``OSError`` after the client has
            disconnected; before, it is ignored, and only ``http.disconnect`` reports it.
    """

    def __init__(self, app: Any, trace: list[str], *, spec_version: str = "2.4") -> None:
        self._app = app
        self._trace = trace
        self._spec_version = spec_version

    def close(self) -> None:
        """Do nothing: there are no threads."""

    def start(self, request: Request) -> RunningRequest:
        """Start a request."""
        return RunningRequest().start(lambda running: self._serve(request, running))

    async def _serve(self, request: Request, running: RunningRequest) -> None:
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
        messages = iter([{"type": "http.request", "body": b"", "more_body": False}])
        over = asyncio.Event()  # the client has disconnected, or has the whole response

        async def receive() -> dict[str, Any]:
            if (message := next(messages, None)) is not None:
                return message
            await over.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if running.disconnected.is_set():
                if self._spec_version >= "2.4":
                    raise OSError("the client has disconnected")
                return
            self._record(running.reply, message, head=request.method == "HEAD")
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                over.set()  # Litestar's streams wait for this message of ASGI 2.3 after their end
            await asyncio.sleep(0)

        async def notice_disconnect() -> None:
            await running.disconnected.wait()
            over.set()

        noticing = asyncio.get_running_loop().create_task(notice_disconnect())
        try:
            await self._app(scope, receive, send)
        finally:
            noticing.cancel()

    def _record(self, reply: ClientResponse, message: dict[str, Any], *, head: bool) -> None:
        if message["type"] == "http.response.start":
            assert reply.status == 0, "the response was started twice"
            self._trace.append("start")
            reply.status = message["status"]
            reply.headers = [
                (name.decode("latin-1").lower(), value.decode("latin-1"))
                for name, value in message.get("headers", ())
            ]
            return
        assert message["type"] == "http.response.body", message["type"]
        assert reply.status, "a body before the start of its response"
        if message.get("body") and not head:
            self._trace.append("body")
            reply.body += message["body"]
        if not message.get("more_body", False):
            self._trace.append("end")


class WSGIDriver:
    """Serves a WSGI application in a pool of threads.

    Args:
        app: the application.
        trace: "start", "body" and "end" are appended as they are sent.
    """

    def __init__(self, app: Any, trace: list[str]) -> None:
        self._app = app
        self._trace = trace
        self._threads = ThreadPoolExecutor(_MAX_THREADS, "wsgi")

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown()

    def start(self, request: Request) -> RunningRequest:
        """Start a request."""
        loop = asyncio.get_running_loop()
        return RunningRequest().start(
            lambda running: loop.run_in_executor(self._threads, self._serve, request, running)
        )

    def _serve(self, request: Request, running: RunningRequest) -> None:
        reply = running.reply

        def check_connection() -> None:
            if running.disconnected.is_set():
                raise BrokenPipeError("the client has disconnected")

        def write(data: bytes) -> None:
            check_connection()
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
            check_connection()
            self._trace.append("end")
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()


def _environ(request: Request) -> dict[str, Any]:
    """Return the WSGI environment of a request (PEP 3333)."""
    headers = {f"HTTP_{k.upper().replace('-', '_')}": v for k, v in request.all_headers()}
    return {
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
        **headers,
    }
