"""Bottle: the laws of requests, and features of Bottle."""

import bottle
import pytest
from webtest import TestApp

import sojourn
from sojourn.errors import ConfigurationError, SessionTooLarge, StoreUnavailable
from sojourn.frameworks.bottle import SessionPlugin
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore, open_session
from tests.contract.request_suite import RequestSuite
from tests.frameworks.apps import bottle_app

SECRET = "a secret for tests: 5f8c1e90"


class TestBottle(RequestSuite):
    """A1 to A24 through Bottle."""

    protocol = "wsgi"
    build = staticmethod(bottle_app.build)
    uninstall = staticmethod(bottle_app.uninstall)


class TestBottleAlone(TestBottle):
    """A1 to A24 with ``catchall = False``: exceptions are raised to the server."""

    answers_errors = False

    def build(self, handlers, **options):
        app, sessions = bottle_app.build(handlers, **options)
        app.catchall = False
        return app, sessions


@pytest.fixture
def store():
    return FaultyStore(MemoryStore())


@pytest.fixture
def app(store):
    """Return an application that counts visits."""
    app = bottle.Bottle()
    app.install(SessionPlugin(store=store, secret=SECRET))

    @app.get("/visit")
    def visit(session):
        return str(session.increment("visits"))

    @app.get("/show")
    def show():
        return str(bottle.request.session.get("visits"))

    return app


@pytest.fixture
def browser(app):
    return TestApp(app)


class TestPlugin:
    """``app.install(SessionPlugin())``."""

    def test_parameter_and_request_have_the_session(self, browser):
        assert [browser.get("/visit").text for _ in range(2)] == ["1", "2"]
        assert browser.get("/show").text == "2"

    def test_parameter_name_is_an_option(self):
        app = bottle.Bottle()
        app.install(SessionPlugin(store="memory://", keyword="visitor"))
        app.get("/", callback=lambda visitor: str(visitor.increment("n")))
        assert TestApp(app).get("/").text == "1"

    def test_a_decorated_handler_gets_the_parameter(self, app, browser):
        def decorate(function):
            return lambda *args, **kwargs: "<" + function(*args, **kwargs) + ">"

        def handler(session, word):
            session["word"] = word
            return word

        app.get("/word/<word>", callback=decorate(handler))
        assert browser.get("/word/hello").text == "<hello>"

    def test_session_parameter_of_a_helper_function_is_not_injected(self, app, browser):
        def helper(session):
            return str(session)

        app.get("/plain", callback=lambda: helper(7))
        assert browser.get("/plain").text == "7"

    def test_settings_are_read_from_the_configuration(self):
        app = bottle.Bottle()
        app.config["sojourn.store"] = "memory://"
        app.config["sojourn.timeout"] = "10 minutes"
        app.config["sojourn.exclude"] = "/static/*"
        sessions = sojourn.install(app)
        assert sojourn.get(app) is sessions
        assert sessions.config.core.policy.authenticated.idle_timeout == 600_000
        app = bottle.Bottle()
        app.config["sojourn.timeot"] = "10 minutes"
        with pytest.raises(ConfigurationError, match=r"sojourn\.timeout"):
            app.install(SessionPlugin())

    def test_a_second_installation_is_refused(self, app):
        with pytest.raises(ConfigurationError, match="already"):
            sojourn.install(app, store="memory://")
        with pytest.raises(ConfigurationError, match="already"):
            app.install(SessionPlugin(store="memory://"))

    def test_route_that_skips_the_plugin_loads_no_session(self, app, browser, store):
        """A1: ``skip``."""
        app.get("/plain", callback=lambda: "plain", skip=["session"])
        browser.get("/visit")
        store.calls.clear()
        assert "Vary" not in browser.get("/plain").headers
        assert store.calls == []

    def test_route_loads_its_session_without_autoload(self, store):
        """By a parameter, the request, or ``@sessions.route``."""
        app = bottle.Bottle()
        sessions = sojourn.install(app, store=store, secret=SECRET, autoload=False)
        app.get("/a", callback=lambda session: str(session.increment("n")))
        app.get("/b", callback=lambda: str(bottle.request.session.get("n")))
        app.get("/c", callback=sessions.route(lambda: str(bottle.request.session.get("n"))))
        app.get("/d", callback=lambda: "plain")
        browser = TestApp(app)
        assert [browser.get(path).text for path in ("/a", "/b", "/c")] == ["1", "1", "1"]
        store.calls.clear()
        browser.get("/d")
        assert store.calls == []

    def test_excluded_paths_have_no_session(self, store):
        """Also non-ASCII paths, which Bottle decodes in the environ."""
        app = bottle.Bottle()
        sojourn.install(app, store=store, secret=SECRET, exclude=["/žluť/*"])
        app.get("/visit", callback=lambda session: str(session.increment("n")))
        app.get("/žluť/a", callback=lambda: str(hasattr(bottle.request, "session")))
        app.get("/žluť/b", callback=lambda session: str(session["n"]))
        browser = TestApp(app)
        browser.get("/visit")
        store.calls.clear()
        assert browser.get("/%C5%BElu%C5%A5/a").text == "False"
        assert store.calls == []
        assert browser.get("/%C5%BElu%C5%A5/b").text == "1"

    def test_the_plugin_of_a_single_route_is_refused(self):
        app = bottle.Bottle()
        app.get("/", callback=lambda: "", apply=[SessionPlugin(store="memory://")])
        response = TestApp(app).get("/", status=500, expect_errors=True)
        assert "autoload=False" in response.errors

    def test_client_with_a_prepared_session(self, app, browser):
        open_session(app, visits=7).add_to_jar(browser.cookiejar)
        assert browser.get("/show").text == "7"

    def test_a_template_has_the_csrf_token(self, app, browser):
        @app.get("/form")
        def form(session):
            return bottle.template("{{session.csrf_token}}", session=session)

        @app.post("/send")
        def send(session):
            if not session.check_csrf(bottle.request.forms.get("csrf_token")):
                bottle.abort(403)
            return "accepted"

        token = browser.get("/form").text
        assert browser.post("/send", {"csrf_token": token}).text == "accepted"
        browser.post("/send", {"csrf_token": "guessed"}, status=403)


