"""Litestar's session protocol, SessionAuth, plugins and test clients with sojourn."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest
from litestar import Controller, Litestar, Request, Response, Router, WebSocket, get, post
from litestar.config.cors import CORSConfig
from litestar.config.csrf import CSRFConfig
from litestar.config.response_cache import ResponseCacheConfig
from litestar.connection import ASGIConnection
from litestar.datastructures import MutableScopeHeaders
from litestar.exceptions import NotAuthorizedException
from litestar.handlers import WebsocketListener, websocket, websocket_listener
from litestar.middleware.authentication import (
    AbstractAuthenticationMiddleware,
    AuthenticationResult,
)
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.plugins.flash import FlashConfig, FlashPlugin, flash
from litestar.response import ServerSentEvent, Stream, Template
from litestar.security.session_auth import SessionAuth
from litestar.template.config import TemplateConfig
from litestar.testing import AsyncTestClient, TestClient, WebSocketTestSession, create_test_client

import sojourn
from sojourn.errors import ConfigurationError, SessionTooLarge, StoreUnavailable
from sojourn.frameworks.litestar import SojournConfig, SojournPlugin, require_csrf
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore, open_session

try:
    from litestar.plugins.jinja import JinjaTemplateEngine
except ImportError:  # before Litestar 2.22
    from litestar.contrib.jinja import JinjaTemplateEngine

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SECRET = "a secret for tests: 5f8c1e90"


def make_plugin(**options: Any) -> SojournPlugin:
    return SojournPlugin(**{"store": "memory://", "secret": SECRET, **options})


def client_of(*routes: Any, plugin: SojournPlugin | None = None, **config: Any) -> TestClient:
    plugin = make_plugin() if plugin is None else plugin
    plugins = [plugin, *config.pop("plugins", ())]
    app = Litestar(list(routes), plugins=plugins, **config)
    return TestClient(app, session_config=plugin.config)


async def keep_message(message: Any, scope: Any) -> None:
    """Return the message unchanged."""


async def set_own(request: Request) -> None:
    request.session["own"] = True


@get("/count")
async def count(request: Request) -> dict[str, Any]:
    request.session["n"] = request.session.get("n", 0) + 1
    return {"n": request.session["n"]}


@post("/set")
async def set_data(request: Request, data: dict[str, Any]) -> None:
    request.set_session(data)


@post("/clear")
async def clear(request: Request) -> None:
    request.clear_session()


@get("/show")
async def show(request: Request) -> dict[str, Any]:
    return {**request.session}


@get("/who")
async def who(request: Request) -> dict[str, Any]:
    return {"user": request.session.user}


@post("/empty-key")
async def pop_user(request: Request) -> None:
    request.session.pop("user_id")


class TestSessionProtocol:
    """``request.session``, ``set_session`` and ``clear_session`` as Litestar documents them."""

    def test_session_is_kept_between_requests(self):
        """A2, A4."""
        client = client_of(count)
        assert [client.get("/count").json()["n"] for _ in range(3)] == [1, 2, 3]

    @pytest.mark.parametrize("by_plugin", [True, False])
    def test_a_handler_may_return_the_session(self, by_plugin):
        """Litestar's own sessions are dicts, so handlers may return them."""

        @get("/own")
        async def own(request: Request) -> dict[str, Any]:
            return request.session

        @get("/nested")
        async def nested(request: Request) -> Response[Any]:
            return Response({"session": request.session})

        plugins = [make_plugin()] if by_plugin else []
        app = Litestar([count, own, nested], plugins=plugins)
        if not by_plugin:
            sojourn.install(app, store="memory://", secret=SECRET)
        with TestClient(app) as client:
            client.get("/count")
            assert client.get("/own").json() == {"n": 1}
            assert client.get("/nested").json() == {"session": {"n": 1}}

    def test_a_visitor_without_a_write_gets_no_cookie(self):
        """A1."""
        assert "set-cookie" not in client_of(show).get("/show").headers

    def test_set_session_replaces_the_data(self):
        """A24: one commit with the difference; the cookie is unchanged."""
        client = client_of(set_data, show)
        client.post("/set", json={"a": 1, "b": {"c": 2}})
        response = client.post("/set", json={"b": {"c": 3}})
        assert "set-cookie" not in response.headers
        assert client.get("/show").json() == {"b": {"c": 3}}

    def test_set_session_accepts_a_dataclass(self):
        """A24: it is stored as its fields, as in Litestar's own sessions."""

        @dataclass
        class Profile:
            name: str
            id: UUID

        known = uuid4()

        @post("/profile")
        async def profile(request: Request) -> None:
            request.set_session(Profile("ada", known))

        client = client_of(profile, show)
        client.post("/profile")
        assert client.get("/show").json() == {"name": "ada", "id": str(known)}

    def test_set_session_with_an_empty_dict_clears_the_data(self):
        """A24."""
        client = client_of(set_data, show)
        client.post("/set", json={"a": 1})
        client.post("/set", json={})
        assert client.get("/show").json() == {}

    def test_clear_session_destroys_the_session(self):
        """A7, A24, B-34: record and cookie are deleted; the old cookie is invalid."""
        plugin = make_plugin()
        client = client_of(count, clear, show, plugin=plugin)
        client.get("/count")
        before = dict(client.cookies)
        response = client.post("/clear")
        assert "max-age=0" in response.headers["set-cookie"].lower()
        assert plugin.sessions.count() == 0
        client.cookies.update(before)
        assert client.get("/show").json() == {}

    def test_clear_session_of_a_new_visitor_sends_no_cookie(self):
        """A1."""
        assert "set-cookie" not in client_of(clear).post("/clear").headers

    def test_sync_handler_has_the_session(self):
        """A2: in a thread, and in the event loop."""

        @get("/threaded", sync_to_thread=True)
        def threaded(request: Request) -> int:
            return request.session.increment("n")

        @get("/direct", sync_to_thread=False)
        def direct(request: Request) -> int:
            return request.session.increment("n")

        client = client_of(threaded, direct)
        assert (client.get("/threaded").json(), client.get("/direct").json()) == (1, 2)


