"""Sessions in Redis or Valkey through two functions, with ``CallbackStore``.

Run it with a Redis or Valkey server on this machine:

    SOJOURN_SECRET=$(python -c "import secrets; print(secrets.token_urlsafe(32))") \
        uvicorn examples.callback_store:app

``read`` and ``write`` are the whole store. They may also be ``async``, with ``redis.asyncio``. For
another service, change only these two functions.
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
    socket_timeout=1,  # a blocked function occupies a thread; the client must time out first
    socket_connect_timeout=1,
)


def read(session_id: str) -> bytes | None:
    """Return the bytes last written, or None."""
    return client.get(f"session:{session_id}")


def write(session_id: str, value: bytes | None, seconds: int) -> None:
    """Store a value for a number of seconds; None deletes it."""
    if value is None:
        client.delete(f"session:{session_id}")
    else:
        client.set(f"session:{session_id}", value, ex=seconds)


def count(request: Request) -> PlainTextResponse:
    """Count the visits of a visitor."""
    visits = request.session.increment("visits")
    return PlainTextResponse(f"visit {visits}\n")


def logout(request: Request) -> PlainTextResponse:
    """Destroy the session."""
    request.session.destroy()
    return PlainTextResponse("logged out\n")


app = Starlette(routes=[Route("/", count), Route("/logout", logout, methods=["POST"])])
sojourn.install(app, store=sojourn.CallbackStore(read=read, write=write))
