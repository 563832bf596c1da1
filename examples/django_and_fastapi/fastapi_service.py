"""The FastAPI service: it reads the login of the Django site, and may end it."""

from typing import Any

from fastapi import FastAPI, HTTPException

import sojourn
from examples.django_and_fastapi.shared import COOKIE, SECRET, STORE, TIMEOUT
from sojourn.frameworks.fastapi import SessionDep

app = FastAPI()
sessions = sojourn.install(app, store=STORE, secret=SECRET, cookie=COOKIE, timeout=TIMEOUT)


@app.get("/")
async def index(session: SessionDep) -> dict[str, Any]:
    """Show the user that is logged in to the Django site."""
    name = session.get("name") if session.user else None
    return {"service": "FastAPI", "user": name, "cart": session.get("cart", {})}


@app.post("/cart/{item}")
async def add(item: str, session: SessionDep) -> dict[str, Any]:
    """Put an item into the cart; the Django site shows it."""
    session.increment("cart", path=(item,))
    return {"cart": session["cart"]}


@app.get("/logins")
async def list_logins(session: SessionDep) -> list[dict[str, Any]]:
    """List where the user is logged in."""
    if session.user is None:
        raise HTTPException(401, "log in to the Django site")
    found = await sessions.alist_user(session.user)
    return [{"id": each.id, "browser": each.labels.get("browser")} for each in found]


@app.post("/logout")
async def log_out(session: SessionDep) -> None:
    """End this session, in both applications."""
    session.logout()


@app.post("/logout-everywhere")
async def log_out_everywhere(session: SessionDep) -> int:
    """End every session of the user, in both applications; return how many there were."""
    if session.user is None:
        raise HTTPException(401, "log in to the Django site")
    return await sessions.arevoke_user(session.user, reason="logout everywhere")
