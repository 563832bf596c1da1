"""Handlers of the applications that real servers serve; each framework serves the same ones."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator

from sojourn.testing import HandlerResponse
from sojourn.testing.app_suite.handlers import HANDLERS

#: Seconds that a handler takes, so that parallel requests overlap.
PAUSE = 0.005


async def pause():
    """Sleep, so that other requests run: in the event loop, or in other threads or greenlets."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        time.sleep(PAUSE)  # noqa: ASYNC251 - a handler of WSGI; gevent replaces this function
    else:
        await asyncio.sleep(PAUSE)  # other requests overlap with this one


async def append(session):
    """Append a random item to a list and respond with it."""
    item = secrets.token_hex(4)
    await pause()
    session.append("items", item)
    return HandlerResponse(body=item.encode())


async def items(session):
    """Respond with all items."""
    return HandlerResponse(body=" ".join(session.get("items", [])).encode())


async def own(session):
    """Respond with the visitor's random name, read before and after a pause."""
    name = session.setdefault("name", secrets.token_hex(4))
    await pause()
    return HandlerResponse(body=f"{name} {session['name']}".encode())


async def fail(session):
    """Write and raise an error."""
    session.increment("n", 100)
    raise LookupError("planned by the test")


async def stream(session):
    """Stream two parts, and write between them."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"first "
        await pause()
        session.increment("n")
        yield b"last"

    return HandlerResponse(body=parts())


SERVED = {
    **HANDLERS,
    "/append": append,
    "/items": items,
    "/own": own,
    "/fail": fail,
    "/stream": stream,
}
