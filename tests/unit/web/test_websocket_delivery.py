"""WebSocket messages around store calls that fail or find that the session ended."""

import asyncio
import itertools
from random import Random

import anyio
import pytest

from sojourn import Sessions
from sojourn.errors import StoreUnavailable
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore
from tests.unit.web.asgi_client import Wire, begin, closed, connect, visit

pytestmark = pytest.mark.anyio

SECRET = "delivery-5Qz8Wm3nTx6Lp2-Gk"


@pytest.fixture
def store():
    return FaultyStore(MemoryStore())


@pytest.fixture
def sessions(store):
    made = Sessions(store=store, secret=SECRET)
    yield made
    assert made.connections.total() == 0, "a closed socket is still registered"
    made.close()


def accepted(steps):
    """Return a handler that accepts and runs steps."""

    async def handler(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await steps(scope["session"], receive, send)

    return handler


def text(value):
    return {"type": "websocket.send", "text": str(value)}


def write_one(session):
    session["counter"] = 1


async def test_message_is_not_delivered_after_the_session_ended(sessions, store):
    """W3, W4: the handler receives a disconnect in place of the message."""
    received = []

    async def steps(session, receive, send):
        received.append(await receive())

    seen, cookie = await visit(sessions, begin)
    async with connect(accepted(steps), sessions, cookie=cookie) as wire:
        await wire.waited_for()
        await store.store.delete(bytes.fromhex(seen["id"]))  # by another process
        wire.send("pay")
        assert await wire.recv() == closed("ended")
        await wire.end()
    assert received == [{"type": "websocket.disconnect", "code": 4401, "reason": "ended"}]


async def test_disconnect_is_no_activity(sessions, store):
    """W6: and causes no load."""

    async def steps(session, receive, send):
        store.calls.clear()
        await receive()
        calls.extend(store.calls)

    calls = []
    _, cookie = await visit(sessions, begin)
    wire = Wire(accepted(steps), sessions, cookie=cookie)
    wire.disconnect()
    await wire.start().end()
    assert calls == []


async def test_cancelled_receives_keep_the_message_order(sessions, store):
    """A21: two tasks of the handler receive, and both are cancelled."""
    received = []

    async def steps(session, receive, send):
        tasks = [asyncio.create_task(receive()) for _ in range(2)]
        await asyncio.sleep(0.02)  # both wait for the client
        store.hang("load", times=1)
        for message in "ab":
            wire.send(message)
        await asyncio.sleep(0.02)  # one loads, the other waits for it
        for task in reversed(tasks):
            task.cancel()
            await asyncio.wait({task})
        store.heal()
        wire.send("c")
        received.extend([(await receive())["text"] for _ in range(3)])

    _, cookie = await visit(sessions, begin)
    wire = Wire(accepted(steps), sessions, cookie=cookie)
    await wire.start().end()
    assert received == ["a", "b", "c"]


class Receivers:
    """Tasks of one handler that receive; each records its message when it is delivered.

    Attributes:
        delivered: the messages, in the order of their delivery.
    """

    def __init__(self, receive):
        self._receive = receive
        self.delivered = []
        self.tasks = []

    async def _note(self):
        self.delivered.append((await self._receive())["text"])

    def start(self, number=1):
        """Start tasks; return them."""
        started = [asyncio.create_task(self._note()) for _ in range(number)]
        self.tasks += started
        return started


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("number", [2, 3])
async def test_receives_cancelled_together_keep_the_message_order(sessions, store, number, order):
    """A21: several tasks are cancelled in one step of the event loop, in any order."""
    delivered = []

    async def steps(session, receive, send):
        receivers = Receivers(receive)
        tasks = receivers.start(number)
        await asyncio.sleep(0.01)
        store.hang("load", times=number)
        for message in "abc"[:number]:
            wire.send(message)
        await asyncio.sleep(0.01)  # one loads
        for position in order:
            if position < number:
                tasks[position].cancel()
        await asyncio.wait(tasks)
        store.heal()
        for _ in "abc"[:number]:
            await asyncio.wait(receivers.start())
        delivered.extend(receivers.delivered)

    _, cookie = await visit(sessions, begin)
    wire = Wire(accepted(steps), sessions, cookie=cookie)
    await wire.start().end()
    assert delivered == list("abc"[:number])


@pytest.mark.parametrize("cancelled", [0, 1, 2])
async def test_message_of_a_cancelled_task_is_delivered_to_a_waiting_task(
    sessions, store, cancelled
):
    """A21: the other tasks receive the messages in order."""
    delivered = []

    async def steps(session, receive, send):
        receivers = Receivers(receive)
        tasks = receivers.start(3)
        await asyncio.sleep(0.01)
        store.hang("load", times=1)
        for message in "ab":
            wire.send(message)
        await asyncio.sleep(0.01)
        tasks[cancelled].cancel()
        await asyncio.wait({tasks[cancelled]})
        store.heal()
        await asyncio.wait(tasks)  # without another message
        delivered.extend(receivers.delivered)

    _, cookie = await visit(sessions, begin)
    wire = Wire(accepted(steps), sessions, cookie=cookie)
    await wire.start().end()
    assert delivered == ["a", "b"]


async def test_every_receiving_task_gets_a_disconnect_after_the_session_ended(sessions):
    """W4: also tasks that wait for another receive."""
    received = []

    async def steps(session, receive, send):
        tasks = [asyncio.create_task(receive()) for _ in range(3)]
        await asyncio.wait(tasks)
        received.extend(task.result()["code"] for task in tasks)

    seen, cookie = await visit(sessions, begin)
    async with connect(accepted(steps), sessions, cookie=cookie) as wire:
        await wire.waited_for()
        await sessions.arevoke(seen["id"])
        assert await wire.recv() == closed("revoked")
        await wire.end()
    assert received == [4401, 4401, 4401]


async def step(random, receivers, wire, unsent):
    """Start receivers, send messages, cancel receivers, or let them run."""
    match random.randrange(4):
        case 0:
            receivers.start(random.randrange(1, 4))
        case 1:
            for message in unsent[:2]:
                wire.send(message)
            del unsent[:2]
        case 2:
            waiting = [task for task in receivers.tasks if not task.done()]
            for task in random.sample(waiting, random.randint(0, len(waiting))):
                task.cancel()
        case _:
            for _ in range(random.randrange(8)):
                await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(30))
