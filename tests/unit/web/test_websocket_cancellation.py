"""Cancellation of a handler's calls at each suspension point of a socket (law A21)."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from sojourn import Sessions
from sojourn.errors import StoreUnavailable
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore
from sojourn.testing.forwarding import ForwardingStore
from tests.integration.valkey import Valkey
from tests.unit.web.asgi_client import Wire, begin, closed, connect, visit

pytestmark = pytest.mark.anyio

MESSAGES = ["a", "b", "c"]
SECRET = "a secret for tests: 5f8c1e90"


class Suspending(ForwardingStore):
    """A store whose calls suspend before and after their effect, like calls over a network."""

    async def forward(self, verb, call):
        await asyncio.sleep(0)
        result = await call()
        await asyncio.sleep(0)
        return result


class Interruption:
    """Interrupts an awaited call at one of its suspension points.

    Args:
        at: the number of the suspension point, counted over all calls.
        kind: "cancel" cancels the task while it waits; "timeout" cancels it in the next step of
            the event loop, when the awaited event may have occurred.

    Attributes:
        passed: the number of suspension points so far.
    """

    def __init__(self, at, kind):
        self.passed = 0
        self.happened = False
        self._at = at
        self._kind = kind

    async def call(self, function, *args):
        """Await a function of the server; repeat the call if it was interrupted."""
        while True:
            try:
                async with asyncio.timeout(None) as timeout:
                    return await _Steps(self, function(*args), timeout)
            except TimeoutError:
                assert self.happened

    def step(self, timeout):
        if self.passed == self._at:
            self.happened = True
            if self._kind == "timeout":
                timeout.reschedule(asyncio.get_running_loop().time())
            else:
                timeout._on_timeout()
        self.passed += 1


class _Steps:
    def __init__(self, interruption, coroutine, timeout):
        self._interruption = interruption
        self._coroutine = coroutine
        self._timeout = timeout

    def __await__(self):
        steps = self._coroutine.__await__()
        try:
            awaited = steps.send(None)
            while True:
                self._interruption.step(self._timeout)
                try:
                    result = yield awaited
                except BaseException as error:  # noqa: BLE001 - as `yield from` passes it on
                    awaited = steps.throw(error)
                else:
                    awaited = steps.send(result)
        except StopIteration as end:
            return end.value


@pytest.fixture(params=["memory", "sqlite", "valkey"])
def store(request, tmp_path):
    if request.param == "memory":
        yield Suspending(MemoryStore())
    elif request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/sessions.db"
    else:
        server = Valkey(tmp_path)
        server.start()
        yield server.url
        server.stop()


async def run_socket(sessions, cookie, interruption):
    """Run a socket that is interrupted once; return the messages that its handler received."""
    received = []

    async def handler(scope, receive, send):
        call = interruption.call
        session = scope["session"]
        assert (await call(receive))["type"] == "websocket.connect"
        session.increment("accepts")
        await call(send, {"type": "websocket.accept"})
        for _ in MESSAGES:
            received.append((await call(receive))["text"])
            session.increment("count")
            session.append("log", received[-1])
            await call(send, {"type": "websocket.send", "text": received[-1]})
        session["bye"] = True
        await call(send, {"type": "websocket.close", "code": 1000})

    wire = Wire(handler, sessions, cookie=cookie).start()
    for text in MESSAGES:
        wire.send(text)
    await wire.end()
    return received, wire


def write_page(session):
    session.increment("pages")


@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_interrupted_call_loses_and_repeats_no_message(how, store):
    """A21, W2: at each suspension point of accept, receive, send and close."""
    sessions = Sessions(store=store, secret=SECRET)
    # The page commits, so that each refresh of the socket decodes a newer record.
    points = 0
    while True:
        _, cookie = await visit(sessions, begin)
        await visit(sessions, write_page, cookie)
        before = asyncio.all_tasks()
        interruption = Interruption(points, how)
        received, wire = await run_socket(sessions, cookie, interruption)
        where = f"interrupted at suspension point {points}"
        assert received == MESSAGES, where
        seen, _ = await visit(sessions, cookie=cookie)
        assert (seen["count"], seen["log"]) == (len(MESSAGES), MESSAGES), where
        assert (seen["accepts"], seen["bye"], seen["pages"]) == (1, True, 1), where
        sent = Counter(message.get("text") for message in wire.sent if "text" in message)
        assert set(sent) == set(MESSAGES), where
        assert sent.total() <= len(MESSAGES) + 1, where  # a cancelled send may have been sent
        assert sessions.connections.total() == 0, where
        for _ in range(10):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == before, where
        if not interruption.happened:
            break
        points += 1
    assert points >= 10
    sessions.close()


async def test_cancelled_socket_commits_whole_messages_and_releases_everything(store):
    """A12, A21: the server cancels the application at each step of the event loop, twice."""
    sessions = Sessions(store=store, secret=SECRET)
    steps = 0
    while True:
        _, cookie = await visit(sessions, begin)
        before = asyncio.all_tasks()
        interruption = Interruption(-1, "cancel")
        socket = asyncio.ensure_future(run_socket(sessions, cookie, interruption))
        for _ in range(steps):
            await asyncio.sleep(0)
        cancelled = not socket.done()
        for task in asyncio.all_tasks() - before - {socket}:
            if "SessionMiddleware" in repr(task):
                task.cancel()
                await asyncio.sleep(0)
                task.cancel()
        await asyncio.wait({socket}, timeout=5)
        assert socket.done(), f"hangs when it is cancelled at step {steps}"
        if not socket.cancelled():
            socket.exception()
        seen, _ = await visit(sessions, cookie=cookie)
        assert seen.get("log", []) == MESSAGES[: seen.get("count", 0)], steps
        assert sessions.connections.total() == 0, steps
        for _ in range(10):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == before, steps
        if not cancelled:
            break
        steps += 1
    assert steps >= 15
    sessions.close()


class TestReceive:
    async def test_timeout_during_the_refresh_keeps_the_message(self):
        """A21: the next receive delivers it."""
        store = FaultyStore(MemoryStore())
        sessions = Sessions(store=store, secret=SECRET)
        got = []

        async def handler(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            store.hang("load")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(receive(), 0.05)
            store.heal()
            got.append((await receive())["text"])
            got.append((await receive())["text"])

        _, cookie = await visit(sessions, begin)
        wire = Wire(handler, sessions, cookie=cookie).start()
        wire.send("first")
        wire.send("second")
        await wire.end()
        assert got == ["first", "second"]

    async def test_failing_refresh_keeps_the_message(self):
        """A21, A23: a handler may catch the error and receive again."""
        store = FaultyStore(MemoryStore())
        sessions = Sessions(store=store, secret=SECRET)
        got = []

        async def handler(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            store.fail("load", times=2)
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    await receive()
            got.append((await receive())["text"])

        _, cookie = await visit(sessions, begin)
        wire = Wire(handler, sessions, cookie=cookie).start()
        wire.send("first")
        await wire.end()
        assert got == ["first"]

    async def test_message_for_an_ended_session_is_not_delivered(self):
        """A21, W4: the session ended while the message was kept."""
        store = FaultyStore(MemoryStore())
        sessions = Sessions(store=store, secret=SECRET)
        got = []

        async def handler(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            store.fail("load", times=1)
            with pytest.raises(StoreUnavailable):
                await receive()
            await sessions.arevoke(seen["id"], reason="by hand")
            got.append(await receive())

        seen, cookie = await visit(sessions, begin)
        wire = Wire(handler, sessions, cookie=cookie).start()
        wire.send("first")
        await wire.end()
        assert got == [{"type": "websocket.disconnect", "code": 4401, "reason": "by hand"}]
        assert wire.sent[-1] == closed("by hand")

    async def test_interrupted_refresh_is_repeated_before_a_send(self):
        """A21, W3: the record is still marked as outdated."""
        store = FaultyStore(MemoryStore())
        sessions = Sessions(store=store, secret=SECRET)
        seen = []

        async def handler(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            await visit(sessions, write_page, cookie)
            store.hang("load", times=1)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(receive(), 0.05)
            store.heal()
            await send({"type": "websocket.send", "text": "?"})
            seen.append(scope["session"].get("pages"))

        _, cookie = await visit(sessions, begin)
        wire = Wire(handler, sessions, cookie=cookie).start()
        wire.send("x")
        await wire.end()
        assert seen == [1]


async def test_socket_whose_accept_was_interrupted_is_closed_on_revocation():
    """A21, W7: the check after the accept is repeated."""
    store = FaultyStore(MemoryStore())
    sessions = Sessions(store=store, secret=SECRET)

    async def handler(scope, receive, send):
        await receive()
        await asyncio.sleep(0)
        await store.store.delete(bytes.fromhex(seen["id"]))  # by another process
        store.hang("load", times=1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(send({"type": "websocket.accept"}), 0.05)
        assert (await receive())["code"] == 4401

    seen, cookie = await visit(sessions, begin)
    wire = Wire(handler, sessions, cookie=cookie).start()
    await wire.end()
    assert wire.sent[-1] == closed("ended")


async def test_interrupted_last_message_closes_the_socket():
    """A21, W4: the handler destroyed its session; the send of its last message is cancelled."""
    sessions = Sessions(store="memory://")
    closes = []

    async def handler(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        scope["session"].destroy()
        wire.late = True
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(send({"type": "websocket.send", "text": "bye"}), 0.05)
        closes.append(await receive())

    _, cookie = await visit(sessions, begin)
    wire = Wire(handler, sessions, cookie=cookie)
    await wire.start().end()
    assert [(message["code"], message["reason"]) for message in closes] == [(4401, "destroyed")]
    assert await sessions.acount() == 0


async def test_anyio_scope_that_times_out_keeps_the_message():
    """A21: anyio cancels repeatedly until the scope exits."""
    anyio = pytest.importorskip("anyio")
    store = FaultyStore(MemoryStore())
    sessions = Sessions(store=store, secret=SECRET)
    got = []

    async def handler(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        store.hang("load")
        with anyio.move_on_after(0.05):
            await receive()
        store.heal()
        got.append((await receive())["text"])

    _, cookie = await visit(sessions, begin)
    async with connect(handler, sessions, cookie=cookie) as wire:
        wire.send("first")
        await wire.end()
    assert got == ["first"]
