"""Sockets of Quart on real servers: laws W1 to W8."""

import asyncio
import time

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import sojourn
from sojourn.testing.app_suite.served_app import SECRET
from tests.support.processes import serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

APP = "tests.frameworks.apps.quart_sockets:app"
COMMANDS = {
    "uvicorn": f"uvicorn --port PORT --log-level warning {APP}",
    "hypercorn": f"hypercorn --bind 127.0.0.1:PORT {APP}",
}


@pytest.fixture(scope="module", params=COMMANDS)
def server(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quart")
    store = f"sqlite:///{folder}/sessions.db"
    with serving(*COMMANDS[request.param].split(), folder=folder, environ={"STORE": store}) as url:
        sessions = sojourn.Sessions(store=store, secret=SECRET)
        yield url, sessions
        sessions.close()


class Visitor:
    """A browser: pages over http, sockets with the same cookie."""

    def __init__(self, url):
        self.url = url
        self.http = httpx.AsyncClient(base_url=url)

    async def __aenter__(self):
        await self.get("/write")
        return self

    async def __aexit__(self, *_):
        await self.http.aclose()

    async def get(self, path):
        return (await self.http.get(path)).text

    def socket(self, path="/echo", **options):
        cookie = "; ".join(f"{c.name}={c.value}" for c in self.http.cookies.jar)
        options.setdefault("additional_headers", {"cookie": cookie} if cookie else {})
        return connect(self.url.replace("http", "ws") + path, **options)


async def exchange(socket, word):
    await socket.send(word)
    return await socket.recv()


async def close_of(socket):
    """Wait for the close; return its code, its reason and the elapsed seconds."""
    started = time.monotonic()
    async with asyncio.timeout(10):
        await socket.wait_closed()
    return socket.close_code, socket.close_reason, time.monotonic() - started


async def test_a_socket_has_the_session_of_its_page(server):
    """W1."""
    async with Visitor(server[0]) as ada:
        await ada.get("/login")
        async with ada.socket() as socket:
            assert await exchange(socket, "look") == "1 ada"


async def test_a_foreign_origin_is_refused(server):
    """W1."""
    async with Visitor(server[0]) as ada:
        with pytest.raises(InvalidStatus):
            await ada.socket(origin="https://evil.example")


async def test_page_sees_the_change_of_a_message(server):
    """W2."""
    async with Visitor(server[0]) as ada, ada.socket() as socket:
        assert await exchange(socket, "add") == "2 None"
        assert await ada.get("/read") == "2"


async def test_change_is_stored_at_the_next_receive(server):
    """W2: without a reply."""
    async with Visitor(server[0]) as ada, ada.socket() as socket:
        await socket.send("silent")
        for _ in range(100):
            if await ada.get("/read") == "101":
                return
        pytest.fail("the change was not stored")


async def test_handler_sees_the_changes_of_pages(server):
    """W3."""
    async with Visitor(server[0]) as ada, ada.socket() as socket:
        assert await exchange(socket, "look") == "1 None"
        for n in range(2, 6):
            assert await ada.get("/write") == str(n)
            assert await exchange(socket, "look") == f"{n} None"


async def test_messages_in_a_burst_are_all_delivered(server):
    """W3: in order, each with its change."""
    async with Visitor(server[0]) as ada, ada.socket() as socket:
        for _ in range(20):
            await socket.send("add")
        assert [await socket.recv() for _ in range(20)] == [f"{n} None" for n in range(2, 22)]
        assert await ada.get("/read") == "21"


async def test_receive_that_times_out_loses_no_message(server):
    """A21."""
    async with Visitor(server[0]) as ada, ada.socket() as socket:
        assert await exchange(socket, "timeout") == "1 None"
        assert await exchange(socket, "add") == "2 None"


async def test_a_logout_on_a_page_closes_the_socket_within_a_second(server):
    """W4."""
    async with Visitor(server[0]) as ada:
        await ada.get("/login")
        async with ada.socket() as socket:
            await exchange(socket, "look")
            await ada.get("/logout")
            code, reason, seconds = await close_of(socket)
            assert (code, reason) == (4401, "destroyed")
            assert seconds < 1


async def test_another_process_closes_the_sockets_of_a_user(server):
    """W4: within a second."""
    url, sessions = server
    async with Visitor(url) as ada:
        await ada.get("/login")
        async with ada.socket() as socket:
            await exchange(socket, "look")
            assert await sessions.arevoke_user("ada") >= 1
            code, reason, seconds = await close_of(socket)
            assert (code, reason) == (4401, "revoked")
            assert seconds < 1


async def test_socket_stays_open_after_a_rotation(server):
    """W5."""
    async with Visitor(server[0]) as ada, ada.socket() as socket:
        await exchange(socket, "look")
        await ada.get("/rotate")
        assert await exchange(socket, "add") == "2 None"


async def test_a_session_is_created_in_the_handshake_only(server):
    """W8."""
    visitor = Visitor(server[0])
    async with visitor.socket("/create") as socket:
        assert await socket.recv() == "ok"
        assert socket.response.headers["set-cookie"].startswith("sid=")
    async with visitor.socket("/late") as socket:
        assert await socket.recv() == "refused"


async def test_a_socket_that_requires_a_user_is_closed_with_the_reason(server):
    """A23: Quart's own error handlers do not handle it first."""
    async with Visitor(server[0]) as ada:
        async with ada.socket("/members") as socket:
            code, reason, _ = await close_of(socket)
            assert code == 4401
            assert "login required" in reason
        await ada.get("/login")
        async with ada.socket("/members") as socket:
            assert await socket.recv() == "welcome"


async def test_failing_handler_drops_its_uncommitted_changes(server):
    """A10."""
    async with Visitor(server[0]) as ada:
        async with ada.socket("/fail") as socket:
            await socket.send("go")
            await close_of(socket)
        assert await ada.get("/read") == "1"
