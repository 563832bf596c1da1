"""What processes tell each other, and what they make of it (laws W4, S17), message by message.

Two installations stand for two processes. They share a store that announces inside this process,
as its author would write it; servers that announce are in ``tests/integration/test_broadcast.py``.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import threading
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
    hear_close,
    listen,
    push,
    visit,
)

pytestmark = pytest.mark.anyio

SECRET = "announcing: 7Jm2Qw9vXc4Rk1"
ID = b"i" * 16


class Ear:
    """One process's ear."""

    def __init__(self, town, heard, gap):
        self.town, self.heard, self.gap = town, heard, gap
        self.watched = Counter()
        town.ears.append(self)
        gap()

    def watch(self, session_id):
        self.watched[session_id] += 1

    def unwatch(self, session_id):
        self.watched[session_id] -= 1
        assert self.watched[session_id] >= 0
        self.watched += Counter()

    def close(self):
        if self in self.town.ears:
            self.town.ears.remove(self)


class Town(MemoryStore):
    """A store for every process of a town, that announces.

    Attributes:
        told: what was announced, in order.
        deaf: no subscriber receives anything.
        mute: announcing fails.
    """

    def __init__(self):
        super().__init__()
        self.ears, self.told = [], []
        self.deaf = self.mute = False
        self.tries = self.publishes = 0

    async def publish(self, kind, *session_ids, version=0, reason=""):
        assert threading.current_thread().name.startswith("sojourn-broadcaster")
        if self.mute:
            raise StoreUnavailable("the message cannot be sent")
        self.publishes += 1
        for session_id in session_ids:
            self.tell(kind, session_id, version, reason)

    def tell(self, kind, session_id, version=0, reason=""):
        message = BroadcastMessage(1, kind, session_id, version, reason)
        self.told.append(message)
        for ear in [] if self.deaf else list(self.ears):
            if kind != "changed" or session_id in ear.watched:
                ear.heard(message)

    def subscribe(self, on_message, gap):
        self.tries += 1
        if self.mute:
            raise StoreUnavailable("the subscription failed")
        return Ear(self, on_message, gap)

    def swap(self, record, expected_version):  # also called by `save`
        saved = super().swap(record, expected_version)
        if saved:
            self.tell("changed", record.id, record.version)
        return saved


@pytest.fixture
def town():
    return Town()


@pytest.fixture
def process(town):
    """Return a function that makes installations over the town's store."""
    made = []

    def make(store=town, **options):
        made.append(Sessions(store=store, secret=SECRET, **options))
        return made[-1]

    yield make
    for sessions in made:
        assert sessions.connections.total() == 0, "a closed socket is still registered"
        sessions.close()
    assert town.ears == []


async def until(condition):
    """Wait for what a thread is about to do: nothing else tells when it has."""
    async with asyncio.timeout(5):
        for _ in itertools.count():
            if condition():
                return
            await asyncio.sleep(0.001)  # the thread runs meanwhile


async def watched(town, session_id):
    """Wait until a process hears of a session."""
    raw = bytes.fromhex(session_id)
    await until(lambda: town.ears and raw in town.ears[-1].watched)


def faulty(town):
    """Return the town's store with faults, which tells and hears as usual."""
    store = FaultyStore(town)
    store.publish, store.subscribe = town.publish, town.subscribe
    return store


def soon(function, *args, **kwargs):
    """Call a function a moment later, after an immediate check has run."""
    asyncio.get_running_loop().call_later(0.03, functools.partial(function, *args, **kwargs))


def adds(amount):
    """Return a change that adds to the counter."""

    def change(session):
        session.increment("counter", amount)

    return change


