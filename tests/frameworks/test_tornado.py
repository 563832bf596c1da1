"""Tornado: the laws of requests through its own server, and features of Tornado."""

import asyncio
import functools

import httpx
import pytest
from tornado.testing import AsyncHTTPTestCase
from tornado.web import (
    Application,
    Finish,
    HTTPError,
    OutputTransform,
    RequestHandler,
    StaticFileHandler,
    authenticated,
)
from tornado.websocket import WebSocketHandler
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import sojourn
from sojourn.errors import ConfigurationError, LoginRequired
from sojourn.frameworks.tornado import SessionMixin
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore, SocketDriver, aopen_session
from sojourn.testing.app_suite.served_app import SECRET
from tests.contract.request_suite import RequestSuite
from tests.frameworks import http_client
from tests.frameworks.apps import tornado_app
from tests.frameworks.http_client import text_of
from tests.frameworks.socket_suite import SocketSuite
from tests.support.processes import REPOSITORY, serving


class TestTornado(RequestSuite):
    """A1 to A24 through Tornado's own server."""

    protocol = "own"
    build = staticmethod(tornado_app.build)
    uninstall = staticmethod(tornado_app.uninstall)

    def make_driver(self, app, trace):
        return SocketDriver(app, trace, tornado_app.running)

    def closed_response(self):
        return 418, {"Content-Type": "text/plain"}, b"closed"


class TestTornadoSockets(SocketSuite):
    """W1 to W8 through the own server."""

    build_sockets = staticmethod(tornado_app.build_sockets)
    running = staticmethod(tornado_app.running)


class Count(SessionMixin, RequestHandler):
    """Counts the visits."""

    def get(self):
        self.write(str(self.session.increment("n")))


def make_app(*rules, settings=None, **options):
    """Return an application of Tornado and its installation."""
    app = Application([("/", Count), *rules], **(settings or {}))
    sessions = sojourn.install(app, **{"store": "memory://", "secret": SECRET, **options})
    return app, sessions


client_of = functools.partial(http_client.client_of, running=tornado_app.running)


class Publish(OutputTransform):
    """Sets ``Cache-Control: public`` on every response."""

    def transform_first_chunk(self, status_code, headers, chunk, finishing):
        headers["Cache-Control"] = "public, max-age=60"
        headers["Vary"] = "Accept-Language"
        return status_code, headers, chunk


