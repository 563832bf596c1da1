"""Sanic: the laws of requests through its own server, and features of Sanic."""

import asyncio
import functools
import itertools
from dataclasses import dataclass

import pytest
import websockets
from sanic import Request, Sanic
from sanic.exceptions import NotFound, ServerError
from sanic.response import text

import sojourn
from sojourn.errors import ConfigurationError, LoginRequired, StoreError
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore, SocketDriver, open_session
from sojourn.testing.app_suite.drivers import ASGIDriver
from sojourn.testing.app_suite.served_app import SECRET
from tests.contract.request_suite import RequestSuite
from tests.frameworks import http_client
from tests.frameworks.apps import sanic_app
from tests.frameworks.http_client import text_of
from tests.frameworks.socket_suite import SocketSuite
from tests.support.processes import serving

_numbers = itertools.count()


@dataclass
class Shop:
    items: int = 0


class TestSanic(RequestSuite):
    """A1 to A24 through Sanic's own server."""

    protocol = "own"
    build = staticmethod(sanic_app.build)
    uninstall = staticmethod(sanic_app.uninstall)

    def make_driver(self, app, trace):
        return SocketDriver(app, trace, sanic_app.running)

    def closed_response(self):
        return text("closed", status=418)


class TestSanicSockets(SocketSuite):
    """W1 to W8 through the own server."""

    handshake_has_headers = False
    build_sockets = staticmethod(sanic_app.build_sockets)
    running = staticmethod(sanic_app.running)


def make_app(**options):
    """Return an application of Sanic and its installation."""
    app = Sanic(f"requests{next(_numbers)}", configure_logging=False)
    app.config.AUTO_EXTEND = False
    sessions = sojourn.install(app, **{"store": "memory://", "secret": SECRET, **options})

    @app.get("/")
    async def count(request):
        return text(str(request.ctx.session.increment("n")))

    return app, sessions


client_of = functools.partial(http_client.client_of, running=sanic_app.running)


