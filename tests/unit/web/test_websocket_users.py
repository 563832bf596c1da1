"""Open sockets at login, logout, revocation of a user (W4) and rotation (W5).

In one process, message by message.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

import pytest

from sojourn import Sessions
from sojourn._core.policy import IN_FLIGHT_PERIOD
from sojourn.errors import ResponseStarted
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock
from sojourn.web.asgi_scope import CONNECTION
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

SECRET = "sockets of users: 7Jm2Qw9vXc4Rk1"

pytestmark = pytest.mark.anyio


@pytest.fixture
async def clock():
    return FakeClock()


@pytest.fixture
async def open_sessions(clock):
    """Return a function that makes installations; at the end no socket is registered."""
    made = []

    def make(**options):
        options = {"store": "memory://", "secret": SECRET, "clock": clock, **options}
        made.append(Sessions(**options))
        return made[-1]

    yield make
    for sessions in made:
        assert sessions.connections.total() == 0, "a closed socket is still registered"
        sessions.close()


@pytest.fixture
async def sessions(open_sessions):
    return open_sessions()


def logs_in(user):
    return lambda session: session.login(user)


def logs_out(session):
    session.logout()


def clears(session):
    session.clear()


def rotates(session):
    session.rotate()


async def echo(scope, receive, send):
    """Store each message in the session; reply with the session's keys."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        scope["session"].append("said", message["text"])
        await send({"type": "websocket.send", "text": repr(dict(scope["session"]))})


async def ends(act, sessions, cookies, handler=listen):
    """Open a socket with each cookie and call ``act``; return the close frames in order."""
    async with AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(connect(handler, sessions, cookie=cookie))
            for cookie in cookies
        ]
        started = time.monotonic()
        await act()
        frames = [await recv_close(wire) for wire in wires]
        assert max(wire.closed_at for wire in wires) - started < 1
        return frames


