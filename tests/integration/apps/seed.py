"""One small application for each way to install sojourn, mounted under its name on one server.

``/<name>/usage`` returns the usage of that installation, without a session of its own.
"""

import asyncio
import json
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Request, WebSocket
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute

import sojourn
from sojourn import Session, Sessions
from sojourn.frameworks.fastapi import SessionDep, get_session

SECRET = "an example of a secret that is long enough"

installed = []
sojourn.on_install(lambda app, sessions: installed.append((app, sessions)))


def visits(session):
    session["visits"] = session.get("visits", 0) + 1
    return PlainTextResponse(str(session["visits"]))


def count(request):
    """Count in a plain function, which neither awaits nor saves."""
    return visits(request.session)


async def has_session(request):
    return JSONResponse("session" in request.scope)


def usage_of(name):
    async def usage(request):
        found = sojourn.get(apps[name]).usage() if name in apps else routed.usage()
        fields = ("reads", "writes", "creates", "touches", "connections")
        return JSONResponse({field: getattr(found, field) for field in fields})

    return usage


async def answer_once(websocket):
    """Count one message, reply and close."""
    await websocket.accept()
    await websocket.receive_text()
    session = websocket.scope.get("session")
    if session is None:
        await websocket.send_text("no session")
    else:
        session["visits"] = session.get("visits", 0) + 1
        await websocket.send_text(str(session["visits"]))
    await websocket.close()


# A session on every route, and each use of it


@dataclass
class State:
    counter: int = 0
    theme: str = "light"


async def assign(request):
    request.session["counter"] = request.session.get("counter", 0) + 1
    return PlainTextResponse(str(request.session["counter"]))


async def attribute(request):
    request.session.state.counter += 1
    return PlainTextResponse(str(request.session.state.counter))


async def increment(request):
    value = request.session.increment("counter")
    await asyncio.sleep(0)  # other requests run before the commit
    return PlainTextResponse(str(value))


async def keys(request):
    return JSONResponse({**request.session, "theme": request.session.state.theme})


async def stream(request):
    """Write before the first byte, wait for `/go`, write again before the end."""
    request.session["before"] = True

    async def pieces():
        yield "first\n"
        await go.wait()
        request.session["after"] = True
        yield "last\n"

    return StreamingResponse(pieces())


async def let_go(request):
    go.set()
    return PlainTextResponse("")


async def talk(websocket):
    """Write at each message and once more at the close."""
    await websocket.accept()
    async for text in websocket.iter_text():
        websocket.session["said"] = text
        await websocket.send_text(text)
    websocket.session["closed"] = True


go = asyncio.Event()

everything = Starlette(
    routes=[
        Route("/", count),
        Route("/assign", assign),
        Route("/attribute", attribute),
        Route("/increment", increment),
        Route("/keys", keys),
        Route("/stream", stream),
        Route("/go", let_go),
        WebSocketRoute("/socket", answer_once),
        WebSocketRoute("/talk", talk),
    ]
)
sojourn.install(everything, store="memory://", state=State, merge={"counter": "sum"})

# A session on some routes: by decorator, dependency, middleware of the route, or pattern

decorated = Starlette()
decorated_sessions = sojourn.install(decorated, store="memory://", autoload=False)
decorated.router.routes += [
    Route("/with", decorated_sessions.route(count)),
    Route("/without", has_session),
    WebSocketRoute("/with-socket", decorated_sessions.route(answer_once)),
    WebSocketRoute("/without-socket", answer_once),
]

dependent = FastAPI()
dependent_sessions = sojourn.install(dependent, store="memory://", autoload=False)


@dependent.get("/with")
def with_dependency(session: SessionDep):
    return visits(session)


@dependent.get("/with-typed")
async def with_typed_dependency(session: Annotated[Session[State], Depends(get_session)]):
    return visits(session)


@dependent.get("/with-decorator/{item}")
@dependent_sessions.route
async def with_decorator(item: int, request: Request):
    return visits(request.session)


@dependent.get("/without")
async def without(request: Request):
    return "session" in request.scope


@dependent.websocket("/with-socket")
async def with_socket(websocket: WebSocket, session: SessionDep):
    assert websocket.session is session
    await answer_once(websocket)


