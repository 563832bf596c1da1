"""Applications with Prometheus metrics for several workers, with and without an event loop.

`STORE` is the URL of the store, `PROMETHEUS_MULTIPROC_DIR` the folder that the workers share.
"""

import os

from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

import sojourn
from sojourn.testing.app_suite.served_app import SECRET


def scrape():
    """Return the metrics of all workers."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return generate_latest(registry).decode()


async def increment(request):
    request.session.increment("n")
    return PlainTextResponse(str(os.getpid()))


async def login(request):
    request.session.login("alice")
    return PlainTextResponse("ok")


async def logout(request):
    request.session.logout()
    return PlainTextResponse("ok")


async def metrics(request):
    return PlainTextResponse(scrape())


async def socket(websocket):
    await websocket.accept()
    async for _ in websocket.iter_text():
        await websocket.send_text("ok")


app = Starlette(
    routes=[
        Route("/increment", increment),
        Route("/login", login),
        Route("/logout", logout),
        Route("/metrics", metrics),
        WebSocketRoute("/socket", socket),
    ]
)
sojourn.telemetry.prometheus(
    sojourn.install(app, store=os.environ["STORE"], secret=SECRET), count_interval=0.2
)


def without_event_loop(environ, start_response):
    """Do the same under WSGI."""
    session = environ["sojourn.session"]
    body = b"ok"
    match environ["PATH_INFO"]:
        case "/increment":
            session.increment("n")
            body = str(os.getpid()).encode()
        case "/login":
            session.login("alice")
        case "/logout":
            session.logout()
        case "/metrics":
            body = scrape().encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]


threaded_sessions = sojourn.Sessions(store=os.environ["STORE"], secret=SECRET, realm="threads")
sojourn.telemetry.prometheus(threaded_sessions)
wsgi_app = sojourn.wsgi.SessionMiddleware(without_event_loop, threaded_sessions)
