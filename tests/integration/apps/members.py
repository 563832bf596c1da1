"""A WebSocket that requires a user; ``on_error`` responds to other handshakes."""

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

import sojourn


async def login(request):
    request.session.login("ada")
    return JSONResponse({})


async def members(websocket):
    user = websocket.session.require_user()
    await websocket.accept()
    await websocket.send_text(user)
    await websocket.close()


def answer(connection, error):
    body = {"path": connection.url.path, "error": type(error).__name__}
    return JSONResponse(body, 401, headers={"Location": "/login"})


app = Starlette(routes=[Route("/login", login), WebSocketRoute("/members", members)])
sojourn.install(app, store="memory://", on_error=answer)
