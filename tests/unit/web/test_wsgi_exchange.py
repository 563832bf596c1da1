"""WSGI frameworks: loading at the first access, committing early, error handlers."""

import pytest

import sojourn
from sojourn import Sessions
from sojourn.errors import SessionRequired, SessionTooLarge, StoreUnavailable
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore
from sojourn.web.wsgi import EXCHANGE, SESSION, SessionMiddleware, get_session
from tests.support.broadcast_store import Bus
from tests.support.near_cache_process import OneStore

SECRET = "wsgi-8Rk3Zq6Vt9Lx2Wm-Hn"
FAILURE = StoreUnavailable("the store is down")


class World:
    """An application whose framework loads the session at its first access."""

    def __init__(self, *, store=None, error_handler=None, autoload=False, **options):
        self.store = store or FaultyStore(MemoryStore())
        self.sessions = Sessions(store=self.store, secret=SECRET, **options)
        self.error_handler = error_handler
        self.autoload = autoload
        self.cookie = None

    def begin(self):
        """Store a session with ``n == 0`` for the following requests."""
        with self.sessions.open(url="http://localhost/") as visit:
            visit.session["n"] = 0
        self.cookie = dict(visit.response_headers())["set-cookie"].partition(";")[0]
        return self

    def get(self, page, path="/", method="GET"):
        """Serve a request; return the status, the headers as a dictionary and the body."""
        app = SessionMiddleware(
            page, self.sessions, autoload=self.autoload, error_handler=self.error_handler
        )
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "HTTP_HOST": "localhost",
            "wsgi.url_scheme": "http",
        }
        if self.cookie is not None:
            environ["HTTP_COOKIE"] = self.cookie
        started = []
        result = app(environ, lambda *response: started.append(response))
        try:
            body = b"".join(result)
        finally:
            getattr(result, "close", lambda: None)()
        ((status, headers),) = started
        return status, dict(headers), body

    def data(self):
        """Return what the visitor's session holds."""
        with self.sessions.open(url="http://localhost/", cookies=self.cookie) as visit:
            return dict(visit.session)


@pytest.fixture
def world():
    return World().begin()


def respond(status="200 OK", body=b"page"):
    def app(environ, start_response):
        start_response(status, [("Content-Length", str(len(body)))])
        return iter([body])

    return app


class TestLoading:
    def test_the_session_is_loaded_at_its_first_access(self, world):
        def page(environ, start_response):
            assert SESSION not in environ
            session = get_session(environ)
            assert environ[SESSION] is session is get_session(environ)
            session["n"] = 1
            return respond()(environ, start_response)

        world.store.calls.clear()
        _, headers, _ = world.get(page)
        assert world.store.calls == ["load", "save"]
        assert headers["cache-control"] == "private"

    def test_a_response_without_the_session_may_still_load_it(self, world):
        """A13: a stream is private, because its visitor has a ticket."""
        _, headers, _ = world.get(lambda environ, start: (start("200 OK", []), iter([b"a"]))[1])
        assert (headers["vary"], headers["cache-control"]) == ("Cookie", "private")
        world.cookie = None
        _, headers, _ = world.get(lambda environ, start: (start("200 OK", []), iter([b"a"]))[1])
        assert headers == {}

    def test_path_is_that_of_the_original_request(self):
        """A framework may change PATH_INFO while it resolves the route."""
        world = World(on_store_failure={"/reports": "anonymous"}).begin()

        def page(environ, start_response):
            environ["PATH_INFO"] = "/mounted"
            assert dict(get_session(environ)) == {}
            return respond()(environ, start_response)

        world.store.fail("load")
        assert world.get(page, "/reports")[0] == "200 OK"
        assert world.get(page, "/other")[0] == "503 Service Unavailable"

    def test_a_second_middleware_loads_nothing(self, world):
        """For example in a mounted application with its own middleware."""

        def page(environ, start_response):
            assert SESSION not in environ
            return respond()(environ, start_response)

        inner = SessionMiddleware(page, world.sessions, autoload=False)
        assert world.get(inner)[0] == "200 OK"

    def test_second_middleware_loads_if_the_first_does_not(self, world):
        def page(environ, start_response):
            assert environ[SESSION]["n"] == 0
            return respond()(environ, start_response)

        assert world.get(SessionMiddleware(page, world.sessions))[0] == "200 OK"

    def test_loading_after_the_response_is_an_error(self, world):
        environs = []

        def page(environ, start_response):
            environs.append(environ)
            return respond()(environ, start_response)

        world.get(page)
        with pytest.raises(RuntimeError, match="the response has ended"):
            get_session(environs[0])
        with pytest.raises(sojourn.errors.ConfigurationError, match="did not pass a session"):
            get_session({})


