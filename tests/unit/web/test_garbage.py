"""Garbage: what a finished request held is freed at once, without the collector.

A cycle for each request would be the collector's work in every server, and a session's data would
stay in memory until it comes. Read next: ``test_transport.py``.
"""

import asyncio
import gc
from contextlib import closing, contextmanager

import pytest

import sojourn
from sojourn._core.changes import ChangeTracker
from sojourn._core.working_copy import WorkingCopy
from sojourn.session import Session
from sojourn.web.asgi import HTTPExchange, SessionMiddleware
from sojourn.web.lifecycle import SessionLifecycle

REQUESTS = 20


async def application(scope, receive, send):
    """Do what the path says with the session, and answer."""
    session = scope["session"]
    match scope["path"]:
        case "/write":
            session["cart"] = [*session.get("cart", []), "apple"]
        case "/change":
            session.setdefault("cart", []).append("pear")
        case "/login":
            session.login("ada")
        case "/logout":
            session.logout()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(session.get("cart")).encode()})


async def ask(app, path, cookie):
    """Send one request; return the cookie that a browser would have afterwards."""
    headers = [(b"host", b"shop.example")]
    headers += [(b"cookie", cookie)] if cookie else []
    scope = {"type": "http", "scheme": "https", "method": "GET", "path": path, "headers": headers}
    sent = []

    async def send(message):
        sent.append(message)

    await app(scope, None, send)
    for name, value in sent[0]["headers"]:
        if name == b"set-cookie":
            return value.split(b";")[0]
    return cookie


@contextmanager
def collector_off():
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def held():
    """Return how many exchanges, sessions and views there are, living or garbage."""
    return sum(
        isinstance(each, HTTPExchange | SessionLifecycle | WorkingCopy | Session | ChangeTracker)
        for each in gc.get_objects()
    )


async def garbage_of(paths):
    """Return how many of them only the collector could free after requests for these paths.

    They alone are counted: what other threads of the test run leave behind is not ours.
    """
    sessions = sojourn.Sessions(store="memory://", secret="q7H2vX0sR9eK4mT1zB8nW5yL3uC6pJdF")
    app = SessionMiddleware(application, sessions)
    cookie = await ask(app, "/write", None)
    with closing(sessions), collector_off():
        before = held()
        for _ in range(REQUESTS):
            for path in paths:
                cookie = await ask(app, path, cookie)
        return held() - before


@pytest.mark.parametrize(
    "paths", [["/"], ["/write"], ["/change"], ["/login"], ["/logout", "/write"]], ids=" ".join
)
def test_a_finished_request_leaves_nothing_to_the_collector(paths):
    """What docs/running.md promises."""
    assert asyncio.run(garbage_of(paths)) == 0
