"""A finished request leaves no reference cycle, so its memory is freed without the collector.

``docs/production/scaling.md`` promises this. One cycle per request costs a server about an eighth
of its throughput and keeps the data of a session in memory until the next collection.
"""

import asyncio
import gc
import types
from collections import Counter
from contextlib import closing, contextmanager
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import fastapi
import pytest
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute

import sojourn

pytestmark = pytest.mark.usefixtures("small_heap")

REQUESTS = 1000
WARM_UP = 20
SECRET = "q7H2vX0sR9eK4mT1zB8nW5yL3uC6pJdF"
PACKAGE = str(Path(sojourn.__file__).parent)

#: Kind of request: the paths requested in turn. `write` after `logout` starts the next session.
KINDS = {
    "anonymous": ["/anonymous"],
    "read": ["/read"],
    "write": ["/write"],
    "nested write": ["/nested-write"],
    "login": ["/login"],
    "logout": ["/logout", "/write"],
    "stream": ["/stream"],
    "error": ["/error"],
}

CHUNKS = ("first", "second", "last")


class ApplicationError(Exception):
    """Raised by the handler of `/error`."""


def use_session(session, path):
    """Use the session as the path requests; return the text of the response."""
    match path:
        case "/write":
            session["cart"] = [*session.get("cart", [])[-3:], "apple"]
        case "/nested-write":
            session.setdefault("cart", []).append("pear")
            del session["cart"][:-3]
        case "/login":
            session.login("ada")
        case "/logout":
            session.logout()
        case "/error":
            session["cart"] = ["lost"]
            raise ApplicationError
    return str(session.get("cart"))


def change_while_streaming(session, chunk):
    """Read and change the session after the response has started."""
    if "cart" in session:
        session["cart"] = [chunk]
    return f"{chunk} {session.get('cart')}"


# Applications: the same routes for each framework


async def asgi_application(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            text = use_session(scope["session"], message["text"])
            await send({"type": "websocket.send", "text": text})
        return
    path = scope["path"]
    chunks = ["anonymous"]
    if path == "/stream":
        chunks = CHUNKS
    elif path != "/anonymous":
        chunks = [use_session(scope["session"], path)]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for chunk in chunks:
        text = change_while_streaming(scope["session"], chunk) if path == "/stream" else chunk
        await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def make_asgi():
    sessions = sojourn.Sessions(store="memory://", secret=SECRET)
    return sojourn.asgi.SessionMiddleware(asgi_application, sessions), sessions


async def anonymous(request: fastapi.Request) -> PlainTextResponse:
    return PlainTextResponse("anonymous")


async def session_route(request: fastapi.Request) -> PlainTextResponse:
    return PlainTextResponse(use_session(request.session, request.url.path))


async def stream(request: fastapi.Request) -> StreamingResponse:
    session = request.session

    async def chunks():
        for chunk in CHUNKS:
            yield change_while_streaming(session, chunk)

    return StreamingResponse(chunks())


async def websocket_route(websocket: fastapi.WebSocket) -> None:
    await websocket.accept()
    async for path in websocket.iter_text():
        await websocket.send_text(use_session(websocket.session, path))


HANDLERS = {"/anonymous": anonymous, "/stream": stream} | dict.fromkeys(
    ("/read", "/write", "/nested-write", "/login", "/logout", "/error"), session_route
)


def make_starlette():
    routes = [Route(path, handler) for path, handler in HANDLERS.items()]
    app = Starlette(routes=[*routes, WebSocketRoute("/websocket", websocket_route)])
    return app, sojourn.install(app, store="memory://", secret=SECRET)


def make_fastapi():
    app = fastapi.FastAPI(openapi_url=None)
    for path, handler in HANDLERS.items():
        app.get(path)(handler)
    app.websocket("/websocket")(websocket_route)
    return app, sojourn.install(app, store="memory://", secret=SECRET)


APPLICATIONS = {"asgi": make_asgi, "starlette": make_starlette, "fastapi": make_fastapi}


def wsgi_application(environ, start_response):
    path, session = environ["PATH_INFO"], environ["sojourn.session"]
    if path == "/stream":
        start_response("200 OK", [])
        return (change_while_streaming(session, chunk).encode() for chunk in CHUNKS)
    text = "anonymous" if path == "/anonymous" else use_session(session, path)
    start_response("200 OK", [])
    return [text.encode()]


# Clients


def cookie_of(headers, cookie):
    """Return the cookie that a browser has after a response with these headers."""
    for name, value in headers:
        if name.lower() == "set-cookie":
            return value.split(";")[0]
    return cookie


def make_scope(kind, path, cookie):
    headers = [(b"host", b"shop.example"), (b"origin", b"https://shop.example")]
    headers += [(b"cookie", cookie.encode())] if cookie else []
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "https" if kind == "http" else "wss",
        "server": ("shop.example", 443),
        "client": ("192.0.2.1", 50000),
        "root_path": "",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "subprotocols": [],
    }


