"""Sockets are closed when their session ends, with and without traffic (laws W4, W7).

In one process, message by message. Timeouts are in ``test_websocket_deadlines.py``.
"""

from __future__ import annotations

import asyncio
import gc
import secrets
import time

import pytest

from sojourn import Sessions
from sojourn.errors import SessionGone
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore
from sojourn.web import websocket_close
from sojourn.web.transport_security import TransportSecurity
from sojourn.web.websocket_close import WebSocketCloser
from tests.unit.web.asgi_client import Wire, begin, closed, connect, listen, push, visit

pytestmark = pytest.mark.anyio


@pytest.fixture
def sessions():
    made = Sessions(store="memory://")
    yield made
    assert made.connections.total() == 0, "a closed socket is still registered"
    made.close()


class TestRevoked:
    async def test_idle_socket_is_closed_with_the_reason(self, sessions):
        """W4: the handler receives a disconnect message with the same code."""
        got = []

        async def handler(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            got.append(await receive())
            got.append(await receive())

        seen, cookie = await visit(sessions, begin)
        wire = Wire(handler, sessions, cookie=cookie).start()
        await wire.recv()
        await wire.waited_for()
        await sessions.arevoke(seen["id"], reason="stolen phone")
        assert await wire.recv() == closed("stolen phone")
        await wire.end()
        expected = {"type": "websocket.disconnect", "code": 4401, "reason": "stolen phone"}
        assert got == [expected, expected]

    async def test_send_of_a_pushing_handler_raises_oserror(self, sessions):
        """W4: no message is sent after the close, and the application returns without an error."""
        caught = []

        async def handler(scope, receive, send):
            try:
                await push(scope, receive, send)
            except OSError as error:
                caught.append(str(error))
                raise

        seen, cookie = await visit(sessions, begin)
        wire = Wire(handler, sessions, cookie=cookie).start()
        await wire.recv()
        await wire.recv()
        await sessions.arevoke(seen["id"], reason="logged out elsewhere")
        await wire.end()
        assert "logged out elsewhere" in caught[0]
        assert wire.sent[-1] == closed("logged out elsewhere")

    async def test_handler_blocked_by_a_slow_client_is_released(self, sessions):
        """W4: no message is sent after the session ended; closing does not wait for the client.

        The close frame cannot be sent either: after a second the application returns.
        """
        seen, cookie = await visit(sessions, begin)
        wire = Wire(push, sessions, cookie=cookie).start()
        await wire.recv()
        await wire.recv()
        wire.late = True
        for _ in range(10):
            await asyncio.sleep(0)
        started = time.monotonic()
        await sessions.arevoke(seen["id"])
        await wire.end()
        assert time.monotonic() - started < 2
        assert wire.sent[-1]["type"] == "websocket.send"

    async def test_close_frame_is_sent_before_the_application_returns(self, sessions):
        """W4: a server closes an open socket without the reason when the application returns."""
        seen, cookie = await visit(sessions, begin)
        wire = Wire(listen, sessions, cookie=cookie)
        pass_on = wire._send

        async def slowly(message):
            if message["type"] == "websocket.close":
                await asyncio.sleep(0.05)
            await pass_on(message)

        wire._send = slowly
        wire.start()
        await wire.recv()
        await wire.waited_for()
        await sessions.arevoke(seen["id"], reason="now")
        await wire.end()
        assert wire.sent[1:] == [closed("now")]

    async def test_revoked_from_another_thread(self, sessions):
        """W4: the synchronous method, from a thread without an event loop."""
        seen, cookie = await visit(sessions, begin)
        async with connect(listen, sessions, cookie=cookie) as wire:
            assert await asyncio.to_thread(sessions.revoke, seen["id"], reason="by hand")
            assert await wire.recv() == closed("by hand")

    async def test_long_reason_fits_into_a_close_frame(self, sessions):
        """RFC 6455 5.5: at most 123 bytes, without a truncated character."""
        seen, cookie = await visit(sessions, begin)
        async with connect(listen, sessions, cookie=cookie) as wire:
            await sessions.arevoke(seen["id"], reason="é" * 100)
            assert await wire.recv() == closed("é" * 61)

    async def test_lost_revocation_message_is_detected_at_the_next_message(self, sessions):
        """W3: the socket loads the record again before the message is delivered."""
        seen, cookie = await visit(sessions, begin)
        async with connect(listen, sessions, cookie=cookie) as wire:
            await sessions.store.delete(bytes.fromhex(seen["id"]))
            wire.send("x")
            assert await wire.recv() == closed("ended")

    async def test_reported_revocation_is_checked_and_closes_with_its_reason(self, sessions):
        """W4: a broadcast of another process."""
        seen, cookie = await visit(sessions, begin)
        async with connect(listen, sessions, cookie=cookie) as wire:
            sessions.connections.recheck(seen["id"], "stolen phone")
            await sessions.store.delete(bytes.fromhex(seen["id"]))
            assert await wire.recv() == closed("stolen phone")

    async def test_lost_revocation_message_is_detected_at_the_next_commit(self, sessions):
        """A7: the changes are dropped, and the socket is closed."""

        async def handler(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            await sessions.store.delete(bytes.fromhex(seen["id"]))
            scope["session"]["late"] = True
            await send({"type": "websocket.send", "text": "never sent"})

        seen, cookie = await visit(sessions, begin)
        wire = Wire(handler, sessions, cookie=cookie).start()
        await wire.end()
        assert wire.sent[1:] == [closed("ended")]
        assert await sessions.acount() == 0

    async def test_closing_a_closed_socket_is_no_error(self, sessions):
        """W4: handlers may contain `finally: await websocket.close()`."""

        async def handler(scope, receive, send):
            try:
                await listen(scope, receive, send)
            finally:
                await send({"type": "websocket.close", "code": 1000})

        seen, cookie = await visit(sessions, begin)
        wire = Wire(handler, sessions, cookie=cookie).start()
        await wire.recv()
        await sessions.arevoke(seen["id"])
        await wire.end()
        assert wire.sent[1:] == [closed("revoked")]

    async def test_two_hundred_sockets_are_closed_within_a_second(self, sessions):
        """W4, W10: no task, timer or registry entry remains."""

        def closers():
            gc.collect()
            return {id(one) for one in gc.get_objects() if type(one) is WebSocketCloser}

        others = closers()  # objects of earlier tests
        seen, cookie = await visit(sessions, begin)
        tasks = asyncio.all_tasks()
        wires = [
            Wire(listen if n % 2 else push, sessions, cookie=cookie).start() for n in range(200)
        ]
        for wire in wires:
            await wire.recv()
        assert sessions.usage().connections == 200
        started = time.monotonic()
        await sessions.arevoke(seen["id"])
        assert sessions.usage().connections == 0
        for wire in wires:
            await wire.end()
        assert max(wire.closed_at for wire in wires) - started < 1
        assert all(wire.sent[-1] == closed("revoked") for wire in wires)
        del wires, wire
        assert asyncio.all_tasks() == tasks
        assert closers() <= others


class TestDestroyedByHandler:
    async def test_handler_may_send_one_message_after_destroying_its_session(self, sessions):
        """W4: the destruction is stored before the message is sent; then the socket is closed."""
        counts = []

        async def handler(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
            scope["session"].destroy()
            await send({"type": "websocket.send", "text": "bye"})
            counts.append(await sessions.acount())
            with pytest.raises(OSError, match="destroyed"):
                await send({"type": "websocket.send", "text": "still here?"})

        _, cookie = await visit(sessions, begin)
        async with connect(listen, sessions, cookie=cookie) as other:
            wire = Wire(handler, sessions, cookie=cookie).start()
            await wire.recv()
            wire.send("log me out")
            assert (await wire.recv())["text"] == "bye"
            assert await wire.recv() == closed("destroyed")
            assert await other.recv() == closed("destroyed")
            await wire.end()
        assert counts == [0]

    async def test_handler_may_close_with_its_own_code_after_destroying_its_session(self, sessions):
        async def handler(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            scope["session"].destroy()
            await send({"type": "websocket.close", "code": 4000, "reason": "bye"})

        _, cookie = await visit(sessions, begin)
        wire = Wire(handler, sessions, cookie=cookie).start()
        await wire.end()
        assert wire.sent[1:] == [{"type": "websocket.close", "code": 4000, "reason": "bye"}]
        assert await sessions.acount() == 0

    async def test_socket_is_closed_if_the_handler_destroys_its_session_and_receives(
        self, sessions
    ):
        async def handler(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            scope["session"].destroy()
            assert (await receive())["code"] == 4401

        _, cookie = await visit(sessions, begin)
        wire = Wire(handler, sessions, cookie=cookie).start()
        await wire.recv()
        assert await wire.recv() == closed("destroyed")
        await wire.end()

    async def test_failing_handler_is_unregistered(self, sessions):
        """A10: the session is destroyed; the fixture checks the registry."""

        async def handler(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            scope["session"].destroy()
            raise RuntimeError("broken")

        _, cookie = await visit(sessions, begin)
        with pytest.raises(RuntimeError, match="broken"):
            await Wire(handler, sessions, cookie=cookie).start().end()
        assert await sessions.acount() == 0

    async def test_cancelled_handler_is_unregistered(self, sessions):
        """A12: the server shuts down."""
        _, cookie = await visit(sessions, begin)
        wire = Wire(listen, sessions, cookie=cookie).start()
        await wire.recv()
        await wire.waited_for()
        wire.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wire.end()


class TestHandshake:
    async def test_session_that_ends_during_the_handshake_is_closed_at_once(self, sessions):
        """W7: between load and registration the socket receives no broadcast."""

        async def handler(scope, receive, send):
            await receive()
            await sessions.arevoke(seen["id"])
            await send({"type": "websocket.accept"})
            assert (await receive())["code"] == 4401

        seen, cookie = await visit(sessions, begin)
        wire = Wire(handler, sessions, cookie=cookie).start()
        assert (await wire.recv())["type"] == "websocket.accept"
        assert await wire.recv() == closed("revoked")
        await wire.end()

    @pytest.mark.parametrize("step", range(6))
    async def test_revocation_at_any_step_of_the_handshake_closes_the_socket(self, sessions, step):
        """W7: after each step of the event loop."""
        seen, cookie = await visit(sessions, begin)
        wire = Wire(listen, sessions, cookie=cookie).start()
        for _ in range(step):
            await asyncio.sleep(0)
        await sessions.arevoke(seen["id"])
        async with asyncio.timeout(5):
            await asyncio.wait(
                {wire.task}, timeout=0.2
            )  # step 0: the socket has an empty session and stays open
        if step:
            assert wire.sent[-1]["code"] == 4401
        wire.disconnect()
        await wire.end()

    async def test_close_frame_is_sent_after_the_accept(self, sessions):
        """W7: also if the server's accept is slow."""
        seen, cookie = await visit(sessions, begin)
        wire = Wire(listen, sessions, cookie=cookie)
        accepting, go_on = asyncio.Event(), asyncio.Event()
        pass_on = wire._send

        async def slowly(message):
            if message["type"] == "websocket.accept":
                accepting.set()
                await go_on.wait()
            await pass_on(message)

        wire._send = slowly
        wire.start()
        await accepting.wait()
        await sessions.arevoke(seen["id"], reason="now")
        go_on.set()
        await wire.end()
        assert [m["type"] for m in wire.sent] == ["websocket.accept", "websocket.close"]
        assert wire.sent[1] == closed("now")


class TestReports:
    """Broadcasts of other processes about a session, and the store calls they cause (W10)."""

    @pytest.fixture
    def store(self):
        return FaultyStore(MemoryStore())

    @pytest.fixture
    def sessions(self, store):
        made = Sessions(store=store, secret="p8Zs5Lk0Tn3Yb6Wq1Xc7")
        yield made
        made.close()

    async def loads(self, store):
        """Return the number of loads after all started tasks finished."""
        for _ in range(50):
            await asyncio.sleep(0)
        return store.calls.count("load")

    async def test_a_report_is_checked_with_one_load(self, sessions, store):
        seen, cookie = await visit(sessions, begin)
        async with connect(listen, sessions, cookie=cookie) as wire:
            await wire.waited_for()
            store.calls.clear()
            sessions.connections.recheck(seen["id"], "")
            assert await self.loads(store) == 1
            sessions.connections.recheck(seen["id"], "")
            assert await self.loads(store) == 2

    async def test_reports_during_a_check_cause_one_more_load(self, sessions, store):
        """What the first load returns may be older than they are."""
        seen, cookie = await visit(sessions, begin)
        async with connect(listen, sessions, cookie=cookie) as wire:
            await wire.waited_for()
            store.calls.clear()
            for _ in range(5):
                sessions.connections.recheck(seen["id"], "")
            assert await self.loads(store) == 2

    async def test_closed_socket_ignores_reports(self, sessions, store, monkeypatch):
        """W7: a broadcast may arrive while the socket is being closed."""
        _, cookie = await visit(sessions, begin)
        closers = []
        start = WebSocketCloser.start

        def noting(closer):
            closers.append(closer)
            start(closer)

        monkeypatch.setattr(WebSocketCloser, "start", noting)
        async with connect(listen, sessions, cookie=cookie) as wire:
            await wire.waited_for()
        store.calls.clear()
        for closer in closers:
            closer.recheck("late")
            closer.end("late")
            closer.mark_outdated(99)
        assert closers
        assert await self.loads(store) == 0
        assert [message["type"] for message in wire.sent] == ["websocket.accept"]

    async def test_check_does_not_change_the_handlers_session(self, sessions, store):
        """W3: changes of others are merged when a message is delivered."""
        seen, cookie = await visit(sessions, begin)
        async with connect(listen, sessions, cookie=cookie) as wire:
            await wire.waited_for()
            await visit(sessions, lambda session: session.update(counter=1), cookie=cookie)
            sessions.connections.recheck(seen["id"], "")
            await self.loads(store)
            assert wire.scope["session"]["counter"] == 0

    @pytest.mark.parametrize(("others_wrote", "text", "loads"), [(False, "0", 0), (True, "1", 1)])
    async def test_record_that_a_check_loaded_is_merged_before_a_send(
        self, sessions, store, others_wrote, text, loads
    ):
        """W3: the store is called again only after another broadcast of a write."""
        go_on = asyncio.Event()

        async def handler(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            await go_on.wait()
            await send({"type": "websocket.send", "text": str(scope["session"]["counter"])})
            await send({"type": "websocket.send", "text": str(scope["session"]["counter"])})

        seen, cookie = await visit(sessions, begin)
        async with connect(handler, sessions, cookie=cookie) as wire:
            await self.loads(store)
            if others_wrote:
                await visit(sessions, lambda session: session.update(counter=1), cookie=cookie)
            sessions.connections.recheck(seen["id"], "")
            await self.loads(store)
            store.calls.clear()
            go_on.set()
            await wire.recv()
            assert (await wire.recv())["text"] == text
            assert await self.loads(store) == loads

    async def test_task_cancelled_while_it_loads_the_reason_closes_the_socket(
        self, sessions, store
    ):
        """A21, W4."""
        seen, cookie = await visit(sessions, begin)
        closer = WebSocketCloser(sessions.web, None, asyncio.Lock())
        copy = await sessions.engine.load(
            sessions.web.read_ticket(TransportSecurity.LOCAL, f"sid={cookie}".encode())
        )
        await store.delete(bytes.fromhex(seen["id"]))
        copy.edit().set("counter", 2)
        with pytest.raises(SessionGone):
            await sessions.engine.commit(copy, explicit=True)
        closer.watch(copy)
        store.hang("load")
        task = asyncio.create_task(closer.check_copy())
        await self.loads(store)
        task.cancel()
        await asyncio.wait({task})
        store.heal()
        assert closer.reason == "ended"

    @pytest.mark.parametrize(("newer", "loads"), [(0, 0), (1, 1)])
    async def test_only_a_newer_version_is_merged_before_a_send(
        self, sessions, store, newer, loads
    ):
        """W3."""
        go_on = asyncio.Event()

        async def handler(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            await go_on.wait()
            await send({"type": "websocket.send", "text": str(scope["session"]["counter"])})

        seen, cookie = await visit(sessions, begin)
        async with connect(handler, sessions, cookie=cookie) as wire:
            await self.loads(store)
            record = await store.load(bytes.fromhex(seen["id"]))
            store.calls.clear()
            sessions.connections.mark_outdated(seen["id"], record.version + newer)
            assert await self.loads(store) == 0
            go_on.set()
            assert (await wire.recv())["text"] == "0"
            assert await self.loads(store) == loads


class TestTimer:
    """W4, W6: it fires at the deadline or within 70 to 100 % of the recheck interval."""

    class Random:
        """Returns the midpoint of a range."""

        def uniform(self, low, high):
            return (low + high) / 2

    @pytest.fixture
    async def timers(self, monkeypatch):
        """Return the delay and the call of each timer that is set; none fires by itself."""
        timers = []
        monkeypatch.setattr(secrets, "SystemRandom", self.Random)
        loop = asyncio.get_running_loop()
        set_timer = loop.call_later

        def call_later(delay, callback, *args, **options):  # uvloop passes `context`
            if not isinstance(getattr(callback, "__self__", None), WebSocketCloser):
                return set_timer(delay, callback, *args, **options)
            timers.append((delay, lambda: callback(*args)))
            return set_timer(3600, callback, *args, **options)

        monkeypatch.setattr(loop, "call_later", call_later)
        return timers

    @pytest.mark.parametrize(
        ("timeout", "passed", "expected"),
        [("1 hour", 0, 21.25), ("20 s", 0, 20.0), ("20 s", 19_500, 0.5), ("20 s", 20_000, 0.0)],
    )
    async def test_timer_fires_at_the_earlier_of_deadline_and_recheck(
        self, timers, timeout, passed, expected
    ):
        clock = FakeClock()
        sessions = Sessions(store="memory://", timeout=timeout, recheck_interval=25, clock=clock)
        _, cookie = await visit(sessions, begin)

        async def handler(scope, receive, send):
            await receive()
            clock.now += passed
            await send({"type": "websocket.accept"})
            await receive()

        async with connect(handler, sessions, cookie=cookie):
            assert [delay for delay, _ in timers] == [expected]

    async def test_check_restarts_the_timer_or_closes_the_socket(self, timers):
        clock = FakeClock()
        sessions = Sessions(store="memory://", timeout="20 s", recheck_interval=100, clock=clock)
        _, cookie = await visit(sessions, begin)
        async with connect(listen, sessions, cookie=cookie) as wire:
            clock.now += 10_000
            await visit(sessions, begin, cookie=cookie)  # activity in another tab
            clock.now += 10_000
            timers[-1][1]()
            for _ in range(20):
                await asyncio.sleep(0)
            assert [delay for delay, _ in timers] == [20.0, 10.0]
            clock.now += 10_000
            timers[-1][1]()
            assert await wire.recv() == closed("expired (idle)")

    @pytest.mark.parametrize(("passed", "expected"), [(0, 100.0), (20_000, 1.0)])
    async def test_a_failed_check_is_repeated(self, timers, passed, expected):
        """A15: after a short delay if the session is past its deadline."""
        clock = FakeClock()
        store = FaultyStore(MemoryStore())
        options = {"timeout": "20 s", "recheck_interval": 100, "clock": clock}
        sessions = Sessions(store=store, secret="p8Zs5Lk0Tn3Yb6Wq1Xc7", **options)
        _, cookie = await visit(sessions, begin)
        async with connect(listen, sessions, cookie=cookie) as wire:
            await wire.waited_for()
            clock.now += passed
            store.fail("load")
            timers[-1][1]()
            for _ in range(20):
                await asyncio.sleep(0)
            assert timers[-1][0] == expected
            assert [message["type"] for message in wire.sent] == ["websocket.accept"]
            store.heal()


class TestSend:
    @pytest.mark.parametrize("error", [OSError, RuntimeError])
    async def test_a_close_frame_that_cannot_be_sent_is_no_error(self, error):
        """The client, the server or the handler may have closed the socket meanwhile."""
        failures = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: failures.append(context)
        )

        async def send(message):
            raise error("closed already")

        sessions = Sessions(store="memory://")
        closer = WebSocketCloser(sessions.web, send, asyncio.Lock())
        closer.start()
        closer.end("revoked")
        await asyncio.sleep(0)
        await closer.stop_and_wait()
        del closer
        gc.collect()
        assert failures == []

    async def test_a_close_frame_is_awaited_for_a_second(self, monkeypatch):
        """A client that reads nothing does not keep the task alive."""
        monkeypatch.setattr(websocket_close, "_CLOSE_TIMEOUT", 0.05)
        cancelled = []

        async def send(message):
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(message["type"])

        closer = WebSocketCloser(Sessions(store="memory://").web, send, asyncio.Lock())
        closer.start()
        closer.end("revoked")
        async with asyncio.timeout(5):
            await closer.stop_and_wait()
        await asyncio.sleep(0)
        assert cancelled == ["websocket.close"]

    def test_a_report_after_the_end_of_the_event_loop_is_ignored(self):
        """W7: another thread may revoke a session after its server stopped."""

        async def start():
            return WebSocketCloser(Sessions(store="memory://").web, None, asyncio.Lock())

        closer = asyncio.run(start())
        closer.end("late")
        closer.recheck("late")
        closer.mark_outdated(2)
        assert closer.reason is None
