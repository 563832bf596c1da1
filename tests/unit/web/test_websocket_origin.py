"""Handshakes are refused because of their Origin; sessions of accepted handshakes (W1)."""

import pytest

from sojourn import Sessions
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore
from sojourn.web.asgi_scope import CONNECTION
from tests.unit.web.asgi_client import HOST, Wire, begin, listen, visit

pytestmark = pytest.mark.anyio

SECRET = "origin-3Vn7Kc2xLp9Rt5-Bh"
REFUSED = {"type": "websocket.close", "code": 1008}


async def first_message(sessions, *headers, **scope):
    """Return the first message that a client with these headers receives."""
    wire = Wire(listen, sessions, **scope)
    wire.scope["headers"] = list(headers)
    wire.disconnect()
    await wire.start().end()
    return wire.sent[0]


@pytest.mark.parametrize(
    ("page", "expected"),
    [(b"https://shop.example", {"type": "websocket.accept"}), (b"http://shop.example", REFUSED)],
)
async def test_http_origin_is_refused_for_wss(page, expected):
    """W1, ASVS 4.4.2: the scheme is part of the origin."""
    sessions = Sessions(store="memory://")
    headers = [(b"host", b"shop.example"), (b"origin", page)]
    assert await first_message(sessions, *headers, scheme="wss") == expected


@pytest.mark.parametrize(("scheme", "host"), [("wss", b"localhost"), ("ws", b"localhost")])
@pytest.mark.parametrize("proxied", [False, True])
async def test_absent_origin_is_accepted_from_local_clients_only(scheme, host, proxied):
    """W1, ASVS 4.4.2: a proxied request may come from another machine."""
    sessions = Sessions(store="memory://", secure=True)
    headers = [(b"host", host)]
    if proxied:
        headers.append((b"x-forwarded-for", b"192.0.2.1"))
    message = await first_message(sessions, *headers, scheme=scheme)
    assert (message == REFUSED) is (proxied or scheme == "wss")


async def test_scope_without_a_scheme_defaults_to_ws():
    """W1: the scheme is optional in ASGI."""
    sessions = Sessions(store="memory://")
    _, cookie = await visit(sessions, begin)
    found = []

    async def read(scope, receive, send):
        await receive()
        found.append(scope["session"].get("counter"))
        await send({"type": "websocket.accept"})

    wire = Wire(read, sessions, cookie=cookie)
    del wire.scope["scheme"]
    await wire.start().end()
    assert found == [0]


async def test_refused_origin_is_logged(caplog):
    """W1, ASVS 4.4.2: the line has the value to add to ``allowed_origins``."""
    sessions = Sessions(store="memory://")
    origin = (b"origin", b"https://foreign.example")
    assert await first_message(sessions, HOST, origin) == REFUSED
    assert "'https://foreign.example'" in caplog.text


async def test_ticket_in_a_header_needs_no_origin():
    """W1: programs send no Origin; a cookie without an Origin is refused."""
    sessions = Sessions(store="memory://", secure=True, transport=("cookie", "header"))
    host, token = (b"host", b"shop.example"), (b"authorization", b"Session x")
    assert (await first_message(sessions, host, token, scheme="wss"))["type"] == "websocket.accept"
    cookie = (b"cookie", b"__Host-sid=x")
    assert await first_message(sessions, host, token, cookie, scheme="wss") == REFUSED
    foreign = (b"origin", b"https://foreign.example")
    assert await first_message(sessions, host, token, foreign, scheme="wss") == REFUSED


async def test_route_may_continue_while_the_store_fails():
    """A15: the route's option applies when it loads the session."""
    store = FaultyStore(MemoryStore())
    sessions = Sessions(store=store, secret=SECRET)
    _, cookie = await visit(sessions, begin)
    found = []

    async def handler(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        session = await scope[CONNECTION].load("anonymous")
        found.append((dict(session), scope["session"] is session))

    store.fail("load")
    late = Sessions(store=store, secret=SECRET, autoload=False)
    await Wire(handler, late, cookie=cookie).start().end()
    assert found == [({}, True)]


async def test_subprotocols_of_the_scope_count_as_header():
    """W1: uvicorn with wsproto has them only in the scope."""
    found = []

    async def handler(scope, receive, send):
        found.append(scope[CONNECTION].header("sec-websocket-protocol"))
        found.append(scope[CONNECTION].header("host"))
        await receive()
        await send({"type": "websocket.accept"})

    sessions = Sessions(store="memory://", transport="header")
    await Wire(handler, sessions, subprotocols=["chat", "talk"]).start().end()
    await Wire(handler, sessions).start().end()
    assert found == ["chat, talk", "localhost", None, "localhost"]
