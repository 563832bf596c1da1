"""Calls an ASGI application in process, without a server or a socket, and checks every answer.

Several clients run as parallel tasks, as under a server, so that a store can batch the calls of one
event-loop tick. The client's own cost cancels in the difference between two applications. Used
by cpu_time.py, instructions.py, profiler.py and sqlite_scaling.py.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from typing import Any

from benchmarks.candidates.candidate import BODY_BYTES, ASGIApp, Candidate, Message, Scope

CLIENTS = 16
KINDS = ("anonymous", "read", "write", "large")
"""No cookie; cookie and one key read; cookie and one key written; one key read of 20 kB."""

PATHS = {"anonymous": "/", "read": "/read", "write": "/write", "large": "/read"}


def kinds_of(candidate: Candidate) -> tuple[str, ...]:
    """Return the kinds of request that the candidate can serve."""
    return KINDS if candidate.holds_20_kb else KINDS[:-1]


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on the event loop that the servers use: uvloop if it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def make_scope(path: str, cookie: str | None) -> Scope:
    """Return the scope that uvicorn would build for a GET of the path."""
    headers = [
        (b"host", b"testserver"),
        (b"user-agent", b"benchmark/1.0"),
        (b"accept", b"*/*"),
    ]
    if cookie is not None:
        headers.append((b"cookie", cookie.encode("latin-1")))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "root_path": "",
        "method": "GET",
        "path": path,
        "raw_path": path.encode("ascii"),
        "query_string": b"",
        "headers": headers,
    }


class Exchange:
    """The `receive` and `send` of one client; raises for a wrong answer."""

    __slots__ = ("body", "headers")

    def __init__(self) -> None:
        self.body = b""
        self.headers: list[tuple[bytes, bytes]] = []

    async def receive(self) -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if message["status"] != 200:
                raise AssertionError(f"status {message['status']}")
            self.headers = message["headers"]
        elif message.get("body"):
            self.body = message["body"]
            if len(self.body) != BODY_BYTES:
                raise AssertionError(f"body {self.body!r}")

    def cookie(self) -> str | None:
        """Return the cookie that a browser would send after the last response; None without one."""
        jar: SimpleCookie = SimpleCookie()
        for name, value in self.headers:
            if name.lower() == b"set-cookie":
                jar.load(value.decode("latin-1"))
        return "; ".join(f"{key}={morsel.value}" for key, morsel in jar.items()) or None


@asynccontextmanager
async def lifespan(app: ASGIApp) -> AsyncIterator[None]:
    """Start the application and stop it at the end, like a server."""
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    outbox: asyncio.Queue[Message] = asyncio.Queue()
    scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    task = asyncio.ensure_future(app(scope, inbox.get, outbox.put))
    for phase in ("startup", "shutdown"):
        if phase == "shutdown":
            yield
        await inbox.put({"type": f"lifespan.{phase}"})
        answer = await outbox.get()
        if answer["type"] != f"lifespan.{phase}.complete":
            raise AssertionError(f"lifespan answered {answer!r}")
    await task


class ASGIClients:
    """A started application and the prepared requests of its clients."""

    def __init__(self, candidate: Candidate, app: ASGIApp) -> None:
        self.candidate = candidate
        self.app = app
        self.scopes: dict[str, list[Scope]] = {}

    async def prepare(self, kinds: tuple[str, ...]) -> None:
        """Create the session of every client, check it, and warm up the application."""
        for kind in kinds:
            self.scopes[kind] = [await self._prepare_client(kind) for _ in range(CLIENTS)]
            await self.send_requests(kind, 20)

    async def _prepare_client(self, kind: str) -> Scope:
        if kind == "anonymous":
            return make_scope("/", None)
        exchange = Exchange()
        seed = make_scope("/seed-large" if kind == "large" else "/seed", None)
        await self.app({**seed, "state": {}}, exchange.receive, exchange.send)
        seeded, cookie = exchange.body, exchange.cookie()
        if not self.candidate.keeps_values:
            return make_scope(PATHS[kind], "sid=" + "a" * 66)
        read = make_scope("/read", cookie)
        await self.app({**read, "state": {}}, exchange.receive, exchange.send)
        if cookie is None or exchange.body != seeded:
            raise AssertionError(
                f"{self.candidate.name}: expected {seeded!r}, found {exchange.body!r}"
            )
        return make_scope(PATHS[kind], cookie)

    async def _send_in_turn(self, scope: Scope, count: int) -> None:
        exchange = Exchange()
        app, receive, send = self.app, exchange.receive, exchange.send
        for _ in range(count):
            await app({**scope, "state": {}}, receive, send)

    async def send_requests(self, kind: str, count: int) -> None:
        """Send `count` requests from every client, all clients side by side."""
        await asyncio.gather(*(self._send_in_turn(scope, count) for scope in self.scopes[kind]))

    async def cpu_microseconds(self, kind: str, count: int) -> float:
        """Return the CPU time of one request, all threads of the process together."""
        started = time.process_time_ns()
        await self.send_requests(kind, count)
        return (time.process_time_ns() - started) / 1000 / count / len(self.scopes[kind])


def freeze_heap(*, raise_threshold: bool = False) -> None:
    """Exclude the objects created at startup from garbage collection.

    Args:
        raise_threshold: start a collection at 10,000 young objects instead of 700.
    """
    gc.collect()
    gc.freeze()
    if raise_threshold:
        gc.set_threshold(10_000, 20, 50)
