"""Visitors with a session of another library stay logged in after the switch, in each adapter."""

import flask
import flask.testing
import pytest
import redis
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from werkzeug.test import Client

import sojourn
from sojourn.legacy import FlaskCookie, FlaskSessionRedis, StarletteCookie
from tests.integration.valkey import Valkey

OLD_SECRET = "the secret of the former library: 71f0c2"
SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"
UNTIL = "2099-12-31"


def login(request):
    request.session.update(user="ada", cart=["apple"])
    return PlainTextResponse("in")


def show(request):
    cart = request.session.get("cart", [])
    return PlainTextResponse(f"{request.session.get('user')} {len(cart)}")


def logout(request):
    request.session.clear()
    return PlainTextResponse("out")


async def talk(socket):
    await socket.accept()
    await socket.send_text(str(socket.session.get("user")))
    await socket.close()


def starlette_app(**options):
    routes = [Route(f"/{f.__name__}", f) for f in (login, show, logout)]
    return Starlette(routes=[*routes, WebSocketRoute("/talk", talk)], **options)


@pytest.fixture
def former():
    """The cookie of a visitor with a session of Starlette."""
    app = starlette_app(middleware=[Middleware(SessionMiddleware, secret_key=OLD_SECRET)])
    with TestClient(app) as client:
        client.get("/login")
        return client.cookies["session"]


@pytest.fixture
def client(former):
    """A client with that cookie, after the switch."""
    app = starlette_app()
    reader = StarletteCookie(OLD_SECRET, user="user")
    sojourn.install(app, store="memory://", read_legacy=[reader], read_legacy_until=UNTIL)
    with TestClient(app) as client:
        client.cookies.set("session", former, domain="testserver.local", path="/")
        yield client


class TestASGI:
    def test_data_of_the_old_session_is_kept(self, client):
        assert client.get("/show").text == "ada 1"
        assert set(client.cookies) == {"sid"}
        assert client.get("/show").text == "ada 1"

    def test_old_cookie_is_invalid_after_a_logout(self, client, former):
        """A7: also a copy of it."""
        client.get("/show")
        client.get("/logout")
        assert set(client.cookies) == set()
        client.cookies.set("session", former, domain="testserver.local", path="/")
        assert client.get("/show").text == "None 0"
        assert set(client.cookies) == set()

    def test_old_cookie_is_invalid_after_a_logout_as_the_first_request(self, client, former):
        """A7."""
        client.get("/logout")
        assert set(client.cookies) == set()
        client.cookies.set("session", former, domain="testserver.local", path="/")
        assert client.get("/show").text == "None 0"

    def test_handshake_converts_the_session(self, client):
        """W1: the handshake response has both Set-Cookie headers."""
        with client.websocket_connect("/talk") as socket:
            headers = [value for name, value in socket.extra_headers if name == b"set-cookie"]
            assert socket.receive_text() == "ada"
        assert [header.partition(b"=")[0] for header in headers] == [b"sid", b"session"]


def flask_app(**config):
    app = flask.Flask("legacy")
    app.config.update(config)
    return app


@pytest.fixture
def flask_former():
    """The cookie of a visitor with a session of Flask."""
    app = flask_app(SECRET_KEY=OLD_SECRET)

    @app.get("/")
    def login():
        flask.session.update(_user_id="17", cart=["apple"])
        return ""

    client = app.test_client()
    client.get("/")
    return client.get_cookie("session").value


class TestWSGI:
    def test_data_of_the_old_session_is_kept(self, flask_former):
        def app(environ, start_response):
            session = environ["sojourn.session"]
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [f"{session.user} {session.get('cart')}".encode()]

        sessions = sojourn.Sessions(
            store="sqlite:///sessions.db",
            read_legacy=[FlaskCookie(OLD_SECRET)],
            read_legacy_until=UNTIL,
        )
        client = Client(sojourn.wsgi.SessionMiddleware(app, sessions))
        client.set_cookie("session", flask_former, domain="localhost")
        assert client.get("/").text == "17 ['apple']"
        assert client.get_cookie("session") is None
        assert client.get("/").text == "17 ['apple']"
        sessions.close()


class TestValkey:
    @pytest.mark.anyio
    async def test_records_of_the_other_library_are_converted(self, tmp_path):
        """Both libraries store their records in one server, given by URL."""
        server = Valkey(tmp_path)
        server.start()
        try:
            with redis.Redis(port=server.port) as client:
                client.set("session:" + "a" * 43, b"\x82\xa8_user_id\xa217\xa1n\x01")
                sessions = sojourn.Sessions(
                    store=server.url,
                    secret=SECRET,
                    read_legacy=[FlaskSessionRedis(server.url)],
                    read_legacy_until=UNTIL,
                )
                async with sessions.open(cookies={"session": "a" * 43}) as visit:
                    visit.session.increment("n")
                assert visit.session.user == "17"
                assert visit.session["n"] == 2
                assert not client.exists("session:" + "a" * 43)
                async with sessions.open(cookies={"session": "a" * 43}) as visit:
                    assert visit.session["n"] == 2
                    visit.session.logout()
                async with sessions.open(cookies={"session": "a" * 43}) as visit:
                    assert visit.session.user is None
                client.set("session:" + "b" * 43, b"\x81\xa8_user_id\xa217")
                await sessions.arevoke_user(17)
                await sessions.arevoke_all()
                async with sessions.open(cookies={"session": "b" * 43}) as visit:
                    assert visit.session.new
                client.set("session:" + "a" * 43, b"\x81\xa8_user_id\xa217")
                async with sessions.open(cookies={"session": "a" * 43}) as visit:
                    assert visit.session.new
                sessions.close()
        finally:
            server.stop()
