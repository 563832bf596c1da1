"""An ASGI client: ``Wire`` (one WebSocket), ``visit`` and ``request``, and handlers for tests."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

from sojourn.web.asgi import SessionMiddleware

HOST = (b"host", b"localhost")


class Wire:
    """One WebSocket connection.

    Attributes:
        sent: every message the application side sent, in order.
        late: while true, the server's ``send`` blocks (the client reads nothing).
        lost: if true, the server's ``send`` raises, because the client has disconnected.
        closed_at: when the close frame was sent, on the monotonic clock.
    """

    def __init__(self, app, sessions, *, cookie=None, headers=(), **scope):
        self.sent = []
        self.task = None
        self.late = False
        self.lost = False
        self.closed_at = None
        self._app = SessionMiddleware(app, sessions)
        self._inbox = asyncio.Queue()
        self._outbox = asyncio.Queue()
        given = [HOST, *headers]
        if cookie is not None:
            given.append((b"cookie", b"sid=" + cookie.encode()))
        self.scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "path": "/socket",
            "scheme": "ws",
            "headers": given,
            "client": ("127.0.0.1", 50000),
            "extensions": {},
            **scope,
        }
        self._inbox.put_nowait({"type": "websocket.connect"})
        self._empty = asyncio.Event()

    async def _receive(self):
        if self._inbox.empty():
            self._empty.set()
        return await self._inbox.get()

    async def waited_for(self):
        """Wait until the application waits for a message and runs nothing else."""
        async with asyncio.timeout(5):
            await self._empty.wait()

    async def _send(self, message):
        if self.late:
            await asyncio.Event().wait()  # as a server whose buffer stays full
        await asyncio.sleep(0)
        if self.lost:
            raise OSError("the client has left")
        if message["type"] == "websocket.close":
            self.closed_at = time.monotonic()
        self.sent.append(message)
        self._outbox.put_nowait(message)

    def start(self):
        self.task = asyncio.create_task(self._app(self.scope, self._receive, self._send))
        return self

    def send(self, text):
        self._inbox.put_nowait({"type": "websocket.receive", "text": text})

    def disconnect(self):
        self._inbox.put_nowait({"type": "websocket.disconnect", "code": 1001})

    async def recv(self):
        """Return the next message; fail if the application returns or hangs before it sends one."""
        waiting = asyncio.ensure_future(self._outbox.get())
        async with asyncio.timeout(5):
            await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            self.task.result()
            raise AssertionError(f"the application ended after {self.sent}")
        return waiting.result()

    async def end(self):
        """Wait until the application returns; return its result or raise its exception."""
        async with asyncio.timeout(5):
            return await self.task


@asynccontextmanager
async def connect(app, sessions, **options):
    """Open an accepted WebSocket; disconnect when the block ends."""
    wire = Wire(app, sessions, **options).start()
    assert (await wire.recv())["type"] == "websocket.accept"
    try:
        yield wire
    finally:
        wire.disconnect()
        await asyncio.wait({wire.task}, timeout=5)
        wire.task.cancel()
        if wire.task.done() and not wire.task.cancelled():
            wire.task.exception()  # retrieved, so that asyncio does not log it


async def visit(sessions, change=None, cookie=None):
    """Request a page that calls ``change`` with its session; return its keys and the cookie."""
    seen = {}
    sent = []

    async def page(scope, receive, send):
        session = scope["session"]
        if change is not None:
            changing = change(session)
            if changing is not None:
                await changing
        seen.update(session)
        seen["id"] = session.id
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        sent.append(message)

    headers = [HOST] + ([(b"cookie", b"sid=" + cookie.encode())] if cookie else [])
    scope = {"type": "http", "method": "GET", "path": "/", "scheme": "http",
             "headers": headers, "client": None}  # fmt: skip
    await SessionMiddleware(page, sessions)(scope, None, send)
    for name, value in sent[0]["headers"]:
        if name == b"set-cookie":
            cookie = value.split(b";")[0].removeprefix(b"sid=").decode() or None
    return seen, cookie


async def receive():
    """Return the request body message."""
    return {"type": "http.request", "body": b"posted"}


async def request(app, send, *, cookie=None, headers=(), scheme="http", **scope):
    """Serve one request of an ASGI application.

    Args:
        app: the application.
        send: of the server.
        cookie: the ticket; with None, no cookie is sent.
        headers: further request headers.
        scheme: ``http`` or ``https``; their cookie names differ.
        scope: further members of the scope.
    """
    own = [HOST, *headers]
    if cookie is not None:
        name = b"sid=" if scheme == "http" else b"__Host-sid="
        own.append((b"cookie", name + cookie.encode()))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "method": "GET",
        "path": "/",
        "scheme": scheme,
        "headers": own,
        "client": None,
        **scope,
    }
    await app(scope, receive, send)


async def stored(sessions, cookie):
    """Return the stored session data of a visitor."""
    seen, _ = await visit(sessions, cookie=cookie)
    seen.pop("id")
    return seen


async def listen(scope, receive, send):
    """Read until the client disconnects; send nothing."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def push(scope, receive, send):
    """Send messages and never receive."""
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        await send({"type": "websocket.send", "text": "tick"})


def begin(session):
    session["counter"] = 0


def closed(reason):
    return {"type": "websocket.close", "code": 4401, "reason": reason}


async def recv_close(wire):
    """Skip the messages before the close frame; return the close frame."""
    async with asyncio.timeout(10):
        while (message := await wire.recv())["type"] != "websocket.close":
            pass
    return message
