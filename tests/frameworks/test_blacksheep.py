"""BlackSheep's session interface, bindings, authentication, errors and sockets with sojourn."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pytest
from blacksheep import Application, Content, Request, Response, WebSocket
from blacksheep.cookies import parse_cookie
from blacksheep.server.authorization import Policy, auth
from blacksheep.server.responses import json, text
from blacksheep.server.routing import Router
from blacksheep.server.sse import ServerSentEvent, ServerSentEventsResponse
from blacksheep.sessions import Session as SessionOfBlackSheep
from blacksheep.testing import TestClient
from guardpost.common import AuthenticatedRequirement
from starlette.testclient import TestClient as ASGIClient
from starlette.websockets import WebSocketDisconnect

import sojourn
from sojourn.errors import ConfigurationError, LoginRequired, SessionTooLarge, StoreError
from sojourn.frameworks.blacksheep import (
    BlackSheepSession,
    SessionAuthentication,
    get_session,
    require_csrf,
)
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore, aopen_session

pytestmark = pytest.mark.anyio

SECRET = "a secret for tests: 5f8c1e90"


@dataclass
class Shop:
    items: int = 0


def make(store: Any = "memory://", **options: Any) -> tuple[Any, Any]:
    app = Application(router=Router())
    sessions = sojourn.install(app, store=store, secret=SECRET, **options)

    @app.router.get("/count")
    async def count(request: Request) -> Response:
        return text(str(request.session.increment("n")))

    @app.router.get("/show")
    async def show(request: Request) -> Response:
        return json(request.session.to_dict())

    return app, sessions


def browser(app: Any) -> ASGIClient:
    """Return a client that keeps its cookie, and serves the whole ASGI application."""
    return ASGIClient(app)


class TestSession:
    """``request.session``."""

    async def test_session_is_kept_between_requests(self):
        """A2, A4."""
        client = browser(make()[0])
        assert [client.get("/count").text for _ in range(3)] == ["1", "2", "3"]

    async def test_session_has_the_members_of_blacksheeps_session(self):
        app, _ = make()
        seen: list[bool] = []

        @app.router.get("/own")
        async def own(request: Request) -> Response:
            session = request.session
            seen.append(session.modified)
            session.set("a", 1)
            session.update({"b": 2})
            seen.append(session.modified)
            assert isinstance(session, BlackSheepSession)
            assert isinstance(session, SessionOfBlackSheep)
            assert session == SessionOfBlackSheep({"a": 1, "b": 2})
            return json({"length": len(session), "b": session["b"], "c": session.get("c", 3)})

        client = browser(app)
        assert client.get("/own").json() == {"length": 2, "b": 2, "c": 3}
        assert client.get("/show").json() == {"a": 1, "b": 2}
        assert seen == [False, True]

    async def test_a_replaced_session_is_adopted(self):
        """A24."""
        app, _ = make()

        @app.router.get("/replace")
        async def replace(request: Request) -> None:
            request.session = {"n": 41}

        client = browser(app)
        client.get("/replace")
        assert client.get("/count").text == "42"

    async def test_session_is_bound_to_a_parameter(self):
        """A1: with ``autoload=False`` other routes make no store call."""
        store = FaultyStore(MemoryStore())
        app, _ = make(store, autoload=False)

        @app.router.get("/bound")
        async def bound(session: sojourn.Session) -> Response:
            return text(str(session.increment("n")))

        @app.router.get("/loading")
        async def loading(request: Request) -> Response:
            return text(str((await get_session(request)).increment("n")))

        @app.router.get("/other")
        async def other() -> str:
            return "none"

        client = browser(app)
        assert [client.get(path).text for path in ("/bound", "/loading")] == ["1", "2"]
        calls = len(store.calls)
        client.get("/other")
        assert len(store.calls) == calls

    async def test_route_decorator_loads_the_session(self):
        app, sessions = make(autoload=False)

        @app.router.get("/named/{name}")
        @sessions.route
        async def named(request: Request, name: str) -> Response:
            return text(f"{name} {request.session.increment('n')}")

        @app.router.get("/plain/{name}")
        @sessions.route(on_store_failure="anonymous")
        async def plain(name: str) -> Response:
            return text(name)

        @app.router.get("/optional")
        @sessions.route
        async def optional(session: sojourn.Session, by: int = 1) -> Response:
            return text(str(session.increment("n", by)))

        client = browser(app)
        assert client.get("/named/ada").text == "ada 1"
        assert client.get("/plain/bob").text == "bob"
        assert client.get("/optional?by=2").text == "3"

    async def test_a_typed_session_is_a_parameter(self):
        app, _ = make(state=Shop)

        @app.router.get("/")
        async def count(session: sojourn.Session[Shop]) -> Response:
            session.state.items += 1
            return text(str(session.state.items))

        client = browser(app)
        assert [client.get("/").text for _ in range(2)] == ["1", "2"]

    async def test_a_started_application_is_refused(self):
        app = Application(router=Router())
        await app.start()
        with pytest.raises(ConfigurationError, match="has not started"):
            sojourn.install(app, store="memory://")

    async def test_get_and_uninstall(self):
        """A20."""
        app, sessions = make()
        assert sojourn.get(app) is sessions
        client = browser(app)
        client.get("/count")
        sojourn.uninstall(app)
        assert client.get("/count").status_code == 500

    async def test_test_client_with_a_prepared_session(self):
        """BlackSheep's test client calls the application without ASGI messages."""
        app, _ = make()
        opened = await aopen_session(app, n=5)
        client = browser(app)
        client.cookies.update(opened.cookies)
        assert client.get("/count").text == "6"
        own = TestClient(app)
        response = await own.get("/count", cookies=opened.cookies)
        assert await response.text() == "7"
        assert response.headers.get_first(b"vary") == b"Cookie"
        assert await opened.adata() == {"n": 7}

    async def test_blacksheeps_test_client_gets_the_cookie(self):
        """A2, A15."""
        store = FaultyStore(MemoryStore())
        app, _ = make(store)
        await app.start()
        client = TestClient(app)
        first = await client.get("/count")
        cookie = parse_cookie(first.headers.get_first(b"set-cookie"))
        cookies = {cookie.name: cookie.value}
        assert await (await client.get("/count", cookies=cookies)).text() == "2"
        store.fail("load", times=1)
        assert (await client.get("/count", cookies=cookies)).status == 503