async def request_asgi(app, path, cookie):
    """Send one request; return the cookie that a browser has afterwards."""
    sent, request = [], [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive():
        return request.pop() if request else await asyncio.get_running_loop().create_future()

    async def send(message):
        sent.append(message)

    try:
        await app(make_scope("http", path, None if path == "/anonymous" else cookie), receive, send)
    except ApplicationError:
        return cookie
    assert sent[0]["status"] == 200
    return cookie_of([(n.decode(), v.decode()) for n, v in sent[0]["headers"]], cookie)


async def request_websocket(app, cookie):
    """Open a WebSocket, read and write the session in it, and close it."""
    received = [{"type": "websocket.connect"}]
    received += [{"type": "websocket.receive", "text": path} for path in ("/read", "/write")]
    received += [{"type": "websocket.disconnect", "code": 1000}]
    received.reverse()
    sent = []

    async def receive():
        return received.pop()

    async def send(message):
        sent.append(message)

    await app(make_scope("websocket", "/websocket", cookie), receive, send)
    assert [message["type"] for message in sent[:3]] == [
        "websocket.accept",
        "websocket.send",
        "websocket.send",
    ]


def request_wsgi(app, path, cookie):
    """Send one request; return the cookie that a browser has afterwards."""
    environ = {"HTTP_HOST": "shop.example", "wsgi.url_scheme": "https", "PATH_INFO": path}
    setup_testing_defaults(environ)
    if cookie and path != "/anonymous":
        environ["HTTP_COOKIE"] = cookie
    answers = []

    def start_response(status, headers, exc_info=None):
        answers.append((status, headers))

    try:
        body = app(environ, start_response)
    except ApplicationError:
        return cookie
    assert b"".join(body)
    if hasattr(body, "close"):
        body.close()
    assert answers[0][0] == "200 OK"
    return cookie_of(answers[0][1], cookie)


# Counting


def is_from_sojourn(item):
    """Return whether an object is an instance, a function or a frame of this package."""
    match item:
        case types.FunctionType() | types.BuiltinFunctionType() | types.MethodType():
            module = getattr(item, "__module__", None) or ""
        case types.FrameType():
            return item.f_code.co_filename.startswith(PACKAGE)
        case types.CoroutineType():
            return item.cr_code.co_filename.startswith(PACKAGE)
        case types.GeneratorType():
            return item.gi_code.co_filename.startswith(PACKAGE)
        case types.AsyncGeneratorType():
            return item.ag_code.co_filename.startswith(PACKAGE)
        case _:
            module = type(item).__module__
    return module.partition(".")[0] == "sojourn"


@contextmanager
def collecting_garbage():
    """Disable the garbage collector; at the end, count sojourn's objects in reference cycles.

    The result has the number of objects by type. Objects that existed before are omitted: the
    installation of an earlier test may be collected here. So are types with few objects.
    """
    found = {}
    gc.collect()
    gc.disable()
    earlier = {id(item) for item in gc.get_objects()}
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        counts = Counter(
            type(item).__qualname__
            for item in gc.garbage
            if id(item) not in earlier and is_from_sojourn(item)
        )
        found |= {name: count for name, count in counts.items() if count >= REQUESTS // 20}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def garbage_of_requests(app, paths):
    cookie = await request_asgi(app, "/write", None)
    for _ in range(WARM_UP):
        for path in paths:
            cookie = await request_asgi(app, path, cookie)
    with collecting_garbage() as garbage:
        for _ in range(REQUESTS):
            for path in paths:
                cookie = await request_asgi(app, path, cookie)
    return garbage


async def garbage_of_websockets(app):
    cookie = await request_asgi(app, "/write", None)
    for _ in range(WARM_UP):
        await request_websocket(app, cookie)
    with collecting_garbage() as garbage:
        for _ in range(REQUESTS):
            await request_websocket(app, cookie)
    return garbage


@pytest.mark.parametrize("paths", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("make_application", APPLICATIONS.values(), ids=APPLICATIONS)
def test_finished_asgi_request_leaves_no_cycle(make_application, paths):
    app, sessions = make_application()
    with closing(sessions):
        assert asyncio.run(garbage_of_requests(app, paths)) == {}


@pytest.mark.parametrize("make_application", APPLICATIONS.values(), ids=APPLICATIONS)
def test_finished_websocket_leaves_no_cycle(make_application):
    app, sessions = make_application()
    with closing(sessions):
        assert asyncio.run(garbage_of_websockets(app)) == {}


@pytest.mark.parametrize("paths", KINDS.values(), ids=KINDS)
def test_finished_wsgi_request_leaves_no_cycle(paths):
    with closing(sojourn.Sessions(store="memory://", secret=SECRET)) as sessions:
        app = sojourn.wsgi.SessionMiddleware(wsgi_application, sessions)
        cookie = request_wsgi(app, "/write", None)
        for _ in range(WARM_UP):
            for path in paths:
                cookie = request_wsgi(app, path, cookie)
        with collecting_garbage() as garbage:
            for _ in range(REQUESTS):
                for path in paths:
                    cookie = request_wsgi(app, path, cookie)
        assert garbage == {}
