"""What a socket or a WSGI application puts into the place of its session (law A24)."""

from contextlib import suppress

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

import sojourn
from sojourn.errors import SessionError
from sojourn.wsgi import SessionMiddleware
from tests.unit.web.test_wsgi import PLAIN, Site, counting

SECRET = "replaced-7Jm2Qw9vXc4Rk1"
MISSING = object()


def put(container, key, value):
    if value is MISSING:
        del container[key]
    else:
        container[key] = value


@pytest.fixture
def replacement():
    """What the handler of the socket puts in place of its session; ``at`` says when."""
    return {"value": None, "at": "message"}


@pytest.fixture
def client(replacement):
    async def begin(request):
        request.session.update(a=1, b=2)
        return PlainTextResponse("begun")

    async def show(request):
        return PlainTextResponse(repr(dict(request.session)))

    async def socket(websocket):
        if replacement["at"] == "accept":
            put(websocket.scope, "session", replacement["value"])
        await websocket.accept()
        if replacement["at"] == "message":
            await websocket.receive_text()
            put(websocket.scope, "session", replacement["value"])
            await websocket.send_text("replaced")
            with suppress(WebSocketDisconnect):
                await websocket.receive_text()
        elif replacement["at"] == "end":
            put(websocket.scope, "session", replacement["value"])

    app = Starlette(
        routes=[Route("/begin", begin), Route("/show", show), WebSocketRoute("/socket", socket)]
    )
    sojourn.install(app, store="memory://", secret=SECRET)
    with TestClient(app) as client:
        client.get("/begin")
        yield client


@pytest.mark.parametrize("at", ["message", "end"])
def test_a_mapping_is_adopted(client, replacement, at):
    """A24: before the next message is sent, and at the end of the handler."""
    replacement.update(value={"c": 3}, at=at)
    with client.websocket_connect("/socket") as socket:
        if at == "message":
            socket.send_text("go")
            assert socket.receive_text() == "replaced"
            assert client.get("/show").text == "{'c': 3}"
    assert client.get("/show").text == "{'c': 3}"


@pytest.mark.parametrize("value", [None, MISSING], ids=["None", "del"])
@pytest.mark.parametrize("at", ["message", "end"])
def test_nothing_destroys_the_session(client, replacement, at, value):
    """A24: the socket is closed, as by ``session.destroy()``."""
    replacement.update(value=value, at=at)
    with client.websocket_connect("/socket") as socket:
        if at == "message":
            socket.send_text("go")
            assert socket.receive_text() == "replaced"
            with pytest.raises(WebSocketDisconnect) as closed:
                socket.receive_text()
            assert closed.value.code == 4401
    assert client.get("/show").text == "{}"


def test_a_mapping_begins_a_session_in_the_handshake(client, replacement):
    """A24, W8: the cookie travels in the answer to the handshake."""
    client.cookies.clear()
    replacement.update(value={"c": 3}, at="accept")
    with client.websocket_connect("/socket") as socket:
        [(_, cookie)] = [each for each in socket.extra_headers if each[0] == b"set-cookie"]
    cookie = cookie.decode().partition(";")[0]
    assert client.get("/show", headers={"cookie": cookie}).text == "{'c': 3}"


def test_anything_else_is_an_error_in_a_socket(client, replacement):
    """A24: and the session stays as it was."""
    replacement["value"] = [1]

    def use():
        with client.websocket_connect("/socket") as socket:
            socket.send_text("go")
            socket.receive_text()

    with pytest.raises(SessionError, match="type list"):
        use()
    assert client.get("/show").text == "{'a': 1, 'b': 2}"


def replacing(value, *, after_start, stream):
    """Return an application that replaces its session on ``/replace``."""

    def app(environ, start_response):
        if environ["PATH_INFO"] != "/replace":
            return counting(environ, start_response)
        body = parts(environ, start_response)
        return body if stream else list(body)

    def parts(environ, start_response):
        start_response("200 OK", [*PLAIN])
        if after_start:
            yield b"a"
        put(environ, "sojourn.session", value)
        yield b"b"

    return app


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("after_start", [False, True])
@pytest.mark.parametrize(
    ("value", "data"),
    [({"c": 3}, {"c": 3}), (None, {}), (MISSING, {})],
    ids=["dict", "None", "del"],
)
def test_a_replacement_in_the_environ_is_adopted(value, data, after_start, stream):
    """A24: WSGI; a stream that has started commits it at its end."""
    site = Site(replacing(value, after_start=after_start, stream=stream))
    site.ask()
    assert site.ask("/replace").status == "200 OK"
    assert site.data() == data


def test_anything_else_is_an_error_in_the_environ():
    """A24."""

    def app(environ, start_response):
        environ["sojourn.session"] = [1]
        start_response("200 OK", [*PLAIN])
        return [b"ok"]

    answer = Site(app).ask()
    assert answer.status == "500 Internal Server Error"
    assert isinstance(answer.error, SessionError)


def test_the_session_of_a_nested_installation_is_not_adopted():
    """A24: both put their session into the environ; each commits its own."""

    def app(environ, start_response):
        environ["sojourn.session"]["inner"] = True
        start_response("200 OK", [*PLAIN])
        return [b"ok"]

    inner = sojourn.Sessions(store="memory://", secret=SECRET, realm="inner")
    site = Site(SessionMiddleware(app, inner))
    assert site.ask().get("set-cookie").startswith("sid-inner=")
    assert "create" not in site.trace, "the outer session was not used"