class TestErrors:
    """Law A23: ``app.exceptions_handlers``."""

    @pytest.mark.parametrize("call", ["load", "save"])
    async def test_failing_store_is_503_by_default(self, call):
        """A15, A23."""
        store = FaultyStore(MemoryStore())
        app, _ = make(store)
        app.use_cors(allow_origins="*", allow_methods="*")
        client = browser(app)
        client.get("/count")
        store.fail(call, times=1)
        response = client.get("/count", headers={"Origin": "https://example.com"})
        assert response.status_code == 503
        assert response.headers["retry-after"] == "2"
        assert response.headers["access-control-allow-origin"]
        assert client.get("/count").text == "2"

    @pytest.mark.parametrize("kind", [StoreError, Exception])
    @pytest.mark.parametrize("call", ["load", "save"])
    async def test_error_handler_responds(self, kind, call):
        """A23: errors of load and commit."""
        store = FaultyStore(MemoryStore())
        app, _ = make(store)

        async def answer(app: Any, request: Request, error: Exception) -> Response:
            return Response(418, content=Content(b"text/plain", type(error).__name__.encode()))

        app.exceptions_handlers[kind] = answer
        client = browser(app)
        client.get("/count")
        store.fail(call, times=1)
        response = client.get("/count")
        assert (response.status_code, response.text) == (418, "StoreUnavailable")

    async def test_handler_of_a_failed_load_has_an_empty_session(self):
        """A23: so that pages which use the session can be error pages."""

        async def answer(app: Any, request: Request, error: Exception) -> Response:
            return json(request.session.to_dict(), status=418)

        store = FaultyStore(MemoryStore())
        app, _ = make(store)
        app.exceptions_handlers[StoreError] = answer
        client = browser(app)
        client.get("/count")
        store.fail("load", times=1)
        response = client.get("/count")
        assert (response.status_code, response.json()) == (418, {})
        assert client.get("/count").text == "2"

    async def test_handler_of_a_missing_login_may_write(self):
        """A10: the status of its response decides; A23: the changes cannot be saved."""
        status = 303
        store = FaultyStore(MemoryStore())
        app, _ = make(store)

        @app.router.get("/account")
        async def account(request: Request) -> Response:
            return text(request.session.require_user())

        async def to_login(app: Any, request: Request, error: Exception) -> Response:
            request.session["n"] = 10
            return Response(status)

        app.exceptions_handlers[LoginRequired] = to_login
        client = browser(app)
        assert client.get("/account").status_code == 303
        assert client.get("/count").text == "11"
        store.fail("save", times=1)
        assert client.get("/account").status_code == 503
        status = 500
        assert client.get("/account").status_code == 500
        assert client.get("/count").text == "12"

    async def test_on_error_returns_a_response(self):
        """A23."""

        async def on_error(request: Request, error: Exception) -> Response | None:
            return Response(413) if isinstance(error, SessionTooLarge) else None

        app, _ = make(on_error=on_error)

        @app.router.get("/large")
        async def large(request: Request) -> None:
            request.session["x"] = "x" * 100_000

        assert browser(app).get("/large").status_code == 413

    async def test_failed_request_drops_the_changes(self):
        """A10."""
        app, _ = make()

        @app.router.get("/fail")
        async def fail(request: Request) -> None:
            request.session["n"] = 100
            raise LookupError("planned by the test")

        client = browser(app)
        client.get("/count")
        assert client.get("/fail").status_code == 500
        assert client.get("/count").text == "2"


