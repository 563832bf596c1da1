"""Sessions in an ASGI application without a framework, over HTTP and WebSocket.

uvicorn --workers 4 examples.bare_asgi:app
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import sojourn

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def visits(scope: Message, receive: Receive, send: Send) -> None:
    """Count the visits of a visitor, over HTTP and WebSocket."""
    match scope["type"]:
        case "http":
            await page(scope, send)
        case "websocket":
            await socket(scope, receive, send)


async def page(scope: Message, send: Send) -> None:
    """Answer a request. The session is committed before the first byte is sent."""
    session = scope["session"]
    session["visits"] = session.get("visits", 0) + 1
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": f"visit {session['visits']}\n".encode()})


async def socket(scope: Message, receive: Receive, send: Send) -> None:
    """Answer each message. The session is committed while waiting for the next one."""
    session = scope["session"]
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        session["visits"] = session.get("visits", 0) + 1
        await send({"type": "websocket.send", "text": f"visit {session['visits']}"})


sessions = sojourn.Sessions(merge={"visits": "sum"})
app = sojourn.asgi.SessionMiddleware(visits, sessions)
