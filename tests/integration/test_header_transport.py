"""Native clients of real servers: the ticket in a header and in a WebSocket subprotocol."""

import importlib.util
import json

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.support.servers import Server, browser

pytestmark = pytest.mark.anyio

APP = "tests.integration.apps.native:app"
#: Seconds after which a hanging worker of granian is killed, before the timeout of the test.
GRANIAN = "granian --workers-kill-timeout 5"
UVICORN = f"uvicorn {APP} --port {{port}} --ws"
ASGI = {
    "uvicorn-websockets": f"{UVICORN} websockets",
    "uvicorn-websockets-sansio": f"{UVICORN} websockets-sansio",
    **({"uvicorn-wsproto": f"{UVICORN} wsproto"} if importlib.util.find_spec("wsproto") else {}),
    "hypercorn": f"hypercorn {APP} --bind 127.0.0.1:{{port}}",
    "granian": f"{GRANIAN} --interface asgi --port {{port}} {APP}",
}
WSGI = {
    "gunicorn": "gunicorn --bind 127.0.0.1:{port} tests.integration.apps.native:wsgi",
    "granian": f"{GRANIAN} --interface wsgi --port {{port}} tests.integration.apps.native:wsgi",
}


@pytest.fixture(scope="module", params=ASGI)
def server(request, tmp_path_factory):
    command = ASGI[request.param].split()
    with Server(command, tmp_path_factory.mktemp(request.param)) as running:
        yield running


class Native:
    """A client that stores the ticket of each response, and sends it with each request."""

    def __init__(self, server):
        self.url = server.url.replace("http", "ws")
        self.ticket = ""
        self._http = browser(server)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self._http.aclose()

    async def post(self, path):
        headers = {"Authorization": f"Session {self.ticket}".strip()}
        response = await self._http.post(path, headers=headers)
        assert "set-cookie" not in response.headers
        self.ticket = response.headers.get("session-ticket", self.ticket)
        return response.json()

    def connect(self, *protocols):
        offered = (f"sojourn-ticket.{self.ticket}", *protocols)
        return connect(f"{self.url}/ws", subprotocols=offered, proxy=None)


async def test_ticket_in_a_header_is_replaced_at_login_and_removed_at_logout(server):
    """A2, A4, A7, A9."""
    async with Native(server) as client:
        assert [await client.post("/count") for _ in range(2)] == [1, 2]
        before = client.ticket
        await client.post("/login")
        assert client.ticket not in ("", before)
        assert await client.post("/count") == 3
        await client.post("/leave")
        assert client.ticket == ""
        assert await client.post("/count") == 1


@pytest.mark.parametrize(
    ("protocols", "accepted"), [(("sojourn",), "sojourn"), (("chat", "sojourn"), "chat")]
)
async def test_ticket_in_a_subprotocol_has_the_session_of_the_pages(server, protocols, accepted):
    """W1, A18: the handshake response does not contain the ticket."""
    async with Native(server) as client:
        await client.post("/count")
        async with client.connect(*protocols) as socket:
            assert socket.subprotocol == accepted
            assert client.ticket not in str(socket.response.headers)
            await socket.send("count")
            others = [name for name in protocols if name != "sojourn"]
            assert json.loads(await socket.recv()) == [others, 2]
            assert await client.post("/count") == 3


async def test_a_revocation_closes_the_socket(server):
    """W4."""
    async with Native(server) as client:
        await client.post("/login")
        async with client.connect("sojourn") as socket:
            await socket.send("count")
            await socket.recv()
            assert await client.post("/revoke") == 1
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd.code == 4401


@pytest.mark.parametrize("name", WSGI)
async def test_ticket_in_a_custom_header_under_wsgi(name, tmp_path):
    """A2, A4."""
    with Server(WSGI[name].split(), tmp_path) as server:
        async with browser(server) as http:
            first = await http.get("/")
            ticket = first.headers["x-session"]
            second = await http.get("/", headers={"X-Session": ticket})
            assert (first.text, second.text, second.headers["vary"]) == ("1", "2", "X-Session")
