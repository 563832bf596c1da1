"""Pages that may open a WebSocket with a session, and closing at the end of the session.

The laws of sockets are tested in ``tests/unit/live``.
"""

import asyncio

import pytest

from sojourn import Sessions
from sojourn.errors import InsecureTransport
from sojourn.testing import FakeClock
from tests.unit.web.asgi_client import HOST, Wire, closed, connect, listen, recv_close, visit

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def sessions(clock):
    with_clock = Sessions(store="memory://", secret="a secret for sockets 6Tr3Wn", clock=clock)
    yield with_clock
    with_clock.close()


async def send_contents(scope, receive, send):
    """Send the session data, then receive until the client disconnects."""
    await receive()
    await send({"type": "websocket.accept"})
    text = f"{dict(scope['session'])}"
    await send({"type": "websocket.send", "text": text})
    while (await receive())["type"] != "websocket.disconnect":
        pass


def begin(session):
    session["name"] = "Ada"


async def test_the_session_id_gives_no_session_to_a_socket(sessions):
    """B-42, ASVS 4.4.3: as cookie, header or URL; only the ticket does."""
    seen, cookie = await visit(sessions, begin)
    shown = seen["id"]
    ways = [
        {"cookie": shown},
        {"headers": [(b"authorization", f"Bearer {shown}".encode())]},
        {"headers": [(b"sec-websocket-protocol", f"sid, {cookie}".encode())]},
        {"headers": [(b"x-session-id", cookie.encode())]},
        {"query_string": f"sid={cookie}&session={shown}".encode()},
        {"path": f"/socket/{shown}"},
    ]
    for way in ways:
        async with connect(send_contents, sessions, **way) as wire:
            assert (await wire.recv())["text"] == "{}"
    async with connect(send_contents, sessions, cookie=cookie) as wire:
        assert (await wire.recv())["text"] == "{'name': 'Ada'}"


@pytest.mark.parametrize("origin", [b"https://evil.example", b"null", b"http://localhost:81", b""])
async def test_a_socket_of_a_foreign_origin_is_refused(sessions, origin):
    """B-43, ASVS 4.4.2, W1: before the accept; the handler does not run."""
    _, cookie = await visit(sessions, begin)
    wire = Wire(send_contents, sessions, cookie=cookie, headers=[(b"origin", origin)]).start()
    assert (await wire.recv())["type"] == "websocket.close"
    await wire.end()
    assert len(wire.sent) == 1


async def test_an_insecure_socket_has_no_session(sessions):
    """ASVS 4.4.1, SESS-13: the cookie is not read."""
    _, cookie = await visit(sessions, begin)
    raised = []

    async def look(scope, receive, send):
        await receive()
        try:
            raised.append(dict(scope["session"]))
        except InsecureTransport as error:
            raised.append(type(error).__name__)
        await send({"type": "websocket.close", "code": 1000})

    for headers in ([(b"host", b"shop.example")], [HOST, (b"x-forwarded-for", b"10.0.0.9")]):
        wire = Wire(look, sessions, cookie=cookie)
        origin = b"http://" + headers[0][1]
        given = [(b"origin", origin), (b"cookie", f"sid={cookie}".encode())]
        wire.scope["headers"] = [*headers, *given]
        wire.start()
        await wire.end()
    assert set(raised) == {"InsecureTransport"}


async def test_socket_is_closed_when_its_session_ends(sessions, clock):
    """B-41, OWASP-8, ASVS 7.4.1, REAUTH-08: by revocation, logout in another tab, or expiry."""
    for end, reason in (("revoke", "stolen"), ("destroy", "destroyed")):
        seen, cookie = await visit(sessions, begin)
        async with connect(listen, sessions, cookie=cookie) as wire:
            if end == "revoke":
                assert await sessions.arevoke(seen["id"], reason="stolen")
            else:
                await visit(sessions, lambda session: session.destroy(), cookie=cookie)
            assert await recv_close(wire) == closed(reason)
        again = Wire(send_contents, sessions, cookie=cookie).start()
        await again.recv()
        assert (await again.recv())["text"] == "{}"
        again.disconnect()
        await asyncio.wait({again.task}, timeout=5)