async def test_random_cancellations_lose_repeat_and_reorder_no_message(sessions, store, seed):
    """A21: receivers start, messages arrive, and receivers are cancelled, in any order."""
    random = Random(seed)
    expected = [str(number) for number in range(12)]
    delivered = []

    async def steps(session, receive, send):
        receivers = Receivers(receive)
        unsent = [*expected]
        while unsent:
            await step(random, receivers, wire, unsent)
        while len(receivers.delivered) < len(expected):
            receivers.start()
            await asyncio.sleep(0)
        for task in receivers.tasks:
            task.cancel()
        delivered.extend(receivers.delivered)

    _, cookie = await visit(sessions, begin)
    store.slow("load", seconds=0)
    wire = Wire(accepted(steps), sessions, cookie=cookie)
    await wire.start().end()
    assert delivered == expected


async def test_anyio_scopes_cancelled_together_keep_the_message_order(sessions, store):
    """A21: anyio cancels tasks repeatedly until they finish."""
    delivered = []

    async def steps(session, receive, send):
        async def note():
            delivered.append((await receive())["text"])

        store.hang("load")
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(note)
            await anyio.sleep(0.01)
            for message in "abc":
                wire.send(message)
            await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
        store.heal()
        for _ in range(3):
            await note()

    _, cookie = await visit(sessions, begin)
    wire = Wire(accepted(steps), sessions, cookie=cookie)
    await wire.start().end()
    assert delivered == ["a", "b", "c"]


async def test_delivery_merges_the_record_that_a_check_loaded(sessions, store):
    """W3: the next message is sent without another load."""
    noted = asyncio.Event()

    async def steps(session, receive, send):
        await noted.wait()
        await receive()
        store.calls.clear()
        await send(text(session["counter"]))
        assert store.calls == []

    seen, cookie = await visit(sessions, begin)
    async with connect(accepted(steps), sessions, cookie=cookie) as wire:
        await visit(sessions, write_one, cookie)
        sessions.connections.mark_outdated(seen["id"], 1_000)
        noted.set()
        wire.send("go on")
        assert await wire.recv() == text(1)
        await wire.end()


async def test_send_repeats_the_refresh_of_a_failed_delivery(sessions, store):
    """W3: the handler catches the store error and sends."""

    async def steps(session, receive, send):
        with pytest.raises(StoreUnavailable):
            await receive()
        await send(text(session["counter"]))
        await send(text(session["counter"]))

    _, cookie = await visit(sessions, begin)
    async with connect(accepted(steps), sessions, cookie=cookie) as wire:
        await wire.waited_for()
        await visit(sessions, write_one, cookie)
        store.fail("load", times=1)
        wire.send("go on")
        await wire.recv()
        assert await wire.recv() == text(1)
        await wire.end()


async def test_a_message_is_sent_although_the_load_before_it_fails(sessions, store):
    """W3, A15: the next send repeats the load."""
    go_on = asyncio.Event()

    async def steps(session, receive, send):
        await go_on.wait()
        store.calls.clear()
        store.fail("load", times=1)
        for name in ["first", "second", "third"]:
            await send(text(name))
            loads.append(store.calls.count("load"))
        assert session["counter"] == 1

    loads = []
    seen, cookie = await visit(sessions, begin)
    async with connect(accepted(steps), sessions, cookie=cookie) as wire:
        await visit(sessions, write_one, cookie)
        sessions.connections.mark_outdated(seen["id"], 1_000)
        go_on.set()
        await wire.end()
        assert wire.sent[1:] == [text("first"), text("second"), text("third")]
    assert loads == [1, 2, 2]


