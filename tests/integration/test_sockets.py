"""Laws of sockets with real servers, a real client, and two processes over one SQLite file.

The order of messages is tested in ``tests/unit/live``.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import socket
import time

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.servers import browser, eventually, uvicorn

pytestmark = pytest.mark.anyio

#: uvicorn's implementations; wsproto is an extra package.
IMPLEMENTATIONS = ["websockets", "websockets-sansio"]
if importlib.util.find_spec("wsproto"):
    IMPLEMENTATIONS.append("wsproto")


@pytest.fixture(scope="module", params=IMPLEMENTATIONS)
def server(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    with uvicorn("shop", folder, ws=request.param, options={"store": "memory://"}) as running:
        yield running
    # The server logs no error for any close, except for the injected failure.
    tracebacks = running.log.split("Traceback (most recent call last)")[1:]
    for one in tracebacks:
        assert "a handler that fails" in one, one[:8000]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two processes on one SQLite file."""
    folder = tmp_path_factory.mktemp("pair")
    other = folder / "b"
    other.mkdir()
    options = {"store": f"sqlite:///{folder}/sessions.db"}
    with (
        uvicorn("shop", folder, options=options) as a,
        uvicorn("shop", other, options=options) as b,
    ):
        yield a, b


class Visitor:
    """A browser: pages over http, sockets with the same cookie."""

    def __init__(self, server):
        self.server = server
        self.http = browser(server)

    async def __aenter__(self):
        await self.http.get("/put", params={"name": "Ada"})
        return self

    async def __aexit__(self, *_):
        await self.http.aclose()

    def headers(self):
        return {"cookie": "; ".join(f"{c.name}={c.value}" for c in self.http.cookies.jar)}

    def socket(self, path="/echo", server=None, **options):
        options.setdefault("additional_headers", self.headers())
        return connect((server or self.server).socket_url + path, **options)

    async def page(self, path="/", server=None):
        answer = await self.http.get((server or self.server).url + path)
        assert answer.status_code == 200, answer.text
        return answer.json()


async def close_of(connection):
    """Read until the server closes; return code and reason."""
    async with asyncio.timeout(10):
        try:
            while True:
                await connection.recv()
        except ConnectionClosed as closed:
            return closed.rcvd and (closed.rcvd.code, closed.rcvd.reason)


async def exchange(connection, text="count"):
    await connection.send(text)
    async with asyncio.timeout(10):
        return json.loads(await connection.recv())


async def settled(visitor, connections=0):
    """Wait until the server counts this many sockets: a handler returns shortly after its close."""
    await eventually(
        lambda: visitor.page("/usage"), lambda usage: usage["connections"] == connections
    )