class TestTelling:
    async def test_each_kind_of_end_is_told_once_and_in_order(self, town, process):
        """W4, S17."""
        one = process()
        seen, cookie = await visit(one, begin)
        raw = bytes.fromhex(seen["id"])
        await visit(one, lambda session: session.rotate(), cookie=cookie)
        _, cookie = await visit(one, lambda session: session.login("ada"), cookie=cookie)
        await one.arevoke(seen["id"], reason="stolen phone")
        await one.arevoke_all(reason="break-in")
        one.close()
        told = [message for message in town.told if message.kind != "changed"]
        assert told == [
            BroadcastMessage(1, "rotated", raw, 0, ""),
            BroadcastMessage(1, "rotated", raw, 0, "logged in again"),
            BroadcastMessage(1, "revoked", raw, 0, "stolen phone"),
            BroadcastMessage(1, "all-before", b"", one.engine.revoker.not_before, "break-in"),
        ]

    async def test_all_sessions_of_a_user_are_published_in_one_call(self, town, process):
        """W4: a constant number of round trips."""
        one = process()
        for _ in range(3):
            await visit(one, lambda session: session.login("ada"))
        assert await one.arevoke_user("ada") == 3
        one.close()
        assert town.publishes == 3 + 1, "three logins and the revocation"
        told = [message for message in town.told if message.kind == "revoked"]
        assert len(told) == 3

    async def test_what_cannot_be_told_is_counted_and_harms_nobody(self, town, process):
        """S17, B-34: the session has ended all the same, and the caller does not wait."""
        one, failures = process(), []
        one.on(StoreFailed, failures.append)
        seen, cookie = await visit(one, begin)
        town.mute = True
        assert await one.arevoke(seen["id"])
        again, _ = await visit(one, cookie=cookie)
        assert "counter" not in again
        one.close()
        assert failures == [StoreFailed(seen["id"], "publish", "the message cannot be sent")]
        assert one.usage().failures == 1
        assert not await one.arevoke(seen["id"])

    async def test_after_closing_nothing_is_told_and_nothing_raises(self, town, process):
        """S17: an event may still come from a request under way."""
        one = process()
        seen, _ = await visit(one, begin)
        one.broadcaster.close()
        assert await one.arevoke(seen["id"])
        assert [message.kind for message in town.told] == []
        assert one.usage().failures == 1