class TestEndedByAnotherRequest:
    @pytest.mark.parametrize("handler", [listen, push])
    @pytest.mark.parametrize("ends_it", [logs_out, clears])
    async def test_logout_closes_the_sockets_of_the_session(self, sessions, handler, ends_it):
        """W4, A24, ASVS 7.4.1: a logout on a page of the same visitor."""
        _, cookie = await visit(sessions, logs_in("ada"))

        async def act():
            await visit(sessions, ends_it, cookie)

        assert await ends(act, sessions, 2 * [cookie], handler) == 2 * [closed("destroyed")]

    @pytest.mark.parametrize("handler", [listen, push])
    async def test_revoking_a_session_closes_its_sockets(self, sessions, handler):
        """W4: with the given reason."""
        seen, cookie = await visit(sessions, logs_in("ada"))

        async def act():
            assert await sessions.arevoke(seen["id"], reason="stolen phone")

        assert await ends(act, sessions, 2 * [cookie], handler) == 2 * [closed("stolen phone")]

    @pytest.mark.parametrize("handler", [listen, push])
    async def test_revoking_a_user_closes_the_sockets_of_all_sessions(self, sessions, handler):
        """W4, S16, ASVS 7.4.2: of that user only."""
        hers = [(await visit(sessions, logs_in("ada")))[1] for _ in range(3)]
        _, his = await visit(sessions, logs_in("bob"))

        async def act():
            assert await sessions.arevoke_user("ada", reason="disabled") == 3

        async with connect(echo, sessions, cookie=his) as wire:
            assert await ends(act, sessions, hers, handler) == 3 * [closed("disabled")]
            wire.send("still here")
            assert "still here" in (await wire.recv())["text"]

    @pytest.mark.parametrize("handler", [listen, push])
    async def test_revoking_all_closes_every_socket(self, sessions, handler):
        """W4: also sockets without a login."""
        cookies = [(await visit(sessions, logs_in(user)))[1] for user in ("ada", "bob")]
        cookies.append((await visit(sessions, begin))[1])

        async def act():
            await sessions.arevoke_all(reason="key rotated")

        assert await ends(act, sessions, cookies, handler) == 3 * [closed("key rotated")]

    @pytest.mark.parametrize("handler", [listen, push])
    async def test_eviction_by_max_sessions_closes_the_sockets_of_the_evicted_session(
        self, open_sessions, clock, handler
    ):
        """W4, ASVS 7.1.2: a login on another device evicts the oldest session."""
        sessions = open_sessions(max_sessions=1)
        _, cookie = await visit(sessions, logs_in("ada"))
        clock.advance(1)

        async def act():
            await visit(sessions, logs_in("ada"))

        assert await ends(act, sessions, [cookie], handler) == [closed("limit")]

    @pytest.mark.parametrize("handler", [listen, push])
    async def test_login_closes_the_sockets_opened_before(self, sessions, handler):
        """W4, A9: they were opened with a ticket that is now invalid."""
        _, cookie = await visit(sessions, begin)
        fresh = []

        async def act():
            fresh.append((await visit(sessions, logs_in("ada"), cookie))[1])

        assert await ends(act, sessions, 2 * [cookie], handler) == 2 * [closed("logged in again")]
        async with connect(echo, sessions, cookie=fresh[0]) as wire:
            wire.send("with the new one")
            assert "with the new one" in (await wire.recv())["text"]

    async def test_reuse_of_a_replaced_ticket_closes_the_sockets(self, sessions, clock):
        """W4, A9, B-40: of thief and owner, which cannot be distinguished."""
        _, before = await visit(sessions, logs_in("ada"))
        _, after = await visit(sessions, rotates, before)

        async def act():
            await visit(sessions, cookie=after)
            clock.advance(IN_FLIGHT_PERIOD / 1000)
            await visit(sessions, cookie=before)

        assert await ends(act, sessions, [before, after]) == 2 * [closed("reused")]

    async def test_changed_credentials_close_the_sockets_of_other_sessions(self, sessions):
        """W4, ASVS 7.4.3."""
        _, own = await visit(sessions, logs_in("ada"))
        _, other = await visit(sessions, logs_in("ada"))

        async def act():
            await visit(sessions, lambda s: sessions.acredentials_changed("ada", keep=s), own)

        frames = await ends(act, sessions, [own, other])
        assert frames == [closed("logged in again"), closed("credentials changed")]

    async def test_a_login_during_the_handshake_closes_the_socket_at_once(self, sessions):
        """W7, A9: its ticket was valid when it was checked."""

        async def handler(scope, receive, send):
            await receive()
            await visit(sessions, logs_in("ada"), cookie)
            await send({"type": "websocket.accept"})
            assert (await receive())["code"] == 4401

        _, cookie = await visit(sessions, begin)
        wire = Wire(handler, sessions, cookie=cookie).start()
        assert (await wire.recv())["type"] == "websocket.accept"
        assert await wire.recv() == closed("logged in again")
        await wire.end()

    @pytest.mark.parametrize("handler", [listen, echo])
    async def test_socket_closes_if_the_broadcast_of_a_login_is_lost(self, open_sessions, handler):
        """W3, A9: a login in another process; the socket's change is not stored."""
        here = open_sessions(store=MemoryStore())
        there = open_sessions(store=here.store)
        _, cookie = await visit(here, begin)
        async with connect(handler, here, cookie=cookie) as wire:
            _, after = await visit(there, logs_in("ada"), cookie)
            wire.send("too late")
            assert await recv_close(wire) == closed("logged in again")
        assert "said" not in (await visit(here, None, after))[0]