@pytest.mark.anyio
class TestRequests:
    """Features of Tornado that requests use."""

    async def test_no_output_transform_lets_a_cache_store_a_ticket(self):
        """A13: transforms change the headers after the handler sent them."""
        app, _ = make_app(settings={"compress_response": True})
        app.add_transform(Publish)
        async with client_of(app) as client:
            response = await client.get("/")
            assert response.headers.get_list("cache-control") == ["private, no-store"]
            assert response.headers.get_list("vary") == ["Accept-Language, Cookie"]
            assert len(response.headers.get_list("set-cookie")) == 1
            again = await client.get("/")  # without a ticket: the header of the application
            assert again.headers.get_list("cache-control") == ["public, max-age=60"]
            assert again.text == "2"

    @pytest.mark.parametrize("slow", [False, True], ids=["at once", "after a wait"])
    async def test_session_is_committed_for_each_way_to_respond(self, slow):
        """A2, A5: write, render, redirect, finish, flush; also if the store suspends."""

        class Redirect(RequestHandler):
            def get(self):
                self.session.append("log", "redirect")
                self.redirect("/log")

        class Finish(RequestHandler):
            async def get(self):
                self.session.append("log", "finish")
                await self.finish("finished")

        class Flush(RequestHandler):
            async def get(self):
                self.session.append("log", "flush")
                self.write("first ")
                await self.flush()
                self.session.append("log", "late")
                self.write("last")

        class JSON(RequestHandler):
            def get(self):
                self.session.append("log", "json")
                self.write({"a": 1})

        class Log(RequestHandler):
            async def prepare(self):
                await asyncio.sleep(0)
                self.session.append("log", "prepare")

            def get(self):
                self.write(" ".join(self.session["log"]))

        store = FaultyStore(MemoryStore())
        rules = [("/redirect", Redirect), ("/finish", Finish), ("/flush", Flush), ("/json", JSON)]
        app, _ = make_app(*rules, ("/log", Log), store=store)
        async with client_of(app) as client:
            if slow:
                store.slow(seconds=0.01)
            assert (await client.get("/redirect", follow_redirects=True)).text == "redirect prepare"
            assert await text_of(client, "/finish") == "finished"
            assert await text_of(client, "/flush") == "first last"
            assert (await client.get("/json")).json() == {"a": 1}
            log = "redirect prepare finish flush late json prepare"
            assert await text_of(client, "/log") == log

    async def test_write_error_responds_to_session_errors(self):
        """A23: errors of load and commit."""

        class Own(Count):
            def write_error(self, status_code, **kwargs):
                self.set_status(418)
                self.finish(type(kwargs["exc_info"][1]).__name__)

        store = FaultyStore(MemoryStore())
        app, _ = make_app(("/own", Own), store=store)
        async with client_of(app) as client:
            await client.get("/own")
            for verb in ("load", "save"):
                store.fail(verb, times=1)
                response = await client.get("/own")
                assert (response.status_code, response.text) == (418, "StoreUnavailable")
            assert await text_of(client, "/own") == "2"

    @pytest.mark.parametrize("own", [None, "60"])
    async def test_a_503_of_write_error_has_retry_after(self, own):
        """A23: an existing Retry-After is kept and sent once."""

        class Own(Count):
            def write_error(self, status_code, **kwargs):
                self.set_status(503)
                if own is not None:
                    self.set_header("Retry-After", own)
                self.finish("later")

        store = FaultyStore(MemoryStore())
        app, _ = make_app(("/own", Own), store=store)
        async with client_of(app) as client:
            await client.get("/own")
            store.fail("load", times=1)
            response = await client.get("/own")
            assert (response.status_code, response.text) == (503, "later")
            assert response.headers.get_list("retry-after") == [own or "2"]

    async def test_write_error_for_a_missing_login_may_write(self):
        """A10: the status of its response decides; A23: the changes cannot be saved."""
        status = 303

        class Account(RequestHandler):
            def get(self):
                self.write(self.session.require_user())

            def write_error(self, status_code, **kwargs):
                if isinstance(kwargs["exc_info"][1], LoginRequired):
                    self.session["n"] = 10
                    self.set_status(status)
                self.finish("log in")

        store = FaultyStore(MemoryStore())
        app, _ = make_app(("/account", Account), store=store)
        async with client_of(app) as client:
            assert (await client.get("/account")).status_code == 303
            assert await text_of(client, "/") == "11"
            store.fail("save", times=1)
            assert (await client.get("/account")).status_code == 503
            status = 500
            assert (await client.get("/account")).status_code == 500
            assert await text_of(client, "/") == "12"

    async def test_http_errors_below_500_keep_the_changes(self):
        """A10: also Finish."""

        class Missing(RequestHandler):
            def get(self):
                self.session["n"] = 10
                raise HTTPError(404)

        class Broken(RequestHandler):
            def get(self):
                self.session["n"] = 20
                raise HTTPError(503)

        class Finished(RequestHandler):
            def get(self):
                self.session["n"] = 30
                raise Finish("enough")

        app, _ = make_app(("/missing", Missing), ("/broken", Broken), ("/finished", Finished))
        async with client_of(app) as client:
            assert (await client.get("/missing")).status_code == 404
            assert (await client.get("/broken")).status_code == 503
            assert await text_of(client, "/") == "11"
            assert await text_of(client, "/finished") == "enough"
            assert await text_of(client, "/") == "31"
            assert (await client.get("/unknown")).status_code == 404

    async def test_current_user_is_the_user_of_the_session(self):
        """A9: @authenticated works; a handler's own get_current_user takes precedence."""

        class Login(RequestHandler):
            def get(self):
                self.session.login("ada")

        class Private(RequestHandler):
            @authenticated
            def get(self):
                self.write(self.current_user)

        class Own(RequestHandler):
            def get_current_user(self):
                return "own"

            def get(self):
                self.write(self.current_user)

        rules = [("/login", Login), ("/private", Private), ("/own", Own)]
        app, _ = make_app(*rules, settings={"login_url": "/login"})
        async with client_of(app) as client:
            assert (await client.get("/private")).headers["location"].startswith("/login")
            await client.get("/login")
            assert await text_of(client, "/private") == "ada"
            assert await text_of(client, "/own") == "own"

    async def test_xsrf_tokens_belong_to_the_session(self):
        """B-28: a token that is only in the cookie and the form is refused."""

        class Form(RequestHandler):
            def get(self):
                self.write(self.xsrf_token)

            def post(self):
                self.write("posted")

        app, _ = make_app(("/form", Form), settings={"xsrf_cookies": True})
        async with client_of(app) as client, client_of(app) as other:
            token = await text_of(client, "/form")
            assert client.cookies["_xsrf"] == token
            assert (await client.post("/form")).status_code == 403
            assert (await client.post("/form", data={"_xsrf": token})).text == "posted"
            assert (await client.post("/form", headers={"X-XSRFToken": token})).text == "posted"
            foreign = await text_of(other, "/form")
            client.cookies["_xsrf"] = foreign
            assert (await client.post("/form", data={"_xsrf": foreign})).status_code == 403
            made_up = "2|00000000|00000000000000000000000000000000|1700000000"
            client.cookies["_xsrf"] = made_up
            assert (await client.post("/form", data={"_xsrf": made_up})).status_code == 403

    async def test_a_ticket_in_a_header_needs_no_xsrf_token(self):
        """B-28: browsers add cookies automatically, but not this header."""

        class Form(RequestHandler):
            def get(self):
                self.session["n"] = 1

            def post(self):
                self.write("posted")

        options = {"settings": {"xsrf_cookies": True}, "transport": ["cookie", "header"]}
        app, _ = make_app(("/form", Form), **options)
        async with client_of(app) as client:
            page = await client.get("/form", headers={"Authorization": "Session"})
            header = {"Authorization": f"Session {page.headers['session-ticket']}"}
            assert (await client.post("/form", headers=header)).text == "posted"
            assert (await client.post("/form")).status_code == 403
            await client.get("/form")
            assert (await client.post("/form")).status_code == 403

    async def test_static_files_load_no_session(self, tmp_path):
        """A1: unless the application subclasses the handler."""

        class Private(StaticFileHandler):
            async def get(self, path, include_body=True):
                if self.session.get("n") is None:
                    raise HTTPError(403)
                await super().get(path, include_body)

        (tmp_path / "page.txt").write_text("page")
        path = {"path": str(tmp_path)}
        store = FaultyStore(MemoryStore())
        rules = [("/static/(.*)", StaticFileHandler, path), ("/private/(.*)", Private, path)]
        app, _ = make_app(*rules, store=store)
        async with client_of(app) as client:
            assert (await client.get("/private/page.txt")).status_code == 403
            await client.get("/")
            calls = len(store.calls)
            response = await client.get("/static/page.txt")
            assert (response.text, response.headers.get("vary")) == ("page", None)
            assert len(store.calls) == calls
            response = await client.get("/private/page.txt")
            assert (response.text, response.headers["vary"]) == ("page", "Cookie")

    async def test_only_handlers_that_load_one_have_a_session(self):
        """A1: autoload=False."""
        app = Application()
        sessions = sojourn.install(app, store="memory://", autoload=False)

        class LoadsSession(RequestHandler):
            @sessions.route
            async def get(self):
                self.write(str(self.session.increment("n")))

        class Loads(RequestHandler):
            async def get(self):
                session = await self.load_session()
                self.write(str(session.increment("n")))

        class Plain(RequestHandler):
            def get(self):
                self.write(str(self.session["n"]))

        app.add_handlers(".*", [("/loading", LoadsSession), ("/loads", Loads), ("/plain", Plain)])
        async with client_of(app) as client:
            assert await text_of(client, "/loading") == "1"
            assert await text_of(client, "/loads") == "2"
            assert (await client.get("/plain")).status_code == 500

    async def test_the_session_may_be_replaced(self):
        """A24."""

        class Replace(RequestHandler):
            def get(self):
                self.session = {"n": 7}

        app, _ = make_app(("/replace", Replace))
        async with client_of(app) as client:
            await client.get("/replace")
            assert await text_of(client, "/") == "8"

    async def test_cross_origin_requests_are_refused(self):
        """ASVS 3.5.1: protect=True."""

        class Post(RequestHandler):
            def post(self):
                self.write("posted")

        app, _ = make_app(("/post", Post), protect=True)
        async with client_of(app) as client:
            headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
            assert (await client.post("/post", headers=headers)).status_code == 403
            assert (await client.post("/post")).text == "posted"

    @pytest.mark.parametrize("how", ["plain", "async", "late"])
    async def test_a_handler_that_prepare_has_finished_does_not_run(self, how):
        """A23: also while the session is being committed."""
        runs = []

        class Guard(RequestHandler):
            def send_away(self):
                self.session["next"] = self.request.path
                self.redirect("/login")

        class Plain(Guard):
            def prepare(self):
                self.send_away()

        class Async(Guard):
            async def prepare(self):
                await asyncio.sleep(0)
                self.send_away()

        class Late(Guard):
            async def prepare(self):
                self.send_away()
                await asyncio.sleep(0.05)

        class Private(next(each for each in (Plain, Async, Late) if each.__name__.lower() == how)):
            def get(self):
                runs.append(1)
                self.write("for users")

        store = FaultyStore(MemoryStore())
        app, _ = make_app(("/private", Private), store=store)
        async with client_of(app) as client:
            store.slow("create", seconds=0.02)
            response = await client.get("/private")
            assert (response.status_code, response.text) == (302, "")
            assert "set-cookie" in response.headers
            store.fail("save", times=1)
            response = await client.get("/private")
            assert response.status_code == 503
            assert "for users" not in response.text
        assert runs == []

    @pytest.mark.parametrize("method", ["write", "redirect", "finish", "raise"])
    async def test_writes_after_finish_are_not_sent(self, method):
        """A23: also while the session is being committed."""

        class Forgetful(RequestHandler):
            def get(self):
                self.session.increment("n")
                self.finish("sorry")
                if method == "raise":
                    raise HTTPError(410)
                getattr(self, method)("for users")

        app, _ = make_app(("/forgetful", Forgetful))
        async with client_of(app) as client:
            for _ in range(2):
                response = await client.get("/forgetful")
                assert (response.status_code, response.text) == (200, "sorry")

    async def test_flush_that_is_not_awaited_is_sent_before_finish(self):
        """A2."""

        class Hasty(RequestHandler):
            def get(self):
                self.session["n"] = 1
                self.write("first ")
                self.flush()
                self.finish("last")

        app, sessions = make_app(("/hasty", Hasty))
        async with client_of(app) as client:
            response = await client.get("/hasty")
            assert response.text == "first last"
            assert len(response.headers.get_list("set-cookie")) == 1
            assert await text_of(client, "/") == "2"
        assert await sessions.acount() == 1

    @pytest.mark.parametrize("form", ["finish", "raise", "async"])
    async def test_response_in_place_of_a_handshake_has_the_session_headers(self, form):
        """A2, A5, A7: changes in prepare are committed before it, and it sets the cookie."""

        class Refuse(WebSocketHandler):
            def prepare(self):
                if self.get_argument("end", None):
                    self.session.destroy()
                else:
                    self.session.increment("n")
                if form == "async":
                    return self.later()
                self.refuse_handshake()
                return None

            async def later(self):
                await asyncio.sleep(0)
                self.refuse_handshake()

            def refuse_handshake(self):
                if form == "raise":
                    raise HTTPError(403)
                self.set_status(403)
                self.finish("members only")

            def open(self):
                opened.append(1)

        opened = []
        store = FaultyStore(MemoryStore())
        app, _ = make_app(("/ws", Refuse), store=store)
        upgrade = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        async with client_of(app) as client:
            for verb in ("create", "save"):
                store.slow(verb, seconds=0.05)
            response = await client.get("/ws", headers=upgrade)
            assert response.status_code == 403
            assert "set-cookie" in response.headers
            assert response.headers["vary"] == "Cookie"
            await client.get("/")
            before = int(await text_of(client, "/"))
            await client.get("/ws", headers=upgrade)
            assert int(await text_of(client, "/")) == before + 2
            store.heal()
            store.fail("save", times=1)
            assert (await client.get("/ws", headers=upgrade)).status_code == 503
            response = await client.get("/ws?end=1", headers=upgrade)
            assert "Max-Age=0" in response.headers["set-cookie"]
        assert opened == []

    async def test_a_socket_may_create_a_session_in_prepare(self):
        """W8: the handshake response sets the cookie."""

        class Greet(WebSocketHandler):
            def prepare(self):
                self.session["n"] = 1

            async def open(self):
                await self.write_message("hello")

        app, _ = make_app(("/ws", Greet))
        async with tornado_app.running(app) as port:
            async with connect(f"ws://localhost:{port}/ws", proxy=None) as socket:
                assert await socket.recv() == "hello"
                cookie = socket.response.headers["Set-Cookie"].partition(";")[0]
            async with httpx.AsyncClient(base_url=f"http://localhost:{port}") as client:
                response = await client.get("/", headers={"Cookie": cookie})
                assert response.text == "2"

    async def test_a_socket_without_the_required_user_is_closed_with_the_reason(self):
        """W4, ASVS 7.4.1."""

        class Private(WebSocketHandler):
            def prepare(self):
                self.session.require_user()

        app, _ = make_app(("/ws", Private))
        async with tornado_app.running(app) as port:
            async with connect(f"ws://localhost:{port}/ws", proxy=None) as socket:
                with pytest.raises(ConnectionClosed) as caught:
                    await socket.recv()
            assert caught.value.rcvd.code == 4401

    async def test_an_error_of_open_closes_the_socket(self):
        """W4, A10: with the reason if it is about the session; its changes are dropped."""

        class Private(WebSocketHandler):
            def open(self, kind):
                self.session["n"] = 10
                if kind == "members":
                    self.session.require_user()
                raise LookupError("planned by the test")

        app, _ = make_app(("/ws/(.*)", Private))
        async with client_of(app) as client:
            await client.get("/")
            headers = {"Cookie": f"sid={client.cookies['sid']}"}
            for kind, code in (("members", 4401), ("other", 1006)):
                url = f"ws://localhost:{client.base_url.port}/ws/{kind}"
                async with connect(url, additional_headers=headers, proxy=None) as socket:
                    await socket.wait_closed()
                assert socket.close_code == code
            assert await text_of(client, "/") == "2"


