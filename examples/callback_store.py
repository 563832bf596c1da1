"""Sessions in Redis or Valkey through two functions: what `CallbackStore` is for.

Run it beside a server on this machine:

    SOJOURN_SECRET=$(python -c "import secrets; print(secrets.token_urlsafe(32))") \
        uvicorn examples.callback_store:app

`read` and `write` are the whole store. With `async` functions over `redis.asyncio` it is the same.
Another service than Redis takes other lines in them and nothing else.
"""

import os

import redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import sojourn

client = redis.Redis.from_url(
    os.environ.get("REDIS_URL", "redis://localhost:6379/0"),
    socket_timeout=1,  # a function that hangs holds a thread: let the client give up first
    socket_connect_timeout=1,
)


def read(session_id: str) -> bytes | None:
    """Return what was last written, None if there is nothing."""
    return client.get(f"session:{session_id}")


def write(session_id: str, value: bytes | None, seconds: int) -> None:
    """Keep a value for so many seconds; None deletes it."""
    if value is None:
        client.delete(f"session:{session_id}")
    else:
        client.set(f"session:{session_id}", value, ex=seconds)


def count(request: Request) -> PlainTextResponse:
    """Count this visitor's visits."""
    visits = request.session.increment("visits")
    return PlainTextResponse(f"visit {visits}\n")


def leave(request: Request) -> PlainTextResponse:
    """End the session."""
    request.session.destroy()
    return PlainTextResponse("good bye\n")


app = Starlette(routes=[Route("/", count), Route("/leave", leave, methods=["POST"])])
sojourn.install(app, store=sojourn.CallbackStore(read=read, write=write))