@dependent.websocket("/without-socket")
async def without_socket(websocket: WebSocket):
    await answer_once(websocket)


routed = Sessions(store="memory://")
own = [Middleware(sojourn.asgi.SessionMiddleware, sessions=routed)]
with_middleware = Starlette(
    routes=[
        Route("/with", count, middleware=own),
        Route("/without", has_session),
        WebSocketRoute("/with-socket", answer_once, middleware=own),
        WebSocketRoute("/without-socket", answer_once),
    ]
)

matched = Starlette(
    routes=[
        Route("/with", count),
        Route("/without", has_session),
        WebSocketRoute("/with-socket", answer_once),
        WebSocketRoute("/without-socket", answer_once),
    ]
)
sojourn.install(matched, store="memory://", include=["/with*"], exclude=["/without*"])

# Options, stores, events

optioned = Starlette(routes=[Route("/", count)])
sojourn.install(optioned, store="memory://", cookie="__ssid", secret=SECRET, timeout="1500 ms")

kept = {}


async def read(session_id):
    return kept.get(session_id)


async def write(session_id, value, seconds):
    if value is None:
        kept.pop(session_id, None)
    else:
        kept[session_id] = value


def show_kept(request):
    return JSONResponse({session_id: len(value) for session_id, value in kept.items()})


async def forget(request):
    request.session.destroy()
    return PlainTextResponse("")


called = Starlette(
    routes=[Route("/", count), Route("/id", lambda r: PlainTextResponse(r.session.id))]
)
called.router.routes += [Route("/kept", show_kept), Route("/forget", forget)]
sojourn.install(called, secret=SECRET, store=sojourn.CallbackStore(read=read, write=write))

# The original's Redis example, `client.set(id, JSON.stringify(value))`, over a dict of texts.
texts = {}


def read_text(session_id):
    return json.loads(texts.get(session_id, "null"))


def write_text(session_id, value, seconds):
    if value is None:
        texts.pop(session_id, None)
    else:
        texts[session_id] = json.dumps(value)


def show_texts(request):
    return JSONResponse([json.loads(text)["state"] for text in texts.values()])


called_json = Starlette(routes=[Route("/", count), Route("/texts", show_texts)])
sojourn.install(
    called_json,
    secret=SECRET,
    store=sojourn.CallbackStore(read=read_text, write=write_text, format="json"),
)

called_later = Starlette(routes=[Route("/", count)])
later = sojourn.install(called_later, secret=SECRET, store=sojourn.CallbackStore())
later.on_read(kept.get)


@later.on_write
def write_plainly(session_id, value, seconds):
    if value is None:
        kept.pop(session_id, None)
    else:
        kept[session_id] = value


emitted = []


async def show_events(request):
    return JSONResponse(emitted)


async def show_installed(request):
    """Respond whether the listener was called with this application and what ``get`` finds."""
    return JSONResponse(any(app is eventful and sojourn.get(app) is s for app, s in installed))


eventful = Starlette(routes=[Route("/", count), Route("/forget", forget)])
events = sojourn.install(eventful, store="memory://", exclude=["/usage"])
for kind in (sojourn.Created, sojourn.Read, sojourn.Written, sojourn.Revoked):
    events.on(kind, lambda event: emitted.append([type(event).__name__, event.session_id]))


async def show_labels(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JSONResponse([str(request.session["visits"]), dict(request.session.labels)])


labelled = Starlette(routes=[Route("/", show_labels)])
sojourn.install(labelled, store="memory://")

checked = Starlette(routes=[Route("/", count)])
sojourn.install(checked, store="memory://", check_labels=["browser"])

apps = {
    "everything": everything,
    "decorated": decorated,
    "dependent": dependent,
    "matched": matched,
    "optioned": optioned,
    "called": called,
    "called-json": called_json,
    "called-later": called_later,
    "eventful": eventful,
    "labelled": labelled,
    "checked": checked,
}

app = Starlette(
    routes=[
        *(Route(f"/usage/{name}", usage_of(name)) for name in [*apps, "with-middleware"]),
        Route("/events", show_events),
        Route("/installed", show_installed),
        *(Mount(f"/{name}", mounted) for name, mounted in apps.items()),
        Mount("/with-middleware", with_middleware),
    ]
)
