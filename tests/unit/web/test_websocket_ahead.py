"""WebSockets of frameworks that receive messages in a separate task, ahead of the handler."""

import asyncio

import pytest

from sojourn import Sessions
from sojourn.errors import SessionRequired, StoreUnavailable
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore
from sojourn.web.asgi_scope import CONNECTION
from tests.unit.web.asgi_client import Wire, begin, closed, connect, visit

pytestmark = pytest.mark.anyio


@pytest.fixture
def store():
    return FaultyStore(MemoryStore())


@pytest.fixture
def sessions(store):
    made = Sessions(store=store, secret="ahead-6Yt2Ws9xQv4Lm8-Kz")
    yield made
    assert made.connections.total() == 0, "a closed socket is still registered"
    made.close()


def ahead(steps):
    """Return a handler that accepts, and runs steps with its connection and its session."""

    async def handler(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await steps(scope[CONNECTION], scope, send)

    return handler


async def serve(sessions, steps, cookie=None, say=()):
    """Serve a client that sends some texts and disconnects; return the messages sent to it."""
    wire = Wire(ahead(steps), sessions, cookie=cookie)
    for text in say:
        wire.send(text)
    wire.disconnect()
    wire.start()
    await wire.end()
    return wire.sent[1:]


async def test_a_message_is_received_without_a_store_call(sessions, store):
    """W10: the framework calls commit and refresh explicitly."""
    messages = []

    async def steps(connection, scope, send):
        scope["session"]["counter"] = 1
        store.calls.clear()
        messages.append(await connection.receive_ahead())
        assert store.calls == []
        messages.append(await connection.receive_ahead())

    _, cookie = await visit(sessions, begin)
    await serve(sessions, steps, cookie, say=["a"])
    assert [message["type"] for message in messages] == [
        "websocket.receive",
        "websocket.disconnect",
    ]


async def test_changes_are_kept_if_the_client_disconnects(sessions):
    """A11: the framework's disconnect error is not a failure of the handler."""

    async def steps(connection, scope, send):
        scope["session"]["counter"] = 1
        await connection.receive_ahead()
        raise ConnectionError

    _, cookie = await visit(sessions, begin)
    with pytest.raises(ConnectionError):
        await serve(sessions, steps, cookie)
    assert (await visit(sessions, cookie=cookie))[0]["counter"] == 1


async def test_the_first_message_is_received_before_the_accept(sessions):
    _, cookie = await visit(sessions, begin)
    types = []

    async def handler(scope, receive, send):
        types.append((await scope[CONNECTION].receive_ahead())["type"])
        await send({"type": "websocket.accept"})

    await Wire(handler, sessions, cookie=cookie).start().end()
    assert types == ["websocket.connect"]


async def test_the_changes_are_committed_before_the_handler_waits(sessions):
    """W2."""

    async def steps(connection, scope, send):
        scope["session"]["counter"] = 1
        await connection.commit_before_wait()
        assert (await visit(sessions, cookie=cookie))[0]["counter"] == 1
        scope["session"] = {"counter": 2}  # A24
        await connection.commit_before_wait()
        assert (await visit(sessions, cookie=cookie))[0]["counter"] == 2
        scope["session"] = {"counter": 3}
        await connection.commit_changes()
        assert (await visit(sessions, cookie=cookie))[0]["counter"] == 3

    _, cookie = await visit(sessions, begin)
    await serve(sessions, steps, cookie)


async def test_refresh_before_delivery_loads_changes_of_others(sessions, store):
    """W3."""

    async def steps(connection, scope, send):
        await visit(sessions, lambda session: session.update(counter=1), cookie=cookie)
        assert scope["session"]["counter"] == 0
        await connection.refresh_for_delivery()
        assert scope["session"]["counter"] == 1

    _, cookie = await visit(sessions, begin)
    await serve(sessions, steps, cookie)


async def test_connection_without_a_session_makes_no_store_call(store):
    """W10: on a path without sessions."""
    sessions = Sessions(store=store, secret="ahead-6Yt2Ws9xQv4Lm8-Kz", exclude=["/socket"])
    messages = []

    async def steps(connection, scope, send):
        await connection.commit_before_wait()
        await connection.refresh_for_delivery()
        await connection.commit_changes()
        messages.append(await connection.receive_ahead())

    await serve(sessions, steps)
    assert [message["type"] for message in messages] == ["websocket.disconnect"]
    assert store.calls == []


@pytest.mark.parametrize("step", ["commit_before_wait", "refresh_for_delivery"])
async def test_steps_raise_after_the_session_ended(sessions, store, step):
    """W4: an OSError, as a server raises for a closed socket."""
    errors = []

    async def steps(connection, scope, send):
        await store.delete(bytes.fromhex(seen["id"]))
        if step == "commit_before_wait":
            scope["session"]["counter"] = 1
        try:
            await getattr(connection, step)()
        except OSError as error:
            errors.append(str(error))

    seen, cookie = await visit(sessions, begin)
    assert await serve(sessions, steps, cookie) == [closed("ended")]
    assert len(errors) == 1


async def test_receive_after_the_session_ended_returns_a_disconnect(sessions):
    """W4: with the code and the reason of the close frame."""
    messages = []

    async def steps(connection, scope, send):
        messages.append(await connection.receive_ahead())
        messages.append(await connection.receive_ahead())

    seen, cookie = await visit(sessions, begin)
    async with connect(ahead(steps), sessions, cookie=cookie) as wire:
        await wire.waited_for()
        await sessions.arevoke(seen["id"], reason="stolen phone")
        assert await wire.recv() == closed("stolen phone")
        await wire.end()
    expected = {"type": "websocket.disconnect", "code": 4401, "reason": "stolen phone"}
    assert messages == [expected, expected]


class TestCloseAfter:
    """A framework that catches the errors of its handlers."""

    async def test_session_error_closes_the_socket(self, sessions):
        """A23: a later close frame of the framework is not sent."""

        async def steps(connection, scope, send):
            scope["session"]["counter"] = 1
            answers.append(await connection.close_after(SessionRequired("log in"), None))
            await send({"type": "websocket.close", "code": 1011})

        answers = []
        _, cookie = await visit(sessions, begin)
        assert await serve(sessions, steps, cookie) == [closed("log in")]
        assert answers == [True]
        assert (await visit(sessions, cookie=cookie))[0]["counter"] == 0  # A10

    async def test_a_failed_store_closes_the_socket(self, sessions):
        """A15, A23."""

        async def steps(connection, scope, send):
            answers.append(await connection.close_after(StoreUnavailable("down"), None))

        answers = []
        _, cookie = await visit(sessions, begin)
        (frame,) = await serve(sessions, steps, cookie)
        assert (frame["code"], frame["reason"]) == (1013, "session store unavailable")
        assert answers == [True]

    async def test_other_errors_are_left_to_the_framework(self, sessions):
        """A10, A23."""

        async def steps(connection, scope, send):
            scope["session"]["counter"] = 1
            answers.append(await connection.close_after(ValueError(), None))
            await send({"type": "websocket.close", "code": 1011})

        answers = []
        _, cookie = await visit(sessions, begin)
        assert await serve(sessions, steps, cookie) == [{"type": "websocket.close", "code": 1011}]
        assert answers == [False]
        assert (await visit(sessions, cookie=cookie))[0]["counter"] == 0


async def test_late_loaded_session_closes_its_socket_on_revocation(store):
    """W4, W8: without autoload, the handler loads the session after the accept."""
    sessions = Sessions(store=store, secret="ahead-6Yt2Ws9xQv4Lm8-Kz", autoload=False)
    loaded = asyncio.Event()
    found = []

    async def steps(connection, scope, send):
        session = await connection.load()
        assert await connection.load() is session is scope["session"]
        found.append(session["counter"])
        loaded.set()
        found.append((await connection.receive_ahead())["type"])

    with_autoload = Sessions(store=store, secret="ahead-6Yt2Ws9xQv4Lm8-Kz")
    seen, cookie = await visit(with_autoload, begin)
    async with connect(ahead(steps), sessions, cookie=cookie) as wire:
        await loaded.wait()
        await sessions.arevoke(seen["id"])
        assert await wire.recv() == closed("revoked")
        await wire.end()
    assert found == [0, "websocket.disconnect"]
