"""An API for native clients and pages of another origin: the ticket is in a header."""

import json
import os

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

import sojourn

OPTIONS = json.loads(os.environ["SOJOURN_TEST_OPTIONS"])


async def count(request):
    return JSONResponse(request.session.increment("n"))


async def login(request):
    request.session.login("ada")
    return JSONResponse("ada")


async def leave(request):
    request.session.logout()
    return JSONResponse(None)


async def revoke(request):
    return JSONResponse(await sessions.arevoke_user("ada"))


async def socket(websocket):
    offered = websocket.scope["subprotocols"]
    await websocket.accept(subprotocol="chat" if "chat" in offered else None)
    async for _ in websocket.iter_text():
        await websocket.send_json([offered, websocket.session.increment("n")])


app = Starlette(
    routes=[
        Route("/count", count, methods=["POST"]),
        Route("/login", login, methods=["POST"]),
        Route("/leave", leave, methods=["POST"]),
        Route("/revoke", revoke, methods=["POST"]),
        WebSocketRoute("/ws", socket),
    ]
)
app.add_middleware(
    CORSMiddleware,
    allow_origins=OPTIONS.get("pages", []),
    allow_methods=["POST"],
    allow_headers=["Authorization"],
    expose_headers=["Session-Ticket"],
)
sessions = sojourn.install(app, store="memory://", transport=["cookie", "header"], protect=True)


def application(environ, start_response):
    """Count, over WSGI."""
    body = str(environ["sojourn.session"].increment("n")).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


wsgi = sojourn.wsgi.SessionMiddleware(
    application, sojourn.Sessions(store="memory://", transport="header", header="X-Session")
)
