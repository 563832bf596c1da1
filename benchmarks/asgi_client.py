"""Drive an ASGI application in process: no server, no socket, every answer checked.

What a request costs is the difference between two applications driven by this same code, so its
own cost cancels. Several clients run as tasks side by side, as under a server: a store that joins
the work of one event-loop tick gets a tick to join. Used by costs.py and instructions.py.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from typing import Any

from benchmarks.candidates.starlette import BODY_BYTES, ASGIApp, Candidate, Message, Scope

CLIENTS = 16
KINDS = ("anonymous", "read", "write", "large")
"""No cookie · cookie and one key read · cookie and one key written · one key read of 20 kB."""

PATHS = {"anonymous": "/", "read": "/read", "write": "/write", "large": "/read"}


def kinds_of(candidate: Candidate) -> tuple[str, ...]:
    """Return the kinds of request that the candidate can serve."""
    return KINDS if candidate.holds_20_kb else KINDS[:-1]


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on the event loop that the servers use: uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def scope_for(path: str, cookie: str | None) -> Scope:
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
    """The two callables of ASGI for one client; refuses every answer but the right one."""

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
        """Return what a browser would send back after the last answer; None without a cookie."""
        jar: SimpleCookie = SimpleCookie()
        for name, value in self.headers:
            if name.lower() == b"set-cookie":
                jar.load(value.decode("latin-1"))
        return "; ".join(f"{key}={morsel.value}" for key, morsel in jar.items()) or None


@asynccontextmanager
async def lifespan(app: ASGIApp) -> AsyncIterator[None]:
    """Start the application and stop it at the end, as a server does."""
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


class Driver:
    """One started application and the prepared requests of its clients."""

    def __init__(self, candidate: Candidate, app: ASGIApp) -> None:
        self.candidate = candidate
        self.app = app
        self.scopes: dict[str, list[Scope]] = {}

    async def prepare(self) -> None:
        """Give every client its session by a first request, and see that it is remembered."""
        for kind in kinds_of(self.candidate):
            self.scopes[kind] = [await self._client(kind) for _ in range(CLIENTS)]
            await self.requests(kind, 20)

    async def _client(self, kind: str) -> Scope:
        if kind == "anonymous":
            return scope_for("/", None)
        exchange = Exchange()
        seed = scope_for("/seed-large" if kind == "large" else "/seed", None)
        await self.app({**seed, "state": {}}, exchange.receive, exchange.send)
        seeded, cookie = exchange.body, exchange.cookie()
        if not self.candidate.remembers:
            return scope_for(PATHS[kind], "sid=" + "a" * 66)
        read = scope_for("/read", cookie)
        await self.app({**read, "state": {}}, exchange.receive, exchange.send)
        if cookie is None or exchange.body != seeded:
            raise AssertionError(f"{self.candidate.name} forgot {seeded!r}, has {exchange.body!r}")
        return scope_for(PATHS[kind], cookie)

    async def _repeat(self, scope: Scope, count: int) -> None:
        exchange = Exchange()
        app, receive, send = self.app, exchange.receive, exchange.send
        for _ in range(count):
            await app({**scope, "state": {}}, receive, send)

    async def requests(self, kind: str, each: int) -> None:
        """Let every client make so many requests of a kind, all clients side by side."""
        await asyncio.gather(*(self._repeat(scope, each) for scope in self.scopes[kind]))

    async def cpu_microseconds(self, kind: str, each: int) -> float:
        """Return the CPU time of one request of a kind, all threads of the process together."""
        started = time.process_time_ns()
        await self.requests(kind, each)
        return (time.process_time_ns() - started) / 1000 / each / len(self.scopes[kind])


def settle(*, later: bool = False) -> None:
    """Put what is set up out of the collector's sight: what follows pays only for its own.

    Args:
        later: let it begin only when more objects are in flight than requests hold while they wait.
    """
    gc.collect()
    gc.freeze()
    if later:
        gc.set_threshold(10_000, 20, 50)
