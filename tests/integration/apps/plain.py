"""The smallest application: configured by the environment, and can be uninstalled."""

import os

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse

import sojourn

app = FastAPI()


@app.get("/")
def count(request: Request) -> PlainTextResponse:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return PlainTextResponse(f"{request.session['visits']} {os.getpid()}")


@app.get("/has-session")
async def has_session(request: Request) -> bool:
    return "session" in request.scope


@app.post("/uninstall")
async def uninstall() -> None:
    sojourn.uninstall(app)


@app.post("/install")
async def install() -> None:
    sojourn.install(app)


sojourn.install(app)
