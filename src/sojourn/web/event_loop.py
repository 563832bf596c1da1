"""Refuses to serve on an event loop other than asyncio's, such as trio's."""

from __future__ import annotations

import logging
from typing import Final

from sojourn._core.concurrency import running_loop
from sojourn.web.asgi_scope import Message, Receive, Scope, Send

#: Close code "internal error" (RFC 6455 7.4.1).
_INTERNAL_ERROR: Final = 1011

_BODY: Final = b"The server runs an event loop that sessions do not support.\n"
_HEADERS: Final = (
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"content-length", str(len(_BODY)).encode()),
    (b"cache-control", b"no-store"),
)

logger: logging.Logger = logging.getLogger("sojourn")


def runs_asyncio() -> bool:
    """Return whether this thread runs an event loop of asyncio; log an error if it does not.

    Under another one a store would block the loop, because it would find none to wait in.
    """
    if running_loop() is not None:
        return True
    logger.error(
        "sojourn serves ASGI applications on asyncio or uvloop, and this server runs another event "
        "loop, such as trio's: every request is answered 500. Start the server with an asyncio "
        "worker (hypercorn: --worker-class asyncio or uvloop)"
    )
    return False


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 500, or refuse a WebSocket."""
    kind: str = "http"
    if scope["type"] == "websocket":
        await receive()
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": _INTERNAL_ERROR})
            return
        kind = "websocket.http"
    start: Message = {"type": f"{kind}.response.start", "status": 500, "headers": [*_HEADERS]}
    await send(start)
    await send({"type": f"{kind}.response.body", "body": _BODY})
