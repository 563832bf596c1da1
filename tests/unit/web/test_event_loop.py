"""Event loops other than asyncio are refused with a one-line error; see also test_hypercorn.py."""

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


BODY = b"The server runs an event loop that sessions do not support.\n"
HEADERS = [
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"content-length", b"60"),
    (b"cache-control", b"no-store"),
]
CLOSE = [{"type": "websocket.close", "code": 1011}]


def response(kind):
    """Return the response messages whose type begins with ``kind``."""
    return [
        {"type": f"{kind}.response.start", "status": 500, "headers": HEADERS},
        {"type": f"{kind}.response.body", "body": BODY},
    ]


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({"type": "http"}, response("http")),
        ({"type": "websocket"}, CLOSE),
        ({"type": "websocket", "extensions": None}, CLOSE),
        (
            {"type": "websocket", "extensions": {"websocket.http.response": {}}},
            response("websocket.http"),
        ),
    ],
)
def test_trio_is_refused_with_a_one_line_error(scope, expected, caplog):
    """Without asyncio, a store would make blocking calls in the event loop."""
    middleware = SessionMiddleware(app, Sessions(store="memory://"))
    for _ in range(2):
        assert trio.run(lambda: request(middleware, **scope)) == expected
    [line] = caplog.records
    assert "--worker-class asyncio" in line.getMessage()


def test_lifespan_and_uninstalled_applications_work_under_trio():
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
