"""WebSocket laws, message by message, with a minimal ASGI server.

Tests with real servers: ``tests/integration/test_sockets.py``. Closing a socket when its session
ends: ``test_websocket_close.py``.
"""

from __future__ import annotations

import asyncio

import pytest

from sojourn import Sessions
from sojourn.errors import StoreUnavailable
from sojourn.stores.memory import MemoryStore
from tests.unit.web.asgi_client import Wire, connect, visit

pytestmark = pytest.mark.anyio


@pytest.fixture
def sessions():
    made = Sessions(store="memory://")
    yield made
    assert made.connections.total() == 0, "a closed socket is still registered"
    made.close()


async def echo(scope, receive, send):
    """Count messages in the session; reply with its data."""
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        session = scope["session"]
        session.increment("counter")
        session["last"] = message["text"]
        await send({"type": "websocket.send", "text": str(session["counter"])})


def begin(session):
    session["counter"] = 10


class TestSessionOfThePage:
    async def test_socket_has_the_session_of_its_page(self, sessions):
        """W1."""
        seen, cookie = await visit(sessions, begin)
        async with connect(echo, sessions, cookie=cookie) as wire:
            assert wire.scope["session"].id == seen["id"]
            wire.send("a")
            assert (await wire.recv())["text"] == "11"

    async def test_socket_without_a_cookie_has_an_empty_session_and_makes_no_store_call(
        self, sessions
    ):
        """W1, A1."""

        async def quiet(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            while (await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": str(len(scope["session"]))})

        async with connect(quiet, sessions) as wire:
            wire.send("a")
            assert (await wire.recv())["text"] == "0"
        usage = sessions.usage()
        assert (usage.reads, usage.writes, usage.creates, usage.touches) == (0, 0, 0, 0)
        assert wire.sent[0] == {"type": "websocket.accept"}

    @pytest.mark.parametrize(
        ("host", "origin", "allowed", "opens"),
        [
            (b"localhost", None, (), True),
            (b"localhost:81", b"http://localhost:81", (), True),
            (b"localhost", b"http://localhost:81", (), False),
            (b"localhost", b"null", (), False),
            (b"localhost", b"https://evil.example", (), False),
            (b"localhost", b"https://shop.example", ("https://shop.example",), True),
            (b"localhost", b"https://evil.example", ("*",), True),
        ],
    )
    async def test_foreign_origin_is_refused_before_the_accept(self, host, origin, allowed, opens):
        """W1, B-43, ASVS 4.4.2."""
        sessions = Sessions(store="memory://", allowed_origins=allowed)
        headers = [(b"host", host)] + ([(b"origin", origin)] if origin else [])
        wire = Wire(echo, sessions)
        wire.scope["headers"] = headers
        wire.start()
        first = await wire.recv()
        if opens:
            assert first["type"] == "websocket.accept"
            wire.disconnect()
        else:
            assert first == {"type": "websocket.close", "code": 1008}
        await wire.end()
        assert ("session" in wire.scope) is opens

    async def test_absent_origin_of_a_remote_client_is_refused(self):
        """W1: browsers always send an Origin with a handshake."""
        sessions = Sessions(store="memory://")
        wire = Wire(echo, sessions, scheme="wss")
        wire.scope["headers"] = [(b"host", b"shop.example")]
        wire.start()
        assert (await wire.recv())["type"] == "websocket.close"
        await wire.end()


class TestCommits:
    async def test_message_is_sent_after_its_change_is_stored(self, sessions):
        """W2, A5: a client that received the message sees the change on its next page."""
        _, cookie = await visit(sessions, begin)
        async with connect(echo, sessions, cookie=cookie) as wire:
            for n in range(11, 16):
                wire.send("x")
                assert (await wire.recv())["text"] == str(n)
                assert (await visit(sessions, cookie=cookie))[0]["counter"] == n

    async def test_change_without_a_reply_is_stored_at_the_next_receive(self, sessions):
        """W2."""

        async def silent(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            scope["session"]["a"] = 1
            await receive()

        _, cookie = await visit(sessions, begin)
        wire = Wire(silent, sessions, cookie=cookie)
        wire.start()
        await wire.waited_for()
        assert (await visit(sessions, cookie=cookie))[0]["a"] == 1
        wire.disconnect()
        await wire.end()

    async def test_changes_after_the_last_message_are_stored_at_the_close(self, sessions):
        """W2: also when the handler closes, before the client receives the close."""
        found = []

        async def handler(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            scope["session"]["bye"] = True
            await send({"type": "websocket.close", "code": 1000})
            found.append((await visit(sessions, cookie=cookie))[0])

        _, cookie = await visit(sessions, begin)
        wire = Wire(handler, sessions, cookie=cookie).start()
        await wire.end()
        assert found[0]["bye"] is True

    async def test_changes_after_the_disconnect_are_kept(self, sessions):
        """W2, A11."""

        async def handler(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                pass
            scope["session"]["left"] = True
            raise RuntimeError("as frameworks do when a client leaves")

        _, cookie = await visit(sessions, begin)
        wire = Wire(handler, sessions, cookie=cookie).start()
        wire.disconnect()
        with pytest.raises(RuntimeError):
            await wire.end()
        assert (await visit(sessions, cookie=cookie))[0]["left"] is True

    async def test_changes_of_a_pushing_handler_are_kept_at_the_disconnect(self, sessions):
        """W2, A11: ``send`` raises OSError (ASGI 2.4)."""

        async def handler(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            while True:
                await send({"type": "websocket.send", "text": "tick"})
                scope["session"].increment("ticks")

        _, cookie = await visit(sessions, begin)
        wire = Wire(handler, sessions, cookie=cookie).start()
        await wire.recv()
        await wire.recv()
        wire.lost = True
        with pytest.raises(OSError, match="has left"):
            await wire.end()
        assert (await visit(sessions, cookie=cookie))[0]["ticks"] >= 1

    @pytest.mark.parametrize("keep", [False, True])
    async def test_failing_handler_loses_unsent_changes(self, keep):
        """A10, and the option save_on_error."""
        sessions = Sessions(store="memory://", save_on_error=keep)

        async def handler(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            scope["session"]["before"] = 1
            await send({"type": "websocket.send", "text": "sent"})
            scope["session"]["after"] = 1
            raise RuntimeError("broken")

        _, cookie = await visit(sessions, begin)
        with pytest.raises(RuntimeError, match="broken"):
            await Wire(handler, sessions, cookie=cookie).start().end()
        seen, _ = await visit(sessions, cookie=cookie)
        assert seen["before"] == 1
        assert ("after" in seen) is keep

    async def test_message_of_another_task_is_sent_after_a_running_commit(self):
        """W2, A5: send awaits a commit that another task started."""

        class Slow(MemoryStore):
            async def save(self, record, expected_version):
                for _ in range(5):
                    await asyncio.sleep(0)
                return await super().save(record, expected_version)

        store = Slow()
        sessions = Sessions(store=store)
        versions = []

        async def handler(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            session = scope["session"]
            session["a"] = 1
            reader = asyncio.ensure_future(receive())  # its commit takes a while
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await send({"type": "websocket.send", "text": "a is 1"})
            versions.append((await visit(sessions, cookie=cookie))[0].get("a"))
            await reader

        _, cookie = await visit(sessions, begin)
        wire = Wire(handler, sessions, cookie=cookie).start()
        await wire.recv()
        await wire.recv()
        wire.disconnect()
        await wire.end()
        assert versions == [1]


class TestRefresh:
    async def test_delivery_refreshes_the_session(self, sessions):
        """W3: objects that the handler holds are updated too."""
        held = []

        async def handler(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            held.append(scope["session"]["cart"])
            while (await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": str(held[0])})

        def fill(session):
            session["cart"] = {"apple": 1}

        def more(session):
            session["cart"]["pear"] = 2

        _, cookie = await visit(sessions, fill)
        async with connect(handler, sessions, cookie=cookie) as wire:
            await visit(sessions, more, cookie)
            wire.send("?")
            assert (await wire.recv())["text"] == "{'apple': 1, 'pear': 2}"

    async def test_parallel_sockets_and_pages_lose_no_change(self, sessions):
        """W2, W3, A6."""
        _, cookie = await visit(sessions, begin)

        def count(session):
            session.increment("counter")

        wires = [Wire(echo, sessions, cookie=cookie).start() for _ in range(10)]
        for wire in wires:
            await wire.recv()
            for _ in range(10):
                wire.send("x")
        await asyncio.gather(*(visit(sessions, count, cookie) for _ in range(50)))
        for wire in wires:
            for _ in range(10):
                await wire.recv()
            wire.disconnect()
            await wire.end()
        assert (await visit(sessions, cookie=cookie))[0]["counter"] == 10 + 100 + 50

    async def test_failing_store_closes_with_try_again_later_and_keeps_the_record(self):
        """A15."""

        class Failing(MemoryStore):
            broken = False

            async def load(self, session_id):
                if self.broken:
                    raise StoreUnavailable("down")
                return await super().load(session_id)

            def peek(self, session_id):
                return None if self.broken else super().peek(session_id)

        store = Failing()
        sessions = Sessions(store=store)
        _, cookie = await visit(sessions, begin)
        wire = Wire(echo, sessions, cookie=cookie).start()
        await wire.recv()
        store.broken = True
        wire.send("x")
        reason = "session store unavailable"
        assert await wire.recv() == {"type": "websocket.close", "code": 1013, "reason": reason}
        await wire.end()
        refused = Wire(echo, sessions, cookie=cookie, extensions={"websocket.http.response": {}})
        start = await refused.start().recv()
        assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)
        await refused.end()
        store.broken = False
        assert (await visit(sessions, cookie=cookie))[0]["counter"] == 10
