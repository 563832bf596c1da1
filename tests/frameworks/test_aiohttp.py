"""aiohttp: the laws of requests through its own server, and features of aiohttp."""

import contextlib

import pytest
from aiohttp import WSServerHandshakeError, web
from aiohttp.test_utils import TestClient, TestServer

import sojourn
import sojourn.frameworks.aiohttp as aiohttp_sessions
from sojourn.errors import ConfigurationError, LoginRequired, StoreError
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore, SocketDriver, aopen_session
from sojourn.testing.app_suite.served_app import SECRET
from tests.contract.request_suite import RequestSuite
from tests.frameworks.apps import aiohttp_app
from tests.frameworks.socket_suite import SocketSuite

pytestmark = pytest.mark.filterwarnings("ignore:It is recommended to use web.RequestKey")


class TestAiohttp(RequestSuite):
    """A1 to A24 through aiohttp's own server."""

    protocol = "own"
    build = staticmethod(aiohttp_app.build)
    uninstall = staticmethod(aiohttp_app.uninstall)

    def make_driver(self, app, trace):
        return SocketDriver(app, trace, aiohttp_app.running)

    def closed_response(self):
        return web.Response(status=418, text="closed")


class TestAiohttpSockets(SocketSuite):
    """W1 to W8 through the own server."""

    build_sockets = staticmethod(aiohttp_app.build_sockets)
    running = staticmethod(aiohttp_app.running)

    async def test_a_socket_may_create_a_session_before_its_handshake(self):
        """W8: the handshake response sets the cookie."""

        async def greet(request):
            request["session"]["n"] = 1
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.send_str("hello")
            return socket

        async with client_of(web.get("/ws", greet), web.get("/", count)) as client:
            socket = await client.ws_connect("/ws")
            assert await socket.receive_str() == "hello"
            await socket.close()
            assert await text_of(client, "/") == "2"

    async def test_middleware_of_the_application_sees_sockets(self):
        """W1: both the middleware and the handler have the session."""
        seen = []

        @web.middleware
        async def note(request, handler):
            seen.append(request["session"].get("n"))
            return await handler(request)

        async def greet(request):
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.send_str(str(request["session"]["n"]))
            return socket

        app = web.Application(middlewares=[note])
        aiohttp_sessions.setup(app, store="memory://")
        app.add_routes([web.get("/", count), web.get("/ws", greet)])
        async with TestClient(TestServer(app)) as client:
            await client.get("/")
            socket = await client.ws_connect("/ws")
            assert await socket.receive_str() == "1"
        assert seen == [None, 1]

    async def test_a_session_that_is_revoked_before_the_handshake_closes_the_socket(self):
        """W7: between the load and the registration."""
        app = web.Application()
        sessions = aiohttp_sessions.setup(app, store="memory://")

        async def serve(request):
            await sessions.arevoke(request["session"].id, reason="stolen phone")
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                await socket.send_str(message.data)
            return socket

        app.add_routes([web.get("/", count), web.get("/ws", serve)])
        async with TestClient(TestServer(app)) as client:
            await client.get("/")
            socket = await client.ws_connect("/ws")
            await socket.receive()
            assert socket.close_code == 4401

    async def test_a_handler_may_refuse_the_handshake(self):
        """A2: the response of an HTTP exception sets the cookie."""

        async def refuse(request):
            request["session"]["n"] = 1
            raise web.HTTPForbidden(text="members only")

        async with client_of(web.get("/ws", refuse), web.get("/", count)) as client:
            with pytest.raises(WSServerHandshakeError) as refused:
                await client.ws_connect("/ws")
            assert refused.value.status == 403
            assert "Set-Cookie" in refused.value.headers

    async def test_a_socket_without_the_required_user_is_closed_with_the_reason(self):
        """W4, ASVS 7.4.1: accepted first; browsers hide the reason of a refused handshake."""

        async def serve(request):
            request["session"].require_user()

        async with client_of(web.get("/ws", serve)) as client:
            socket = await client.ws_connect("/ws")
            await socket.receive()
            assert socket.close_code == 4401


async def count(request):
    session = await aiohttp_sessions.get_session(request)
    return web.Response(text=str(session.increment("n")))


@contextlib.asynccontextmanager
async def client_of(*routes, middlewares=(), **options):
    """Return a test client of an application with these routes."""
    app = web.Application(middlewares=middlewares)
    app.add_routes(routes)
    sojourn.install(app, **{"store": "memory://", "secret": SECRET, **options})
    async with TestClient(TestServer(app)) as client:
        yield client


async def text_of(client, path):
    return await (await client.get(path)).text()