@pytest.mark.anyio
class TestRequests:
    """Features of Sanic that requests use."""

    @pytest.mark.parametrize("origin", ["http://evil.example", None])
    async def test_the_route_decides_whether_a_request_is_a_socket(self, origin):
        """A13, ASVS 3.5.1: any client may send the header Upgrade, and requests without it."""
        app, _ = make_app(protect=True)

        @app.post("/")
        async def change(request):
            return text("changed")

        @app.websocket("/socket")
        async def socket(request, ws):
            await ws.send("open")

        async with client_of(app) as client:
            upgrade = {"upgrade": "websocket"} | ({} if origin is None else {"origin": origin})
            reply = await client.get("/", headers=upgrade)
            assert (reply.status_code, reply.text) == (200, "1")
            assert reply.headers["cache-control"] == "private, no-store"
            assert (await client.get("/")).text == "2"
            changed = await client.post("/", headers=upgrade)
            assert changed.status_code == (200 if origin is None else 403)
            plain = await client.get("/socket", headers={} if origin is None else upgrade)
            assert plain.status_code == (426 if origin is None else 403)

    async def test_middleware_uses_the_session(self):
        """A2, A4: before and after the handler; it may change the response."""
        app, _ = make_app()

        @app.on_request
        async def before(request):
            request.ctx.session.append("log", "before")

        @app.on_response
        async def after(request, response):
            request.ctx.session.append("log", "after")
            response.headers["X-Log"] = str(len(request.ctx.session["log"]))

        async with client_of(app) as client:
            assert (await client.get("/")).headers["x-log"] == "2"
            assert (await client.get("/")).headers["x-log"] == "4"

    @pytest.mark.parametrize("verb", ["load", "save"])
    async def test_exception_handlers_respond_to_session_errors(self, verb):
        """A23: a handler registered for a base class."""
        store = FaultyStore(MemoryStore())
        app, _ = make_app(store=store)

        @app.exception(StoreError)
        async def answer(request, error):
            return text(type(error).__name__, status=418)

        async with client_of(app) as client:
            await client.get("/")
            store.fail(verb, times=1)
            response = await client.get("/")
            assert (response.status_code, response.text) == (418, "StoreUnavailable")
            assert await text_of(client, "/") == "2"

    @pytest.mark.parametrize("own", [None, "60"])
    async def test_a_503_of_exception_handlers_has_retry_after(self, own):
        """A23: an existing Retry-After is kept and sent once."""
        store = FaultyStore(MemoryStore())
        app, _ = make_app(store=store)

        @app.exception(StoreError)
        async def answer(request, error):
            return text("later", status=503, headers={} if own is None else {"Retry-After": own})

        async with client_of(app) as client:
            await client.get("/")
            store.fail("load", times=1)
            response = await client.get("/")
            assert (response.status_code, response.text) == (503, "later")
            assert response.headers.get_list("retry-after") == [own or "2"]

    async def test_500_of_an_exception_handler_becomes_503_for_a_failing_store(self):
        """A23."""
        store = FaultyStore(MemoryStore())
        app, _ = make_app(store=store)

        @app.exception(Exception)
        async def answer(request, error):
            return text("sorry", status=500)

        async with client_of(app) as client:
            await client.get("/")
            store.fail("save", times=1)
            response = await client.get("/")
            assert (response.status_code, response.text) == (503, "sorry")
            assert response.headers["retry-after"]

    async def test_raised_responses_keep_the_changes(self):
        """A10: below 500."""
        app, _ = make_app()

        @app.get("/missing")
        async def missing(request):
            request.ctx.session["n"] = 10
            raise NotFound("nothing here")

        @app.get("/broken")
        async def broken(request):
            request.ctx.session["n"] = 20
            raise ServerError("broken")

        async with client_of(app) as client:
            assert (await client.get("/missing")).status_code == 404
            assert (await client.get("/broken")).status_code == 500
            assert await text_of(client, "/") == "11"
            assert (await client.get("/unknown")).status_code == 404

    async def test_exception_handler_for_a_missing_login_may_write(self):
        """A10: the status of its response decides; A23: the changes cannot be saved."""
        store = FaultyStore(MemoryStore())
        app, _ = make_app(store=store)
        status = 303

        @app.get("/account")
        async def account(request):
            return text(request.ctx.session.require_user())

        @app.exception(LoginRequired)
        async def to_login(request, error):
            request.ctx.session["n"] = 10
            return text("log in", status=status)

        async with client_of(app) as client:
            assert (await client.get("/account")).status_code == 303
            assert await text_of(client, "/") == "11"
            store.fail("save", times=1)
            assert (await client.get("/account")).status_code == 503
            status = 500
            assert (await client.get("/account")).status_code == 500
            assert await text_of(client, "/") == "12"

    async def test_a_stream_commits_before_its_end(self):
        """A11: also if the handler ends the response itself."""
        app, _ = make_app()

        @app.get("/stream")
        async def stream(request):
            response = await request.respond(content_type="text/plain")
            await response.send("first ")
            request.ctx.session.increment("n")
            await response.send("last")
            await response.eof()

        async with client_of(app) as client:
            await client.get("/")
            assert await text_of(client, "/stream") == "first last"
            assert await text_of(client, "/") == "3"

    async def test_only_routes_that_load_one_have_a_session(self):
        """A1: autoload=False."""
        app = Sanic(f"requests{next(_numbers)}", configure_logging=False)
        app.config.AUTO_EXTEND = False
        sessions = sojourn.install(app, store="memory://", autoload=False)

        @app.get("/loading")
        @sessions.route
        async def loading(request):
            return text(str(request.ctx.session.increment("n")))

        @app.get("/plain")
        async def plain(request):
            return text(str(hasattr(request.ctx, "session")))

        async with client_of(app) as client:
            assert [await text_of(client, "/loading") for _ in range(2)] == ["1", "2"]
            assert await text_of(client, "/plain") == "False"

    async def test_the_session_is_injected(self):
        """A4: Sanic Extensions injects it into a parameter of type Session."""
        app = Sanic(f"requests{next(_numbers)}", configure_logging=False)
        app.config.OAS = False
        sojourn.install(app, store="memory://", state=Shop)

        @app.get("/")
        async def count(request, session: sojourn.Session):
            return text(str(session.increment("items")))

        @app.get("/typed")
        async def count_typed(request, session: sojourn.Session[Shop]):
            session.state.items += 1
            return text(str(session.state.items))

        async with client_of(app) as client:
            assert [await text_of(client, "/") for _ in range(2)] == ["1", "2"]
            assert await text_of(client, "/typed") == "3"

    async def test_the_extensions_accept_sockets_and_partial_functions(self):
        """A4: the extensions inspect their type hints at startup."""
        app = Sanic(f"requests{next(_numbers)}", configure_logging=False)
        app.config.OAS = False
        sojourn.install(app, store="memory://")

        @app.websocket("/socket")
        async def echo(request, ws, session: sojourn.Session):
            await ws.send(str(session.get("n")))

        async def count(by, request, session: sojourn.Session):
            return text(str(session.increment("n", by)))

        handler = functools.partial(count, 2)
        app.add_route(handler, "/", name="count")

        async with client_of(app) as client:
            assert [await text_of(client, "/") for _ in range(2)] == ["2", "4"]
            url = f"ws://localhost:{client.base_url.port}/socket"
            cookie = f"sid={client.cookies['sid']}"
            async with websockets.connect(url, additional_headers={"Cookie": cookie}) as socket:
                assert await socket.recv() == "4"

    async def test_the_session_may_be_replaced(self):
        """A24."""
        app, _ = make_app()

        @app.get("/replace")
        async def replace(request):
            request.ctx.session = {"n": 7}
            return text("")

        async with client_of(app) as client:
            await client.get("/replace")
            assert await text_of(client, "/") == "8"

    async def test_cross_origin_requests_are_refused(self):
        """ASVS 3.5.1: protect=True."""
        app, _ = make_app(protect=True)

        @app.post("/post")
        async def post(request):
            return text("posted")

        async with client_of(app) as client:
            headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
            assert (await client.post("/post", headers=headers)).status_code == 403
            assert (await client.post("/post")).text == "posted"

    async def test_a_request_class_of_the_application_is_kept(self):
        """A4."""

        class OwnRequest(Request):
            def hello(self):
                return "hello"

        app = Sanic(f"requests{next(_numbers)}", configure_logging=False, request_class=OwnRequest)
        app.config.AUTO_EXTEND = False
        sojourn.install(app, store="memory://")

        @app.get("/")
        async def count(request):
            return text(f"{request.hello()} {request.ctx.session.increment('n')}")

        async with client_of(app) as client:
            assert await text_of(client, "/") == "hello 1"