@dataclass
class Shop:
    items: int = 0


class TestRoutes:
    """Which routes have a session."""

    def test_route_with_the_opt_key_has_no_session(self):
        @get("/health", opt={"skip_session": True})
        async def health(request: Request) -> bool:
            return "session" in request.scope

        assert client_of(health).get("/health").json() is False

    def test_opt_key_is_an_option(self):
        @get("/health", no_session=True)
        async def health(request: Request) -> bool:
            return "session" in request.scope

        plugin = make_plugin(exclude_opt_key="no_session")
        assert client_of(health, plugin=plugin).get("/health").json() is False

    def test_excluded_paths_have_no_session(self):
        @get("/static/file")
        async def file(request: Request) -> bool:
            return "session" in request.scope

        plugin = make_plugin(exclude=["/static/*"])
        assert client_of(file, plugin=plugin).get("/static/file").json() is False

    def test_middleware_of_a_config_applies_to_one_router(self):
        config = SojournConfig(store="memory://", secret=SECRET)

        @get("/plain")
        async def plain(request: Request) -> bool:
            return "session" in request.scope

        router = Router("/shop", route_handlers=[count], middleware=[config.middleware])
        client = TestClient(Litestar([plain, router]))
        assert client.get("/plain").json() is False
        assert [client.get("/shop/count").json()["n"] for _ in range(2)] == [1, 2]

    def test_dependency_loads_the_session_of_its_route(self):
        """A1: with ``autoload=False`` other routes make no store call."""
        store = FaultyStore(MemoryStore())

        @get("/loading")
        async def loading(session: sojourn.Session) -> int:
            return session.increment("n")

        @get("/other")
        async def other(request: Request) -> bool:
            return "session" in request.scope

        client = client_of(loading, other, plugin=make_plugin(autoload=False, store=store))
        assert [client.get("/loading").json() for _ in range(2)] == [1, 2]
        calls = len(store.calls)
        assert client.get("/other").json() is False
        assert len(store.calls) == calls

    def test_dependency_works_in_controllers_and_with_typed_sessions(self):
        class Cart(Controller):
            path = "/cart"

            @get()
            async def show(self, session: sojourn.Session[Shop]) -> int:
                session.state.items += 1
                return session.state.items

        client = client_of(Cart, plugin=make_plugin(state=Shop))
        assert [client.get("/cart").json() for _ in range(2)] == [1, 2]

    def test_the_route_decorator_loads_the_session(self):
        plugin = make_plugin(autoload=False)

        @get("/named/{name:str}")
        @plugin.sessions.route
        async def named(request: Request, name: str) -> str:
            request.session["name"] = name
            return request.session["name"]

        @get("/sync")
        @plugin.sessions.route(on_store_failure="anonymous")
        def plain(request: Request) -> str:
            return request.session.get("name", "?")

        client = client_of(named, plain, plugin=plugin)
        assert client.get("/named/ada").text == "ada"
        assert client.get("/sync").text == "ada"

    def test_route_decorator_works_on_methods_of_controllers(self):
        """A synchronous handler runs in a thread."""
        plugin = make_plugin(autoload=False)

        class Cart(Controller):
            path = "/cart"

            @get()
            @plugin.sessions.route
            async def show(self, request: Request) -> int:
                return request.session.increment("items")

            @get("/sync")
            @plugin.sessions.route
            def show_sync(self, request: Request, by: int = 1) -> list[int | bool]:
                in_thread = threading.current_thread() is not threading.main_thread()
                return [request.session.increment("items", by), in_thread]

        async def responses() -> list[Any]:
            async with AsyncTestClient(Litestar([Cart], plugins=[plugin])) as client:
                return [(await client.get(path)).json() for path in ("/cart", "/cart/sync?by=2")]

        assert anyio.run(responses) == [1, [3, True]]

    def test_route_without_the_middleware_raises_with_the_line_to_write(self):
        @get("/skipped", skip_session=True)
        async def skipped(session: sojourn.Session) -> None: ...

        client = client_of(skipped, debug=True)
        assert "SojournPlugin" in client.get("/skipped").text


