"""Quart's session protocol, error handlers, test client and Quart-Auth."""

import asyncio

import pytest
from quart import (
    Quart,
    copy_current_request_context,
    flash,
    get_flashed_messages,
    render_template_string,
    session,
    stream_with_context,
    websocket,
)
from quart_auth import AuthUser, QuartAuth, current_user, login_required, login_user, logout_user

import sojourn
from sojourn.errors import ConfigurationError, LoginRequired, StoreError, StoreUnavailable
from sojourn.frameworks.quart import FlaskSession, check_csrf, load_session
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore, aopen_session

pytestmark = pytest.mark.anyio

SECRET = "the secret of these tests: 8Kq2vR7x"


def make_app(**options):
    app = Quart(__name__)
    app.config["SECRET_KEY"] = SECRET
    app.store = FaultyStore(MemoryStore())
    app.sessions = sojourn.install(app, **{"store": app.store, **options})
    return app


@pytest.fixture
def app():
    return make_app()


async def text(client, path="/", **request):
    return await (await client.get(path, **request)).get_data(as_text=True)


class TestSession:
    """``quart.session`` is the session of sojourn."""

    async def test_session_is_an_instance_of_both_classes(self, app):
        async with app.test_request_context("/"):
            assert isinstance(session, sojourn.Session)
            assert session.new
            assert not session.modified
            session["a"] = {"b": 1}
            session.permanent = True
            assert session.modified

    async def test_flashed_messages_are_kept(self, app):
        @app.get("/flash")
        async def put():
            await flash("one", "info")
            await flash("two")
            return "ok"

        @app.get("/show")
        async def show():
            return repr(get_flashed_messages(with_categories=True))

        client = app.test_client()
        await client.get("/flash")
        assert await text(client, "/show") == "[('info', 'one'), ('message', 'two')]"
        assert await text(client, "/show") == "[]"

    async def test_sync_views_and_request_functions_have_the_session(self, app):
        @app.before_request
        async def before():
            session["before"] = True

        @app.after_request
        async def after(response):
            session["after"] = True
            return response

        @app.get("/")
        def index():  # Quart runs it in a thread
            session["view"] = True
            return "ok"

        client = app.test_client()
        await client.get("/")
        async with client.session_transaction() as opened:
            assert dict(opened) == {"before": True, "view": True, "after": True}

    async def test_a_copied_request_context_has_the_same_session(self, app):
        @app.get("/")
        async def index():
            session["a"] = 1

            @copy_current_request_context
            async def other():
                return session["a"]

            return str(await other())

        assert await text(app.test_client()) == "1"

    async def test_stream_commits_at_its_end_or_drops_its_changes(self, app):
        """A10, A11."""

        @app.get("/<how>")
        async def stream(how):
            session.setdefault("n", 0)

            @stream_with_context
            async def parts():
                yield b"a"
                session["n"] += 1
                if how == "fail":
                    raise LookupError("planned by the test")
                yield b"b"

            return parts()

        client = app.test_client()
        assert await text(client, "/good") == "ab"
        with pytest.raises((LookupError, ExceptionGroup)):  # a group from Quart 0.23 on
            await client.get("/fail")
        async with client.session_transaction() as opened:
            assert opened["n"] == 1


