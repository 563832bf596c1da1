"""BlackSheep: mounted applications have the session of the application they are mounted in."""

import asyncio

import pytest
from blacksheep import Application, Request, WebSocket
from blacksheep.server.responses import text
from blacksheep.server.routing import Router
from starlette.testclient import TestClient

import sojourn
from sojourn.errors import ConfigurationError, StoreError
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore

SECRET = "a secret for tests: 5f8c1e90"


def make_app():
    """Return an application that counts at ``/n``, and at each message of a socket."""
    app = Application(router=Router())

    @app.router.get("/n")
    @app.router.get("/m")
    async def count(request: Request) -> str:
        return str(request.session.increment("n"))

    @app.router.ws("/socket")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()
        await websocket.send_text(str(websocket.session.increment("n")))

    return app


def make_tree(*, mounted_first, **options):
    """Return an application and one that is mounted in it."""
    app, child = make_app(), make_app()
    options = {"store": "memory://", "secret": SECRET, **options}
    if not mounted_first:
        sojourn.install(app, **options)
    app.mount("/child", child)
    if mounted_first:
        sojourn.install(app, **options)
    return app, child


def browser(app):
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False)


@pytest.mark.parametrize("mounted_first", [True, False])
class TestMountedApplications:
    def test_mounted_applications_share_the_session(self, mounted_first):
        """A5: in requests and sockets."""
        app, _ = make_tree(mounted_first=mounted_first)
        with browser(app) as client:
            paths = ["/n", "/child/n", "/n"]
            assert [client.get(path).text for path in paths] == ["1", "2", "3"]
            with client.websocket_connect("ws://localhost/child/socket") as socket:
                socket.send_text("count")
                assert socket.receive_text() == "4"
            assert client.get("/child/n").text == "5"

    def test_patterns_match_the_whole_path(self, mounted_first):
        """A1: for `exclude`."""
        app, _ = make_tree(mounted_first=mounted_first, exclude=["/child/n"])
        with browser(app) as client:
            statuses = [client.get(path).status_code for path in ("/n", "/child/n", "/child/m")]
            assert statuses == [200, 500, 200]

    def test_error_handler_of_the_mounted_application_responds(self, mounted_first):
        """A23: without a handler the response is 503 with Retry-After."""
        store = FaultyStore(MemoryStore())
        app, child = make_tree(mounted_first=mounted_first, store=store)
        with browser(app) as client:
            assert client.get("/child/n").text == "1"
            store.fail("save", times=1)
            response = client.get("/child/n")
            assert (response.status_code, "retry-after" in response.headers) == (503, True)

            async def answer(app, request, error):
                return text("later", status=429)

            child.exceptions_handlers[StoreError] = answer
            store.fail("save", times=1)
            assert client.get("/child/n").status_code == 429
            assert client.get("/child/n").text == "2"

    def test_mounted_application_may_have_its_own_installation(self, mounted_first):
        """A8: another realm has its own cookie and session."""
        app, child = make_tree(mounted_first=mounted_first)
        sojourn.install(child, store="memory://", secret=SECRET, realm="admin")
        with browser(app) as client:
            paths = ["/n", "/child/n", "/child/n", "/n"]
            assert [client.get(path).text for path in paths] == ["1", "1", "2", "2"]


def test_a_mounted_application_that_has_started_is_refused():
    """Its middleware can no longer be changed."""
    app, child = make_app(), make_app()
    sojourn.install(app, store="memory://")
    asyncio.run(child.start())
    with pytest.raises(ConfigurationError, match="Mount it before it starts"):
        app.mount("/child", child)