@dataclass
class User:
    id: str
    name: str


USERS = {"1": User("1", "ada"), "2": User("2", "bob")}


async def retrieve_user(session: Any, connection: ASGIConnection) -> User | None:
    return USERS.get(session.get("user_id"))


@post("/login/{user:str}")
async def login(request: Request, user: str) -> None:
    request.set_session({"user_id": user})


@get("/me")
async def me(request: Request) -> str:
    return request.user.name


def auth_client(**options: Any) -> tuple[TestClient, sojourn.Sessions]:
    config = SojournConfig(**{"store": "memory://", "secret": SECRET, **options})
    auth = SessionAuth(
        retrieve_user_handler=retrieve_user,
        session_backend_config=config,
        exclude=["/login", "/schema"],
    )
    app = Litestar([login, me, who, clear, pop_user, count], on_app_init=[auth.on_app_init])
    return TestClient(app, session_config=config), config.sessions


class TestSessionAuth:
    """Litestar's SessionAuth: only its ``session_backend_config`` changes."""

    def test_a_visitor_without_a_session_is_refused(self):
        client, sessions = auth_client()
        response = client.get("/me")
        assert response.status_code == 401
        assert "set-cookie" not in response.headers
        assert sessions.count() == 0

    def test_a_login_by_set_session_binds_the_user(self):
        """S15: for lists, limits and revocation."""
        client, sessions = auth_client()
        client.post("/login/1")
        assert client.get("/me").text == "ada"
        assert [info.user for info in sessions.list_user("1")] == ["1"]
        sessions.revoke_user("1")
        assert client.get("/me").status_code == 401

    def test_a_login_replaces_the_ticket(self):
        """A9, B-25: session fixation."""
        client, _ = auth_client()
        client.set_session_data({"cart": 1})
        before = dict(client.cookies)
        client.post("/login/1")
        assert dict(client.cookies) != before
        thief = TestClient(client.app, cookies=before)
        assert thief.get("/me").status_code == 401

    def test_login_of_another_user_replaces_the_first(self):
        """A9."""
        client, sessions = auth_client()
        client.post("/login/1")
        client.post("/login/2")
        assert client.get("/me").text == "bob"
        assert sessions.list_user("1") == []

    def test_logout_destroys_the_session(self):
        """A7."""
        client, sessions = auth_client()
        client.post("/login/1")
        stolen = dict(client.cookies)
        client.post("/clear")
        assert sessions.count() == 0
        assert TestClient(client.app, cookies=stolen).get("/me").status_code == 401

    def test_removing_the_user_key_logs_out_and_keeps_the_data(self):
        """A7: the ticket of the login is invalid; the other data is in a new session."""
        client, sessions = auth_client()
        client.post("/login/1")
        client.get("/count")
        stolen = dict(client.cookies)
        client.post("/empty-key")
        assert client.get_session_data() == {"n": 1}
        assert sessions.list_user("1") == []
        assert TestClient(client.app, cookies=stolen).get("/me").status_code == 401

    def test_session_of_a_deleted_user_is_destroyed(self):
        """A24: SessionAuth replaces the session by ``Empty``."""
        client, sessions = auth_client()
        client.set_session_data({"user_id": "9"})
        assert client.get("/me").status_code == 401
        assert sessions.count() == 0

    def test_max_sessions_applies(self):
        client, _sessions = auth_client(max_sessions=1)
        client.post("/login/1")
        other = TestClient(client.app)
        other.post("/login/1")
        assert client.get("/me").status_code == 401
        assert other.get("/me").text == "ada"

    def test_an_explicit_login_is_not_replaced(self):
        """The application calls ``login`` and stores another value under the user key."""

        @post("/own")
        async def own(request: Request) -> None:
            request.session["user_id"] = 7
            request.session.login("ada")

        client = client_of(own, who, count)
        client.post("/own")
        client.get("/count")
        assert client.get("/who").json() == {"user": "ada"}

    def test_user_key_none_binds_no_user(self):
        client = client_of(set_data, who, plugin=make_plugin(user_key=None))
        client.post("/set", json={"user_id": "1"})
        assert client.get("/who").json() == {"user": None}

    def test_openapi_names_the_cookie_once(self):
        plugin = make_plugin()
        auth = SessionAuth(
            retrieve_user_handler=retrieve_user, session_backend_config=plugin.config
        )
        app = Litestar([me], plugins=[plugin], on_app_init=[auth.on_app_init])
        schemes = app.openapi_schema.to_schema()["components"]["securitySchemes"]
        assert schemes["sessionCookie"]["name"] == "__Host-sid"
        assert TestClient(app).get("/me").status_code == 401

    @pytest.mark.parametrize(
        ("header", "scheme"),
        [
            (None, {"type": "http", "scheme": "Session"}),
            ("X-Session", {"type": "apiKey", "name": "X-Session", "in": "header"}),
        ],
    )
    def test_openapi_names_the_header(self, header, scheme):
        app = Litestar([who], plugins=[make_plugin(transport="header", header=header)])
        schemes = app.openapi_schema.to_schema()["components"]["securitySchemes"]
        assert schemes == {"sessionHeader": scheme}

    def test_the_test_client_refuses_a_transport_without_cookies(self):
        plugin = make_plugin(transport="header")
        app = Litestar([who], plugins=[plugin])
        with (
            TestClient(app, session_config=plugin.config) as client,
            pytest.raises(ConfigurationError, match="stores sessions in cookies"),
        ):
            client.set_session_data({"n": 1})


