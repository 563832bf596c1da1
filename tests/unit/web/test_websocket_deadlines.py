"""Sockets are closed at the idle and the absolute deadline; what counts as activity (law W6).

Timers run on the event loop's clock, which a test cannot set. These tests use timeouts of a
fraction of a second and wait for the close frame, not for a duration.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from sojourn import Sessions
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore
from sojourn.testing.clock import FakeClock
from tests.unit.web.asgi_client import (
    Wire,
    begin,
    closed,
    connect,
    listen,
    push,
    recv_close,
    visit,
)

pytestmark = pytest.mark.anyio


class TestDeadlines:
    @pytest.mark.parametrize("handler", [listen, push])
    @pytest.mark.parametrize(
        ("options", "limit"),
        [
            ({"timeout": 0.4}, "idle"),
            ({"timeout": 0.4, "absolute_timeout": 0.4}, "absolute"),
        ],
    )
    async def test_idle_client_is_closed_at_the_deadline(self, handler, options, limit):
        """W6: also while the handler pushes, which is no activity of the client."""
        sessions = Sessions(store="memory://", **options)
        _, cookie = await visit(sessions, begin)
        wire = Wire(handler, sessions, cookie=cookie).start()
        assert await recv_close(wire) == closed(f"expired ({limit})")
        await wire.end()
        assert await sessions.acount() == 0

    async def test_write_of_the_handler_is_no_activity(self):
        """W6, ASVS 7.3.1: a periodic task that saves must not keep the session alive."""
        sessions = Sessions(store="memory://", timeout=0.6)

        async def ticker(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            while True:
                scope["session"].increment("ticks")
                await send({"type": "websocket.send", "text": "tick"})

        _, cookie = await visit(sessions, begin)
        wire = Wire(ticker, sessions, cookie=cookie).start()
        assert await recv_close(wire) == closed("expired (idle)")
        await wire.end()
        assert sessions.usage().writes > 1

    async def test_receive_with_a_timeout_is_no_activity(self):
        """W6: a handler may call receive repeatedly with its own timeout."""
        sessions = Sessions(store="memory://", timeout=0.6)

        async def poll(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            while True:
                try:
                    async with asyncio.timeout(0.01):
                        if (await receive())["type"] == "websocket.disconnect":
                            return
                except TimeoutError:
                    continue

        _, cookie = await visit(sessions, begin)
        wire = Wire(poll, sessions, cookie=cookie).start()
        assert await recv_close(wire) == closed("expired (idle)")
        await wire.end()
        assert sessions.usage().touches == 0

    async def test_messages_of_the_client_are_activity(self):
        """W6: the session outlives twice its timeout while the client sends."""
        sessions = Sessions(store="memory://", timeout=0.8)
        _, cookie = await visit(sessions, begin)
        wire = Wire(listen, sessions, cookie=cookie).start()
        await wire.recv()
        started = time.monotonic()
        while time.monotonic() - started < 1.8:
            wire.send("I am here")
            await asyncio.sleep(0.02)  # the tested behaviour: a client that sends at intervals
        assert wire.sent == [{"type": "websocket.accept"}]
        assert await recv_close(wire) == closed("expired (idle)")
        await wire.end()

    async def test_message_is_activity_when_it_is_delivered(self):
        """W6: not when the handler finishes its work."""
        clock = FakeClock()
        sessions = Sessions(store="memory://", timeout="30 minutes", clock=clock)
        seen, cookie = await visit(sessions, begin)
        working = asyncio.Event()

        async def handler(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
            working.set()
            await asyncio.Event().wait()

        wire = Wire(handler, sessions, cookie=cookie).start()
        await wire.recv()
        clock.advance("29 minutes")
        wire.send("compute")
        await working.wait()
        clock.advance("29 minutes")
        assert await sessions.aget(seen["id"]) is not None
        wire.task.cancel()
        await asyncio.wait({wire.task})

    async def test_page_requests_keep_the_socket_open(self):
        """W6: the timer loads the record before it closes the socket."""
        sessions = Sessions(store="memory://", timeout=0.8)
        _, cookie = await visit(sessions, begin)
        async with connect(listen, sessions, cookie=cookie) as wire:
            started = time.monotonic()
            while time.monotonic() - started < 1.8:
                await visit(sessions, cookie=cookie)
                await asyncio.sleep(0.02)  # as above
            assert wire.sent == [{"type": "websocket.accept"}]

    async def test_send_makes_no_store_call(self):
        """W3, W10: except after a write of another request, which a broadcast reports."""
        store = FaultyStore(MemoryStore())
        sessions = Sessions(store=store, secret="p8Zs5Lk0Tn3Yb6Wq1Xc7")
        _, cookie = await visit(sessions, begin)
        wire = Wire(push, sessions, cookie=cookie).start()
        for _ in range(3):
            await wire.recv()
        assert store.calls.count("load") == 2, "of the handshake and after the accept"
        wire.task.cancel()
        await asyncio.wait({wire.task})

    async def test_open_sockets_make_no_store_call(self):
        """W10: without a message and before expiry."""

        class Counting(MemoryStore):
            calls = 0

            async def load(self, session_id):
                Counting.calls += 1
                return await super().load(session_id)

        sessions = Sessions(store=Counting())
        _, cookie = await visit(sessions, begin)
        wires = [Wire(listen, sessions, cookie=cookie).start() for _ in range(50)]
        for wire in wires:
            await wire.recv()
            await wire.waited_for()
        Counting.calls = 0
        for _ in range(1000):
            await asyncio.sleep(0)
        assert Counting.calls == 0
        for wire in wires:
            wire.disconnect()
            await wire.end()
