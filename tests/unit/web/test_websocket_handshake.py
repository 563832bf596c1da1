"""A session may begin in the handshake of a socket, whose response sets the cookie (W8)."""

from __future__ import annotations

import asyncio

import pytest

from sojourn import Sessions
from sojourn.errors import ResponseStarted
from tests.unit.web.asgi_client import Wire, closed, connect, visit

pytestmark = pytest.mark.anyio


@pytest.fixture
def sessions():
    made = Sessions(store="memory://")
    yield made
    assert made.connections.total() == 0, "a closed socket is still registered"
    made.close()


class TestBeginning:
    async def test_session_begun_before_the_accept_sends_its_cookie(self, sessions):
        """W8."""

        async def handler(scope, receive, send):
            await receive()
            scope["session"]["a"] = 1
            await send({"type": "websocket.accept", "headers": [(b"x-mine", b"1")]})
            await receive()

        async with connect(handler, sessions) as wire:
            headers = wire.sent[0]["headers"]
            assert headers[0] == (b"x-mine", b"1")
            assert headers[1][0] == b"set-cookie"
            cookie = headers[1][1].split(b";")[0].removeprefix(b"sid=").decode()
            assert (await visit(sessions, cookie=cookie))[0]["a"] == 1
            assert sessions.usage().connections == 1

    async def test_session_cannot_begin_after_the_accept(self, sessions):
        """W8."""

        async def handler(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            scope["session"]["a"] = 1

        with pytest.raises(ResponseStarted):
            await Wire(handler, sessions).start().end()
        assert sessions.usage().creates == 0

    @pytest.mark.parametrize("how", ["close", "return", "raise"])
    async def test_refused_handshake_begins_no_session(self, sessions, how):
        """W8, A1: no cookie can be set, so no record is created."""

        async def handler(scope, receive, send):
            await receive()
            scope["session"]["a"] = 1
            if how == "close":
                await send({"type": "websocket.close"})
            elif how == "raise":
                raise RuntimeError("broken")

        wire = Wire(handler, sessions).start()
        await asyncio.wait({wire.task}, timeout=5)
        assert (wire.task.exception() is not None) is (how == "raise")
        assert sessions.usage().creates == 0

    async def test_denial_response_may_begin_a_session(self, sessions):
        """W8, A13: a denial response can set the cookie."""

        async def handler(scope, receive, send):
            await receive()
            scope["session"]["tries"] = 1
            start = {"type": "websocket.http.response.start", "status": 401, "headers": []}
            await send(start)
            await send({"type": "websocket.http.response.body", "body": b""})

        wire = Wire(handler, sessions).start()
        names = dict((await wire.recv())["headers"])
        await wire.end()
        assert b"set-cookie" in names
        assert names[b"cache-control"] == b"private, no-store"
        assert names[b"vary"] == b"Cookie"

    async def test_session_loaded_after_the_accept_closes_its_socket_on_revocation(self):
        """W1, W4: with autoload=False and a handler that loads the session late."""
        sessions = Sessions(store="memory://", autoload=False)
        loaded = asyncio.Event()

        async def handler(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            assert "session" not in scope
            session = await scope["sojourn.connection"].load()
            session.increment("counter")
            loaded.set()
            await receive()

        first = Wire(self._begin, sessions).start()
        cookie = (await first.recv())["headers"][0][1].split(b";")[0].removeprefix(b"sid=").decode()
        first.disconnect()
        await first.end()
        wire = Wire(handler, sessions, cookie=cookie).start()
        await wire.recv()
        await loaded.wait()
        await sessions.arevoke(wire.scope["session"].id, reason="stolen phone")
        assert await wire.recv() == closed("stolen phone")
        await wire.end()

    async def _begin(self, scope, receive, send):
        session = await scope["sojourn.connection"].load()
        session["counter"] = 0
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
