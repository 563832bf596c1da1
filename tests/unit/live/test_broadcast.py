"""Broadcast between processes, message by message (laws W4, S17).

Two installations stand for two processes. They share a store that broadcasts inside this process.
``tests/integration/test_broadcast.py`` uses real servers.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import threading
import time
from collections import Counter

import pytest

from sojourn import Sessions
from sojourn.errors import StoreUnavailable
from sojourn.events import StoreFailed
from sojourn.store import BroadcastMessage
from sojourn.stores.memory import MemoryStore
from sojourn.testing.faults import FaultyStore
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

SECRET = "broadcast: 7Jm2Qw9vXc4Rk1"
ID = b"i" * 16


class Subscription:
    """The subscription of one process."""

    def __init__(self, shared, on_message, on_gap):
        self.shared, self.on_message, self.on_gap = shared, on_message, on_gap
        self.watched = Counter()
        shared.subscriptions.append(self)
        on_gap()

    def watch(self, session_id):
        self.watched[session_id] += 1

    def unwatch(self, session_id):
        self.watched[session_id] -= 1
        assert self.watched[session_id] >= 0
        self.watched += Counter()

    def close(self):
        if self in self.shared.subscriptions:
            self.shared.subscriptions.remove(self)


class BroadcastStore(MemoryStore):
    """A store that several processes share, with broadcast.

    Attributes:
        published: the messages, in order.
        failing: `publish` and `subscribe` raise.
    """

    def __init__(self):
        super().__init__()
        self.subscriptions, self.published = [], []
        self.failing = False
        self.subscribe_calls = self.publish_calls = 0

    async def publish(self, kind, *session_ids, version=0, reason=""):
        assert threading.current_thread().name.startswith("sojourn-broadcaster")
        if self.failing:
            raise StoreUnavailable("the message cannot be sent")
        self.publish_calls += 1
        for session_id in session_ids:
            self.deliver(kind, session_id, version, reason)

    def deliver(self, kind, session_id, version=0, reason=""):
        message = BroadcastMessage(1, kind, session_id, version, reason)
        self.published.append(message)
        for subscription in list(self.subscriptions):
            if kind != "changed" or session_id in subscription.watched:
                subscription.on_message(message)

    def subscribe(self, on_message, on_gap):
        self.subscribe_calls += 1
        if self.failing:
            raise StoreUnavailable("the subscription failed")
        return Subscription(self, on_message, on_gap)

    def swap(self, record, expected_version):  # also called by `save`
        saved = super().swap(record, expected_version)
        if saved:
            self.deliver("changed", record.id, record.version)
        return saved


@pytest.fixture
def shared():
    return BroadcastStore()


@pytest.fixture
def process(shared):
    """Return a function that makes installations over the shared store."""
    made = []

    def make(store=shared, **options):
        made.append(Sessions(store=store, secret=SECRET, **options))
        return made[-1]

    yield make
    for sessions in made:
        assert sessions.connections.total() == 0, "a closed socket is still registered"
        sessions.close()
    assert shared.subscriptions == []


async def until(condition):
    """Poll until a thread has done its work; it sends no notification."""
    async with asyncio.timeout(5):
        for _ in itertools.count():
            if condition():
                return
            await asyncio.sleep(0.001)  # the thread runs meanwhile


async def watched(shared, session_id):
    """Wait until a process watches a session."""
    raw = bytes.fromhex(session_id)
    await until(lambda: shared.subscriptions and raw in shared.subscriptions[-1].watched)


def faulty(shared):
    """Return the shared store with faults; publishing and subscribing work."""
    store = FaultyStore(shared)
    store.publish, store.subscribe = shared.publish, shared.subscribe
    return store


def soon(function, *args, **kwargs):
    """Call a function a moment later, after an immediate check has run."""
    asyncio.get_running_loop().call_later(0.03, functools.partial(function, *args, **kwargs))


def adds(amount):
    """Return a change that adds to the counter."""

    def change(session):
        session.increment("counter", amount)

    return change


class TestPublishing:
    async def test_each_kind_of_end_is_published_once_and_in_order(self, shared, process):
        """W4, S17."""
        one = process()
        seen, cookie = await visit(one, begin)
        raw = bytes.fromhex(seen["id"])
        await visit(one, lambda session: session.rotate(), cookie=cookie)
        _, cookie = await visit(one, lambda session: session.login("ada"), cookie=cookie)
        await one.arevoke(seen["id"], reason="stolen phone")
        await one.arevoke_all(reason="break-in")
        one.close()
        published = [message for message in shared.published if message.kind != "changed"]
        assert published == [
            BroadcastMessage(1, "rotated", raw, 0, ""),
            BroadcastMessage(1, "rotated", raw, 0, "logged in again"),
            BroadcastMessage(1, "revoked", raw, 0, "stolen phone"),
            BroadcastMessage(1, "all-before", b"", one.engine.revoker.not_before, "break-in"),
        ]

    async def test_all_sessions_of_a_user_are_published_in_one_call(self, shared, process):
        """W4: a constant number of round trips."""
        one = process()
        for _ in range(3):
            await visit(one, lambda session: session.login("ada"))
        assert await one.arevoke_user("ada") == 3
        one.close()
        assert shared.publish_calls == 3 + 1, "three logins and the revocation"
        published = [message for message in shared.published if message.kind == "revoked"]
        assert len(published) == 3

    async def test_a_failing_publish_is_counted_and_does_not_fail_the_call(self, shared, process):
        """S17, B-34: the session has ended all the same, and the caller does not wait."""
        one, failures = process(), []
        one.on(StoreFailed, failures.append)
        seen, cookie = await visit(one, begin)
        shared.failing = True
        assert await one.arevoke(seen["id"])
        again, _ = await visit(one, cookie=cookie)
        assert "counter" not in again
        one.close()
        assert failures == [StoreFailed(seen["id"], "publish", "the message cannot be sent")]
        assert one.usage().failures == 1
        assert not await one.arevoke(seen["id"])

    async def test_after_closing_nothing_is_published_and_nothing_raises(self, shared, process):
        """S17: an event may still come from a request under way."""
        one = process()
        seen, _ = await visit(one, begin)
        one.broadcaster.close()
        assert await one.arevoke(seen["id"])
        assert [message.kind for message in shared.published] == []
        assert one.usage().failures == 1


class TestSubscribing:
    async def test_a_process_listens_while_it_has_something_open(self, shared, process):
        """Architecture: one subscription, however many sockets; and none without any."""
        one, two = process(), process()
        seen, cookie = await visit(one, begin)
        raw = bytes.fromhex(seen["id"])
        assert shared.subscribe_calls == 0
        async with connect(listen, two, cookie=cookie), connect(listen, two, cookie=cookie):
            await watched(shared, seen["id"])
            assert dict(shared.subscriptions[0].watched) == {raw: 1}
        assert (shared.subscribe_calls, dict(shared.subscriptions[0].watched)) == (1, {})

    async def test_the_subscription_ends_after_the_last_connection(
        self, shared, process, monkeypatch
    ):
        """W10: a process without open connections neither polls nor holds a connection."""
        monkeypatch.setattr("sojourn.live.broadcast._UNSUBSCRIBE_DELAY", 0.02)
        one, two = process(), process()
        seen, cookie = await visit(one, begin)
        for number in (1, 2):
            async with connect(listen, two, cookie=cookie):
                await watched(shared, seen["id"])
            await until(lambda: not shared.subscriptions)
            assert shared.subscribe_calls == number
        async with connect(listen, two, cookie=cookie) as wire:
            await watched(shared, seen["id"])
            await one.arevoke(seen["id"], reason="stolen phone")
            assert await wire.recv() == closed("stolen phone")

    async def test_a_connection_that_opens_in_time_keeps_the_subscription(
        self, shared, process, monkeypatch
    ):
        """W7: a page that is loaded again; in either order, no message is missed."""
        monkeypatch.setattr("sojourn.live.broadcast._UNSUBSCRIBE_DELAY", 0.001)
        one, two = process(), process()
        seen, cookie = await visit(one, begin)
        for _ in range(50):
            async with connect(listen, two, cookie=cookie):
                pass
            async with connect(listen, two, cookie=cookie):
                await watched(shared, seen["id"])
        monkeypatch.setattr("sojourn.live.broadcast._UNSUBSCRIBE_DELAY", 60)
        async with connect(listen, two, cookie=cookie):
            await watched(shared, seen["id"])
            assert len(shared.subscriptions) == 1

    async def test_a_failing_subscription_is_retried(self, shared, process, caplog):
        """S17: by the next connection that opens."""
        two = process()
        _, cookie = await visit(two, begin)
        other, second = await visit(two, begin)
        shared.failing = True
        async with connect(listen, two, cookie=cookie):
            await until(lambda: "cannot subscribe" in caplog.text)
            shared.failing = False
            async with connect(listen, two, cookie=second):
                await watched(shared, other["id"])
                assert len(shared.subscriptions[0].watched) == 2

    @pytest.mark.parametrize("handler", [listen, push])
    async def test_revoked_elsewhere_is_closed_at_once(self, shared, process, handler):
        """W4."""
        one, two = process(), process()
        seen, cookie = await visit(one, begin)
        wire = Wire(handler, two, cookie=cookie).start()
        await wire.recv()
        await watched(shared, seen["id"])
        await one.arevoke(seen["id"], reason="stolen phone")
        assert await recv_close(wire) == closed("stolen phone")
        await wire.end()

    async def test_a_revocation_closes_without_a_load(self, shared, process):
        """W4, S17: also while the store does not answer."""
        store = faulty(shared)
        two = process(store)
        seen, cookie = await visit(two, begin)
        async with connect(listen, two, cookie=cookie) as wire:
            await watched(shared, seen["id"])
            store.fail()
            shared.deliver("revoked", bytes.fromhex(seen["id"]), reason="stolen phone")
            assert await wire.recv() == closed("stolen phone")

    async def test_false_messages_close_no_valid_session(self, shared, process):
        """S17: each is a hint to recheck; a message without a session ID rechecks none."""
        two = process()
        seen, cookie = await visit(two, begin)
        raw = bytes.fromhex(seen["id"])
        async with connect(listen, two, cookie=cookie) as wire:
            await watched(shared, seen["id"])
            shared.deliver("revoked", b"", reason="no session")
            shared.deliver("revoked", ID, reason="another session")
            for kind, session in [("all-before", b""), ("rotated", raw), ("changed", raw)] * 2:
                shared.deliver(kind, session, version=2**63, reason="false")
            await wire.waited_for()
            await two.arevoke(seen["id"], reason="true")
            assert await wire.recv() == closed("true")

    async def test_a_gap_rechecks_every_open_connection(self, shared, process):
        """S17: a recheck that fails closes nothing and is repeated."""
        store = faulty(shared)
        two = process(store, recheck_interval=0.05)
        seen, cookie = await visit(two, begin)
        async with connect(listen, two, cookie=cookie) as wire:
            await watched(shared, seen["id"])
            await shared.delete(bytes.fromhex(seen["id"]))
            store.fail("load", times=1)
            shared.subscriptions[0].on_gap()
            assert await wire.recv() == closed("ended")
            assert store.calls[-3:].count("load") >= 2

    async def test_a_recheck_under_way_is_repeated(self, shared, process):
        """S17: the record it read may be older than a message that arrived meanwhile."""
        store = faulty(shared)
        one, two = process(), process(store)
        seen, cookie = await visit(one, begin)
        async with connect(listen, two, cookie=cookie) as wire:
            await watched(shared, seen["id"])

            async def delete_and_notify():
                # The recheck below has read the record already: it does not see this deletion.
                record = await shared.load(bytes.fromhex(seen["id"]))
                store.meanwhile("load", lambda: shared.delete(record.id))
                two.connections.recheck(seen["id"], "late")

            store.meanwhile("load", delete_and_notify)
            two.connections.recheck(seen["id"], "")
            assert await wire.recv() == closed("late")

    async def test_a_late_message_does_not_explain_a_later_end(self, shared, process):
        """W4, S17: the login caused the recheck; the revocation's message comes later."""
        store = faulty(shared)
        two = process(store)
        seen, cookie = await visit(two, begin)
        raw = bytes.fromhex(seen["id"])
        async with connect(listen, two, cookie=cookie) as wire:
            await watched(shared, seen["id"])

            async def end():
                await shared.delete(raw)
                soon(shared.deliver, "all-before", b"", reason="break-in")

            store.meanwhile("load", end)
            shared.deliver("rotated", raw, reason="logged in again")
            assert await wire.recv() == closed("break-in")

    async def test_a_reason_stored_a_moment_later_is_found(self, shared, process):
        """W4: a revocation stores the reason after it deletes the record."""
        store = faulty(shared)
        two = process(store)
        seen, cookie = await visit(two, begin)
        raw = bytes.fromhex(seen["id"])
        async with connect(listen, two, cookie=cookie) as wire:
            await watched(shared, seen["id"])

            async def end():
                await shared.delete(raw)
                soon(asyncio.ensure_future, process().engine.revoker.report([raw], "stolen phone"))

            store.meanwhile("load", end)
            two.connections.recheck(seen["id"], "")
            assert await wire.recv() == closed("stolen phone")

    async def test_a_pushing_handler_sees_what_others_wrote(self, shared, process):
        """W3: it never receives; a message makes it load once, and only a message does."""
        one, two = process(), process()

        async def ticker(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            while True:
                await send({"type": "websocket.send", "text": str(scope["session"]["counter"])})

        seen, cookie = await visit(one, begin)
        async with connect(ticker, two, cookie=cookie) as wire:
            await watched(shared, seen["id"])
            reads = two.usage().reads
            for _ in range(20):
                assert (await wire.recv())["text"] == "0"
            assert two.usage().reads == reads
            await visit(one, adds(7), cookie=cookie)
            async with asyncio.timeout(5):
                while (await wire.recv())["text"] != "7":
                    pass
            assert two.usage().reads == reads + 1
            wire.lost = True  # it never waits for its client: only this ends it


class TestRechecks:
    async def test_a_recheck_changes_nothing_between_a_handlers_read_and_its_write(self, process):
        """W3, A6: or a sum would lose what others added."""
        sessions = process(MemoryStore(), merge={"counter": "sum"}, recheck_interval=0.01)
        go = asyncio.Event()

        async def slow(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            read = scope["session"]["counter"]
            await go.wait()
            scope["session"]["counter"] = read + 1
            await receive()

        _, cookie = await visit(sessions, begin)
        async with connect(slow, sessions, cookie=cookie) as wire:
            await visit(sessions, adds(10), cookie=cookie)
            reads = sessions.usage().reads
            await asyncio.sleep(0.05)  # several recheck intervals; rechecks send no notification
            go.set()
            await wire.waited_for()
            assert sessions.usage().reads == reads
        seen, _ = await visit(sessions, cookie=cookie)
        assert seen["counter"] == 11

    async def test_the_reason_is_the_stored_one(self, process):
        """W4: by a store without broadcast."""
        store = MemoryStore()
        one, two = process(store), process(store, recheck_interval=0.05)
        seen, cookie = await visit(one, begin)
        async with connect(listen, two, cookie=cookie) as wire:
            await one.arevoke(seen["id"], reason="stolen phone")
            assert await wire.recv() == closed("stolen phone")

    async def test_one_load_for_each_socket_and_interval(self, process):
        """W10: never more often; no task remains at the end."""
        store = FaultyStore(MemoryStore())
        sessions = process(store, recheck_interval=0.2)
        _, cookie = await visit(sessions, begin)
        wires = [Wire(listen, sessions, cookie=cookie).start() for _ in range(20)]
        for wire in wires:
            await wire.recv()
            await wire.waited_for()
        await asyncio.sleep(0)
        store.calls.clear()
        started = time.monotonic()
        await asyncio.sleep(1)  # five to seven intervals: the very thing counted
        elapsed = time.monotonic() - started  # longer on a busy machine, with fewer loads
        assert 20 <= store.calls.count("load") <= 20 * (7 * elapsed + 1)
        assert set(store.calls) == {"load"}
        for wire in wires:
            wire.disconnect()
            await wire.end()


async def test_a_store_that_needs_a_loop_is_rechecked_instead(shared):
    """S17: a thread can neither publish nor subscribe through it."""
    shared.requires_event_loop = lambda: "use another client"
    sessions = Sessions(store=shared, secret=SECRET)
    seen, _ = await visit(sessions, begin)
    await sessions.arevoke(seen["id"])
    sessions.close()
    assert [message.kind for message in shared.published] == []