class TestWithTornadosOwnClient(AsyncHTTPTestCase):
    """A3: AsyncHTTPTestCase with a prepared session."""

    def get_app(self):
        self.app, self.sessions = make_app()
        return self.app

    def test_client_with_a_prepared_session(self):
        visitor = self.io_loop.run_sync(lambda: aopen_session(self.app, n=41))
        [(name, value)] = visitor.cookies.items()
        response = self.fetch("/", headers={"Cookie": f"{name}={value}"})
        assert response.body == b"42"


FORKED = """
import asyncio, sys
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.process import fork_processes
from tests.frameworks.apps.tornado_app import build
from tests.frameworks.handlers import SERVED

app, sessions = build(SERVED, store=sys.argv[2])
sockets = bind_sockets(int(sys.argv[1]), "127.0.0.1")
fork_processes(2)


async def main():
    HTTPServer(app).add_sockets(sockets)
    await asyncio.Event().wait()


asyncio.run(main())
"""


@pytest.mark.anyio
async def test_several_processes_share_the_sessions(tmp_path):
    """A5, A6: fork_processes, after the application was created."""
    (tmp_path / "forked.py").write_text(FORKED)
    store = f"sqlite:///{tmp_path}/sessions.db"
    environ = {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    with serving("forked", "PORT", store, folder=tmp_path, environ=environ) as url:
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=url, limits=limits) as client:
            assert await text_of(client, "/write") == "1"
            await asyncio.gather(*(client.get("/write") for _ in range(40)))
            assert await text_of(client, "/read") == "41"


