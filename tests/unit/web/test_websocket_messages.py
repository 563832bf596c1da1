"""The exact messages and log lines of WebSockets that are refused, denied or closed."""

import asyncio
import logging

import pytest

from sojourn import Sessions
from sojourn.errors import ConfigurationError, SessionRequired, StoreUnavailable
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore
from tests.unit.web.asgi_client import Wire, begin, listen, visit

pytestmark = pytest.mark.anyio

SECRET = "messages-8Rn4Xk2vQw6Lt3-Jd"
DENIAL = {"websocket.http.response": {}}
OWN = (b"x-own", b"1")


@pytest.fixture
def store():
    return FaultyStore(MemoryStore())


def make(store, **options):
    return Sessions(store=store, secret=SECRET, **options)


async def test_handshake_with_a_failed_load_is_503(store, caplog):
    """A15: a complete response with Retry-After."""
    sessions = make(store)
    _, cookie = await visit(sessions, begin)
    store.fail("load", error=StoreUnavailable("planned"))
    with caplog.at_level(logging.DEBUG, "sojourn"):
        wire = Wire(listen, sessions, cookie=cookie, extensions=DENIAL).start()
        await wire.end()
    assert wire.sent == [
        {
            "type": "websocket.http.response.start",
            "status": 503,
            "headers": [(b"retry-after", b"2"), (b"content-length", b"0")],
        },
        {"type": "websocket.http.response.body", "body": b""},
    ]
    messages = [record.getMessage() for record in caplog.records]
    assert "closed a WebSocket because the session store failed: planned" in messages


@pytest.mark.parametrize("offered", [["chat"], ["chat", "talk"]])
async def test_refused_socket_selects_the_first_subprotocol(store, offered):
    """W5: also with ``transport="header"``; browsers fail a handshake without it."""

    async def refuse(scope, receive, send):
        raise SessionRequired("log in")

    wire = Wire(refuse, make(store, transport="header"), subprotocols=offered).start()
    await wire.end()
    assert wire.sent[0] == {"type": "websocket.accept", "subprotocol": "chat"}
    assert wire.sent[1]["type"] == "websocket.close"


async def test_a_failed_commit_of_a_cancelled_socket_is_logged(store, caplog):
    """A21: the commit completes; no caller receives its error."""
    sessions = make(store)
    _, cookie = await visit(sessions, begin)

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        scope["session"]["counter"] = 1

    wire = Wire(app, sessions, cookie=cookie)

    async def cancel():
        wire.task.cancel()
        await asyncio.sleep(0.01)  # the cancellation is delivered while the save waits
        raise StoreUnavailable("planned")

    store.meanwhile("save", cancel)
    wire.start()
    with pytest.raises(asyncio.CancelledError):
        await wire.end()
    messages = [record.getMessage() for record in caplog.records]
    assert any(
        message.startswith("the session of a cancelled socket was not committed: planned")
        for message in messages
    )


@pytest.mark.parametrize("change", [None, begin])
@pytest.mark.parametrize("headers", [{}, {"headers": [OWN]}], ids=["none", "own"])
async def test_denial_response_has_its_own_headers_and_the_cookie(store, change, headers):
    """A1, W8: headers of the session are added only if it was accessed."""

    async def deny(scope, receive, send):
        await receive()
        if change is not None:
            change(scope["session"])
        await send({"type": "websocket.http.response.start", "status": 403, **headers})
        await send({"type": "websocket.http.response.body", "body": b"no"})
        await send({"type": "websocket.close"})

    wire = Wire(deny, make(store), extensions=DENIAL).start()
    await wire.end()
    sent = list(wire.sent[0]["headers"])
    own = headers.get("headers", [])
    assert sent[: len(own)] == own
    names = [name for name, _ in sent[len(own) :]]
    assert names == ([] if change is None else [b"vary", b"cache-control", b"set-cookie"])
    assert len(wire.sent) == 2  # no close frame after a response


async def test_a_second_close_is_not_sent(store):
    """ASGI: no message may follow a close."""

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        await send({"type": "websocket.close"})

    wire = Wire(app, make(store)).start()
    await wire.end()
    assert [message["type"] for message in wire.sent] == ["websocket.accept", "websocket.close"]


async def test_a_session_of_starlette_is_refused_with_the_path(store):
    """A24."""
    foreign = type("Session", (dict,), {"__module__": "starlette.middleware.sessions"})

    async def app(scope, receive, send):
        await receive()
        scope["session"] = foreign()
        await send({"type": "websocket.accept"})

    with pytest.raises(ConfigurationError, match="serves '/socket' inside"):
        await Wire(app, make(store)).start().end()


async def test_a_response_of_on_error_may_receive_and_have_no_headers(store):
    """A23: it is an ASGI application."""

    def on_error(request, error):
        async def response(scope, receive, send):
            kind = (await receive())["type"]
            await send({"type": "http.response.start", "status": 403})
            await send({"type": "http.response.body", "body": kind.encode()})

        return response

    async def refuse(scope, receive, send):
        raise SessionRequired("log in")

    wire = Wire(refuse, make(store, on_error=on_error), extensions=DENIAL)
    wire.disconnect()
    await wire.start().end()
    assert [message.get("status") for message in wire.sent] == [403, None]
    assert wire.sent[1]["body"] == b"websocket.disconnect"


async def test_messages_of_a_socket_without_a_session_are_sent(store):
    """A1: the path is excluded."""
    message = {"type": "websocket.send", "text": "hello"}

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await send(message)

    wire = Wire(app, make(store, autoload=False)).start()
    await wire.end()
    assert wire.sent[1] == message
