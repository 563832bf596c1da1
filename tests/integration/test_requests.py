"""Laws of requests that need a real server: uninstall, streams, and clients that disconnect."""

from __future__ import annotations

import asyncio
import socket

import pytest
from websockets.asyncio.client import connect

from tests.support.servers import browser, eventually, uvicorn

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with uvicorn("shop", tmp_path_factory.mktemp("requests")) as running:
        yield running


@pytest.fixture
async def client(server):
    async with browser(server) as made:
        await made.get("/put", params={"name": "Ada"})
        yield made


async def until(client, key):
    """Wait until the page shows a key; return the page."""

    async def show():
        return (await client.get("/")).json()

    return await eventually(show, lambda page: key in page)


def raw_request(server, client, path):
    """Send a request over a raw socket, to disconnect at a chosen time."""
    cookie = "; ".join(f"{c.name}={c.value}" for c in client.cookies.jar)
    raw = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    raw.sendall(
        f"GET {path} HTTP/1.1\r\nHost: localhost:{server.port}\r\nCookie: {cookie}\r\n\r\n".encode()
    )
    return raw


async def test_stream_changes_are_stored_at_its_end(client):
    """A11."""
    assert len((await client.get("/stream?n=5")).text.split()) == 5
    page = (await client.get("/")).json()
    assert (page["began"], page["pieces"], page["ended"]) == (True, 5, True)


async def test_stream_changes_are_stored_when_the_client_disconnects(server, client):
    """A11."""
    with raw_request(server, client, "/stream?n=100000") as raw:
        received = b""
        while b"2\n" not in received:
            received += raw.recv(4096)
    page = await until(client, "ended")
    assert 3 <= page["pieces"] < 100000
    assert page["began"] is True


async def test_request_of_a_disconnected_client_is_stored_completely(server, client):
    """A12: this server does not notify the handler, so the handler finishes.

    Where a framework cancels the handler, its changes are dropped: see ``tests/contract``.
    """
    with raw_request(server, client, "/slow?name=gone"):
        await client.get("/arrive?name=gone")
    before = (await client.get("/")).json()
    assert "slow" not in before
    await client.get("/open?name=gone")
    page = await until(client, "slow")
    assert page["name"] == "Ada"


async def test_interleaved_requests_never_see_each_others_session(server):
    """A16: 200 parallel visitors, twice, over persistent connections."""

    async def visit(client, n):
        first = await client.get(f"/whose?n={n}")
        second = await client.get("/")
        assert first.text == str(n)
        assert second.json()["mine"] == str(n)
        return second.json()["id"]

    clients = [browser(server) for _ in range(200)]
    try:
        ids = await asyncio.gather(*(visit(client, n) for n, client in enumerate(clients)))
        again = await asyncio.gather(*(visit(client, -n) for n, client in enumerate(clients)))
    finally:
        for client in clients:
            await client.aclose()
    assert len(set(ids)) == 200
    assert ids == again


async def test_uninstall_on_a_running_server(tmp_path):
    """A20: requests in flight and open sockets keep their session; later ones have none."""
    with uvicorn("shop", tmp_path) as server:
        async with browser(server) as client:
            await client.get("/put", params={"name": "Ada"})
            cookie = "; ".join(f"{c.name}={c.value}" for c in client.cookies.jar)
            headers = {"cookie": cookie}
            async with connect(f"{server.socket_url}/echo", additional_headers=headers) as ws:
                under_way = asyncio.create_task(client.get("/slow?name=x"))
                await client.get("/arrive?name=x")
                assert (await client.get("/uninstall")).status_code == 200
                await client.get("/open?name=x")
                finished = await under_way
                assert finished.json() == {"name": "Ada", "slow": True}
                later = await client.get("/")
                assert later.status_code == 500
                assert "set-cookie" not in later.headers
                await ws.send("count")
                assert '"counter":1' in await ws.recv()
        assert "SessionMiddleware must be installed to access request.session" in server.log
    with uvicorn("shop", tmp_path) as server:
        async with browser(server, headers=headers) as client:
            page = (await client.get("/")).json()
        assert (page["name"], page["slow"], page["counter"]) == ("Ada", True, 1)