class TestRotation:
    @pytest.mark.parametrize("times", [1, 3])
    @pytest.mark.parametrize("encrypt", [False, True, "ticket"])
    async def test_socket_stays_open_after_rotations(self, open_sessions, clock, times, encrypt):
        """W5, W2, W3: it still reads and writes with its old ticket; pages see the changes."""
        sessions = open_sessions(encrypt=encrypt)
        _, cookie = await visit(sessions, logs_in("ada"))
        async with connect(echo, sessions, cookie=cookie) as wire:
            for number in range(times):
                _, cookie = await visit(sessions, rotates, cookie)
                _, cookie = await visit(sessions, lambda s: s.increment("pages") and None, cookie)
                clock.advance("1 minute")
                if number % 2 == 0:  # some rotations happen without a message
                    wire.send(f"after {number}")
                    assert f"'pages': {number + 1}" in (await wire.recv())["text"]
            seen, _ = await visit(sessions, None, cookie)
            assert seen["said"] == [f"after {number}" for number in range(0, times, 2)]
            assert sessions.usage().rotations == times
            assert sessions.usage().connections == 1
            assert [message["type"] for message in wire.sent[1:]] == ["websocket.send"] * len(
                seen["said"]
            )

    async def test_pushing_socket_stays_open_after_rotations(self, sessions, clock):
        """W5: it only sends messages."""
        _, cookie = await visit(sessions, logs_in("ada"))
        async with connect(push, sessions, cookie=cookie) as wire:
            for _ in range(3):
                _, cookie = await visit(sessions, rotates, cookie)
                await visit(sessions, cookie=cookie)
                clock.advance("1 minute")
                assert (await wire.recv())["text"] == "tick"
            assert sessions.usage().rotations == 3

    async def test_due_rotation_is_done_in_the_handshake(self, open_sessions, clock):
        """W5, W8: the accept has the new ticket."""
        sessions = open_sessions(rotate_interval="10 minutes")
        _, before = await visit(sessions, logs_in("ada"))
        clock.advance("10 minutes")
        async with connect(echo, sessions, cookie=before) as wire:
            [(name, value)] = wire.sent[0]["headers"]
            after = value.split(b";")[0].removeprefix(b"sid=").decode()
            assert (name, after != before) == (b"set-cookie", True)
            clock.advance("1 minute")
            assert (await visit(sessions, lambda s: s.append("said", "page"), after))[1] == after
            wire.send("socket")
            assert "['page', 'socket']" in (await wire.recv())["text"]

    async def test_open_socket_does_not_rotate(self, sessions):
        """W8, A11: a socket cannot send the cookie."""

        async def handler(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            for act in (scope["session"].rotate, lambda: scope["session"].login("ada")):
                with pytest.raises(ResponseStarted):
                    act()
            await receive()

        _, cookie = await visit(sessions, begin)
        async with connect(handler, sessions, cookie=cookie) as wire:
            await wire.waited_for()
            assert sessions.usage().rotations == sessions.usage().logins == 0

    async def test_late_load_on_a_socket_does_not_rotate(self, open_sessions, clock):
        """W5, A11: the new ticket could not be sent; the next page request rotates."""
        sessions = open_sessions(rotate_interval="10 minutes", autoload=False)
        at_once = open_sessions(store=sessions.store)

        async def late(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            session = await scope[CONNECTION].load()
            session["late"] = True
            await receive()

        _, cookie = await visit(at_once, logs_in("ada"))
        clock.advance("10 minutes")
        async with connect(late, sessions, cookie=cookie) as wire:
            await wire.waited_for()
            clock.advance("1 minute")
            assert sessions.usage().rotations == 0
            assert (await visit(at_once, None, cookie))[0]["late"]


async def clear_at_message(scope, receive, send):
    """Clear the session at the first message."""
    await receive()
    await send({"type": "websocket.accept"})
    await receive()
    scope["session"].clear()
    await receive()


class TestClear:
    async def test_socket_that_clears_a_login_is_closed(self, sessions):
        """A24, W4: clearing logs the page out, too."""
        _, cookie = await visit(sessions, logs_in("ada"))
        async with connect(clear_at_message, sessions, cookie=cookie) as wire:
            wire.send("clear")
            assert await recv_close(wire) == closed("destroyed")
        users = []
        await visit(sessions, lambda session: users.append(session.user), cookie)
        assert users == [None]

    async def test_a_socket_without_a_login_stays_open(self, sessions):
        """A24, W2."""
        _, cookie = await visit(sessions, lambda session: session.update(a=1))
        async with connect(clear_at_message, sessions, cookie=cookie) as wire:
            wire.send("clear")
            await wire.waited_for()
            wire.disconnect()
        found = []
        await visit(sessions, lambda session: found.append(dict(session)), cookie)
        assert found == [{}]
