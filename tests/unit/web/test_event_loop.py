"""Event loops other than asyncio's are refused with one line; see also test_hypercorn.py."""

import pytest
import trio

from sojourn import Sessions
from sojourn.web.asgi import SessionMiddleware


async def app(scope, receive, send):
    pytest.fail("the application must not run")


async def request(middleware, **scope):
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    await middleware({"path": "/", "headers": [], "scheme": "http", **scope}, receive, send)
    return sent


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({"type": "http"}, "http.response.start"),
        ({"type": "websocket"}, "websocket.close"),
        ({"type": "websocket", "extensions": None}, "websocket.close"),
        (
            {"type": "websocket", "extensions": {"websocket.http.response": {}}},
            "websocket.http.response.start",
        ),
    ],
)
def test_trio_is_refused_with_one_line(scope, expected, caplog):
    """A store would block the event loop, because it finds none to wait in."""
    middleware = SessionMiddleware(app, Sessions(store="memory://"))
    for _ in range(2):
        first = trio.run(lambda: request(middleware, **scope))[0]
        assert first["type"] == expected
        assert first.get("status", 500) == 500
        assert first.get("code", 1011) == 1011
    [line] = caplog.records
    assert "--worker-class asyncio" in line.getMessage()


def test_lifespan_and_uninstalled_applications_pass():
    """A20."""
    seen = []

    async def inner(scope, receive, send):
        seen.append(scope["type"])

    sessions = Sessions(store="memory://")
    middleware = SessionMiddleware(inner, sessions)
    trio.run(lambda: request(middleware, type="lifespan"))
    sessions.web.active = False
    trio.run(lambda: request(middleware, type="http"))
    assert seen == ["lifespan", "http"]
