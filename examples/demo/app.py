"""The demo's application: the installation, the routes and the WebSocket.

Every line that uses the session is in this file. The page quotes some of them; a test compares
them.
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
from examples.demo.last_write_wins import LastWriteWinsCarts
from examples.demo.report import Reporter
from examples.demo.store_switch import StoreSwitch
from examples.demo.tabs import Tabs
from sojourn import admin
from sojourn.errors import InvalidState
from sojourn.frameworks.fastapi import get_session

PAGE: Final = Path(__file__).with_name("page")

#: Seconds that adding an item takes, so that parallel requests overlap.
HANDLER_DURATION: Final = 0.1

#: Items; bounds the size of the page and of the session.
MAX_CART_ITEMS: Final = 400

#: Shown in the browser that is logged out.
LOGGED_OUT: Final = "logged out from another browser"


@dataclass
class Shop:
    """The typed fields of ``session.state``; other keys of the session are untyped."""

    size: Literal["small", "medium", "large"] = "medium"


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Close the store when the server stops."""
    yield
    sessions.close()


app = FastAPI(title="sojourn demo", lifespan=lifespan, docs_url=None, redoc_url=None)
switch = StoreSwitch(os.environ.get("STORE") or "sqlite:///.sojourn/sessions.db")
sessions = sojourn.install(
    app,
    store=switch,
    state=Shop,
    merge={"counter": "sum"},
    protect=True,  # no login, logout or change by a page of another site
    include=["/api/*", "/live", "/admin/*", "/devices/*"],  # no session for static files
    exclude=["/api/store"],
)
ShopSession = Annotated[sojourn.Session[Shop], Depends(get_session)]

tabs = Tabs(sessions)
report = Reporter(sessions, tabs, switch)
comparison = LastWriteWinsCarts()


@app.get("/api/session")
async def show_session(session: ShopSession) -> dict[str, Any]:
    """Return the session; reading it writes nothing and sends no cookie."""
    return {
        "flashes": session.flashes(),
        "last_write_wins": [] if session.new else list(comparison.load(session.id)),
        **await report.describe(session),
    }


@app.post("/api/count", status_code=204)
async def increment_counter(session: ShopSession) -> None:
    """Increment the counter. The first write creates the session and sends the cookie."""
    session["counter"] = session.get("counter", 0) + 1


class Line(BaseModel):
    """One item of the cart. The page creates the ID, to check later which items were stored."""

    id: str = Field(pattern=r"^[a-z0-9]{1,12}$")
    item: Literal["apple", "bread", "cheese", "pear", "tea"]


@app.post("/api/cart", status_code=204)
async def add_item(line: Line, session: ShopSession) -> None:
    """Add one item to the cart; many of these requests run in parallel.

    Each line has its own key inside ``cart``, so parallel requests change different entries and all
    changes are kept. ``cart["apple"] += 1`` would assign one number in each of them, and the later
    one would win; ``session.increment`` adds up.
    """
    cart = session.setdefault("cart", {})
    if len(cart) >= MAX_CART_ITEMS:
        raise HTTPException(409, "The cart is full. Clear it first.")
    loaded = comparison.load(session.id)
    await asyncio.sleep(HANDLER_DURATION)
    cart[line.id] = line.item
    session.increment("added")
    comparison.save(session.id, {**loaded, line.id: line.item})


@app.delete("/api/cart", status_code=204)
async def clear_cart(session: ShopSession) -> None:
    """Empty the cart."""
    session["cart"] = {}
    session["added"] = 0
    comparison.save(session.id, {})


class Choice(BaseModel):
    """A size as the page sends it. Any text is accepted, because the session validates it."""

    size: str = Field(max_length=20)


@app.post("/api/size")
async def set_size(choice: Choice, session: ShopSession) -> RedirectResponse:
    """Set a typed field, add a flash message, redirect. The next page reads both."""
    try:
        session.state.size = choice.size
        session.flash(f"Saved: {choice.size}", "success")
    except InvalidState as error:
        session.flash(str(error), "error")
    return RedirectResponse("/api/session", status_code=303)


@app.post("/api/end", status_code=204)
async def end_session(session: ShopSession) -> None:
    """Destroy the session: the record and the cookie are deleted, WebSockets closed with 4401."""
    session.destroy()


class LoginForm(BaseModel):
    """A name and no password, because this is a demo."""

    user: str = Field(min_length=1, max_length=40)
    remember: bool = False


@app.post("/api/login", status_code=204)
async def log_in(form: LoginForm, session: ShopSession) -> None:
    """Bind the session to a user. It keeps its ID and data, and gets a new ticket."""
    session.login(form.user, remember=form.remember)


@app.post("/api/logout", status_code=204)
async def log_out(session: ShopSession) -> None:
    """Destroy the session of this browser; those of other browsers stay."""
    session.logout()


@app.delete("/api/devices/{session_id}", status_code=204)
async def log_out_device(session_id: str, session: ShopSession) -> None:
    """Revoke another session of the same user. Its WebSockets are closed with the reason."""
    user = session.require_user()
    info = await sessions.aget(session_id)
    if info is None or info.user != user:
        raise HTTPException(404, "This browser is not logged in any more.")
    await sessions.arevoke(session_id, reason=LOGGED_OUT, actor=user)


class StoreState(BaseModel):
    """Whether calls reach the store."""

    running: bool


@app.post("/api/store", status_code=204)
async def stop_or_start_store(state: StoreState) -> None:
    """Stop or start the store of this process. This route has no session, so it always works."""
    switch.running = state.running
    tabs.notify_all()


@app.websocket("/live")
async def follow_session(websocket: WebSocket, session: ShopSession) -> None:
    """Answer each message with the current content of the session.

    The WebSocket has the session of the page that opened it. Changes are committed when the loop
    waits for the next message; when one arrives, the session has been refreshed.
    """
    if session.new:
        if "start" not in websocket.query_params:
            await websocket.close()  # before accept(): rejects the handshake
            return
        session["counter"] = 0  # starts a session; the handshake response has its cookie
    with contextlib.suppress(WebSocketDisconnect):  # also during the handshake
        await websocket.accept()
        with tabs.subscribed(session.id, websocket):
            await websocket.send_json(await report.describe(session))
            async for message in websocket.iter_text():
                if message == "count":
                    session["counter"] = session.get("counter", 0) + 1
                await websocket.send_json(await report.describe(session))


def allow(request: admin.AdminRequest) -> bool | Literal["read"]:
    """Show the admin page to every visitor, who is on this machine; "admin" may revoke sessions."""
    return request.user == "admin" or "read"


app.mount("/admin", admin.app(sessions, allow=allow))
app.mount("/devices", admin.device_page(sessions, login_url="/"))
app.mount("/health", sojourn.health(sessions))
app.mount("/", StaticFiles(directory=PAGE, html=True))