class TestOneProcess:
    async def test_page_and_socket_share_one_counter(self, server):
        """W1, W2, W3, A5."""
        async with Visitor(server) as visitor, visitor.socket() as ws:
            answer = await exchange(ws)
            assert answer["id"] == (await visitor.page())["id"]
            assert answer["name"] == "Ada"
            await visitor.http.get("/increment?n=1")
            assert (await exchange(ws))["counter"] == 3
            assert (await visitor.page())["counter"] == 3

    @pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://localhost:1"])
    async def test_foreign_origin_is_403(self, server, origin):
        """W1, B-43: before the accept, and without a session."""
        async with Visitor(server) as visitor:
            headers = {**visitor.headers(), "origin": origin}
            with pytest.raises(InvalidStatus) as refused:
                await visitor.socket(additional_headers=headers)
            assert refused.value.response.status_code == 403
            assert "set-cookie" not in refused.value.response.headers

    async def test_socket_that_requires_a_user_is_accepted_and_closed_without_one(self, server):
        """W1: with a close code that browsers can read."""
        async with Visitor(server) as visitor:
            async with visitor.socket("/members", subprotocols=["one", "two"]) as ws:
                assert ws.subprotocol == "one"
                assert await close_of(ws) == (4401, "login required")
            await visitor.http.get("/login?user=ada")
            async with visitor.socket("/members") as ws:
                assert await ws.recv() == "ada"

    async def test_own_origin_is_accepted(self, server):
        """W1."""
        async with Visitor(server) as visitor, visitor.socket(origin=server.url) as ws:
            assert (await exchange(ws))["counter"] == 1

    async def test_session_begins_in_the_handshake_and_never_later(self, server):
        """W8."""
        async with connect(server.socket_url + "/begin") as ws:
            cookie = ws.response.headers["set-cookie"]
            assert json.loads(await ws.recv()) == {"counter": 100}
        assert "HttpOnly" in cookie
        async with browser(server, headers={"cookie": cookie.split(";")[0]}) as client:
            assert (await client.get("/")).json()["counter"] == 100
        async with connect(server.socket_url + "/begin-late") as ws:
            assert await ws.recv() == "ResponseStarted"
            assert "set-cookie" not in ws.response.headers

    async def test_change_of_a_message_without_a_reply_is_stored(self, server):
        """W2: the reply to a later message shows that the first one was handled."""
        async with Visitor(server) as visitor, visitor.socket() as ws:
            await ws.send("quiet")
            await exchange(ws)
            assert (await visitor.page())["quiet"] == 1

    @pytest.mark.parametrize("path", ["/echo", "/push"])
    async def test_revoked_session_is_closed_with_4401_and_the_reason(self, server, path):
        """W4: of a handler that receives, and of one that only sends."""
        async with Visitor(server) as visitor, visitor.socket(path) as ws:
            session_id = (await visitor.page())["id"]
            await visitor.page(f"/revoke/{session_id}")
            assert await close_of(ws) == (4401, "revoked by hand")
            await settled(visitor)

    async def test_logging_out_in_a_page_closes_every_socket(self, server):
        """W4: 200 of them, within a second."""
        async with Visitor(server) as visitor:
            sockets = await asyncio.gather(*(visitor.socket() for _ in range(200)))
            idle = (await visitor.page("/usage"))["connections"]
            assert idle == 200
            started = time.monotonic()
            await visitor.http.get("/logout")
            closes = await asyncio.gather(*map(close_of, sockets))
            elapsed = time.monotonic() - started
            assert set(closes) == {(4401, "destroyed")}
            # With the work of this client; tests/unit/web measures the server alone.
            assert elapsed < 6
            await settled(visitor)

    async def test_socket_may_send_after_it_destroys_its_session(self, server):
        """W4."""
        async with Visitor(server) as visitor, visitor.socket() as ws, visitor.socket() as other:
            assert await exchange(ws, "destroy") == {"destroyed": True}
            assert await close_of(ws) == (4401, "destroyed")
            assert await close_of(other) == (4401, "destroyed")
            assert "name" not in await visitor.page()

    async def test_failing_handler_drops_its_uncommitted_changes(self, server):
        """A10: the socket is unregistered."""
        async with Visitor(server) as visitor, visitor.socket() as ws:
            await exchange(ws)
            await ws.send("raise")
            assert await close_of(ws) != (4401, "ended")
            page = await visitor.page()
            assert page["counter"] == 1
            assert "uncommitted" not in page
            await settled(visitor)

    async def test_socket_of_a_client_that_ignores_the_close_frame_is_dropped(self, server):
        """W4: the handler returns at once."""
        async with Visitor(server) as visitor:
            with raw_socket(server, visitor, "/echo"):
                await settled(visitor, 1)
                await visitor.http.get("/logout")
                await settled(visitor)

    async def test_handler_blocked_by_a_client_that_never_reads_is_released(self, server):
        """W4: the handler is blocked in a send."""
        async with Visitor(server) as visitor:
            with raw_socket(server, visitor, "/push?size=500000"):
                await settled(visitor, 1)
                tasks = (await visitor.page("/usage"))["tasks"]
                await asyncio.sleep(0.5)  # until its buffers are full, which cannot be observed
                await visitor.http.get("/logout")
                await settled(visitor)
                await eventually(
                    lambda: visitor.page("/usage"), lambda usage: usage["tasks"] < tasks
                )


class TestOnError:
    @pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
    async def test_on_error_responds_to_the_handshake(self, implementation, tmp_path):
        """A23: the client reads the response of the application."""
        with uvicorn("members", tmp_path, ws=implementation) as server:
            with pytest.raises(InvalidStatus) as refused:
                await connect(server.socket_url + "/members")
            response = refused.value.response
            assert response.status_code == 401
            assert json.loads(response.body) == {"path": "/members", "error": "LoginRequired"}
            assert (response.headers["location"], response.headers["vary"]) == ("/login", "Cookie")
            async with browser(server) as http:
                await http.get("/login")
                cookie = "; ".join(f"{c.name}={c.value}" for c in http.cookies.jar)
            headers = {"cookie": cookie}
            async with connect(server.socket_url + "/members", additional_headers=headers) as ws:
                assert await ws.recv() == "ada"
        assert "Traceback" not in server.log


