"""Flask's session protocol, settings, error handlers and test client."""

import threading
from datetime import UTC, datetime, timedelta
from uuid import UUID

import flask
import pytest
from flask import Blueprint, Flask, flash, get_flashed_messages, render_template_string, session
from flask.sessions import SessionMixin
from markupsafe import Markup
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import BaseConverter

import sojourn
from sojourn.errors import ConfigurationError, LoginRequired, StoreError, StoreUnavailable
from sojourn.frameworks.flask import FlaskSession, check_csrf, load_session
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore, open_session

SECRET = "the secret of these tests: 8Kq2vR7x"


def make_app(**options):
    app = Flask(__name__)
    app.config["SECRET_KEY"] = SECRET
    app.store = FaultyStore(MemoryStore())
    app.sessions = sojourn.install(app, **{"store": app.store, **options})
    return app


@pytest.fixture
def app():
    return make_app()


def records(app):
    """Return the records of live sessions."""
    return [record for record in app.store.store.records() if record.version]


class TestSession:
    """``flask.session`` is the session of sojourn, with the members of ``SessionMixin``."""

    def test_session_is_an_instance_of_both_classes(self, app):
        with app.test_request_context():
            assert isinstance(session, sojourn.Session)
            assert isinstance(session, SessionMixin)
            assert session.new
            assert not session.modified
            session["a"] = 1
            assert session.modified
            session.modified = True  # as code written for Flask's own session

    def test_nested_changes_are_saved_without_modified(self, app):
        @app.get("/add")
        def add():
            session.setdefault("cart", {})["apple"] = 2
            return "ok"

        @app.get("/nested")
        def nested():
            session["cart"]["apple"] += 1
            return str(session["cart"]["apple"])

        client = app.test_client()
        client.get("/add")
        assert [client.get("/nested").text for _ in range(2)] == ["3", "4"]

    def test_flashed_messages_keep_category_order_and_markup(self, app):
        @app.get("/flash")
        def put():
            flash("Hello <b>")
            flash(Markup("<b>bold</b>"), "warning")
            return "ok"

        @app.get("/show")
        def show():
            return render_template_string(
                "{% for m in get_flashed_messages() %}{{ m }} {% endfor %}"
            )

        @app.get("/categories")
        def categories():
            return repr(get_flashed_messages(with_categories=True))

        client = app.test_client()
        client.get("/flash")
        assert client.get("/show").text == "Hello &lt;b&gt; <b>bold</b> "
        assert client.get("/show").text == ""
        client.get("/flash")
        assert client.get("/categories").text == (
            "[('message', 'Hello <b>'), ('warning', Markup('<b>bold</b>'))]"
        )

    def test_messages_of_parallel_requests_are_all_kept(self, app):
        """A6."""
        barrier = threading.Barrier(2, timeout=5)

        @app.get("/flash/<text>")
        def put(text):
            flash(text)
            barrier.wait()
            return "ok"

        @app.get("/show")
        def show():
            return " ".join(sorted(get_flashed_messages()))

        client = app.test_client()
        with client.session_transaction() as opened:
            opened["_flashes"] = []
        cookie = client._cookies.copy()

        def request(text):
            other = app.test_client()
            other._cookies = dict(cookie)
            other.get(f"/flash/{text}")

        threads = [threading.Thread(target=request, args=(text,)) for text in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.get("/show").text == "one two"

    def test_types_of_flasks_serializer_are_kept(self, app):
        """Except tuples, which become lists."""
        values = {
            "bytes": b"\xff",
            "markup": Markup("<i>"),
            "uuid": UUID(int=7),
            "datetime": datetime(2026, 1, 2, tzinfo=UTC),
            "list": [(1, 2)],
        }

        @app.get("/put")
        def put():
            session.update(values)
            return "ok"

        @app.get("/get")
        def get():
            found = session.copy()
            assert found == {**values, "list": [[1, 2]]}
            assert isinstance(found["markup"], Markup)
            return "ok"

        client = app.test_client()
        client.get("/put")
        assert client.get("/get").text == "ok"

    def test_session_is_available_in_routing_and_all_request_functions(self, app):
        seen = []

        class Converter(BaseConverter):
            def to_python(self, value):
                session["converter"] = value
                return value

        app.url_map.converters["converting"] = Converter
        blueprint = Blueprint("b", __name__, url_prefix="/b")

        @app.before_request
        def before():
            session["before"] = True

        @app.after_request
        def after(response):
            session["after"] = True
            return response

        @app.teardown_request
        def teardown(_):
            seen.append(dict(session))

        @blueprint.get("/<converting:word>")
        def word(word):
            return word

        app.register_blueprint(blueprint)
        client = app.test_client()
        client.get("/b/x")
        with client.session_transaction() as opened:
            assert dict(opened) == {"converter": "x", "before": True, "after": True}
        assert seen[:1] == [{"converter": "x", "before": True, "after": True}]

    def test_a_copied_request_context_has_the_same_session(self, app):
        @app.get("/")
        def index():
            session["a"] = 1
            found = []
            run = flask.copy_current_request_context(lambda: found.append(session["a"]))
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
            return str(found)

        assert app.test_client().get("/").text == "[1]"

    def test_async_views_may_call_async_methods_of_the_session(self, app):
        @app.get("/")
        async def index():
            session["n"] = session.get("n", 0) + 1
            await session.acommit()
            return str(session["n"])

        client = app.test_client()
        assert [client.get("/").text for _ in range(2)] == ["1", "2"]

    def test_failed_stream_drops_its_changes_and_a_complete_one_commits(self, app):
        """A10, A11."""

        @app.get("/<how>")
        def stream(how):
            session.setdefault("n", 0)

            def parts():
                yield "a"
                session["n"] += 1
                if how == "fail":
                    raise LookupError("planned by the test")
                yield "b"

            return flask.stream_with_context(parts())

        client = app.test_client()
        assert client.get("/good").text == "ab"
        with pytest.raises(LookupError):
            _ = client.get("/fail").text
        with client.session_transaction() as opened:
            assert opened["n"] == 1

    @pytest.mark.parametrize("end", ["complete", "fail", "close"])
    def test_stream_of_an_error_page_ends_the_session(self, app, end):
        """A10: also if the stream fails, or the client disconnects."""

        @app.get("/write")
        def write():
            session["n"] = 1
            return "ok"

        @app.get("/fail")
        def fail():
            session["n"] = 2
            raise LookupError("planned by the test")

        @app.errorhandler(500)  # called after the session of the failed page was committed
        def answer(_):
            def parts():
                yield "a"
                session.logout()
                yield "b"
                if end == "fail":
                    raise ValueError("planned by the test")

            return flask.stream_with_context(parts()), 500

        client = app.test_client()
        client.get("/write")
        assert records(app)
        response = client.get("/fail", buffered=False)
        parts = iter(response.response)
        assert [next(parts), next(parts)] == [b"a", b"b"]
        if end == "complete":
            assert list(parts) == []
        elif end == "fail":
            with pytest.raises(ValueError, match="planned"):
                next(parts)
        response.close()
        assert not records(app)


class TestPermanent:
    """``session.permanent`` and PERMANENT_SESSION_LIFETIME."""

    def make(self, **options):
        clock = FakeClock()
        app = Flask(__name__)
        app.config.update(SECRET_KEY=SECRET, PERMANENT_SESSION_LIFETIME=timedelta(days=3))
        sojourn.install(app, store="memory://", clock=clock, **options)

        @app.get("/keep/<int:value>")
        def keep(value):
            session.permanent = bool(value)
            session["a"] = 1
            return "ok"

        @app.get("/login")
        def login():
            session.permanent = True
            session.login("ada")
            return "ok"

        @app.get("/")
        def index():
            return f"{session.get('a')} {session.user} {session.permanent}"

        return app, clock

    def test_permanent_session_has_a_persistent_cookie(self):
        """A17: PERMANENT_SESSION_LIFETIME is the idle timeout, 30 days the absolute timeout."""
        app, clock = self.make()
        client = app.test_client()
        cookie = client.get("/keep/1").headers["Set-Cookie"]
        assert f"Max-Age={30 * 86_400};" in cookie
        clock.advance("2 days")
        assert client.get("/").text == "1 None True"
        clock.advance("3 days")
        assert client.get("/").text == "None None False"

    def test_permanent_can_be_set_and_unset_on_a_stored_session(self):
        app, clock = self.make()
        client = app.test_client()
        assert "Max-Age" not in client.get("/keep/0").headers["Set-Cookie"]
        assert "Max-Age" in client.get("/keep/1").headers["Set-Cookie"]
        assert "Max-Age" not in client.get("/keep/0").headers["Set-Cookie"]
        clock.advance("1 hour")
        assert client.get("/").text == "None None False"

    def test_a_login_keeps_a_permanent_session_permanent(self):
        app, clock = self.make()
        client = app.test_client()
        assert "Max-Age" in client.get("/login").headers["Set-Cookie"]
        clock.advance("2 days")
        assert client.get("/").text == "None ada True"

    def test_session_that_is_not_permanent_has_the_default_timeouts(self):
        """A17."""
        app, clock = self.make()
        client = app.test_client()
        client.get("/keep/0")
        clock.advance("1 hour")
        assert client.get("/").text == "None None False"


class TestTestClient:
    """``session_transaction`` and ``open_session``."""

    def test_a_transaction_writes_and_reads_the_session(self, app):
        @app.get("/")
        def index():
            return str(session.increment("n"))

        client = app.test_client()
        with client.session_transaction() as opened:
            assert isinstance(opened, FlaskSession)
            opened["n"] = 41
        assert client.get("/").text == "42"
        with client.session_transaction() as opened:
            assert opened["n"] == 42

    def test_a_transaction_logs_in(self, app):
        @app.get("/")
        def index():
            return session.require_user()

        client = app.test_client()
        with client.session_transaction() as opened:
            opened.login("ada")
        assert client.get("/").text == "ada"
        assert [info.user for info in app.sessions.list_user("ada")] == ["ada"]

    def test_session_is_readable_after_the_request(self, app):
        @app.get("/")
        def index():
            session["a"] = 1
            return "ok"

        with app.test_client() as client:
            client.get("/")
            assert session["a"] == 1

    def test_session_stays_modified_after_the_request(self, app):
        app.get("/write", endpoint="write")(lambda: str(session.increment("n")))
        app.get("/read", endpoint="read")(lambda: str(session.get("n")))
        with app.test_client() as client:
            for _ in range(2):
                client.get("/write")
                assert session.modified
            client.get("/read")
            assert not session.modified

    def test_a_session_with_data_is_opened_for_a_client(self, app):
        @app.get("/")
        def index():
            return session["name"]

        opened = open_session(app, name="ada")
        client = app.test_client()
        for name, value in opened.cookies.items():
            client.set_cookie(name, value)
        assert client.get("/").text == "ada"


class TestErrors:
    """A15, A23: errors of sojourn reach the application's error handlers."""

    def add_views(self, app):
        @app.get("/")
        def index():
            return str(session.increment("n"))

        @app.get("/about")
        def about():
            return "about"

    def visitor(self, app):
        self.add_views(app)
        client = app.test_client()
        client.get("/")
        return client

    @pytest.mark.parametrize("verb", ["load", "save"])
    @pytest.mark.parametrize("testing", [True, False])
    def test_failing_store_is_503_by_default(self, app, verb, testing):
        app.testing = testing
        client = self.visitor(app)
        app.store.fail(verb)
        reply = client.get("/")
        assert reply.status_code == 503
        assert reply.headers["Retry-After"]
        app.store.heal()
        assert client.get("/").text == "2"

    @pytest.mark.parametrize("verb", ["load", "save"])
    @pytest.mark.parametrize("kind", [StoreUnavailable, StoreError, 503, Exception, 500])
    def test_error_handler_responds(self, app, verb, kind):
        handled = []

        @app.errorhandler(kind)
        def closed(error):
            handled.append(error)
            return render_template_string("closed {{ session.get('n') or '' }}"), 500

        client = self.visitor(app)
        app.store.fail(verb)
        reply = client.get("/")
        assert reply.text.startswith("closed ")
        assert reply.status_code == 503
        assert reply.headers["Retry-After"]
        assert len(handled) == 1
        app.store.heal()
        assert client.get("/").text == "2"

    @pytest.mark.parametrize("verb", ["load", "save"])
    def test_response_of_an_error_handler_passes_after_request(self, app, verb):
        """For example for the headers of Flask-CORS."""
        app.errorhandler(StoreUnavailable)(lambda _: ("closed", 418))

        @app.after_request
        def cors(response):
            response.headers["Access-Control-Allow-Origin"] = "*"
            return response

        client = self.visitor(app)
        app.store.fail(verb)
        reply = client.get("/")
        assert (reply.status_code, reply.text) == (418, "closed")
        assert reply.headers["Access-Control-Allow-Origin"] == "*"

    def test_on_error_returns_a_response_of_flask(self):
        app = make_app(on_error=lambda request, error: (f"{request.path} {error}", 418))
        client = self.visitor(app)
        app.store.fail("save")
        reply = client.get("/")
        assert reply.status_code == 418
        assert reply.text.startswith("/ ")

    def test_a_required_login_is_401(self, app):
        app.get("/")(lambda: f"{session.require_user()}")
        assert app.test_client().get("/").status_code == 401

    def test_error_handler_responds_to_a_missing_login(self, app):
        @app.get("/")
        def index():
            return session.require_user()

        @app.errorhandler(LoginRequired)
        def to_login(_):
            flash("Please log in.")
            return flask.redirect("/login")

        client = app.test_client()
        assert client.get("/").location == "/login"
        with client.session_transaction() as opened:
            assert opened["_flashes"] == [["message", "Please log in."]]

    def test_request_continues_while_the_store_fails(self):
        """A15."""
        app = make_app(on_store_failure=["/about"])
        client = self.visitor(app)
        app.store.fail("load")
        assert client.get("/about").text == "about"
        assert client.get("/").status_code == 503

    def test_destroyed_session_is_deleted_although_the_view_fails(self, app):
        """A10."""

        @app.get("/broken")
        def broken():
            session.destroy()
            raise LookupError("planned by the test")

        client = self.visitor(app)
        app.config["PROPAGATE_EXCEPTIONS"] = True
        with pytest.raises(LookupError):
            client.get("/broken")
        assert client.get("/").text == "1"


class TestRoutes:
    """Sessions on some routes only."""

    def test_only_decorated_views_have_a_session(self):
        app = make_app(autoload=False)

        @app.get("/")
        @app.sessions.route
        def index():
            return str(session.increment("n"))

        @app.get("/async")
        @app.sessions.route
        async def asynchronous():
            return str(session.increment("n"))

        @app.get("/loading")
        def loading():
            return str(load_session().increment("n"))

        @app.get("/without")
        def without():
            assert dict(session) == {}
            with pytest.raises(RuntimeError, match=r"@sessions\.route"):
                session["n"] = 1
            return "ok"

        client = app.test_client()
        assert [client.get(path).text for path in ("/", "/async", "/loading")] == ["1", "2", "3"]
        app.store.calls.clear()
        assert client.get("/without").text == "ok"
        assert app.store.calls == []

    def test_a_view_without_a_session_sees_no_user_and_is_refused_every_verb(self):
        app = make_app(autoload=False)
        names = [name for name in dir(sojourn.Session) if not name.startswith("_")]
        absent = []

        @app.get("/")
        def index():
            assert session.user is session.ended_reason is session.authenticated_at is None
            assert (session.methods, session.flashes(), session.remembered) == ((), [], False)
            for name in ("increment", "login", "logout", "require_user", "check_csrf", "acommit"):
                with pytest.raises(RuntimeError, match=r"@sessions\.route"):
                    getattr(session, name)("ada")
            for name in ("csrf_token", "state", "id"):
                with pytest.raises(RuntimeError, match=r"@sessions\.route"):
                    getattr(session, name)
            with pytest.raises(RuntimeError, match=r"@sessions\.route"):
                session.__ior__({"n": 1})
            with pytest.raises(AttributeError, match="logn"):
                _ = session.logn
            for name in names:
                try:
                    getattr(session, name)
                except AttributeError:
                    absent.append(name)
                except RuntimeError:
                    pass
            return "ok"

        assert app.test_client().get("/").text == "ok"
        assert absent == []

    def test_hooks_may_read_the_user_of_a_request_without_a_session(self):
        """Of a path that is left out, and of a request that was refused."""
        app = make_app(exclude=["/static/*"], protect=True)
        app.get("/static/style.css")(lambda: "css")
        app.before_request(lambda: setattr(flask.g, "user", session.user))
        app.after_request(lambda reply: reply if session.user is None else "wrong")
        client = app.test_client()
        assert client.get("/static/style.css").text == "css"
        assert client.post("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403

    def test_route_continues_while_the_store_fails(self):
        """A15."""
        app = make_app(autoload=False)

        @app.get("/")
        @app.sessions.route(on_store_failure="anonymous")
        def index():
            return str(session.get("n"))

        opened = open_session(app, n=1)
        client = app.test_client()
        for name, value in opened.cookies.items():
            client.set_cookie(name, value)
        assert client.get("/").text == "1"
        app.store.fail("load")
        assert client.get("/").text == "None"

    def test_other_origins_are_refused_before_before_request(self):
        """ASVS 3.5.1."""
        app = make_app(protect=True)
        ran = []
        app.before_request(lambda: ran.append("before"))

        @app.post("/")
        def index():
            ran.append("view")
            return "ok"

        client = app.test_client()
        reply = client.post("/", headers={"Sec-Fetch-Site": "cross-site"})
        assert reply.status_code == 403
        assert ran == []
        assert client.post("/", headers={"Sec-Fetch-Site": "same-origin"}).text == "ok"

    def test_error_handler_responds_to_a_refused_origin(self):
        app = make_app(protect=True)
        app.errorhandler(403)(lambda _: (render_template_string("{{ session | length }}"), 403))
        reply = app.test_client().post("/", headers={"Sec-Fetch-Site": "cross-site"})
        assert (reply.status_code, reply.text) == (403, "0")

    def test_templates_have_a_csrf_token_and_the_view_checks_it(self, app):
        """ASVS 3.5.1."""

        @app.get("/form")
        def form():
            return render_template_string("{{ csrf_token() }}")

        @app.post("/form")
        def send():
            check_csrf()
            return "sent"

        client = app.test_client()
        token = client.get("/form").text
        assert client.post("/form", data={"csrf_token": token}).text == "sent"
        assert client.post("/form", headers={"X-CSRF-Token": token}).text == "sent"
        assert client.post("/form", data={"csrf_token": "x"}).status_code == 403
        assert client.post("/form").status_code == 403
        assert app.test_client().post("/form", data={"csrf_token": token}).status_code == 403


class TestSettings:
    """Options in ``app.config``."""

    def cookie(self, config, base_url="https://shop.example", **options):
        app = Flask(__name__)
        app.config.update(config)
        sojourn.install(app, **{"store": "memory://", **options})

        @app.get("/")
        @app.get("/shop/")
        def index():
            session["a"] = 1
            return "ok"

        return app.test_client().get("/", base_url=base_url).headers["Set-Cookie"]

    def test_default_cookie_is_secure_httponly_and_samesite(self):
        cookie = self.cookie({"SECRET_KEY": SECRET})
        assert cookie.startswith("__Host-sid=")
        for attribute in ("Path=/", "Secure", "HttpOnly", "SameSite=Lax"):
            assert attribute in cookie

    @pytest.mark.parametrize(
        ("config", "part"),
        [
            ({"SESSION_COOKIE_NAME": "mine"}, "mine="),
            ({"SESSION_COOKIE_SAMESITE": "Strict"}, "SameSite=Strict"),
            ({"SESSION_COOKIE_DOMAIN": "shop.example"}, "Domain=shop.example"),
            ({"SESSION_COOKIE_PATH": "/shop"}, "Path=/shop"),
            ({"APPLICATION_ROOT": "/shop"}, "Path=/shop"),
            ({"SESSION_COOKIE_PARTITIONED": True}, "Partitioned"),
            ({"SOJOURN_PERSISTENT": True}, "Max-Age"),
        ],
    )
    def test_settings_are_options(self, config, part):
        assert part in self.cookie({"SECRET_KEY": SECRET, **config})

    def test_a_secure_cookie_is_secure_without_https(self):
        cookie = self.cookie({"SESSION_COOKIE_SECURE": True}, "http://shop.example")
        assert "Secure" in cookie

    def test_keywords_precede_settings(self):
        assert self.cookie({"SESSION_COOKIE_NAME": "mine"}, cookie="other").startswith("other=")

    def test_store_is_configured_by_url(self):
        app = Flask(__name__)
        app.config["SOJOURN_STORE"] = "memory://"
        assert isinstance(sojourn.install(app).store, MemoryStore)

    @pytest.mark.parametrize(
        ("config", "word"),
        [
            ({"SESSION_COOKIE_HTTPONLY": False}, "SESSION_COOKIE_HTTPONLY"),
            ({"SECRET_KEY": 5}, "SECRET_KEY expects text or bytes"),
            ({"SECRET_KEY_FALLBACKS": SECRET}, "SECRET_KEY_FALLBACKS expects a list"),
            ({"SESSION_COOKIE_SAMESITE": "Never"}, "same_site"),
            ({"SOJOURN_TIMEOUTS": 1}, "SOJOURN_TIMEOUT"),
            ({"SOJOURN_STATE": dict}, "SOJOURN_STATE"),
            ({"PERMANENT_SESSION_LIFETIME": "soon"}, "remember_timeout"),
        ],
    )
    def test_invalid_settings_are_refused(self, config, word):
        with pytest.raises(ConfigurationError, match=word):
            self.cookie(config)

    def test_the_store_of_another_library_is_refused(self):
        app = Flask(__name__)
        app.config["SESSION_TYPE"] = "redis"
        with pytest.raises(ConfigurationError, match="SOJOURN_STORE"):
            sojourn.install(app)

    def test_secret_key_and_its_fallbacks_seal_tickets(self):
        store = MemoryStore()

        def client(config, cookies=None):
            app = Flask(__name__)
            app.config.update(config)
            sojourn.install(app, store=store)
            app.get("/")(lambda: str(session.increment("n")))
            client = app.test_client()
            client._cookies = dict(cookies or {})
            return client

        first = client({"SECRET_KEY": SECRET})
        first.get("/")
        newer = {"SECRET_KEY": SECRET[::-1], "SECRET_KEY_FALLBACKS": [SECRET]}
        assert client(newer, first._cookies).get("/").text == "2"
        assert client({"SECRET_KEY": SECRET[::-1]}, first._cookies).get("/").text == "1"

    def test_a_guessable_secret_key_is_not_used(self, caplog):
        """For example "dev" of the tutorial; a local store generates a secret."""
        self.cookie({"SECRET_KEY": "dev"})
        assert "SECRET_KEY does not seal sessions" in caplog.text
        assert "'dev'" not in caplog.text


class TestInterface:
    """``app.session_interface``."""

    def test_get_cookie_name_returns_the_name_of_the_cookie(self, app):
        interface = app.session_interface
        assert interface.get_cookie_name(app) == "__Host-sid"
        with app.test_request_context(base_url="http://localhost"):
            assert interface.get_cookie_name(app) == "sid"

    def test_null_session_refuses_writes(self, app):
        interface = app.session_interface
        null = interface.make_null_session(app)
        assert interface.is_null_session(null)
        with pytest.raises(RuntimeError, match="no session"):
            null["a"] = 1
        with app.test_request_context():
            assert not interface.is_null_session(session._get_current_object())

    def test_uninstall_restores_flasks_own_sessions(self, app):
        """A20."""

        @app.get("/")
        def index():
            session["n"] = session.get("n", 0) + 1
            return str(session["n"])

        client = app.test_client()
        client.get("/")
        sojourn.uninstall(app)
        assert client.get("/").headers["Set-Cookie"].startswith("session=")
        sojourn.install(app, store=app.store)
        assert client.get("/").text == "2"

    def test_proxy_fix_added_after_the_installation_applies(self, app):
        app.get("/")(lambda: str(session.increment("n")))
        app.wsgi_app = ProxyFix(app.wsgi_app)
        headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
        reply = app.test_client().get("/", base_url="http://shop.example", headers=headers)
        assert reply.headers["Set-Cookie"].startswith("__Host-sid=")