class TestSettings:
    """Options in the settings of the application."""

    def test_options_are_read_from_the_settings(self):
        """A14: among them the attributes of the cookie."""
        app = Application(sojourn_cookie="own", sojourn_protect="yes")
        config = sojourn.install(app, store="memory://", secret=SECRET).web.config
        assert (config.cookie.over_http().name, config.protect) == ("own", True)

    def test_keywords_take_precedence(self):
        app = Application(sojourn_store="redis://nowhere:1", sojourn_cookie="own")
        sessions = sojourn.install(app, store="memory://", cookie="other")
        assert sessions.web.config.cookie.over_http().name == "other"

    def test_setting_that_holds_the_installation_is_no_option(self):
        """A20: an application may be given another installation."""
        app, _ = make_app()
        sojourn.uninstall(app)
        app.settings["sojourn_sessions"] = None
        assert sojourn.install(app, store="memory://") is app.settings["sojourn_sessions"]

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"sojourn_timout": "1 hour"}, "sojourn_timout"),
            ({"sojourn_protect": "perhaps"}, "sojourn_protect expects true or false"),
            ({"sojourn_timeout": "soon"}, "timeout"),
        ],
    )
    def test_invalid_options_are_refused(self, settings, message):
        with pytest.raises(ConfigurationError, match=message):
            sojourn.install(Application(**settings), store="memory://")
