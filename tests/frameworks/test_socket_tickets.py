"""WebSockets of ASGI frameworks: tickets in headers or subprotocols, cookies of other libraries."""

import contextlib

import falcon.asgi
import falcon.testing
import pytest
import quart
from blacksheep import Application
from blacksheep import WebSocket as BlackSheepSocket
from fastapi import FastAPI
from fastapi import WebSocket as FastAPISocket
from litestar import Litestar, websocket
from litestar import WebSocket as LitestarSocket
from starlette.testclient import TestClient

import sojourn
from sojourn.legacy import StarletteCookie
from tests.support.legacy_cookies import LEGACY_SECRET, starlette_cookie

SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"
URL = "wss://testserver/ws"


def text_of(session):
    """Return the text of a message."""
    return f"{session.user} {session.get('n')}"


def fastapi_app():
    app = FastAPI()

    @app.websocket("/ws")
    async def serve(socket: FastAPISocket):
        await socket.accept()
        await socket.send_text(text_of(socket.session))
        await socket.close()

    return app


def litestar_app():
    @websocket("/ws")
    async def serve(socket: LitestarSocket) -> None:
        await socket.accept()
        await socket.send_text(text_of(socket.session))
        await socket.close()

    return Litestar([serve], openapi_config=None)


def quart_app():
    app = quart.Quart(__name__)

    @app.websocket("/ws")
    async def serve():
        await quart.websocket.accept()
        await quart.websocket.send(text_of(quart.session))

    return app


def falcon_app():
    class Socket:
        async def on_websocket(self, req, ws):
            await ws.accept()
            await ws.send_text(text_of(req.context.session))
            with contextlib.suppress(falcon.WebSocketDisconnected):
                await ws.receive_text()  # test clients do not support the close message of Falcon

    app = falcon.asgi.App()
    app.add_route("/ws", Socket())
    return app


def blacksheep_app():
    app = Application()

    @app.router.ws("/ws")
    async def serve(websocket: BlackSheepSocket) -> None:
        await websocket.accept()
        await websocket.send_text(text_of(websocket.session))
        await websocket.close()

    return app


@pytest.fixture(params=[blacksheep_app, fastapi_app, litestar_app, quart_app])
def app(request):
    return request.param()


@contextlib.contextmanager
def client_of(app, **options):
    """Yield a client, and an installation with a session of ada whose counter is 7."""
    sessions = sojourn.install(app, store="memory://", secret=SECRET, **options)
    with TestClient(app, base_url="https://testserver") as client:
        yield client, sessions


def open_session(sessions):
    """Return the ticket of a session of ada."""
    with sessions.open(headers={"Authorization": "Session"}) as visit:
        visit.session.login("ada")
        visit.session["n"] = 7
    return dict(visit.response_headers())["session-ticket"]


class TestTicket:
    @pytest.mark.parametrize("transport", ["header", ["cookie", "header"]])
    def test_ticket_in_a_subprotocol_is_valid_and_never_selected(self, app, transport):
        """W1, B-43: also from a page of another origin."""
        with client_of(app, transport=transport) as (client, sessions):
            ticket = f"sojourn-ticket.{open_session(sessions)}"
            for offered, accepted in ((["sojourn", ticket], "sojourn"), ([ticket], None)):
                with client.websocket_connect(
                    URL, subprotocols=offered, headers={"Origin": "https://app.example"}
                ) as socket:
                    assert socket.receive_text() == "ada 7"
                    assert socket.accepted_subprotocol == accepted

    def test_ticket_in_a_header_is_valid(self, app):
        """W1."""
        with client_of(app, transport="header") as (client, sessions):
            header = {"Authorization": f"Session {open_session(sessions)}"}
            with client.websocket_connect(URL, headers=header) as socket:
                assert socket.receive_text() == "ada 7"


def test_handshake_converts_the_session_of_another_library(app):
    """W8: the response sets the cookie and deletes the old one."""
    reader = StarletteCookie(LEGACY_SECRET, user="user")
    options = {"read_legacy": [reader], "read_legacy_until": "2099-12-31"}
    with client_of(app, **options) as (client, _):
        cookie = {"Cookie": f"session={starlette_cookie({'user': 'ada', 'n': 7})}"}
        headers = {"Origin": "https://testserver", **cookie}
        with client.websocket_connect(URL, headers=headers) as socket:
            assert socket.receive_text() == "ada 7"
            cookies = [v.decode() for n, v in socket.extra_headers if n.lower() == b"set-cookie"]
            assert [each.partition("=")[0] for each in cookies] == ["__Host-sid", "session"]
            assert "Max-Age=0" in cookies[1]


@pytest.mark.anyio
async def test_falcon_accepts_a_ticket_and_converts_a_session():
    """W1, W8: through Falcon's own client."""
    app = falcon_app()
    reader = StarletteCookie(LEGACY_SECRET, user="user")
    sessions = sojourn.install(
        app,
        store="memory://",
        secret=SECRET,
        transport=["cookie", "header"],
        read_legacy=[reader],
        read_legacy_until="2099-12-31",
    )
    async with sessions.open(headers={"Authorization": "Session"}) as visit:
        visit.session.login("ada")
        visit.session["n"] = 7
    ticket = dict(visit.response_headers())["session-ticket"]
    cookie = starlette_cookie({"user": "eve", "n": 8})
    origin = {"Origin": "https://falconframework.org"}
    async with falcon.testing.ASGIConductor(app) as client:
        offered = ["sojourn", f"sojourn-ticket.{ticket}"]
        socket = client.simulate_ws("/ws", scheme="wss", subprotocols=offered, headers=origin)
        async with socket as ws:
            assert await ws.receive_text() == "ada 7"
            assert ws.subprotocol == "sojourn"
        headers = {**origin, "Cookie": f"session={cookie}"}
        async with client.simulate_ws("/ws", scheme="wss", headers=headers) as ws:
            assert await ws.receive_text() == "eve 8"
            names = [v.partition(b"=")[0] for n, v in ws.headers if n.lower() == b"set-cookie"]
            assert names == [b"__Host-sid", b"session"]