class TestTestClient:
    """``session_transaction`` and ``aopen_session``."""

    async def test_a_transaction_writes_and_reads_the_session(self, app):
        @app.get("/")
        async def index():
            return str(session.increment("n"))

        client = app.test_client()
        async with client.session_transaction() as opened:
            assert isinstance(opened, FlaskSession)
            opened["n"] = 41
        assert await text(client) == "42"
        async with client.session_transaction() as opened:
            assert opened["n"] == 42

    async def test_a_session_with_data_is_opened_for_a_client(self, app):
        app.get("/")(lambda: f"{session['name']}")
        opened = await aopen_session(app, name="ada")
        client = app.test_client()
        for name, value in opened.cookies.items():
            client.set_cookie("localhost", name, value)
        assert await text(client) == "ada"

    @pytest.mark.parametrize("first", [0, 1])
    async def test_receives_cancelled_together_keep_the_message_order(self, app, first):
        """A21: two tasks of a handler receive, and both are cancelled, in either order."""
        received = []

        @app.get("/write")
        async def write():
            session["n"] = 1
            return "ok"

        @app.websocket("/ws")
        async def serve():
            await websocket.accept()
            tasks = [asyncio.create_task(websocket.receive()) for _ in range(2)]
            await asyncio.sleep(0.01)  # both tasks wait for a message
            app.store.hang("load", times=2)
            await websocket.send("go on")
            await asyncio.sleep(0.05)  # one loads
            tasks[first].cancel()
            tasks[1 - first].cancel()
            await asyncio.wait(tasks)
            app.store.heal()
            received.extend([await websocket.receive() for _ in "ab"])
            await websocket.send("done")

        client = app.test_client()
        await client.get("/write")
        async with client.websocket("/ws") as connection:
            assert await connection.receive() == "go on"
            for message in "ab":
                await connection.send(message)
            assert await connection.receive() == "done"
        assert received == ["a", "b"]

    async def test_a_socket_of_the_client_has_the_session(self, app):
        @app.websocket("/ws")
        async def socket():
            session["n"] += int(await websocket.receive())
            await websocket.send(f"{session['n']} {session.user}")

        client = app.test_client()
        async with client.session_transaction() as opened:
            opened["n"] = 1
            opened.login("ada")
        async with client.websocket("/ws") as connection:
            await connection.send("2")
            assert await connection.receive() == "3 ada"
        async with client.session_transaction() as opened:
            assert opened["n"] == 3


class TestErrors:
    """A15, A23."""

    async def visitor(self, app):
        app.get("/")(lambda: str(session.increment("n")))
        client = app.test_client()
        await client.get("/")
        return client

    @pytest.mark.parametrize("verb", ["load", "save"])
    @pytest.mark.parametrize("testing", [True, False])
    async def test_failing_store_is_503_by_default(self, app, verb, testing):
        app.testing = testing
        client = await self.visitor(app)
        app.store.fail(verb)
        reply = await client.get("/")
        assert reply.status_code == 503
        assert reply.headers["Retry-After"]
        app.store.heal()
        assert await text(client) == "2"

    @pytest.mark.parametrize("verb", ["load", "save"])
    @pytest.mark.parametrize("kind", [StoreUnavailable, StoreError, 503, Exception, 500])
    async def test_error_handler_responds(self, app, verb, kind):
        @app.errorhandler(kind)
        async def closed(_):
            return await render_template_string("closed {{ session.get('n') or '' }}"), 500

        client = await self.visitor(app)
        app.store.fail(verb)
        reply = await client.get("/")
        assert (await reply.get_data(as_text=True)).startswith("closed ")
        assert reply.status_code == 503
        assert reply.headers["Retry-After"]

    async def test_on_error_returns_a_response_of_quart(self):
        async def on_error(request, error):
            return f"{request.path} {error}", 418

        app = make_app(on_error=on_error)
        client = await self.visitor(app)
        app.store.fail("save")
        reply = await client.get("/")
        assert reply.status_code == 418
        assert (await reply.get_data(as_text=True)).startswith("/ ")

    async def test_a_required_login_is_401(self, app):
        app.get("/")(lambda: f"{session.require_user()}")
        assert (await app.test_client().get("/")).status_code == 401

    async def test_error_handler_responds_to_a_missing_login(self, app):
        app.get("/")(lambda: f"{session.require_user()}")
        app.errorhandler(LoginRequired)(lambda _: ("log in", 403))
        assert await text(app.test_client()) == "log in"


