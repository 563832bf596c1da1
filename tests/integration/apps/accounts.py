"""Logins, every kind of revocation, and WebSockets that receive or only send.

The options of its installation come from the environment.
"""

import asyncio
import json
import os
import threading

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

import sojourn


def shown(session):
    return JSONResponse({"id": session.id, "user": session.user, **session})


async def show(request):
    return shown(request.session)


async def login(request):
    request.session.login(request.query_params["user"])
    return shown(request.session)


async def act(request):
    """Execute the operation of the path, on the session or on all sessions."""
    session, query = request.session, request.query_params
    match request.path_params["verb"]:
        case "put":
            session.update(query)
        case "logout":
            session.logout()
        case "rotate":
            session.rotate()
        case "revoke":
            await sessions.arevoke(query["id"], reason="stolen phone")
        case "revoke_user":
            await sessions.arevoke_user(query["user"], reason="dismissed")
        case "revoke_all":
            await sessions.arevoke_all(reason="break-in")
    return JSONResponse(sessions.usage().failures)


async def usage(request):
    found = sessions.usage()
    watches = any(each.name == "sojourn-sqlite-watcher" for each in threading.enumerate())
    watcher = getattr(sessions.engine.store, "_watcher", None)
    return JSONResponse(
        {
            "connections": found.connections,
            "reads": found.reads,
            "watches": watches,
            # An event from before its first check is not delivered.
            "has_checked": watches and getattr(watcher, "_position", None) is not None,
        }
    )


async def wait(websocket):
    """Send one message when it is open, then reply to each message."""
    await websocket.accept()
    await websocket.send_text("open")
    async for _ in websocket.iter_text():
        await websocket.send_json(dict(websocket.session))


async def push(websocket):
    """Send the session data repeatedly, and never receive."""
    await websocket.accept()
    while True:
        await websocket.send_json(dict(websocket.session))
        await asyncio.sleep(0.02)  # the interval of a ticker


app = Starlette(
    routes=[
        Route("/", show),
        Route("/login", login),
        Route("/do/{verb}", act),
        Route("/usage", usage),
        WebSocketRoute("/wait", wait),
        WebSocketRoute("/push", push),
    ]
)
sessions = sojourn.install(app, **json.loads(os.environ["SOJOURN_TEST_OPTIONS"]))