class TestMount:
    """Mounted applications."""

    def test_a_mounted_application_has_the_session(self, app, browser):
        child = bottle.Bottle()
        child.install(SessionPlugin(sojourn.get(app)))
        child.get("/visit", callback=lambda session: str(session.increment("visits")))
        child.get("/show", callback=lambda: str(bottle.request.session["visits"]))
        app.mount("/child/", child)
        browser.get("/visit")
        assert browser.get("/child/visit").text == "2"
        assert browser.get("/child/show").text == "2"

    def test_installation_in_a_mounted_application_is_refused(self, app):
        child = bottle.Bottle()
        child.install(SessionPlugin(store="memory://", realm="child"))
        child.get("/visit", callback=lambda session: "")
        app.mount("/child/", child)
        response = TestApp(app).get("/child/visit", status=500, expect_errors=True)
        assert "same sojourn.Sessions" in response.errors


class TestResponses:
    """When the session is committed."""

    def test_raised_responses_keep_the_changes(self, app, browser):
        @app.get("/redirect")
        def redirect(session):
            session["visits"] = 5
            bottle.redirect("/show")

        @app.get("/abort")
        def abort(session):
            session["visits"] = 6
            bottle.abort(404)

        @app.get("/fail")
        def fail(session):
            session["visits"] = 7
            bottle.abort(500)

        assert browser.get("/redirect").follow().text == "5"
        browser.get("/abort", status=404)
        browser.get("/fail", status=500)  # A10
        assert browser.get("/show").text == "6"

    def test_a_generator_commits_at_its_end(self, app, browser):
        """A11: before its first part it may create a session."""

        @app.get("/stream")
        def stream(session):
            session.increment("visits")
            yield "first "
            session.increment("visits")
            yield "last"

        assert browser.get("/stream").text == "first last"
        assert browser.get("/show").text == "2"

    def test_hooks_may_use_the_session(self, app, browser):
        @app.hook("after_request")
        def count():
            bottle.request.session.increment("requests")
            bottle.response.set_header("X-Requests", str(bottle.request.session["requests"]))

        browser.get("/visit")
        assert browser.get("/visit").headers["X-Requests"] == "2"


class TestErrors:
    """A23: the application's error handlers respond to errors."""

    @pytest.mark.parametrize("verb", ["load", "save"])
    def test_handler_of_503_responds_to_a_failing_store(self, app, browser, store, verb):
        @app.error(503)
        def unavailable(error):
            assert isinstance(error.exception, StoreUnavailable)
            return "back in a moment"

        browser.get("/visit")
        store.fail(verb)
        response = browser.get("/visit", status=503)
        assert (response.text, response.headers["Retry-After"]) == ("back in a moment", "2")
        store.heal()
        assert browser.get("/show").text == "1"

    @pytest.mark.parametrize("verb", ["load", "save"])
    def test_response_of_the_500_handler_becomes_503(self, app, browser, store, verb):
        app.error(500, callback=lambda error: f"failed: {type(error.exception).__name__}")
        browser.get("/visit")
        store.fail(verb)
        response = browser.get("/visit", status=503, expect_errors=True)
        assert response.text == "failed: StoreUnavailable"
        assert response.headers["Retry-After"]

    @pytest.mark.parametrize("verb", ["load", "save"])
    def test_failing_store_is_503_by_default(self, browser, store, verb):
        browser.get("/visit")
        store.fail(verb)
        response = browser.get("/visit", status=503, headers={"Accept": "application/json"})
        assert "unavailable" in response.json["detail"]
        assert response.headers.getall("Retry-After") == ["2"]

    def test_a_missing_login_is_401(self, app, browser):
        app.get("/account", callback=lambda session: session.require_user())
        assert browser.get("/account", status=401).headers["WWW-Authenticate"] == "Session"

    def test_handler_of_401_responds_to_a_missing_login(self, app, browser):
        app.get("/account", callback=lambda session: session.require_user())
        app.error(401, callback=lambda error: "please log in")
        assert browser.get("/account", status=401).text == "please log in"

    def test_on_error_returns_a_response_of_bottle(self):
        def on_error(request, error):
            assert request.path == "/"
            if isinstance(error, SessionTooLarge):
                return bottle.HTTPResponse("too large", 413)
            return None

        for catchall in (True, False):
            app = bottle.Bottle()
            app.catchall = catchall
            sojourn.install(app, store="memory://", on_error=on_error)
            app.get("/", callback=lambda session: session.update(note="x" * 100_000) or "")
            assert TestApp(app).get("/", status=413).text == "too large"

    def test_a_route_continues_without_its_session(self, app, browser, store):
        """A15: by the configuration of the route."""

        @app.get("/news", session={"on_store_failure": "anonymous"})
        def news(session):
            return session.get("name", "guest")

        browser.get("/visit")
        store.fail("load")
        assert browser.get("/news").text == "guest"
        browser.get("/visit", status=503)
