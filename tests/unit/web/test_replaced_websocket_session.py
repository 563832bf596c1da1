"""A WebSocket handler that assigns another value to ``scope["session"]`` (law A24)."""

import asyncio

import pytest

from sojourn import Sessions
from sojourn.errors import SessionError
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore
from tests.unit.web.asgi_client import Wire, visit

pytestmark = pytest.mark.anyio

ACCEPT = {"type": "websocket.accept"}
HELLO = {"type": "websocket.send", "text": "hello"}
MISSING = object()


def begin(session):
    session.update(a=1, cart={"apple": 1})


def replace(scope, value):
    if value is MISSING:
        del scope["session"]
    else:
        scope["session"] = value


class Socket:
    """A handler that replaces its session at a given point; the visitor's data afterwards."""

    def __init__(self, value, at, *, error=None):
        self.value = value
        self.at = at
        self.error = error
        self.seen = []

    async def __call__(self, scope, receive, send):
        self.reach("handshake", scope)
        await receive()
        await send(ACCEPT)
        self.reach("accept", scope)
        await send(HELLO)
        self.reach("send", scope)
        await receive()
        self.reach("end", scope)
        if self.error is not None:
            raise self.error

    def reach(self, point, scope):
        self.seen.append(type(scope.get("session")).__name__)
        if point == self.at:
            replace(scope, self.value)


EVERY_POINT = ["handshake", "accept", "send", "end"]


@pytest.mark.parametrize("at", EVERY_POINT)
async def test_a_mapping_is_adopted(at):
    """A24: at the next message, or at the end."""
    sessions = Sessions(store="memory://")
    _, cookie = await visit(sessions, begin)
    handler = Socket({"cart": {"apple": 5}, "b": [1]}, at)
    wire = Wire(handler, sessions, cookie=cookie).start()
    wire.send("go on")
    await wire.end()
    assert handler.seen == ["Session"] * 4
    seen, _ = await visit(sessions, None, cookie)
    assert (seen["cart"], seen["b"], "a" in seen) == ({"apple": 5}, [1], False)
    assert sessions.usage().writes == 1


@pytest.mark.parametrize("at", EVERY_POINT)
@pytest.mark.parametrize("value", [None, MISSING])
async def test_none_destroys_the_session(value, at):
    """A24."""
    sessions = Sessions(store="memory://")
    _, cookie = await visit(sessions, begin)
    wire = Wire(Socket(value, at), sessions, cookie=cookie).start()
    wire.send("go on")
    await wire.end()
    assert sessions.usage().removes == 1
    assert "a" not in (await visit(sessions, None, cookie))[0]


async def test_a_mapping_before_the_accept_begins_a_session():
    """A24, W8: its cookie is sent with the accept."""
    sessions = Sessions(store="memory://")
    wire = Wire(Socket({"a": 1}, "handshake"), sessions).start()
    wire.send("go on")
    await wire.end()
    [(name, value)] = wire.sent[0]["headers"]
    assert (name, value[:4]) == (b"set-cookie", b"sid=")
    assert sessions.usage().creates == 1


@pytest.mark.parametrize("at", EVERY_POINT)
async def test_value_of_another_type_is_an_error(at):
    """A24: nothing is written, and the message says what to do."""
    sessions = Sessions(store="memory://")
    _, cookie = await visit(sessions, begin)
    wire = Wire(Socket(5, at), sessions, cookie=cookie).start()
    wire.send("go on")
    with pytest.raises(SessionError, match="object of type int"):
        await wire.end()
    assert (await visit(sessions, None, cookie))[0]["a"] == 1


@pytest.mark.parametrize(("value", "kept"), [({"a": 2}, True), (5, True), (None, False)])
async def test_failing_handler_destroys_its_session_and_drops_its_data(value, kept):
    """A24, A10: the error of the handler is raised."""
    sessions = Sessions(store="memory://")
    _, cookie = await visit(sessions, begin)
    handler = Socket(value, "end", error=LookupError("planned by the test"))
    wire = Wire(handler, sessions, cookie=cookie).start()
    wire.send("go on")
    with pytest.raises(LookupError):
        await wire.end()
    seen, _ = await visit(sessions, None, cookie)
    assert seen.get("a") == (1 if kept else None)


async def test_a_socket_without_its_session_saves_no_replacement():
    """A15, A24: with ``on_store_failure="anonymous"``."""
    store = FaultyStore(MemoryStore())
    sessions = Sessions(
        store=store, secret="a secret for tests: 5f8c1e90", on_store_failure="anonymous"
    )
    _, cookie = await visit(sessions, begin)
    store.fail("load")
    wire = Wire(Socket({"a": 7}, "handshake"), sessions, cookie=cookie).start()
    wire.send("go on")
    await wire.end()
    store.heal()
    assert (await visit(sessions, None, cookie))[0]["a"] == 1


async def test_a_replacement_in_a_denial_is_adopted():
    """A24: a response in place of the accept."""

    async def handler(scope, receive, send):
        await receive()
        scope["session"] = {"a": 2}
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b""})

    sessions = Sessions(store="memory://")
    _, cookie = await visit(sessions, begin)
    await Wire(handler, sessions, cookie=cookie).start().end()
    assert (await visit(sessions, None, cookie))[0]["a"] == 2


async def test_replacement_during_a_receive_is_adopted_by_the_other_task():
    """A24: handlers often read and write in two tasks."""
    sessions = Sessions(store="memory://")
    _, cookie = await visit(sessions, begin)

    async def handler(scope, receive, send):
        await receive()
        await send(ACCEPT)
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        scope["session"] = {"a": 2}
        await send(HELLO)
        await waiting

    wire = Wire(handler, sessions, cookie=cookie).start()
    assert [await wire.recv(), await wire.recv()] == [ACCEPT, HELLO]
    assert (await visit(sessions, None, cookie))[0]["a"] == 2
    wire.disconnect()
    await wire.end()