class TestHearing:
    async def test_a_process_listens_while_it_has_something_open(self, town, process):
        """Architecture: one subscription, however many sockets; and none without any."""
        one, two = process(), process()
        seen, cookie = await visit(one, begin)
        raw = bytes.fromhex(seen["id"])
        assert town.tries == 0
        async with connect(listen, two, cookie=cookie), connect(listen, two, cookie=cookie):
            await watched(town, seen["id"])
            assert dict(town.ears[0].watched) == {raw: 1}
        assert (town.tries, dict(town.ears[0].watched)) == (1, {})

    async def test_the_subscription_ends_after_the_last_connection(
        self, town, process, monkeypatch
    ):
        """W10: a process without open connections neither polls nor holds a connection."""
        monkeypatch.setattr("sojourn.live.broadcast._UNSUBSCRIBE_DELAY", 0.02)
        one, two = process(), process()
        seen, cookie = await visit(one, begin)
        for number in (1, 2):
            async with connect(listen, two, cookie=cookie):
                await watched(town, seen["id"])
            await until(lambda: not town.ears)
            assert town.tries == number
        async with connect(listen, two, cookie=cookie) as wire:
            await watched(town, seen["id"])
            await one.arevoke(seen["id"], reason="stolen phone")
            assert await wire.hear() == closed("stolen phone")

    async def test_a_connection_that_opens_in_time_keeps_the_subscription(
        self, town, process, monkeypatch
    ):
        """W7: a page that is loaded again; whichever of the two comes first, none is missed."""
        monkeypatch.setattr("sojourn.live.broadcast._UNSUBSCRIBE_DELAY", 0.001)
        one, two = process(), process()
        seen, cookie = await visit(one, begin)
        for _ in range(50):
            async with connect(listen, two, cookie=cookie):
                pass
            async with connect(listen, two, cookie=cookie):
                await watched(town, seen["id"])
        monkeypatch.setattr("sojourn.live.broadcast._UNSUBSCRIBE_DELAY", 60)
        async with connect(listen, two, cookie=cookie):
            await watched(town, seen["id"])
            assert len(town.ears) == 1

    async def test_an_ear_that_cannot_be_had_is_tried_again(self, town, process, caplog):
        """S17: by the next connection that opens."""
        two = process()
        _, cookie = await visit(two, begin)
        other, second = await visit(two, begin)
        town.mute = True
        async with connect(listen, two, cookie=cookie):
            await until(lambda: "cannot subscribe" in caplog.text)
            town.mute = False
            async with connect(listen, two, cookie=second):
                await watched(town, other["id"])
                assert len(town.ears[0].watched) == 2

    @pytest.mark.parametrize("handler", [listen, push])
    async def test_revoked_elsewhere_is_closed_at_once(self, town, process, handler):
        """W4."""
        one, two = process(), process()
        seen, cookie = await visit(one, begin)
        wire = Wire(handler, two, cookie=cookie).start()
        await wire.hear()
        await watched(town, seen["id"])
        await one.arevoke(seen["id"], reason="stolen phone")
        assert await hear_close(wire) == closed("stolen phone")
        await wire.end()

    async def test_a_revocation_is_believed_without_looking(self, town, process):
        """W4, S17: also while the store does not answer."""
        store = faulty(town)
        two = process(store)
        seen, cookie = await visit(two, begin)
        async with connect(listen, two, cookie=cookie) as wire:
            await watched(town, seen["id"])
            store.fail()
            town.tell("revoked", bytes.fromhex(seen["id"]), reason="stolen phone")
            assert await wire.hear() == closed("stolen phone")

    async def test_false_messages_close_nothing_that_lives(self, town, process):
        """S17: each is a hint to look; a session is not looked for where none is named."""
        two = process()
        seen, cookie = await visit(two, begin)
        raw = bytes.fromhex(seen["id"])
        async with connect(listen, two, cookie=cookie) as wire:
            await watched(town, seen["id"])
            town.tell("revoked", b"", reason="nobody's")
            town.tell("revoked", ID, reason="somebody else's")
            for kind, session in [("all-before", b""), ("rotated", raw), ("changed", raw)] * 2:
                town.tell(kind, session, version=2**63, reason="false")
            await wire.waited_for()
            await two.arevoke(seen["id"], reason="true")
            assert await wire.hear() == closed("true")

    async def test_a_gap_makes_everything_open_look(self, town, process):
        """S17: and a look that fails closes nothing, nor is it the last."""
        store = faulty(town)
        two = process(store, recheck_interval=0.05)
        seen, cookie = await visit(two, begin)
        async with connect(listen, two, cookie=cookie) as wire:
            await watched(town, seen["id"])
            await town.delete(bytes.fromhex(seen["id"]))
            store.fail("load", times=1)
            town.ears[0].gap()
            assert await wire.hear() == closed("ended")
            assert store.calls[-3:].count("load") >= 2

    async def test_a_look_that_was_under_way_is_repeated(self, town, process):
        """S17: what it read may be older than what it was told meanwhile."""
        store = faulty(town)
        one, two = process(), process(store)
        seen, cookie = await visit(one, begin)
        async with connect(listen, two, cookie=cookie) as wire:
            await watched(town, seen["id"])

            async def end_and_tell():
                # The look below has begun; this is what it does not see any more.
                record = await town.load(bytes.fromhex(seen["id"]))
                store.meanwhile("load", lambda: town.delete(record.id))
                two.connections.recheck(seen["id"], "late")

            store.meanwhile("load", end_and_tell)
            two.connections.recheck(seen["id"], "")
            assert await wire.hear() == closed("late")

    async def test_a_late_message_does_not_explain_a_later_end(self, town, process):
        """W4, S17: a login made us look, and what ended the session has yet to be told."""
        store = faulty(town)
        two = process(store)
        seen, cookie = await visit(two, begin)
        raw = bytes.fromhex(seen["id"])
        async with connect(listen, two, cookie=cookie) as wire:
            await watched(town, seen["id"])

            async def end():
                await town.delete(raw)
                soon(town.tell, "all-before", b"", reason="break-in")

            store.meanwhile("load", end)
            town.tell("rotated", raw, reason="logged in again")
            assert await wire.hear() == closed("break-in")

    async def test_a_reason_noted_a_moment_later_is_found(self, town, process):
        """W4: who ends a session notes why when it has ended."""
        store = faulty(town)
        two = process(store)
        seen, cookie = await visit(two, begin)
        raw = bytes.fromhex(seen["id"])
        async with connect(listen, two, cookie=cookie) as wire:
            await watched(town, seen["id"])

            async def end():
                await town.delete(raw)
                soon(asyncio.ensure_future, process().engine.revoker.report([raw], "stolen phone"))

            store.meanwhile("load", end)
            two.connections.recheck(seen["id"], "")
            assert await wire.hear() == closed("stolen phone")

    async def test_a_pushing_handler_sees_what_others_wrote(self, town, process):
        """W3: it never waits for a message, and is told instead; nothing is loaded for nothing."""
        one, two = process(), process()

        async def ticker(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            while True:
                await send({"type": "websocket.send", "text": str(scope["session"]["counter"])})

        seen, cookie = await visit(one, begin)
        async with connect(ticker, two, cookie=cookie) as wire:
            await watched(town, seen["id"])
            reads = two.usage().reads
            for _ in range(20):
                assert (await wire.hear())["text"] == "0"
            assert two.usage().reads == reads
            await visit(one, adds(7), cookie=cookie)
            async with asyncio.timeout(5):
                while (await wire.hear())["text"] != "7":
                    pass
            assert two.usage().reads == reads + 1
            wire.lost = True  # it never waits for its client: only this ends it


class TestLooking:
    async def test_a_look_changes_nothing_between_a_handlers_read_and_its_write(self, process):
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
            await asyncio.sleep(0.05)  # some looks: nobody else can tell that they were made
            go.set()
            await wire.waited_for()
            assert sessions.usage().reads == reads
        seen, _ = await visit(sessions, cookie=cookie)
        assert seen["counter"] == 11

    async def test_the_reason_is_the_one_that_was_noted(self, process):
        """W4: where nobody could tell."""
        store = MemoryStore()
        one, two = process(store), process(store, recheck_interval=0.05)
        seen, cookie = await visit(one, begin)
        async with connect(listen, two, cookie=cookie) as wire:
            await one.arevoke(seen["id"], reason="stolen phone")
            assert await wire.hear() == closed("stolen phone")

    async def test_one_load_for_each_socket_and_interval(self, process):
        """W10: and never more often, whatever is told; nothing of it is left at the end."""
        store = FaultyStore(MemoryStore())
        sessions = process(store, recheck_interval=0.2)
        _, cookie = await visit(sessions, begin)
        wires = [Wire(listen, sessions, cookie=cookie).start() for _ in range(20)]
        for wire in wires:
            await wire.hear()
            await wire.waited_for()
        await asyncio.sleep(0)
        store.calls.clear()
        await asyncio.sleep(1)  # five to seven intervals: the very thing counted
        assert 20 * 3 <= store.calls.count("load") <= 20 * 8
        assert set(store.calls) == {"load"}
        for wire in wires:
            wire.leave()
            await wire.end()


async def test_a_store_that_needs_a_loop_is_looked_into_instead(town):
    """S17: a thread could neither tell nor hear through it."""
    town.requires_event_loop = lambda: "use another client"
    sessions = Sessions(store=town, secret=SECRET)
    seen, _ = await visit(sessions, begin)
    await sessions.arevoke(seen["id"])
    sessions.close()
    assert [message.kind for message in town.told] == []
