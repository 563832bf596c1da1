"""SessionMiddleware with Starlette's constructor, and Starlette's own beside sojourn's."""

import copy
import json
import logging
from collections import OrderedDict

import pytest
import starlette.middleware.sessions
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware as StarlettesMiddleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient

import sojourn
from sojourn import Session, Sessions
from sojourn.errors import ConfigurationError, StoreUnavailable
from sojourn.frameworks.starlette import DictSession, SessionMiddleware
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore

SECRET = "starlette-7Jm2Qw9vXc4Rk1-Zt"


async def count(request):
    request.session["n"] = request.session.get("n", 0) + 1
    return JSONResponse({"session": request.session})


async def leave(request):
    request.session.clear()
    return JSONResponse(request.session)


async def look(request):
    return PlainTextResponse(str(request.session.get("n")))


async def show(websocket):
    await websocket.accept()
    await websocket.send_json(websocket.session)
    await websocket.close()


ROUTES = (
    Route("/count", count),
    Route("/leave", leave),
    Route("/look", look),
    WebSocketRoute("/show", show),
)


def client_of(*more, routes=ROUTES, url="http://testserver", **options):
    middleware = Middleware(SessionMiddleware, SECRET, **{"store": MemoryStore(), **options})
    return TestClient(Starlette(routes=routes, middleware=[middleware, *more]), base_url=url)


def test_subclasses_of_dict_become_plain():
    """``request.session["user"] = token["userinfo"]``, as Authlib's documentation writes it."""

    async def write(request):
        request.session["user"] = OrderedDict(sub="ada", address=OrderedDict(city="London"))
        request.session.setdefault("token", OrderedDict(access_token="a"))
        return JSONResponse(request.session)

    client = client_of(routes=[Route("/", write)])
    user = {"sub": "ada", "address": {"city": "London"}}
    assert client.get("/").json() == {"user": user, "token": {"access_token": "a"}}


class TestConstructor:
    def test_defaults(self):
        """ASVS 3.3.4: the cookie of Starlette's, two weeks, Secure on https."""
        cookie = client_of(url="https://testserver").get("/count").headers["set-cookie"]
        assert cookie.startswith("session=")
        assert "; Max-Age=1209600; " in cookie
        assert cookie.endswith("; path=/; secure; httponly; samesite=lax")

    def test_each_parameter_in_its_order(self):
        args = ("name", None, "/account", "strict", True, "testserver.local", True)
        middleware = Middleware(SessionMiddleware, SECRET, *args, store="memory://")
        client = TestClient(Starlette(routes=ROUTES, middleware=[middleware]))
        cookie = client.get("/count").headers["set-cookie"]
        assert cookie.startswith("name=")
        assert cookie.endswith(
            "; path=/account; domain=testserver.local; secure; httponly; samesite=strict; "
            "partitioned"
        )

    @pytest.mark.parametrize(("https_only", "secure"), [(None, True), (False, False), (True, True)])
    def test_https_only(self, https_only, secure):
        client = client_of(url="https://testserver", https_only=https_only)
        assert ("; secure" in client.get("/count").headers["set-cookie"]) is secure

    def test_our_options_win(self):
        client = client_of(cookie="own", timeout="5 minutes", absolute_timeout="1 hour")
        assert client.get("/count").headers["set-cookie"].startswith("own=")

    def test_an_invalid_age_is_refused(self):
        with pytest.raises(ConfigurationError, match="max_age expects a number of seconds"):
            client_of(max_age="14 days").get("/")

    @pytest.mark.parametrize("max_age", [0, -1])
    def test_an_age_of_nothing_keeps_no_session(self, max_age):
        """A17."""
        client = client_of(max_age=max_age)
        cookie = client.get("/count").headers["set-cookie"].partition(";")[0]
        assert "Max-Age=1;" in client.get("/count").headers["set-cookie"]
        assert client.get("/look", headers={"cookie": cookie}).text == "None"

    def test_an_unknown_option_is_refused(self):
        with pytest.raises(ConfigurationError, match="Did you mean 'timeout'"):
            SessionMiddleware(None, SECRET, timeuot=1)

    @pytest.mark.parametrize("secret_key", ["!secret", "example", "x" * 40])
    def test_a_weak_secret_is_not_used(self, secret_key, caplog):
        """B-16: the generated one is; the warning does not show the weak one."""
        middleware = Middleware(SessionMiddleware, secret_key, store="memory://")
        client = TestClient(Starlette(routes=ROUTES, middleware=[middleware]))
        assert client.get("/count").json() == {"session": {"n": 1}}
        assert client.get("/count").json() == {"session": {"n": 2}}
        assert "secret_key is not used" in caplog.text
        assert secret_key not in caplog.text

    def test_a_weak_secret_of_a_shared_store_is_refused(self):
        """B-16."""
        with pytest.raises(ConfigurationError, match="expects a secret"):
            SessionMiddleware(None, "!secret", store="redis://localhost:1/0")

    def test_an_installation_of_the_application(self):
        sessions = Sessions(store="memory://")
        app = Starlette(routes=ROUTES)
        app.add_middleware(SessionMiddleware, sessions=sessions)
        client = TestClient(app)
        client.get("/count")
        assert sessions.count() == 1

    def test_fastapi_adds_it_in_the_usual_way(self):
        app = FastAPI(routes=list(ROUTES))
        app.add_middleware(SessionMiddleware, secret_key=SECRET, store="memory://")
        assert TestClient(app).get("/count").json() == {"session": {"n": 1}}

    def test_handlers_answer_its_errors(self):
        """A23: of loads and of commits."""

        async def handle(request, error):
            return PlainTextResponse(type(error).__name__, 507)

        store = FaultyStore(MemoryStore())
        middleware = [Middleware(SessionMiddleware, SECRET, store=store)]
        handlers = {StoreUnavailable: handle}
        app = Starlette(routes=ROUTES, middleware=middleware, exception_handlers=handlers)
        client = TestClient(app, raise_server_exceptions=False)
        client.get("/count")
        for call in ("load", "save"):
            store.fail(call, times=1)
            response = client.get("/count")
            assert (response.status_code, response.text) == (507, "StoreUnavailable")
        assert client.get("/count").json() == {"session": {"n": 2}}