class TestDeadline:
    async def test_idle_socket_is_closed_at_the_deadline(self, tmp_path):
        """W6: messages are activity, pings are not. The server's clock measures the timeout."""
        options = {"store": "memory://", "timeout": 1.2}
        with uvicorn("shop", tmp_path, options=options) as server:
            async with Visitor(server) as visitor, visitor.socket(ping_interval=0.05) as ws:
                started = time.monotonic()
                while time.monotonic() - started < 2.4:
                    assert (await exchange(ws))["name"] == "Ada"
                    await asyncio.sleep(0.02)  # the tested behaviour: a client that sends
                assert await close_of(ws) == (4401, "expired (idle)")
                assert "name" not in await visitor.page()


class TestTwoProcesses:
    async def test_page_in_another_process_sees_changes_of_the_socket(self, pair):
        """W2, A5: through the store."""
        a, b = pair
        async with Visitor(a) as visitor, visitor.socket(server=b) as ws:
            for n in range(1, 50):
                assert (await exchange(ws))["counter"] == n
                assert (await visitor.page(server=a))["counter"] == n

    async def test_socket_sees_changes_of_pages_in_another_process(self, pair):
        """W3."""
        a, b = pair
        async with Visitor(a) as visitor, visitor.socket(server=b) as ws:
            for n in range(1, 50):
                await visitor.http.get(f"{a.url}/put", params={"word": str(n)})
                assert (await exchange(ws))["word"] == str(n)

    async def test_parallel_pages_and_sockets_of_two_processes_lose_no_change(self, pair):
        """W2, W3, A6."""
        a, b = pair
        async with Visitor(a) as visitor:
            async with visitor.socket(server=a) as one, visitor.socket(server=b) as two:

                async def speak(ws):
                    for _ in range(50):
                        await exchange(ws)

                async def browse(server, n):
                    await visitor.http.get(f"{server.url}/increment?n={n}")

                pages = [browse(pair[n % 2], n) for n in range(50)]
                await asyncio.gather(speak(one), speak(two), *pages)
            assert (await visitor.page())["counter"] == 150

    @pytest.mark.parametrize(
        ("path", "reason"), [("/revoke/{id}", "revoked by hand"), ("/logout", "ended")]
    )
    async def test_session_ended_in_another_process_is_detected_at_the_next_message(
        self, pair, path, reason
    ):
        """W3, A7: at the latest; the broadcast with the reason is usually faster."""
        a, b = pair
        async with Visitor(a) as visitor, visitor.socket(server=b) as ws:
            answer = await exchange(ws)
            await visitor.http.get(a.url + path.format(id=answer["id"]))
            with contextlib.suppress(ConnectionClosed):  # by the broadcast, before the message
                await ws.send("count")
            assert await close_of(ws) in {(4401, reason), (4401, "destroyed")}

    async def test_refresh_of_a_session_revoked_in_another_process_closes_the_socket(self, pair):
        """A21, W4: the refreshing handler gets no error, and no traceback is logged."""
        a, b = pair
        async with Visitor(a) as visitor, visitor.socket("/refresher", server=b) as ws:
            await visitor.http.get(f"{a.url}/revoke/{(await visitor.page())['id']}")
            assert await close_of(ws) == (4401, "revoked by hand")
        assert "Traceback" not in b.log
        assert "SessionGone" not in b.log

    async def test_no_message_is_lost_if_the_handler_receives_with_a_timeout(self, pair):
        """A21: each is delivered once and in order, also after a timeout during the refresh."""
        a, b = pair
        async with Visitor(a) as visitor, visitor.socket("/patient", server=b) as ws:
            for n in range(20):
                await visitor.http.get(f"{a.url}/put", params={"n": str(n)})  # a newer record
                await ws.send(str(n))
            async with asyncio.timeout(20):
                assert json.loads(await ws.recv()) == [str(n) for n in range(20)]


def raw_socket(server, visitor, path):
    """Open a WebSocket over a raw socket that sends and reads nothing."""
    raw = socket.create_connection(("127.0.0.1", server.port))
    cookie = visitor.headers()["cookie"]
    raw.sendall(
        f"GET {path} HTTP/1.1\r\nHost: localhost:{server.port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"Sec-WebSocket-Version: 13\r\nCookie: {cookie}\r\n\r\n".encode()
    )
    return raw