class TestAuthentication:
    """guardpost: the identity is the user of the session."""

    def make(self) -> tuple[ASGIClient, Any]:
        app, sessions = make()
        app.use_authentication().add(SessionAuthentication())
        app.use_authorization().add(Policy("authenticated", AuthenticatedRequirement()))

        @app.router.post("/login/{user}")
        async def login(request: Request, user: str) -> None:
            request.session.login(user, methods=["pwd"])

        @app.router.post("/logout")
        async def logout(request: Request) -> None:
            request.session.logout()

        @auth("authenticated")
        @app.router.get("/me")
        async def me(request: Request) -> Response:
            return json([request.user.sub, request.user["amr"]])

        return browser(app), sessions

    async def test_login_sets_the_identity(self):
        """A9, S15."""
        client, sessions = self.make()
        assert client.get("/me").status_code == 401
        client.post("/login/ada")
        assert client.get("/me").json() == ["ada", ["pwd"]]
        assert [info.user for info in await sessions.alist_user("ada")] == ["ada"]
        await sessions.arevoke_user("ada")
        assert client.get("/me").status_code == 401

    async def test_logout_removes_the_identity(self):
        """A7."""
        client, sessions = self.make()
        client.post("/login/ada")
        stolen = dict(client.cookies)
        client.post("/logout")
        client.cookies.update(stolen)
        assert client.get("/me").status_code == 401
        assert await sessions.acount() == 0

    async def test_csrf_token_is_checked(self):
        """The token of the session, in a header or a form field."""
        app, _ = make()

        @app.router.get("/form")
        async def form(request: Request) -> Response:
            return text(request.session.csrf_token)

        @app.router.post("/buy")
        async def buy(request: Request) -> Response:
            await require_csrf(request)
            return text("bought")

        client = browser(app)
        token = client.get("/form").text
        assert client.post("/buy").status_code == 403
        assert client.post("/buy", headers={"X-CSRF-Token": token}).text == "bought"
        field = {"__RequestVerificationToken": token}
        assert client.post("/buy", data=field).text == "bought"


class TestStreams:
    async def test_server_sent_events(self):
        """A11, A13."""
        app, _ = make()

        @app.router.get("/events")
        async def events(request: Request) -> Response:
            session = request.session

            async def provide():
                for _ in range(2):
                    yield ServerSentEvent(str(session.increment("n")))

            return ServerSentEventsResponse(provide)

        client = browser(app)
        client.get("/count")
        response = client.get("/events")
        assert '"2"' in response.text
        assert '"3"' in response.text
        assert response.headers["vary"].lower() == "cookie"
        assert client.get("/count").text == "4"


class TestSockets:
    def make(self) -> tuple[ASGIClient, Any]:
        app, sessions = make()

        @app.router.ws("/echo")
        async def echo(websocket: WebSocket) -> None:
            await websocket.accept()
            while True:
                message = await websocket.receive_text()
                websocket.session["last"] = message
                await websocket.send_text(message)

        @app.router.ws("/private")
        async def private(websocket: WebSocket) -> None:
            websocket.session.require_user()

        @app.router.ws("/failing")
        async def failing(websocket: WebSocket) -> None:
            await websocket.accept()
            websocket.session["n"] = 100
            raise LookupError("planned by the test")

        @app.router.get("/login")
        async def login(request: Request) -> None:
            request.session.login("ada")

        return browser(app), sessions

    async def test_changes_are_committed_before_each_message(self):
        """W1, W2."""
        client, _ = self.make()
        client.get("/count")
        with client.websocket_connect("/echo") as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "hello"
            assert client.get("/show").json() == {"n": 1, "last": "hello"}

    async def test_a_revocation_closes_the_socket(self):
        """W4: within a second, with 4401 and the reason."""
        client, sessions = self.make()
        client.get("/login")
        with client.websocket_connect("/echo") as socket:
            socket.send_text("hello")
            socket.receive_text()
            started = time.monotonic()
            await sessions.arevoke_user("ada", reason="stolen")
            message = socket.receive()
            assert (message["code"], message["reason"]) == (4401, "stolen")
            assert time.monotonic() - started < 1

    async def test_missing_login_closes_with_4401(self):
        """W4."""
        client, _ = self.make()
        with (
            pytest.raises(WebSocketDisconnect) as caught,
            client.websocket_connect("/private") as socket,
        ):
            socket.receive_text()
        assert caught.value.code == 4401

    async def test_failing_handler_drops_its_changes(self):
        """A10."""
        client, _ = self.make()
        client.get("/count")
        with client.websocket_connect("/failing") as socket:
            assert socket.receive()["code"] == 1011
        assert client.get("/count").text == "2"