class TestSession:
    def test_clear_ends_it(self):
        """A7: the cookie is deleted, as by Starlette's."""
        client = client_of()
        client.get("/count")
        response = client.get("/leave")
        assert (response.json(), "Max-Age=0" in response.headers["set-cookie"]) == ({}, True)
        assert client.get("/look").text == "None"

    def test_a_socket_has_it(self):
        """W1."""
        client = client_of()
        client.get("/count")
        with client.websocket_connect("/show") as websocket:
            assert websocket.receive_json() == {"n": 1}

    def test_it_is_a_dict_and_a_session(self):
        """A24: a library may expect either type."""
        seen = {}

        async def handler(request):
            session = request.session
            assert isinstance(session, dict)
            assert isinstance(session, Session)
            assert json.dumps(session) == "{}"
            assert (session.accessed, session.modified) == (True, False)
            session["a"] = {"b": 1}
            session["c"] = [1]
            assert session.modified
            session["a"]["b"] = 2
            seen["indented"] = json.loads(json.dumps(session, indent=1, sort_keys=True))
            seen["dict"], seen["star"] = dict(session), {**session}
            seen["or"], seen["deep"] = session | {}, copy.deepcopy(session)
            seen["update"] = {}
            seen["update"].update(session)
            assert "" not in session
            assert (len(session), list(session), bool(session)) == (2, ["a", "c"], True)
            session |= {"d": 3}
            assert session.pop("d") == 3
            assert session == {"a": {"b": 2}, "c": [1]}
            assert "use session.copy()" not in repr(session)
            session.mark_accessed()
            session.mark_modified()
            session.login("ada")
            assert session.user == "ada"
            return JSONResponse(session)

        client = client_of(routes=[Route("/", handler)])
        expected = {"a": {"b": 2}, "c": [1]}
        assert client.get("/").json() == expected
        assert len(seen) == 6
        assert all(value == expected for value in seen.values())

    def test_its_storage_is_not_mistaken_for_its_content(self):
        """A24: an encoder that reads the storage of a dict fails, and sends nothing wrong."""
        msgspec = pytest.importorskip("msgspec")
        with pytest.raises(TypeError):
            msgspec.json.encode(DictSession())

    def test_without_the_store_clear_is_an_error(self):
        """A15."""
        store = FaultyStore(MemoryStore())
        client = client_of(store=store, on_store_failure="anonymous")
        client.get("/count")
        store.fail("load", times=1)
        assert client.get("/look").text == "None"
        store.fail("load", times=1)
        assert client.get("/leave").status_code == 503
        assert client.get("/look").text == "1"


