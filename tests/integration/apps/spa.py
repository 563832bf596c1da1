"""An API for a page of another origin, and a slow event stream; the environment has the origin."""

import asyncio
import json
import os

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

import sojourn
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore

OPTIONS = json.loads(os.environ["SOJOURN_TEST_OPTIONS"])
PAGE = OPTIONS["page"]
STORE = FaultyStore(MemoryStore())


async def count(request):
    return JSONResponse(request.session.increment("n"))


async def outage(request):
    """Make the next load fail."""
    STORE.fail("load", times=1)
    return JSONResponse("failing")


async def events(request):
    async def parts():
        await asyncio.sleep(60)  # the first event is sent much later
        yield str(request.session.get("n"))

    return StreamingResponse(parts(), media_type="text/event-stream")


async def late(request):
    """Read the session after the headers of a body of known length."""

    async def parts():
        yield b"n="
        yield b"%02d" % request.session.get("n", 0)

    return StreamingResponse(parts(), headers={"content-length": "4"})


app = Starlette(
    routes=[
        Route("/count", count, methods=["POST"]),
        Route("/outage", outage),
        Route("/events", events),
        Route("/late", late),
    ]
)
app.add_middleware(
    CORSMiddleware, allow_origins=[PAGE], allow_credentials=True, allow_methods=["*"]
)
sojourn.install(
    app, store=STORE, protect=True, secret="a page of another origin: 7Jm2", allowed_origins=[PAGE]
)
