"""The application of the socket, race and crash tests: pages and sockets that share a session.

The environment sets the options of its installation.
"""

import asyncio
import json
import os

from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect

import sojourn


async def show(request):
    return JSONResponse({"id": request.session.id, "process": os.getpid(), **request.session})


async def count(request):
    """Increment the counter; set a key and a nested key of this request."""
    session = request.session
    n = request.query_params["n"]
    session["counter"] = session.get("counter", 0) + 1
    await asyncio.sleep(0)  # other requests run between the read and the commit
    session[f"key-{n}"] = n
    session.setdefault("nested", {})[n] = True
    return PlainTextResponse(str(os.getpid()))


async def increment(request):
    session = request.session
    n = request.query_params["n"]
    session.increment("counter")
    await asyncio.sleep(0)
    session[f"key-{n}"] = n
    session.setdefault("nested", {})[n] = True
    return PlainTextResponse(str(os.getpid()))


async def put(request):
    """Write the query's values and redirect to the page that shows them."""
    request.session.update(request.query_params)
    return RedirectResponse("/", 303)


async def logout(request):
    request.session.destroy()
    return PlainTextResponse("bye")


async def revoke(request):
    found = await sessions.arevoke(request.path_params["id"], reason="revoked by hand")
    return JSONResponse(found)


async def usage(request):
    return JSONResponse(
        {"connections": sessions.usage().connections, "tasks": len(asyncio.all_tasks())}
    )


async def stream(request):
    """Change the session after the first byte and at the end of a stream of `n` pieces."""
    session = request.session
    n = int(request.query_params["n"])
    session["began"] = True

    async def pieces():
        try:
            for piece in range(n):
                session.increment("pieces")
                yield f"{piece}\n"
                await asyncio.sleep(0.01)  # so that a client can disconnect during the stream
        finally:
            session["ended"] = True

    return StreamingResponse(pieces())


async def slow(request):
    """Block until `/open` is requested, then write."""
    request.session["slow"] = True
    released = held_requests.setdefault(request.query_params["name"], asyncio.Event())
    arrived.setdefault(request.query_params["name"], asyncio.Event()).set()
    await released.wait()
    return JSONResponse(dict(request.session))


async def arrive(request):
    """Respond when a request is blocked."""
    await arrived.setdefault(request.query_params["name"], asyncio.Event()).wait()
    return PlainTextResponse("")


async def release(request):
    held_requests.setdefault(request.query_params["name"], asyncio.Event()).set()
    return PlainTextResponse("")


async def uninstall(request):
    sojourn.uninstall(app)
    return PlainTextResponse("")


async def whose(request):
    """Set a value, yield to other requests, and respond with the value."""
    mine = request.query_params["n"]
    request.session["mine"] = mine
    for _ in range(5):
        await asyncio.sleep(0)
    return PlainTextResponse(request.session["mine"])


async def echo(websocket):
    """Count messages; execute the commands among them."""
    session = websocket.session
    await websocket.accept()
    try:
        async for text in websocket.iter_text():
            if text == "destroy":
                session.destroy()
                await websocket.send_json({"destroyed": True})
            elif text == "raise":
                session["uncommitted"] = True
                raise RuntimeError("a handler that fails")
            elif text == "quiet":
                session.increment("quiet")
            else:
                session.increment("counter")
                await websocket.send_json({"id": session.id, **session})
    except WebSocketDisconnect:
        pass


async def push(websocket):
    """Send repeatedly and never receive."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_text("tick" * int(websocket.query_params.get("size", 1)))
            await asyncio.sleep(0.01)  # the interval of a ticker
    except (OSError, WebSocketDisconnect):
        pass


async def begin(websocket):
    """Create a session in the handshake."""
    websocket.session["counter"] = 100
    await websocket.accept()
    await websocket.send_json(dict(websocket.session))
    await websocket.close()


async def begin_late(websocket):
    await websocket.accept()
    try:
        websocket.session["counter"] = 1
    except sojourn.errors.ResponseStarted as error:
        await websocket.send_text(type(error).__name__)
    await websocket.close()


async def patient(websocket):
    """Receive with a timeout, like a handler with other work."""
    await websocket.accept()
    received = []
    while len(received) < 20:
        try:
            received.append(await asyncio.wait_for(websocket.receive_text(), 0.002))
        except TimeoutError:
            continue
    await websocket.send_json(received)
    await websocket.close()


async def refresher(websocket):
    """Refresh the session repeatedly, and never receive."""
    await websocket.accept()
    while True:
        await websocket.session.arefresh()
        await asyncio.sleep(0.01)  # the interval of a handler that polls its session


async def members(websocket):
    """Accept users only."""
    user = websocket.session.require_user()
    await websocket.accept()
    await websocket.send_text(user)
    await websocket.close()


async def login(request):
    request.session.login(request.query_params["user"])
    return PlainTextResponse("ok")


held_requests = {}
arrived = {}

app = Starlette(
    routes=[
        Route("/", show),
        Route("/count", count),
        Route("/increment", increment),
        Route("/put", put),
        Route("/logout", logout),
        Route("/revoke/{id}", revoke),
        Route("/usage", usage),
        Route("/stream", stream),
        Route("/slow", slow),
        Route("/arrive", arrive),
        Route("/open", release),
        Route("/uninstall", uninstall),
        Route("/whose", whose),
        Route("/login", login),
        WebSocketRoute("/echo", echo),
        WebSocketRoute("/members", members),
        WebSocketRoute("/patient", patient),
        WebSocketRoute("/refresher", refresher),
        WebSocketRoute("/push", push),
        WebSocketRoute("/begin", begin),
        WebSocketRoute("/begin-late", begin_late),
    ]
)
sessions = sojourn.install(app, **json.loads(os.environ["SOJOURN_TEST_OPTIONS"]))
