"""NiceGUI with sessions on the server: `python nicegui_app.py`."""

import sys

from fastapi import Request
from fastapi.responses import RedirectResponse
from nicegui import app, ui

import sojourn

# NiceGUI gives every request a session; one whose cookie never comes back ends after a minute.
sojourn.install(app, unconfirmed_timeout="1 minute")


@ui.page("/")
async def home(request: Request):
    app.storage.user["visits"] = app.storage.user.get("visits", 0) + 1
    user = request.session.user or "Guest"
    ui.label(f"{user}: visit {app.storage.user['visits']}")


@app.get("/login/{user}")
async def login(request: Request, user: str):
    request.session.login(user)
    return RedirectResponse("/")


@app.get("/logout")
async def logout(request: Request):
    request.session.logout()
    return RedirectResponse("/")


port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
ui.run(storage_secret="not used by sojourn", port=port, reload=False, show=False)
