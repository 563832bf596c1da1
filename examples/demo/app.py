"""The demo's application: every line that touches the session is here, and is what you would write.

What lives here: the installation, the routes, the WebSocket. What must not: how tabs are told
(``tabs.py``), what the page shows (``report.py``) and its headers (``headers.py``). The page quotes
lines of this file; a test compares them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, FastAPI, HTTPException, WebSocket, WebSocketDisconnect
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

import sojourn
from examples.demo.report import Reporter
from examples.demo.tabs import Tabs
from examples.demo.whole import WholeState
from sojourn.errors import InvalidState
from sojourn.frameworks.fastapi import get_session

PAGE: Final = Path(__file__).with_name("page")

#: Seconds that adding an item takes, as asking a warehouse would: so parallel requests overlap.
WORK: Final = 0.1

#: Items; the page and the session stay small however often the button is pressed.
CART_LIMIT: Final = 400


@dataclass
class Shop:
    """What ``session.state`` knows, with types; other keys are free."""

    size: Literal["small", "medium", "large"] = "medium"


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Let go of the store's files when the server stops."""
    yield
    sessions.close()


app = FastAPI(title="sojourn demo", lifespan=lifespan, docs_url=None, redoc_url=None)
sessions = sojourn.install(
    app,
    store=os.environ.get("STORE") or "sqlite:///.sojourn/sessions.db",
    state=Shop,
    merge={"counter": "sum"},
    include=["/api/*", "/live"],  # the page, its style and its script pay nothing
)
WorkingCopy = Annotated[sojourn.Session[Shop], Depends(get_session)]

tabs = Tabs(sessions)
report = Reporter(sessions, tabs)
whole = WholeState()


@app.get("/api/session")
async def look(session: WorkingCopy) -> dict[str, Any]:
    """Show the session; reading it stores nothing and sends no cookie."""
    return {"flashes": session.flashes(), **await report.describe(session), **lost(session)}


def lost(session: WorkingCopy) -> dict[str, Any]:
    """Tell which cart lines the comparison kept."""
    return {"whole": [] if session.new else list(whole.load(session.id))}


@app.post("/api/count", status_code=204)
async def count(session: WorkingCopy) -> None:
    """Count one up: the first write creates the session and sends its cookie."""
    session["counter"] = session.get("counter", 0) + 1


class Line(BaseModel):
    """One item for the cart; the page makes the ID, so that it can check what was kept."""

    id: str = Field(pattern=r"^[a-z0-9]{1,12}$")
    item: Literal["apple", "bread", "cheese", "pear", "tea"]


@app.post("/api/cart", status_code=204)
async def add(line: Line, session: WorkingCopy) -> None:
    """Put one item into the cart; many of these run at the same time.

    Each line has a key of its own inside ``cart``, so parallel changes are different changes, and
    all are kept. (``cart["apple"] += 1`` would be one number that two requests assign: the later
    would win. A number that everybody adds to is a case for ``increment``.)
    """
    cart = session.setdefault("cart", {})
    if len(cart) >= CART_LIMIT:
        raise HTTPException(409, "The cart is full. Empty it first.")
    copy = whole.load(session.id)
    await asyncio.sleep(WORK)
    cart[line.id] = line.item
    session.increment("added")
    whole.save(session.id, {**copy, line.id: line.item})


@app.delete("/api/cart", status_code=204)
async def empty(session: WorkingCopy) -> None:
    """Start with an empty cart."""
    session["cart"] = {}
    session["added"] = 0
    whole.save(session.id, {})


class Choice(BaseModel):
    """A size as the page sends it: anything, because the session itself checks it."""

    size: Annotated[Any, Field(max_length=20)]


@app.post("/api/size")
async def choose(choice: Choice, session: WorkingCopy) -> RedirectResponse:
    """Set a typed field, leave a message, redirect: the next page sees both."""
    try:
        session.state.size = choice.size
        session.flash(f"Saved: {choice.size}", "success")
    except InvalidState as error:
        session.flash(str(error), "error")
    return RedirectResponse("/api/session", status_code=303)


@app.post("/api/end", status_code=204)
async def end(session: WorkingCopy) -> None:
    """End the session: record gone, cookie deleted, every socket closed with 4401."""
    session.destroy()


@app.websocket("/live")
async def live(websocket: WebSocket, session: WorkingCopy) -> None:
    """Follow the session: each message is answered with what it holds now.

    The session of a socket is that of its page. When the loop waits for the next message, changes
    are saved; when a message arrives, what others wrote meanwhile was taken in.
    """
    if session.new:
        await websocket.close()  # before the accept: the handshake is refused
        return
    await websocket.accept()
    with tabs.following(session.id, websocket), contextlib.suppress(WebSocketDisconnect):
        await websocket.send_json(await report.describe(session))
        async for message in websocket.iter_text():
            if message == "count":
                session["counter"] = session.get("counter", 0) + 1
            await websocket.send_json(await report.describe(session))


app.mount("/", StaticFiles(directory=PAGE, html=True))
