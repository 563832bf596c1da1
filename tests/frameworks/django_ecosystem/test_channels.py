"""Consumers of Channels under uvicorn and daphne: the session of each message, and its end."""

import asyncio
import json
import time

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

PATHS = pytest.mark.parametrize("path", ["/ws", "/ws-sync"])


async def exchange(socket, content):
    """Send a message and return the answer."""
    await socket.send(json.dumps(content))
    return json.loads(await asyncio.wait_for(socket.recv(), 10))


async def close_of(socket):
    """Wait for the close; return its code, its reason and the elapsed seconds."""
    start = time.monotonic()
    with pytest.raises(ConnectionClosed) as caught:
        await asyncio.wait_for(socket.recv(), 10)
    frame = caught.value.rcvd
    return frame.code, frame.reason, time.monotonic() - start


@PATHS
async def test_pages_and_consumers_see_each_others_changes(served_sockets, path):
    """W1, W2, W3."""
    with served_sockets.browser() as ada:
        ada.log_in("ada")
        ada.get("/visit")
        async with ada.socket(path) as socket:
            assert await exchange(socket, "read") == {"user": "ada", "visits": 1}
            assert await exchange(socket, "visit") == {"user": "ada", "visits": 2}
            assert ada.get("/visit").json() == {"visits": 3}
            assert await exchange(socket, "visit") == {"user": "ada", "visits": 4}
        assert ada.get("/visit").json() == {"visits": 5}


@PATHS
async def test_a_logout_closes_the_consumer(served_sockets, path):
    """W4: within a second."""
    with served_sockets.browser() as ada:
        ada.log_in("ada")
        async with ada.socket(path) as socket:
            assert (await exchange(socket, "read"))["user"] == "ada"
            ada.post("/admin/logout/", headers=ada.token())
            code, _, seconds = await close_of(socket)
            assert code == 4401
            assert seconds < 1


@PATHS
async def test_a_revocation_in_another_process_closes_the_consumer(served_sockets, path):
    """W4: within a second, with the reason."""
    sessions = served_sockets.sessions()
    try:
        with served_sockets.browser() as ada:
            ada.log_in("ada")
            async with ada.socket(path) as socket:
                assert (await exchange(socket, "read"))["user"] == "ada"
                start = time.monotonic()
                assert await sessions.arevoke_user("1", reason="stolen phone") >= 1
                code, reason, _ = await close_of(socket)
                assert code == 4401
                assert time.monotonic() - start < 1
                if served_sockets.server != "daphne":  # it does not send the reason of a close
                    assert reason == "stolen phone"
    finally:
        sessions.close()


async def test_logout_in_the_consumer_destroys_the_session(served_sockets):
    """A7: ``channels.auth.logout``; one more message is delivered, then the socket closes."""
    with served_sockets.browser() as ada:
        ada.log_in("ada")
        async with ada.socket("/ws") as socket:
            assert (await exchange(socket, "logout"))["user"] is None
            code, _, _ = await close_of(socket)
            assert code == 4401
        assert ada.user() is None


async def test_a_visitor_without_a_session_is_anonymous(served_sockets):
    """A1."""
    with served_sockets.browser() as visitor:
        async with visitor.socket("/ws") as socket:
            assert await exchange(socket, "read") == {"user": None, "visits": 0}


async def test_a_handshake_of_another_origin_is_refused(served_sockets):
    """W1."""
    with served_sockets.browser() as ada:
        ada.log_in("ada")
        with pytest.raises(InvalidStatus) as refused:
            async with ada.socket("/ws", origin="https://evil.example"):
                pass
        assert refused.value.response.status_code == 403


async def test_a_login_before_the_accept_is_bound_and_sends_its_cookie(served_sockets):
    """A9, W8: ``channels.auth.login`` in ``connect``."""
    if served_sockets.server == "daphne":
        pytest.skip("daphne ignores the headers of websocket.accept, so that no cookie can be set")
    sessions = served_sockets.sessions()
    try:
        with served_sockets.browser() as bob:
            before = {each.id for each in await sessions.alist_user("2")}
            async with bob.socket("/ws-login") as socket:
                cookie = socket.response.headers["set-cookie"].partition(";")[0]
                assert await exchange(socket, "read") == {"user": "bob", "visits": 0}
            name, _, value = cookie.partition("=")
            bob.cookies.set(name, value, domain="127.0.0.1")
            assert bob.user() == "bob"
            (added,) = {each.id for each in await sessions.alist_user("2")} - before
            await sessions.arevoke(added)
            assert bob.user() is None
    finally:
        sessions.close()


async def test_auth_middleware_stack_keeps_the_session_of_the_handshake(served_sockets):
    """``channels.auth.AuthMiddlewareStack`` reads the session once, in the handshake."""
    with served_sockets.browser() as ada:
        ada.log_in("ada")
        ada.get("/visit")
        async with ada.socket("/ws-channels") as socket:
            assert await exchange(socket, "read") == {"user": "ada", "visits": 1}