class TestRoutes:
    """Sessions on some routes only."""

    async def test_only_decorated_views_have_a_session(self):
        app = make_app(autoload=False)

        @app.get("/")
        @app.sessions.route
        async def index():
            return str(session.increment("n"))

        @app.get("/plain")
        @app.sessions.route
        def plain():
            return str(session.increment("n"))

        @app.get("/loading")
        async def loading():
            return str((await load_session()).increment("n"))

        @app.get("/without")
        async def without():
            assert dict(session) == {}
            with pytest.raises(RuntimeError, match=r"@sessions\.route"):
                session["n"] = 1
            return "ok"

        @app.websocket("/ws")
        @app.sessions.route
        async def socket():
            await websocket.send(str(session["n"]))

        client = app.test_client()
        paths = ("/", "/plain", "/loading")
        assert [await text(client, path) for path in paths] == ["1", "2", "3"]
        app.store.calls.clear()
        assert await text(client, "/without") == "ok"
        assert app.store.calls == []
        async with client.websocket("/ws") as connection:
            assert await connection.receive() == "3"

    async def test_other_origins_are_refused_before_before_request(self):
        """ASVS 3.5.1."""
        app = make_app(protect=True)
        ran = []
        app.before_request(lambda: ran.append("before"))
        client = app.test_client()
        reply = await client.post("/", headers={"Sec-Fetch-Site": "cross-site"})
        assert reply.status_code == 403
        assert ran == []

    async def test_templates_have_a_csrf_token_and_the_view_checks_it(self, app):
        """ASVS 3.5.1."""

        @app.get("/form")
        async def form():
            return await render_template_string("{{ csrf_token() }}")

        @app.post("/form")
        async def send():
            await check_csrf()
            return "sent"

        client = app.test_client()
        token = await text(client, "/form")
        for request in ({"form": {"csrf_token": token}}, {"headers": {"X-CSRF-Token": token}}):
            assert (await client.post("/form", **request)).status_code == 200
        assert (await client.post("/form", form={"csrf_token": "x"})).status_code == 403


class TestInterface:
    """``app.session_interface`` and the settings."""

    async def test_settings_are_options(self):
        app = Quart(__name__)
        app.config.update(SESSION_COOKIE_NAME="mine", SESSION_COOKIE_SAMESITE="Strict")
        sojourn.install(app, store="memory://")
        app.get("/")(lambda: str(session.increment("n")))
        cookie = (await app.test_client().get("/")).headers["Set-Cookie"]
        assert cookie.startswith("mine=")
        assert "SameSite=Strict" in cookie

    async def test_invalid_settings_are_refused(self):
        app = Quart(__name__)
        app.config["SESSION_COOKIE_HTTPONLY"] = False
        with pytest.raises(ConfigurationError, match="HTTPONLY"):
            sojourn.install(app, store="memory://")

    async def test_null_session_refuses_writes(self, app):
        interface = app.session_interface
        null = await interface.make_null_session(app)
        assert interface.is_null_session(null)
        with pytest.raises(RuntimeError, match="no session"):
            null["a"] = 1

    async def test_uninstall_restores_quarts_own_sessions(self, app):
        """A20."""

        @app.get("/")
        async def index():
            session["n"] = session.get("n", 0) + 1
            return str(session["n"])

        @app.websocket("/ws")
        async def socket():
            await websocket.send(str(session["n"]))

        client = app.test_client()
        await client.get("/")
        sojourn.uninstall(app)
        assert (await client.get("/")).headers["Set-Cookie"].startswith("session=")
        async with client.websocket("/ws") as connection:
            assert await connection.receive() == "1"
        sojourn.install(app, store=app.store)
        assert await text(client) == "2"


class TestQuartAuth:
    """Quart-Auth works unchanged together with sojourn."""

    async def test_logins_and_logouts(self, app):
        app.config["QUART_AUTH_COOKIE_SECURE"] = False
        QuartAuth(app)

        @app.get("/login")
        async def login():
            login_user(AuthUser("ada"))
            session.login("ada")
            return "ok"

        @app.get("/logout")
        async def logout():
            logout_user()
            session.logout()
            return "ok"

        @app.get("/")
        @login_required
        async def index():
            return f"{current_user.auth_id} {session.user}"

        client = app.test_client()
        assert (await client.get("/")).status_code == 401
        await client.get("/login")
        assert await text(client) == "ada ada"
        await client.get("/logout")
        assert (await client.get("/")).status_code == 401
