"""An application of Quart with sockets, for real servers."""

import asyncio
import os

from quart import Quart, session, websocket

import sojourn
from sojourn.testing.app_suite.served_app import SECRET

app = Quart(__name__)
app.config.update(SOJOURN_STORE=os.environ["STORE"], SOJOURN_SECRET=SECRET)
sessions = sojourn.install(app, recheck_interval="300 ms")


@app.get("/write")
async def write():
    session["n"] = session.get("n", 0) + 1
    return str(session["n"])


@app.get("/read")
async def read():
    return str(session.get("n"))


@app.get("/login")
async def login():
    session.login("ada")
    return "ok"


@app.get("/logout")
async def logout():
    session.logout()
    return "ok"


@app.get("/rotate")
async def rotate():
    session.rotate()
    return "ok"


@app.websocket("/echo")
async def echo():
    while True:
        word = await websocket.receive()
        if word == "add":
            session["n"] = session.get("n", 0) + 1
        if word == "silent":
            session["n"] = session.get("n", 0) + 100
            continue
        if word == "timeout":
            try:
                async with asyncio.timeout(0.05):
                    await websocket.receive()
            except TimeoutError:
                pass
        await websocket.send(f"{session.get('n')} {session.user}")


@app.websocket("/create")
async def create():
    session["n"] = 1
    await websocket.accept()
    await websocket.send("ok")


@app.websocket("/late")
async def late():
    await websocket.accept()
    try:
        session["n"] = 1
    except sojourn.errors.ResponseStarted:
        await websocket.send("refused")


@app.websocket("/members")
async def members():
    session.require_user()
    await websocket.send("welcome")


@app.websocket("/fail")
async def fail():
    await websocket.receive()
    session["n"] = 99
    raise LookupError("planned by the test")