class TestCommit:
    def committing(self, change, *, status=200, failing=None):
        """Return a page of a framework that commits before its error handlers finish."""

        def page(environ, start_response):
            session = get_session(environ)
            change(session)
            exchange = environ[EXCHANGE]
            try:
                exchange.commit_response(status)
                text = f"{status} X"
            except sojourn.errors.SojournError as error:
                exchange.settle(error)
                if failing is not None:
                    failing.append(error)
                text = "500 Internal Server Error"
            return respond(text)(environ, start_response)

        return page

    def test_changes_are_committed_before_the_response(self, world):
        def page(environ, start_response):
            get_session(environ)["n"] = 1
            environ[EXCHANGE].commit_response(200)
            assert world.data() == {"n": 1}
            environ[SESSION] = {"n": 2}  # A24
            environ[EXCHANGE].commit_response(200)
            assert world.data() == {"n": 2}
            return respond()(environ, start_response)

        world.get(page)

    def test_an_error_response_drops_the_changes(self, world):
        """A10."""
        world.get(self.committing(lambda session: session.update(n=1), status=500))
        assert world.data() == {"n": 0}

    def test_a_failed_store_is_503(self, world):
        """A15, A23: the framework sent a 500 for the error."""
        world.store.fail("save", error=FAILURE)
        failing = []
        page = self.committing(lambda session: session.update(n=1), failing=failing)
        status, headers, body = world.get(page)
        assert (status, headers["retry-after"], body) == ("503 Service Unavailable", "2", b"page")
        assert failing == [FAILURE]

    def test_session_over_the_limit_is_raised_to_the_framework(self, world):
        """A23."""
        failing = []
        page = self.committing(lambda session: session.update(n="x" * 100_000), failing=failing)
        assert world.get(page)[0] == "500 Internal Server Error"
        assert [type(error) for error in failing] == [SessionTooLarge]
        assert world.data() == {"n": 0}

    def test_failed_request_destroys_a_session_replaced_by_none(self, world):
        """A10, A24: None destroys the session."""

        def page(environ, start_response):
            get_session(environ)
            environ[SESSION] = None
            environ[EXCHANGE].settle(ValueError())
            environ[EXCHANGE].settle(ValueError())  # once
            environ[EXCHANGE].commit_response(200)  # no further commit
            return respond("500 X")(environ, start_response)

        _, headers, _ = world.get(page)
        assert "Max-Age=0" in headers["set-cookie"]
        assert world.data() == {}

    @staticmethod
    def teapot(environ, start_response):
        start_response("418 X", [("x-own", "1")])
        return [b"page"]

    def settled(self, act, *, response=None):
        """Return a page whose error handler calls ``act``."""

        def page(environ, start_response):
            get_session(environ)["n"] = 1
            environ[EXCHANGE].settle(ValueError())
            act(environ)
            return (response or self.teapot)(environ, start_response)

        return page

    @pytest.mark.parametrize(
        "act",
        [
            lambda environ: environ[SESSION].destroy(),
            lambda environ: environ.update({SESSION: None}),
        ],
    )
    def test_error_handler_may_destroy_the_session(self, world, act):
        """A10, A24: the response clears the cookie."""
        status, headers, _ = world.get(self.settled(act))
        assert (status, headers["x-own"]) == ("418 X", "1")
        assert "Max-Age=0" in headers["set-cookie"]
        assert world.data() == {}

    def test_logout_response_becomes_503_if_the_delete_fails(self, world):
        """A10, A23: with the headers of the application."""

        def act(environ):
            world.store.fail("delete")
            environ[SESSION].logout()

        status, headers, _ = world.get(self.settled(act))
        assert status == "503 Service Unavailable"
        assert (headers["retry-after"], headers["x-own"]) == ("2", "1")
        assert "set-cookie" not in headers
        world.store.heal()
        assert world.data() == {"n": 0}

    def test_stream_of_an_error_response_may_destroy_the_session(self, world):
        """A10, A11."""
        session = []

        def parts():
            yield b"first"
            session[0].destroy()
            yield b"last"

        def stream(environ, start_response):
            session.append(environ[SESSION])
            start_response("500 X", [])
            return parts()

        assert world.get(self.settled(lambda environ: None, response=stream))[2] == b"firstlast"
        assert world.data() == {}

    def test_invalid_replacement_in_a_failed_request_is_logged(self, world, caplog):
        """A24: the error of the request is raised."""

        def page(environ, start_response):
            get_session(environ)["n"] = 1
            environ[SESSION] = 7
            raise SessionRequired("log in")

        assert world.get(page)[0] == "401 Unauthorized"
        assert "was not adopted" in caplog.text
        assert world.data() == {"n": 0}

    def test_repeated_handler_keeps_the_read_your_writes_cookie(self):
        """N3: the first run wrote the session; the second one only reads."""
        bus = Bus()
        store = OneStore(FaultyStore(MemoryStore()), [bus], bus)
        world = World(store=store, near_cache="2 seconds").begin()

        def page(environ, start_response):
            get_session(environ)["n"] = 1
            exchange = environ[EXCHANGE]
            exchange.commit_response(200)
            exchange.restart()
            assert get_session(environ)["n"] == 1
            return respond()(environ, start_response)

        _, headers, _ = world.get(page)
        world.sessions.close()
        assert headers["set-cookie"].startswith("sid-written=1;")

    def test_repeated_handler_drops_the_changes_of_the_first_run(self, world):
        """Like a repeated transaction."""

        def page(environ, start_response):
            get_session(environ)["n"] = 1
            environ[EXCHANGE].restart()
            assert get_session(environ)["n"] == 0
            return respond()(environ, start_response)

        world.get(page)
        assert world.data() == {"n": 0}


