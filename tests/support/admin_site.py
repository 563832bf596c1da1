"""An application with a login, a page with a socket, and the admin application beside it.

``ADMIN_STORE`` is the URL of its store. ``/login/ada`` logs in; ``root`` administers sessions,
``reader`` may read them.
"""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

import sojourn
from sojourn.config import Options

ROLES = {"root": True, "reader": "read"}

PAGE = """<!doctype html><title>Shop</title><p id=user>%s</p><p id=socket>opening</p><script>
const socket = new WebSocket("ws://" + location.host + "/socket");
const shown = document.getElementById("socket");
socket.onmessage = (event) => { shown.textContent = event.data; };
socket.onclose = (event) => { shown.textContent = `closed ${event.code} ${event.reason}`; };
</script>"""


async def login(request: Request) -> RedirectResponse:
    """Log a user in, whose name is the rest of the path."""
    request.session.login(request.path_params["user"], labels=dict(request.query_params))
    return RedirectResponse("/", 303)


async def home(request: Request) -> HTMLResponse:
    """Show the user; the page opens a WebSocket."""
    return HTMLResponse(PAGE % (request.session.user or "no user"))


async def socket(websocket: WebSocket) -> None:
    """Stay open until the session ends."""
    websocket.session.require_user()
    await websocket.accept()
    await websocket.send_text("open")
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        pass


def install(store: str, **options) -> Starlette:
    """Return the application with sessions in a store and the admin application."""
    app = Starlette(
        routes=[
            Route("/", home),
            Route("/login/{user:path}", login),
            WebSocketRoute("/socket", socket),
        ]
    )
    history = {"history": "30 days"} if "history" in Options.__annotations__ else {}
    sessions = sojourn.install(app, store=store, **history, **options)
    admin = sojourn.admin.app(sessions, allow=lambda request: ROLES.get(request.user, False))
    app.router.routes.append(Mount("/admin/sessions", admin))
    return app


if "ADMIN_STORE" in os.environ:
    app = install(os.environ["ADMIN_STORE"])