@pytest.mark.filterwarnings("ignore:.*Passing the loop argument")
def test_client_with_a_prepared_session():
    """A3: with the client of sanic-testing, which runs the server."""
    app, _ = make_app()
    app.config.TOUCHUP = False
    visitor = open_session(app, n=41)
    [(name, value)] = visitor.cookies.items()
    _, response = app.test_client.get("/", headers={"cookie": f"{name}={value}"})
    assert response.text == "42"
    assert visitor.data() == {"n": 42}


class TestSanicUnderASGI(RequestSuite):
    """A1 to A24 through Sanic as an ASGI application."""

    build = staticmethod(sanic_app.build)
    uninstall = staticmethod(sanic_app.uninstall)

    def make_driver(self, app, trace):
        app.config.TOUCHUP = False
        return StartedASGIDriver(app, trace)

    def closed_response(self):
        return text("closed", status=418)


@pytest.mark.anyio
async def test_asgi_server_refuses_a_foreign_origin(tmp_path):
    """ASVS 4.4.2, B-43: with 403 before the accept, and without an error in the log."""
    command = "uvicorn --port PORT --log-level warning tests.frameworks.apps.sanic_sockets:app"
    with serving(*command.split(), folder=tmp_path) as url:
        socket = f"{url.replace('http', 'ws')}/socket"
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(socket, origin="http://evil.example")
        assert refused.value.response.status_code == 403
        async with websockets.connect(socket, origin=url) as connection:
            assert await connection.recv() == "open"
    assert "Traceback" not in (tmp_path / "server.log").read_text()


class StartedASGIDriver(ASGIDriver):
    """Starts the application before the first request, like an ASGI server."""

    started = False

    async def _serve(self, request, running):
        if not self.started:
            self.started = True
            sent = []
            messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

            async def receive():
                if sent:  # Sanic runs until the shutdown
                    await asyncio.Event().wait()
                return next(messages)

            async def send(message):
                sent.append(message)
                ready.set()

            ready = asyncio.Event()
            self.lifespan = asyncio.create_task(self._app({"type": "lifespan"}, receive, send))
            await ready.wait()
        while not self._app.state.is_started:  # noqa: ASYNC110 - Sanic has no event for it
            await asyncio.sleep(0)
        await super()._serve(request, running)


class TestSettings:
    """Options in ``app.config``."""

    def make(self, **config):
        app = Sanic(f"settings{next(_numbers)}", configure_logging=False)
        app.update_config(config)
        return app

    def test_options_are_read_from_the_configuration(self):
        """A14: among them the attributes of the cookie."""
        app = self.make(SOJOURN_COOKIE="own", SOJOURN_PROTECT="yes")
        config = sojourn.install(app, store="memory://", secret=SECRET).web.config
        assert (config.cookie.over_http().name, config.protect) == ("own", True)

    def test_keywords_take_precedence(self):
        app = self.make(SOJOURN_STORE="redis://nowhere:1", SOJOURN_COOKIE="own")
        sessions = sojourn.install(app, store="memory://", cookie="other")
        assert sessions.web.config.cookie.over_http().name == "other"

    def test_options_are_read_from_the_environment(self, monkeypatch):
        """A14: among them the attributes of the cookie."""
        monkeypatch.setenv("SANIC_SOJOURN_COOKIE", "own")
        app = self.make()
        assert sojourn.install(app, store="memory://").web.config.cookie.over_http().name == "own"

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ({"SOJOURN_TIMOUT": "1 hour"}, "SOJOURN_TIMOUT"),
            ({"SOJOURN_PROTECT": "perhaps"}, "SOJOURN_PROTECT expects true or false"),
            ({"SOJOURN_TIMEOUT": "soon"}, "timeout"),
        ],
    )
    def test_invalid_options_are_refused(self, config, message):
        with pytest.raises(ConfigurationError, match=message):
            sojourn.install(self.make(**config), store="memory://")