async def test_cancelled_send_cancels_its_load(sessions, store):
    """A21: the message is not sent; the next send loads."""
    go_on = asyncio.Event()

    async def steps(session, receive, send):
        await go_on.wait()
        store.hang("load", times=1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(send(text("lost")), 0.02)
        await send(text("next"))
        assert session["counter"] == 1

    seen, cookie = await visit(sessions, begin)
    async with connect(accepted(steps), sessions, cookie=cookie) as wire:
        await visit(sessions, write_one, cookie)
        sessions.connections.mark_outdated(seen["id"], 1_000)
        go_on.set()
        await wire.end()
        assert wire.sent[1:] == [text("next")]


async def test_message_is_not_sent_if_its_load_finds_that_the_session_ended(sessions, store):
    """W4: for a handler that only sends."""
    go_on = asyncio.Event()

    async def steps(session, receive, send):
        await go_on.wait()
        with pytest.raises(OSError, match="its session ended: ended"):
            await send(text("secret"))

    seen, cookie = await visit(sessions, begin)
    async with connect(accepted(steps), sessions, cookie=cookie) as wire:
        await store.store.delete(bytes.fromhex(seen["id"]))  # by another process
        sessions.connections.mark_outdated(seen["id"], 1_000)
        go_on.set()
        await wire.end()
        assert wire.sent[1:] == [closed("ended")]


async def test_a_session_whose_destruction_failed_stays_open(sessions, store):
    """W4, A15: the handler may retry."""

    async def steps(session, receive, send):
        session.destroy()
        store.fail("delete", times=1)
        with pytest.raises(StoreUnavailable):
            await send(text("first"))
        await send(text("bye"))

    _, cookie = await visit(sessions, begin)
    wire = Wire(accepted(steps), sessions, cookie=cookie).start()
    await wire.end()
    assert wire.sent[1:] == [text("bye"), closed("destroyed")]


@pytest.mark.parametrize("change", [None, begin])
async def test_accept_of_a_new_session_makes_no_load(sessions, store, change):
    """W7, W8: the session did not exist before, so it cannot have been revoked."""

    async def handler(scope, receive, send):
        await receive()
        if change is not None:
            change(scope["session"])
        await send({"type": "websocket.accept"})

    await Wire(handler, sessions).start().end()
    assert store.calls.count("load") == 0


async def test_a_failed_socket_whose_commit_fails_is_logged(sessions, store, caplog, monkeypatch):
    """A10, A15: the error of the handler is raised; that of the store is logged."""
    failure = StoreUnavailable("the disk is full")
    failure.application_error = KeyError("column")

    async def delete(session_id):
        raise failure

    async def steps(session, receive, send):
        session.destroy()
        monkeypatch.setattr(store, "delete", delete)
        raise ValueError("the handler's")

    _, cookie = await visit(sessions, begin)
    wire = Wire(accepted(steps), sessions, cookie=cookie).start()
    with pytest.raises(ValueError, match="the handler's"):
        await wire.end()
    (line,) = [each for each in caplog.records if "of a failed socket" in each.getMessage()]
    assert line.getMessage() == (
        "the session of a failed socket was not committed: the disk is full"
    )
    assert line.exc_info[1] is failure.application_error


async def test_changes_after_the_client_has_left_are_kept(sessions, store):
    """A10, W2: the OSError of ``send`` is not a failure of the handler."""

    async def steps(session, receive, send):
        wire.lost = True
        with pytest.raises(OSError, match="the client has left"):
            await send(text("lost"))
        session["counter"] = 1
        raise ValueError("the handler's own")

    _, cookie = await visit(sessions, begin)
    wire = Wire(accepted(steps), sessions, cookie=cookie).start()
    with pytest.raises(ValueError, match="the handler's own"):
        await wire.end()
    seen, _ = await visit(sessions, lambda session: None, cookie)
    assert seen["counter"] == 1


async def test_repeated_accept_has_the_cookie(sessions, store):
    """W8, A2: the client may not have received the first accept."""

    async def handler(scope, receive, send):
        await receive()
        begin(scope["session"])
        wire.lost = True
        with pytest.raises(OSError, match="the client has left"):
            await send({"type": "websocket.accept"})
        wire.lost = False
        await send({"type": "websocket.accept"})

    wire = Wire(handler, sessions).start()
    await wire.end()
    assert [name for name, _ in wire.sent[0]["headers"]].count(b"set-cookie") == 1