class TestStarlettesBeside:
    """A24: a middleware of Starlette's never replaces the session silently."""

    def test_install_takes_its_place(self, caplog):
        app = Starlette(routes=ROUTES)
        sojourn.install(app, store="memory://")
        app.add_middleware(StarlettesMiddleware, secret_key="example")
        client = TestClient(app)
        assert client.get("/look").text == "None"
        sojourn.get(app)
        assert "Starlette's SessionMiddleware of this application is not used" in caplog.text
        with pytest.raises(TypeError):  # a Session of `install` is no dict
            client.get("/count")
        assert "session" not in client.cookies

    def test_install_on_a_running_application_takes_its_place(self, caplog):
        app = Starlette(routes=ROUTES)
        app.add_middleware(StarlettesMiddleware, secret_key="example")
        client = TestClient(app)
        client.get("/count")
        client.cookies.clear()
        sessions = sojourn.install(app, store="memory://")
        assert client.get("/look").text == "None"
        assert "is not used" in caplog.text
        assert sessions.usage().failures == 0

    @pytest.mark.skipif(
        not hasattr(starlette.middleware.sessions, "Session"),
        reason="a plain dict of older versions cannot be distinguished from one of the application",
    )
    @pytest.mark.parametrize("kind", ["install", "drop-in"])
    def test_a_mounted_application_names_its_path(self, kind):
        inner = Starlette(
            routes=ROUTES, middleware=[Middleware(StarlettesMiddleware, secret_key="example")]
        )
        app = Starlette(routes=[Mount("/admin", inner), *ROUTES])
        if kind == "install":
            sojourn.install(app, store="memory://")
        else:
            app.add_middleware(SessionMiddleware, secret_key=SECRET, store="memory://")
        client = TestClient(app)
        with pytest.raises(ConfigurationError, match="'/admin/look' inside of sojourn's"):
            client.get("/admin/look")
        with (
            pytest.raises(ConfigurationError, match="'/admin/show' inside"),
            client.websocket_connect("/admin/show"),
        ):
            pass
        assert client.get("/look").text == "None"

    def test_a_mounted_application_may_keep_its_own(self):
        inner = Starlette(
            routes=ROUTES, middleware=[Middleware(StarlettesMiddleware, secret_key="example")]
        )
        app = Starlette(routes=[Mount("/admin", inner), *ROUTES])
        sojourn.install(app, store="memory://", exclude=["/admin/*"])
        client = TestClient(app)
        assert [client.get("/admin/count").json()["session"]["n"] for _ in range(2)] == [1, 2]

    @pytest.mark.parametrize("times", [1, 2])
    def test_one_outside_is_refused(self, times):
        app = Starlette(routes=ROUTES)
        sojourn.install(app, store="memory://")
        client = TestClient(StarlettesMiddleware(app, secret_key="example"))
        for _ in range(times):
            with pytest.raises(ConfigurationError, match="outside of sojourn's"):
                client.get("/look")

    @pytest.mark.parametrize("between", [0, 1])
    def test_the_drop_in_takes_the_place_of_one_inside(self, between, caplog):
        """As in Streamlit, which puts its own inside of the middleware of the program."""
        middleware = [
            Middleware(SessionMiddleware, secret_key=SECRET, store="memory://"),
            *[Middleware(GZipMiddleware)] * between,
            Middleware(StarlettesMiddleware, secret_key="example", session_cookie="inner"),
        ]
        client = TestClient(Starlette(routes=ROUTES, middleware=middleware))
        assert client.get("/count").json() == {"session": {"n": 1}}
        assert list(client.cookies) == ["session"]
        assert "is not used" in caplog.text

    def test_one_added_before_the_drop_in(self):
        middleware = [
            Middleware(StarlettesMiddleware, secret_key="example"),
            Middleware(SessionMiddleware, secret_key=SECRET, store="memory://"),
        ]
        client = TestClient(Starlette(routes=ROUTES, middleware=middleware))
        with pytest.raises(ConfigurationError, match="outside of sojourn's"):
            client.get("/look")


@pytest.fixture(autouse=True)
def _warnings_are_expected(caplog):
    caplog.set_level(logging.WARNING, "sojourn")
