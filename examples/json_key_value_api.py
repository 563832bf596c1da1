"""Sessions as JSON in a key-value service with an HTTP API, with ``CallbackStore(format="json")``.

    KV_URL=https://kv.example/v1/values KV_TOKEN=... \
    SOJOURN_SECRET=$(python -c "import secrets; print(secrets.token_urlsafe(32))") \
        uvicorn examples.json_key_value_api:app

The service answers ``GET``, ``PUT`` and ``DELETE`` of ``/<key>``, 404 for a key that it does not
have, and forgets a key after ``?ttl=<seconds>``. Adapt the three requests to the API of yours.
"""

import os
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import sojourn

client = httpx.AsyncClient(
    base_url=os.environ.get("KV_URL", "http://localhost:9000/values"),
    headers={"authorization": f"Bearer {os.environ.get('KV_TOKEN', '')}"},
    timeout=1.5,
)


async def read(session_id: str) -> bytes | None:
    """Return the JSON text last written, or None."""
    response = await client.get(f"/{session_id}")
    if response.status_code == httpx.codes.NOT_FOUND:
        return None
    # An error of the service is raised: it must not be taken for an absent session.
    return response.raise_for_status().content


async def write(session_id: str, value: dict[str, Any] | None, seconds: int) -> None:
    """Store a value for a number of seconds; None deletes it."""
    if value is None:
        response = await client.delete(f"/{session_id}")
        if response.status_code == httpx.codes.NOT_FOUND:
            return
    else:
        response = await client.put(f"/{session_id}", json=value, params={"ttl": seconds})
    response.raise_for_status()


async def count(request: Request) -> PlainTextResponse:
    """Count the visits of a visitor."""
    visits = request.session.increment("visits")
    return PlainTextResponse(f"visit {visits}\n")


app = Starlette(routes=[Route("/", count)])
sojourn.install(app, store=sojourn.CallbackStore(read=read, write=write, format="json"))