@pytest.mark.anyio
class TestRequests:
    """Features of aiohttp that requests use."""

    async def test_session_has_the_members_of_aiohttp_session(self):
        """Handlers written for aiohttp-session work unchanged."""

        async def write(request):
            session = await aiohttp_sessions.get_session(request)
            assert session.empty
            session["cart"] = ["pear"]
            session.changed()
            assert session.identity == session.id
            return web.json_response([session.new, session.empty, session.created > 0])

        async def show(request):
            session = await aiohttp_sessions.get_session(request)
            return web.json_response([dict(session), session.created])

        async def invalidate(request):
            session = await aiohttp_sessions.get_session(request)
            session.invalidate()
            return web.json_response(session.empty)

        routes = [web.get(f"/{each.__name__}", each) for each in (write, show, invalidate)]
        async with client_of(*routes) as client:
            assert await (await client.get("/write")).json() == [True, False, True]
            cart, created = await (await client.get("/show")).json()
            assert cart == {"cart": ["pear"]}
            assert created > 0
            reply = await client.get("/invalidate")
            assert await reply.json()
            assert "Max-Age=0" in reply.headers["Set-Cookie"]
            assert (await (await client.get("/show")).json())[0] == {}

    async def test_new_session_replaces_the_session(self):
        """A7, A9: the previous session is destroyed."""

        async def login(request):
            session = await aiohttp_sessions.new_session(request)
            session["user"] = "ada"
            return web.Response()

        async def show(request):
            return web.json_response(dict(request["session"]))

        routes = [web.get("/", count), web.get("/login", login), web.get("/show", show)]
        async with client_of(*routes) as client:
            before = (await client.get("/")).cookies["sid"].value
            after = (await client.get("/login")).cookies["sid"].value
            assert before != after
            assert await (await client.get("/show")).json() == {"user": "ada"}
            client.session.cookie_jar.clear()
            reply = await client.get("/show", cookies={"sid": before})
            assert await reply.json() == {}

    async def test_setup_and_get_session(self):
        """A4: the functions of aiohttp-session."""
        app = web.Application()
        sessions = aiohttp_sessions.setup(app, store="memory://")
        assert sojourn.get(app) is sessions
        app.add_routes([web.get("/", count)])
        async with TestClient(TestServer(app)) as client:
            assert [await text_of(client, "/") for _ in range(3)] == ["1", "2", "3"]

    async def test_http_exceptions_are_responses(self):
        """A10: a redirect saves, an exception of status 500 does not."""

        async def redirect(request):
            request["session"].login("ada")
            raise web.HTTPFound("/who")

        async def fail(request):
            request["session"]["n"] = 9
            raise web.HTTPServiceUnavailable

        async def who(request):
            return web.Response(text=f"{request['session'].user} {request['session'].get('n')}")

        routes = [web.get("/login", redirect), web.get("/fail", fail), web.get("/who", who)]
        async with client_of(*routes) as client:
            assert await text_of(client, "/login") == "ada None"
            assert (await client.get("/fail")).status == 503
            assert await text_of(client, "/who") == "ada None"

    @pytest.mark.parametrize("verb", ["load", "save"])
    async def test_middleware_answers_errors_of_the_session(self, verb):
        """A23: also a middleware added after the installation."""

        @web.middleware
        async def errors(request, handler):
            try:
                return await handler(request)
            except StoreError as error:
                return web.json_response({"error": type(error).__name__}, status=418)

        store = FaultyStore(MemoryStore())
        app = web.Application()
        app.add_routes([web.get("/", count)])
        sojourn.install(app, store=store, secret=SECRET)
        app.middlewares.append(errors)
        async with TestClient(TestServer(app)) as client:
            await client.get("/")
            store.fail(verb, times=1)
            response = await client.get("/")
            assert response.status == 418
            assert await response.json() == {"error": "StoreUnavailable"}
            assert await text_of(client, "/") == "2"

    async def test_middleware_for_a_missing_login_may_write(self):
        """A10: the status of its response decides; A23: the changes cannot be saved."""
        status = 303

        @web.middleware
        async def to_login(request, handler):
            try:
                return await handler(request)
            except LoginRequired:
                request["session"]["n"] = 10
                return web.Response(status=status)

        async def account(request):
            return web.Response(text=request["session"].require_user())

        store = FaultyStore(MemoryStore())
        app = web.Application(middlewares=[to_login])
        app.add_routes([web.get("/", count), web.get("/account", account)])
        sojourn.install(app, store=store, secret=SECRET)
        async with TestClient(TestServer(app)) as client:
            assert (await client.get("/account", allow_redirects=False)).status == 303
            assert await text_of(client, "/") == "11"
            store.fail("save", times=1)
            assert (await client.get("/account", allow_redirects=False)).status == 503
            status = 500
            assert (await client.get("/account")).status == 500
            assert await text_of(client, "/") == "12"

    async def test_on_error_for_a_missing_login_saves_no_data(self):
        """A10: its response is one to a failed request."""

        async def account(request):
            request["session"]["n"] = 10
            return web.Response(text=request["session"].require_user())

        async def on_error(request, error):
            return web.Response(status=418)

        app = web.Application()
        app.add_routes([web.get("/", count), web.get("/account", account)])
        sojourn.install(app, store="memory://", secret=SECRET, on_error=on_error)
        async with TestClient(TestServer(app)) as client:
            assert (await client.get("/account")).status == 418
            assert await text_of(client, "/") == "1"

    async def test_error_page_of_a_middleware_becomes_503_if_the_store_failed(self):
        """A23: of a middleware that turns every exception into a 500."""

        @web.middleware
        async def errors(request, handler):
            try:
                return await handler(request)
            except Exception:  # noqa: BLE001 - as applications do
                return web.Response(status=500, text="sorry")

        store = FaultyStore(MemoryStore())
        async with client_of(web.get("/", count), middlewares=[errors], store=store) as client:
            await client.get("/")
            store.fail("save", times=1)
            response = await client.get("/")
            assert response.status == 503
            assert response.headers["Retry-After"]
            assert await response.text() == "sorry"

    @pytest.mark.parametrize("verb", ["load", "save"])
    @pytest.mark.parametrize("own", [None, "60"])
    @pytest.mark.parametrize("raises", [True, False])
    async def test_a_503_of_middleware_has_retry_after(self, raises, own, verb):
        """A23: an existing Retry-After is kept and sent once."""
        headers = {} if own is None else {"Retry-After": own}

        @web.middleware
        async def errors(request, handler):
            try:
                return await handler(request)
            except StoreError:
                if raises:
                    raise web.HTTPServiceUnavailable(headers=headers) from None
                return web.Response(status=503, headers=headers)

        store = FaultyStore(MemoryStore())
        async with client_of(web.get("/", count), middlewares=[errors], store=store) as client:
            await client.get("/")
            store.fail(verb, times=1)
            response = await client.get("/")
            assert response.status == 503
            assert response.headers.getall("Retry-After") == [own or "2"]

    @pytest.mark.parametrize("raises", [True, False])
    async def test_failed_commit_of_changes_by_a_middleware_is_503(self, raises):
        """A23: at that point aiohttp would close the connection without a response."""

        @web.middleware
        async def note(request, handler):
            response = await handler(request)
            if "note" in request.query:
                request["session"].increment("noted")
            if raises:
                raise web.HTTPAccepted
            return response

        async def show(request):
            return web.Response(text=str(request["session"].get("noted")))

        store = FaultyStore(MemoryStore())
        async with client_of(web.get("/", show), middlewares=[note], store=store) as client:
            assert (await client.get("/?note=1")).status == (202 if raises else 200)
            store.fail("save", times=1)
            response = await client.get("/?note=1")
            assert response.status == 503
            assert response.headers["Retry-After"]
            assert (await client.get("/?note=1")).status == (202 if raises else 200)

    async def test_middleware_uses_the_session_before_and_after_the_handler(self):
        """A2, A4."""

        @web.middleware
        async def log(request, handler):
            request["session"].append("log", "before")
            response = await handler(request)
            request["session"].append("log", "after")
            return response

        async def show(request):
            return web.Response(text=" ".join(request["session"]["log"]))

        async with client_of(web.get("/", show), middlewares=[log]) as client:
            assert await text_of(client, "/") == "before"
            assert await text_of(client, "/") == "before after before"

    async def test_sub_applications_share_the_session(self):
        """A16: every part of the application has the visitor's session."""
        app, admin = web.Application(), web.Application()
        admin.add_routes([web.get("/", count)])
        app.add_routes([web.get("/", count)])
        app.add_subapp("/admin/", admin)
        sojourn.install(app, store="memory://")
        async with TestClient(TestServer(app)) as client:
            assert await text_of(client, "/") == "1"
            assert await text_of(client, "/admin/") == "2"

    @pytest.mark.parametrize("place", ["/", "/sub/"])
    async def test_no_signal_lets_a_cache_store_a_ticket(self, place):
        """A13: signals of sub applications are called after those of the application."""

        async def publish(request, response):
            response.headers["Cache-Control"] = "public, max-age=60"
            response.headers["Vary"] = "Accept-Language"

        app, sub = web.Application(), web.Application()
        for each in (app, sub):
            each.add_routes([web.get("/", count)])
            each.on_response_prepare.append(publish)
        app.add_subapp("/sub/", sub)
        sojourn.install(app, store="memory://")
        async with TestClient(TestServer(app)) as client:
            response = await client.get(place)
            assert response.headers.getall("Cache-Control") == ["private, no-store"]
            assert response.headers.getall("Vary") == ["Accept-Language, Cookie"]
            assert len(response.headers.getall("Set-Cookie")) == 1
            again = await client.get(place)  # without a ticket: the header of the application
            assert again.headers.getall("Cache-Control") == ["public, max-age=60"]

    async def test_sub_application_may_have_its_own_installation(self):
        """S14: with its own realm; the same cookie for both is refused."""
        for realm, status in (("admin", 200), ("default", 500)):
            app, admin = web.Application(), web.Application()
            admin.add_routes([web.get("/", count)])
            app.add_routes([web.get("/", count)])
            sojourn.install(app, store="memory://")
            sojourn.install(admin, store="memory://", realm=realm)
            app.add_subapp("/admin/", admin)
            async with TestClient(TestServer(app)) as client:
                assert await text_of(client, "/") == "1"
                response = await client.get("/admin/")
                assert response.status == status
                if status == 200:
                    assert await response.text() == "1"
                    assert await text_of(client, "/admin/") == "2"
                assert await text_of(client, "/") == "2"

    async def test_only_routes_that_load_one_have_a_session(self):
        """A1: autoload=False."""
        app = web.Application()
        store = FaultyStore(MemoryStore())
        sessions = sojourn.install(app, store=store, secret=SECRET, autoload=False)

        @sessions.route
        async def loading(request):
            return web.Response(text=str(request["session"].increment("n")))

        async def plain(request):
            return web.Response(text=str("session" in request))

        class View(web.View):
            @sessions.route
            async def get(self):
                return web.Response(text=str(self.request["session"].increment("n")))

        app.add_routes([web.get("/loading", loading), web.get("/", plain), web.view("/view", View)])
        async with TestClient(TestServer(app)) as client:
            assert await text_of(client, "/loading") == "1"
            assert await text_of(client, "/view") == "2"
            calls = len(store.calls)
            assert await text_of(client, "/") == "False"
            assert len(store.calls) == calls

    async def test_the_session_may_be_replaced(self):
        """A24: by a mapping; None destroys it."""

        async def replace(request):
            request["session"] = {"n": 7}
            return web.Response()

        async def end(request):
            request["session"] = None
            return web.Response()

        routes = [web.get("/", count), web.get("/replace", replace), web.get("/end", end)]
        async with client_of(*routes) as client:
            await client.get("/")
            await client.get("/replace")
            assert await text_of(client, "/") == "8"
            await client.get("/end")
            assert await text_of(client, "/") == "1"

    async def test_file_is_a_complete_body_and_generated_body_may_change_the_session(
        self, tmp_path
    ):
        """A11, A13."""
        path = tmp_path / "page.txt"
        path.write_text("page")

        async def file(request):
            request["session"].get("n")
            return web.FileResponse(path)

        async def generate(request):
            async def parts():
                yield b"first "
                request["session"].increment("n")
                yield b"last"

            return web.Response(body=parts())

        async def eof(request):
            stream = web.StreamResponse()
            await stream.prepare(request)
            request["session"].increment("n")
            await stream.write_eof(b"end")
            return stream

        routes = [web.get("/", count), web.get("/file", file), web.get("/generate", generate)]
        async with client_of(*routes, web.get("/eof", eof)) as client:
            await client.get("/")
            response = await client.get("/file")
            assert (await response.text(), response.headers["Vary"]) == ("page", "Cookie")
            assert await text_of(client, "/generate") == "first last"
            assert await text_of(client, "/eof") == "end"
            assert await text_of(client, "/") == "4"

    async def test_cross_origin_requests_are_refused(self):
        """ASVS 3.5.1: protect=True."""
        async with client_of(web.post("/", count), protect=True) as client:
            headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
            assert (await client.post("/", headers=headers)).status == 403
            assert (await client.post("/")).status == 200

    async def test_client_with_a_prepared_session(self):
        """A3: the test client sends the cookie of a session that holds the data."""
        app = web.Application()
        app.add_routes([web.get("/", count)])
        sojourn.install(app, store="memory://")
        visitor = await aopen_session(app, n=41)
        async with TestClient(TestServer(app), cookies=visitor.cookies) as client:
            assert await text_of(client, "/") == "42"
            assert await visitor.adata() == {"n": 42}

    async def test_started_application_is_refused(self):
        """A20: the error says where to install sessions."""
        app = web.Application()
        async with TestClient(TestServer(app)):
            with pytest.raises(ConfigurationError, match="before web"):
                sojourn.install(app, store="memory://")

    async def test_sessions_are_uninstalled_before_the_start(self):
        """A20."""
        app = web.Application()
        app.add_routes([web.get("/", count)])
        sojourn.install(app, store="memory://")
        sojourn.uninstall(app)
        sojourn.install(app, store="memory://")
        async with TestClient(TestServer(app)) as client:
            assert await text_of(client, "/") == "1"
