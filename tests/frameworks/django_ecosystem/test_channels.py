"""Consumers of Channels: the session for each message, and its end; uvicorn and daphne."""

import asyncio
import json
import time

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

PATHS = pytest.mark.parametrize("path", ["/ws", "/ws-sync"])


async def ask(socket, content):
    """Send a message and return the answer."""
    await socket.send(json.dumps(content))
    return json.loads(await asyncio.wait_for(socket.recv(), 10))


async def close_of(socket):
    """Wait for the close; return its code, its reason and the seconds that it took."""
    start = time.monotonic()
    with pytest.raises(ConnectionClosed) as caught:
        await asyncio.wait_for(socket.recv(), 10)
    frame = caught.value.rcvd
    return frame.code, frame.reason, time.monotonic() - start


@PATHS
async def test_pages_and_consumers_see_what_the_other_wrote(served_sockets, path):
    """W1, W2, W3."""
    with served_sockets.browser() as ada:
        ada.log_in("ada")
        ada.get("/visit")
        async with ada.socket(path) as socket:
            assert await ask(socket, "read") == {"user": "ada", "visits": 1}
            assert await ask(socket, "visit") == {"user": "ada", "visits": 2}
            assert ada.get("/visit").json() == {"visits": 3}
            assert await ask(socket, "visit") == {"user": "ada", "visits": 4}
        assert ada.get("/visit").json() == {"visits": 5}


@PATHS
async def test_a_logout_closes_the_consumer(served_sockets, path):
    """W4: within a second."""
    with served_sockets.browser() as ada:
        ada.log_in("ada")
        async with ada.socket(path) as socket:
            assert (await ask(socket, "read"))["user"] == "ada"
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
                assert (await ask(socket, "read"))["user"] == "ada"
                start = time.monotonic()
                assert await sessions.arevoke_user("1", reason="stolen phone") >= 1
                code, reason, _ = await close_of(socket)
                assert (code, reason) == (4401, "stolen phone")
                assert time.monotonic() - start < 1
    finally:
        await sessions.aclose()


async def test_a_logout_in_the_consumer_ends_the_session(served_sockets):
    """A7: ``channels.auth.logout``; one more message is delivered, then the socket closes."""
    with served_sockets.browser() as ada:
        ada.log_in("ada")
        async with ada.socket("/ws") as socket:
            assert (await ask(socket, "logout"))["user"] is None
            code, _, _ = await close_of(socket)
            assert code == 4401
        assert ada.user() is None


async def test_a_visitor_without_a_session_is_anonymous(served_sockets):
    """A1."""
    with served_sockets.browser() as visitor:
        async with visitor.socket("/ws") as socket:
            assert await ask(socket, "read") == {"user": None, "visits": 0}


async def test_a_handshake_of_another_origin_is_refused(served_sockets):
    """W1."""
    with served_sockets.browser() as ada:
        ada.log_in("ada")
        connection = ada.socket("/ws")
        connection.additional_headers = {**ada.cookie_header()}
        from websockets.asyncio.client import connect

        url = served_sockets.url.replace("http", "ws") + "/ws"
        with pytest.raises(InvalidStatus) as refused:
            async with connect(
                url, additional_headers=ada.cookie_header(), origin="https://evil.example"
            ):
                pass
        assert refused.value.response.status_code == 403