class TestErrors:
    """Law A23: errors of the session are errors of the application."""

    def test_failing_store_is_503_by_default(self):
        """A15, A23."""
        store = FaultyStore(MemoryStore())
        client = client_of(count, plugin=make_plugin(store=store), cors_config=CORSConfig(["*"]))
        client.get("/count")
        for call in ("load", "save"):
            store.fail(call, times=1)
            response = client.get("/count", headers={"Origin": "https://example.com"})
            assert response.status_code == 503
            assert response.headers["retry-after"]
            assert response.headers["access-control-allow-origin"] in ("*", "https://example.com")
        assert client.get("/count").json() == {"n": 2}

    @pytest.mark.parametrize("key", [StoreUnavailable, Exception, 500, 503])
    @pytest.mark.parametrize("call", ["load", "save"])
    def test_error_handlers_of_the_application_respond(self, key, call):
        """A23: errors of load and commit."""
        store = FaultyStore(MemoryStore())

        def answer(request: Request, error: Exception) -> Response[str]:
            return Response(type(error).__name__, status_code=418, media_type="text/plain")

        client = client_of(count, plugin=make_plugin(store=store), exception_handlers={key: answer})
        client.get("/count")
        store.fail(call, times=1)
        response = client.get("/count")
        assert (response.status_code, response.text) == (418, "StoreUnavailable")

    def test_error_handlers_of_a_route_respond(self):
        """A23."""

        def answer(request: Request, error: SessionTooLarge) -> Response[dict[str, int]]:
            return Response({"limit": error.limit}, status_code=413)

        @get("/large", exception_handlers={SessionTooLarge: answer})
        async def large(request: Request) -> None:
            request.session["x"] = "x" * 100_000

        response = client_of(large).get("/large")
        assert (response.status_code, response.json()) == (413, {"limit": 65_536})

    def test_error_without_a_handler_has_litestars_error_page(self):
        @get("/large")
        async def large(request: Request) -> None:
            request.session["x"] = "x" * 100_000

        response = client_of(large).get("/large")
        assert response.status_code == 500
        assert response.json()["detail"] == "Internal Server Error"

    @pytest.mark.parametrize("error", ["load", "save"])
    def test_on_error_returns_a_response(self, error):
        """A23."""
        store = FaultyStore(MemoryStore())

        async def on_error(request: Request, error: Exception) -> Any:
            response = Response("later", status_code=503, media_type="text/plain")
            return response.to_asgi_response(None, request)

        client = client_of(count, plugin=make_plugin(store=store, on_error=on_error))
        client.get("/count")
        store.fail(error, times=1)
        assert client.get("/count").text == "later"

    def test_a_missing_login_is_401(self):
        @get("/private")
        async def private(request: Request) -> str:
            return request.session.require_user()

        response = client_of(private).get("/private")
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Session"

    def test_error_response_of_a_later_middleware_has_the_session_headers(self):
        """A13: shared caches must not store a 401 that depends on the session."""

        class Auth(AbstractAuthenticationMiddleware):
            async def authenticate_request(self, connection: ASGIConnection) -> Any:
                if connection.session.get("name") is None:
                    raise NotAuthorizedException
                return AuthenticationResult("ada", None)

        response = client_of(count, middleware=[Auth]).get("/count")
        assert response.status_code == 401
        assert response.headers["vary"].lower() == "cookie"
        assert "private" in response.headers["cache-control"]

    @pytest.mark.parametrize("late", [False, True])
    def test_no_hook_lets_a_cache_store_a_ticket(self, late):
        """A13: hooks run outside every middleware, also hooks added later."""

        async def publish(message: Any, scope: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableScopeHeaders(message)
                headers["cache-control"] = "public, max-age=60"
                headers["x-hook"] = "ran"

        client = client_of(count, before_send=[keep_message] if late else [publish])
        if late:
            client.get("/count")
            client.cookies.clear()
            client.app.before_send.append(publish)
        response = client.get("/count")
        assert response.headers["x-hook"] == "ran"
        assert response.headers.get_list("cache-control") == ["private, no-store"]
        assert response.headers["vary"] == "Cookie"
        assert len(response.headers.get_list("set-cookie")) == 1
        again = client.get("/count")  # without a ticket: the header of the application
        assert again.headers.get_list("cache-control") == ["public, max-age=60"]
        assert again.headers["x-hook"] == "ran"

    def test_failed_request_drops_the_changes(self):
        """A10."""

        @get("/fail")
        async def fail(request: Request) -> None:
            request.session["n"] = 100
            raise LookupError("planned by the test")

        client = client_of(count, fail)
        client.get("/count")
        assert client.get("/fail").status_code == 500
        assert client.get("/count").json() == {"n": 2}

    def test_invalid_options_are_refused(self):
        with pytest.raises(ConfigurationError, match="timeout"):
            SojournPlugin(max_age=5)
        with pytest.raises(ConfigurationError, match="SojournConfig"):
            SojournPlugin(SojournConfig(store="memory://"), timeout="1 hour")


class TestSecondSessionMiddleware:
    """Two middlewares that set ``request.session`` are refused at startup."""

    OTHER = ServerSideSessionConfig()

    def test_two_plugins_are_refused(self):
        with pytest.raises(ConfigurationError, match="two SojournPlugins"):
            Litestar([count], plugins=[make_plugin(), make_plugin(realm="other")])

    @pytest.mark.parametrize("layer", ["application", "router", "handler", "authentication"])
    def test_a_session_middleware_of_litestar_is_refused(self, layer):
        middleware = [self.OTHER.middleware]
        config, route = {}, get("/n")(set_own)
        if layer == "application":
            config["middleware"] = middleware
        elif layer == "router":
            route = Router("/below", route_handlers=[route], middleware=middleware)
        elif layer == "handler":
            route = get("/n", middleware=middleware)(set_own)
        else:
            auth = SessionAuth(
                session_backend_config=self.OTHER, retrieve_user_handler=lambda *_: None
            )
            config["on_app_init"] = [auth.on_app_init]
        app = Litestar([count, route], plugins=[make_plugin()], **config)
        with (
            pytest.raises(BaseExceptionGroup) as refused,
            TestClient(app),
        ):
            pass
        assert "beside that of sojourn" in str(refused.value.exceptions)

    def test_second_session_middleware_is_refused_by_install(self):
        app = Litestar([count], middleware=[self.OTHER.middleware])
        with pytest.raises(ConfigurationError, match="ServerSideSessionConfig"):
            sojourn.install(app, store="memory://")
        assert len(app.middleware) == 1

    def test_second_session_middleware_is_accepted_on_excluded_routes(self):
        middleware = [self.OTHER.middleware]
        handlers = [
            count,
            get("/opt", skip_sojourn=True, middleware=middleware)(set_own),
            get("/path", middleware=middleware)(set_own),
        ]
        plugins = [make_plugin(exclude=["/path"], exclude_opt_key="skip_sojourn")]
        app = Litestar(handlers, plugins=plugins)
        with TestClient(app) as client:
            assert list(client.get("/opt").cookies) == ["session"]
            assert client.get("/path").status_code == 200
            assert client.get("/count").json() == {"n": 1}

    def test_a_nested_installation_needs_another_cookie(self):
        """A24: refused at startup instead of at the first request."""
        same = SojournConfig(store="memory://", secret=SECRET)
        router = Router("/below", route_handlers=[show], middleware=[same.middleware])
        with (
            pytest.raises(BaseExceptionGroup) as refused,
            TestClient(Litestar([count, router], plugins=[make_plugin()])),
        ):
            pass
        assert "both use the cookie" in str(refused.value.exceptions)


class TestResponseCache:
    """Litestar's response cache, and the headers that keep responses out of other caches."""

    def test_a_response_that_used_the_session_is_not_cached(self):
        """A13: neither its content nor its cookie reaches another visitor."""

        @get("/cached", cache=60)
        async def cached(request: Request) -> int:
            return request.session.increment("n")

        client = client_of(cached)
        first = client.get("/cached")
        other = TestClient(client.app).get("/cached")
        assert other.headers["set-cookie"] != first.headers["set-cookie"]
        assert client.get("/cached").text == "2"

    def test_response_that_did_not_use_the_session_is_cached_without_its_cookie(self):
        """A13, A9: also if the request sends a cookie because of a rotation."""
        calls = []

        @get("/cached", cache=60)
        async def cached() -> int:
            calls.append(1)
            return len(calls)

        clock = [1_700_000_000_000]
        plugin = make_plugin(clock=lambda: clock[0], rotate_interval="1 minute")
        client = client_of(cached, count, plugin=plugin)
        client.get("/count")
        client.get("/count")
        clock[0] += 120_000
        first = client.get("/cached")
        assert "set-cookie" in first.headers
        other = TestClient(client.app).get("/cached")
        assert (other.text, "set-cookie" in other.headers) == ("1", False)

    def test_a_stream_is_cached_without_the_cookie(self):
        """A9, A13: its start with the cookie is sent before the cache stores the response."""

        @get("/cached", cache=60)
        async def cached() -> Stream:
            async def parts() -> Any:
                yield "first "
                await anyio.sleep(0.01)  # the start of a stream is sent by the event loop
                yield "last"

            return Stream(parts())

        clock = [1_700_000_000_000]
        plugin = make_plugin(clock=lambda: clock[0], rotate_interval="1 minute")
        client = client_of(cached, count, plugin=plugin)
        client.get("/count")
        client.get("/count")
        clock[0] += 120_000
        assert "set-cookie" in client.get("/cached").headers
        other = TestClient(client.app).get("/cached")
        assert (other.text, "set-cookie" in other.headers) == ("first last", False)

    def test_the_filter_of_the_application_still_applies(self):
        @get("/cached", cache=True)
        async def cached() -> str:
            return str(uuid4())

        config = ResponseCacheConfig(cache_response_filter=lambda _, status: status == 418)
        client = client_of(cached, response_cache_config=config)
        assert client.get("/cached").text != client.get("/cached").text


class TestPlugins:
    """Flash messages, CSRF, templates."""

    def test_flash_messages(self, tmp_path: Path):
        (tmp_path / "page.html").write_text(
            "{% for m in get_flashes() %}{{ m.category }}: {{ m.message }}{% endfor %}"
        )
        templates = TemplateConfig(directory=tmp_path, engine=JinjaTemplateEngine)

        @get("/page")
        async def page(request: Request, text: str | None = None) -> Template:
            if text:
                flash(request, text, category="info")
            return Template("page.html")

        @post("/note")
        async def note(request: Request) -> None:
            flash(request, "saved", category="info")

        client = client_of(
            page,
            note,
            plugins=[FlashPlugin(FlashConfig(template_config=templates))],
            template_config=templates,
        )
        client.post("/note")
        assert client.get("/page").text == "info: saved"
        assert client.get("/page").text == ""

    def test_csrf_middleware_of_litestar_works_with_sessions(self):
        client = client_of(count, set_data, show, csrf_config=CSRFConfig(secret="x" * 32))
        client.get("/count")
        assert client.post("/set", json={"a": 1}).status_code == 403
        token = client.cookies["csrftoken"]
        client.post("/set", json={"a": 1}, headers={"x-csrftoken": token})
        assert client.get("/show").json() == {"a": 1}

    def test_csrf_guard_accepts_the_token_of_the_session(self, tmp_path: Path):
        """In a header or a form field; a token of another session is refused."""
        (tmp_path / "form.html").write_text("{{ session_csrf_token() }}")
        templates = TemplateConfig(directory=tmp_path, engine=JinjaTemplateEngine)

        @get("/form")
        async def form() -> Template:
            return Template("form.html")

        @post("/buy", guards=[require_csrf])
        async def buy() -> str:
            return "bought"

        client = client_of(form, buy, template_config=templates)
        token = client.get("/form").text
        assert client.post("/buy").status_code == 403
        assert client.post("/buy", headers={"x-csrftoken": token}).text == "bought"
        assert client.post("/buy", data={"_csrf_token": token}).text == "bought"
        other = TestClient(client.app)
        other.get("/form")
        assert other.post("/buy", headers={"x-csrftoken": token}).status_code == 403


class TestClients:
    """Litestar's test clients and sojourn's with a prepared session."""

    def test_set_and_get_session_data(self):
        client = client_of(count, show)
        client.set_session_data({"n": 41})
        assert client.get("/count").json() == {"n": 42}
        assert client.get_session_data() == {"n": 42}
        client.set_session_data({"m": 1})
        assert client.get("/show").json() == {"m": 1}

    def test_create_test_client_has_the_session(self):
        plugin = make_plugin()
        with create_test_client([count], plugins=[plugin], session_config=plugin.config) as client:
            client.set_session_data({"n": 1})
            assert client.get("/count").json() == {"n": 2}

    @pytest.mark.anyio
    async def test_async_test_client_has_the_session(self):
        plugin = make_plugin()
        app = Litestar([count], plugins=[plugin])
        async with AsyncTestClient(app, session_config=plugin.config) as client:
            await client.set_session_data({"n": 1})
            assert (await client.get("/count")).json() == {"n": 2}
            assert await client.get_session_data() == {"n": 2}

    def test_open_session_finds_the_plugin(self):
        client = client_of(count)
        session = open_session(client.app, n=5)
        client.cookies.update(session.cookies)
        assert client.get("/count").json() == {"n": 6}
        assert session.data() == {"n": 6}

    def test_get_and_uninstall(self):
        """A20."""
        plugin = make_plugin()
        client = client_of(count, plugin=plugin)
        assert sojourn.get(client.app) is plugin.sessions
        with pytest.raises(ConfigurationError, match="already"):
            sojourn.install(client.app, store="memory://")
        sojourn.uninstall(client.app)
        assert client.get("/count").status_code == 500
        with pytest.raises(ConfigurationError, match="nothing is installed"):
            sojourn.get(client.app)

    def test_install_of_an_existing_application(self):
        app = Litestar([count])
        client = TestClient(app)
        assert client.get("/count").status_code == 500
        sessions = sojourn.install(app, store="memory://")
        assert sojourn.get(app) is sessions
        assert [client.get("/count").json()["n"] for _ in range(2)] == [1, 2]
        app.register(show)
        assert client.get("/show").json() == {"n": 2}
        with pytest.raises(ConfigurationError, match="already"):
            sojourn.install(app)


class TestStreams:
    """Streams and server-sent events."""

    def test_a_stream_commits_at_its_end(self):
        """A11."""

        @get("/stream")
        async def stream(request: Request) -> Stream:
            session = request.session

            async def parts() -> Any:
                yield "first "
                session["n"] = session.get("n", 0) + 1
                yield "last"

            return Stream(parts())

        client = client_of(stream, count)
        client.get("/count")
        assert client.get("/stream").text == "first last"
        assert client.get("/count").json() == {"n": 3}

    def test_server_sent_events(self):
        """A11, A13."""

        @get("/events", sync_to_thread=False)
        def events(request: Request) -> ServerSentEvent:
            async def messages() -> Any:
                for _ in range(2):
                    yield str(request.session.increment("n"))

            return ServerSentEvent(messages())

        client = client_of(events, count)
        client.get("/count")
        response = client.get("/events")
        assert "data: 2" in response.text
        assert "data: 3" in response.text
        assert response.headers["vary"].lower() == "cookie"
        assert client.get("/count").json() == {"n": 4}


@websocket("/raw")
async def raw(socket: WebSocket) -> None:
    await socket.accept()
    while True:
        text = await socket.receive_text()
        socket.session["last"] = text
        await socket.send_text(f"{socket.session.user}: {text}")


@websocket_listener("/listener")
async def listener(data: str, socket: WebSocket) -> str:
    return str(socket.session.increment("n"))


@websocket("/private")
async def private_socket(socket: WebSocket) -> None:
    socket.session.require_user()
    await socket.accept()


def open_socket(client: TestClient, path: str) -> WebSocketTestSession:
    return client.websocket_connect(path)


class TestSockets:
    """WebSocket handlers and listeners."""

    def test_changes_are_committed_before_each_message(self):
        """W1, W2."""
        client = client_of(raw, show, count)
        client.get("/count")
        with open_socket(client, "/raw") as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "None: hello"
            assert client.get("/show").json() == {"n": 1, "last": "hello"}

    def test_listener_sees_changes_of_others(self):
        """W3."""
        client = client_of(listener, count)
        client.get("/count")
        with open_socket(client, "/listener") as socket:
            socket.send_text("")
            assert socket.receive_text() == "2"
            client.get("/count")
            socket.send_text("")
            assert socket.receive_text() == "4"

    @pytest.mark.parametrize("path", ["/raw", "/listener"])
    def test_a_revocation_closes_the_socket(self, path):
        """W4: within a second, with code 4401 and the reason."""
        plugin = make_plugin()
        client = client_of(raw, listener, login, plugin=plugin)
        client.post("/login/1")
        with open_socket(client, path) as socket:
            socket.send_text("hello")
            socket.receive_text()
            started = time.monotonic()
            plugin.sessions.revoke_user("1", reason="stolen")
            message = socket.send_queue.get(timeout=2)
            assert message == {"type": "websocket.close", "code": 4401, "reason": "stolen"}
            assert time.monotonic() - started < 1

    def test_missing_login_closes_with_4401(self):
        """W4: not with Litestar's 4500."""
        client = client_of(private_socket)
        with open_socket(client, "/private") as socket:
            assert socket.send_queue.get(timeout=2)["code"] == 4401

    def test_a_foreign_origin_is_refused(self):
        """W1."""
        client = client_of(raw)
        with (
            pytest.raises(Exception),  # noqa: B017, PT011 - the client's own class
            client.websocket_connect("/raw", headers={"Origin": "https://evil.example"}),
        ):
            pass

    def test_failing_handler_drops_its_changes(self):
        """A10."""

        @websocket("/failing")
        async def failing(socket: WebSocket) -> None:
            await socket.accept()
            socket.session["n"] = 100
            raise LookupError("planned by the test")

        client = client_of(failing, count)
        client.get("/count")
        with open_socket(client, "/failing") as socket:
            assert socket.send_queue.get(timeout=2)["code"] == 4500
        assert client.get("/count").json() == {"n": 2}

    def test_class_based_listener_commits_changes(self):
        """W2."""

        class Echo(WebsocketListener):
            path = "/echo"

            def on_receive(self, data: str, socket: WebSocket) -> str:
                socket.session["last"] = data
                return data

        client = client_of(Echo, show, count)
        client.get("/count")
        with open_socket(client, "/echo") as socket:
            socket.send_text("hi")
            assert socket.receive_text() == "hi"
        assert client.get("/show").json()["last"] == "hi"