class TestErrorHandler:
    """A23: the framework calls its own handlers, in place of ``on_error``."""

    @staticmethod
    def failing(error):
        def page(environ, start_response):
            raise error

        return page

    def test_error_handler_gets_the_request_of_the_framework(self):
        handled = []

        def handler(environ, error):
            handled.append((environ["PATH_INFO"], error))
            return respond("409 Conflict", b"own")

        world = World(
            error_handler=handler, on_error=lambda request, error: pytest.fail("must not be called")
        )
        assert world.get(self.failing(FAILURE), "/a") == (
            "409 Conflict",
            {"Content-Length": "3"},
            b"own",
        )
        assert handled == [("/a", FAILURE)]

    @pytest.mark.parametrize(
        ("error", "status"),
        [(FAILURE, "503 Service Unavailable"), (SessionRequired("log in"), "401 Unauthorized")],
    )
    def test_error_handler_that_returns_none_keeps_the_default(self, error, status):
        world = World(error_handler=lambda environ, error: None)
        assert world.get(self.failing(error))[0] == status

    @pytest.mark.parametrize(
        "error", [ValueError("own"), sojourn.errors.ConfigurationError("wrong")]
    )
    def test_error_handler_is_not_called_for_other_errors(self, error):
        world = World(error_handler=lambda environ, error: pytest.fail("must not be called"))
        with pytest.raises(type(error)):
            world.get(self.failing(error))

    def test_error_of_the_error_handler_is_raised(self):
        def handler(environ, error):
            raise LookupError("planned by the test")

        with pytest.raises(LookupError):
            World(error_handler=handler).get(self.failing(FAILURE))

    def test_error_handler_responds_to_a_failed_load(self):
        world = World(error_handler=lambda environ, error: respond("409 X"), autoload=True).begin()
        world.store.fail("load")
        assert (
            world.get(lambda environ, start_response: pytest.fail("must not be called"))[0]
            == "409 X"
        )
