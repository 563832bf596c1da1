"""The application of ``test_byte_search.py``: it logs, shows and raises all it can access.

The environment sets the options of its installation.
"""

import json
import logging
import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect

import sojourn
from sojourn import events
from tests.support.working_copies import copy_of

logger = logging.getLogger("busy")


def shown(request):
    """Return the text of every accessible object of a session and its request."""
    session = request.session
    web = sessions.web
    things = [session, session.labels, session.id, session.expires_at, dict(session)]
    things += [sessions, sessions.config, web, web.engine, web.config, web._keyring]
    things += [web.engine.store, copy_of(session).record, sessions.usage()]
    return "\n".join(f"{thing!r} {thing!s}" for thing in things)


async def write(request):
    request.session.increment("n")
    request.session["cart"] = {"apple": 2}
    request.session.flash("hello")
    logger.debug("%s", shown(request))
    return PlainTextResponse(request.session.id)


async def show(request):
    return PlainTextResponse(f"{shown(request)}\n{await sessions.aget(request.session.id)!r}")


async def fail(request):
    request.session["kept"] = None
    raise LookupError(f"as planned: {shown(request)}")


async def wrong(request):
    request.session["file"] = object()


async def large(request):
    request.session["large"] = "x" * 100_000


async def logout(request):
    logger.info("%r leaves", request.session)
    request.session.destroy()
    return PlainTextResponse("bye")


async def revoke(request):
    return PlainTextResponse(str(await sessions.arevoke(request.path_params["id"])))


def dump(request):
    """Write the contents of the memory store to a file, like a core dump."""
    records = getattr(sessions.engine.store, "_records", {}).values()
    Path("memory.dump").write_bytes(b"\n".join(record.to_bytes() for record in records))
    return PlainTextResponse(str(len(records)))


async def echo(websocket):
    await websocket.accept()
    try:
        async for _ in websocket.iter_text():
            websocket.session.increment("n")
            await websocket.send_text(repr(websocket.session))
    except WebSocketDisconnect:
        pass


logging.basicConfig(level=logging.DEBUG)
app = Starlette(
    debug=True,  # error pages with tracebacks
    routes=[
        *(Route(f"/{page.__name__}", page) for page in (write, show, fail, wrong, large)),
        *(Route(f"/{page.__name__}", page) for page in (logout, dump)),
        Route("/revoke/{id}", revoke),
        WebSocketRoute("/echo", echo),
    ],
)
sessions = sojourn.install(app, **json.loads(os.environ["SOJOURN_TEST_OPTIONS"]))
for kind in events.KINDS:
    sessions.on(kind, lambda event: logger.info("event %r", event))
