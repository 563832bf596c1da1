"""Falcon's contexts, components, error handlers, hooks and sockets with sojourn."""

from __future__ import annotations

import time
from typing import Any

import falcon
import falcon.asgi
import pytest
from falcon import testing

import sojourn
from sojourn.errors import ConfigurationError, SessionTooLarge, StoreError
from sojourn.frameworks.falcon import (
    get_session,
    load_session,
    load_session_async,
    require_csrf,
    require_csrf_async,
)
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore, open_session

SECRET = "a secret for tests: 5f8c1e90"


class Count:
    def on_get(self, req, resp):
        resp.media = req.context.session.increment("n")


class AsyncCount:
    async def on_get(self, req, resp):
        resp.media = req.context.session.increment("n")


class Browser:
    """A test client that keeps its cookie."""

    def __init__(self, app: Any, cookies: dict[str, str] | None = None) -> None:
        self.client = testing.TestClient(app)
        self.cookies = dict(cookies or {})

    def request(self, path: str, method: str = "GET", **options: Any) -> Any:
        result = self.client.simulate_request(method, path, cookies=self.cookies, **options)
        for name, cookie in result.cookies.items():
            self.cookies[name] = cookie.value
        return result


def wsgi(store: Any = "memory://", middleware: Any = (), **options: Any) -> Any:
    app = falcon.App(middleware=list(middleware))
    app.add_route("/count", Count())
    sojourn.install(app, store=store, secret=SECRET, **options)
    return app


def asgi(store: Any = "memory://", middleware: Any = (), **options: Any) -> Any:
    app = falcon.asgi.App(middleware=list(middleware))
    app.add_route("/count", AsyncCount())
    sojourn.install(app, store=store, secret=SECRET, **options)
    return app


both = pytest.mark.parametrize("make", [wsgi, asgi])


class TestInstall:
    """``sojourn.install`` for both applications."""

    @both
    def test_session_is_kept_between_requests(self, make):
        """A2, A4."""
        browser = Browser(make())
        assert [browser.request("/count").json for _ in range(3)] == [1, 2, 3]

    @both
    def test_get_and_uninstall(self, make):
        """A20."""
        app = make()
        kind = type(app).__bases__[1]
        assert sojourn.get(app).store is not None
        with pytest.raises(ConfigurationError, match="already"):
            sojourn.install(app, store="memory://")
        sojourn.uninstall(app)
        assert type(app) is kind
        assert Browser(app).request("/count").status_code == 500
        with pytest.raises(ConfigurationError, match="nothing is installed"):
            sojourn.get(app)
        sojourn.install(app, store="memory://")
        assert Browser(app).request("/count").json == 1

    @both
    def test_test_client_with_a_prepared_session(self, make):
        app = make()
        session = open_session(app, n=5)
        assert Browser(app, session.cookies).request("/count").json == 6
        assert session.data() == {"n": 6}

    def test_a_subclass_with_attributes(self):
        class Shop(falcon.App):
            name = "shop"

            def __init__(self):
                super().__init__()
                self.opened = True

        app = Shop()
        app.add_route("/count", Count())
        sojourn.install(app, store="memory://")
        assert Browser(app).request("/count").json == 1
        assert (app.name, app.opened, isinstance(app, Shop)) == ("shop", True, True)

    def test_context_that_is_a_dict(self):
        class DictRequest(falcon.Request):
            context_type = dict

        class Page:
            def on_get(self, req, resp):
                resp.media = req.context["session"].increment("n")

        app = falcon.App(request_type=DictRequest)
        app.add_route("/", Page())
        sojourn.install(app, store="memory://")
        assert Browser(app).request("/").json == 1

    def test_middleware_components_use_the_session_before_and_after_the_responder(self):
        """The session component is the first, so its commit is the last."""

        class Visits:
            def process_request(self, req, resp):
                req.context.session.increment("seen")

            def process_response(self, req, resp, resource, req_succeeded):
                req.context.session.increment("answered")

        app = wsgi(middleware=[Visits()])
        browser = Browser(app)
        browser.request("/count")
        session = sojourn.get(app).open(cookies=browser.cookies, url="http://localhost/")
        with session as visit:
            assert visit.session == {"seen": 1, "n": 1, "answered": 1}

    def test_raised_redirect_keeps_the_changes(self):
        """A10: for example a login before a redirect."""

        class Login:
            def on_post(self, req, resp):
                req.context.session.login("ada")
                raise falcon.HTTPSeeOther("/me")

        class Me:
            def on_get(self, req, resp):
                resp.media = req.context.session.require_user()

        app = wsgi()
        app.add_route("/login", Login())
        app.add_route("/me", Me())
        browser = Browser(app)
        assert browser.request("/me").status_code == 401
        assert browser.request("/login", "POST").status_code == 303
        assert browser.request("/me").json == "ada"
        assert sojourn.get(app).revoke_user("ada") == 1
        assert browser.request("/me").status_code == 401

    def test_a_replaced_session_is_adopted(self):
        """A24."""

        class Replace:
            def on_get(self, req, resp):
                req.context.session = {"n": 41}

        app = wsgi()
        app.add_route("/replace", Replace())
        browser = Browser(app)
        browser.request("/replace")
        assert browser.request("/count").json == 42


class TestErrors:
    """Law A23: ``app.add_error_handler``."""

    @both
    @pytest.mark.parametrize("call", ["load", "save"])
    def test_failing_store_is_503_by_default(self, make, call):
        """A15, A23."""
        store = FaultyStore(MemoryStore())
        browser = Browser(make(store))
        browser.request("/count")
        store.fail(call, times=1)
        result = browser.request("/count", headers={"Accept": "application/json"})
        assert result.status_code == 503
        assert result.headers["retry-after"] == "2"
        assert "unavailable" in result.json["detail"]
        assert browser.request("/count").json == 2

    @pytest.mark.parametrize("kind", [StoreError, Exception])
    @pytest.mark.parametrize("call", ["load", "save"])
    def test_error_handler_responds(self, kind, call):
        """A23: errors of load and commit."""
        store = FaultyStore(MemoryStore())
        app = wsgi(store)

        def answer(req, resp, error, params):
            resp.status = 418
            resp.text = type(error).__name__

        app.add_error_handler(kind, answer)
        browser = Browser(app)
        browser.request("/count")
        store.fail(call, times=1)
        result = browser.request("/count")
        assert (result.status_code, result.text) == (418, "StoreUnavailable")

    @both
    def test_error_handler_of_a_failed_load_has_an_empty_session(self, make):
        """A23: so that pages which use the session can be error pages."""

        def answer(req, resp, error, params):
            resp.status = 418
            resp.media = req.context.session.copy()

        async def answer_async(req, resp, error, params):
            answer(req, resp, error, params)

        store = FaultyStore(MemoryStore())
        app = make(store)
        app.add_error_handler(StoreError, answer if make is wsgi else answer_async)
        browser = Browser(app)
        browser.request("/count")
        store.fail("load", times=1)
        result = browser.request("/count")
        assert (result.status_code, result.json) == (418, {})
        assert browser.request("/count").json == 2

    def test_async_error_handler_responds(self):
        """A23."""

        class Large:
            async def on_get(self, req, resp):
                req.context.session["x"] = "x" * 100_000

        async def answer(req, resp, error, params):
            resp.status = 413
            resp.media = {"limit": error.limit}

        app = asgi()
        app.add_route("/large", Large())
        app.add_error_handler(SessionTooLarge, answer)
        result = Browser(app).request("/large")
        assert (result.status_code, result.json) == (413, {"limit": 65_536})

    @both
    def test_cors_headers_are_on_the_503(self, make):
        """A23."""
        store = FaultyStore(MemoryStore())
        browser = Browser(make(store, middleware=[falcon.CORSMiddleware()]))
        browser.request("/count")
        store.fail("save", times=1)
        result = browser.request("/count", headers={"Origin": "https://example.com"})
        assert result.status_code == 503
        assert result.headers["access-control-allow-origin"] == "*"

    @both
    def test_failed_request_drops_the_changes(self, make):
        """A10."""

        class Fail:
            def on_get(self, req, resp):
                req.context.session["n"] = 100
                raise LookupError("planned by the test")

        class AsyncFail:
            async def on_get(self, req, resp):
                Fail().on_get(req, resp)

        app = make()
        app.add_route("/fail", Fail() if make is wsgi else AsyncFail())
        browser = Browser(app)
        browser.request("/count")
        assert browser.request("/fail").status_code == 500
        assert browser.request("/count").json == 2


class TestRoutes:
    """``autoload=False``: hooks, functions and the decorator."""

    def test_hooks_and_functions_load_the_session(self):
        """A1: other routes make no store call."""

        class Hooked:
            @falcon.before(load_session)
            def on_get(self, req, resp):
                resp.media = req.context.session.increment("n")

            def on_post(self, req, resp):
                resp.media = get_session(req).increment("n")

            def on_put(self, req, resp):
                resp.media = hasattr(req.context, "session")

        store = FaultyStore(MemoryStore())
        app = wsgi(store, autoload=False)
        app.add_route("/hooked", Hooked())
        browser = Browser(app)
        assert browser.request("/hooked").json == 1
        assert browser.request("/hooked", "POST").json == 2
        calls = len(store.calls)
        assert browser.request("/hooked", "PUT").json is False
        assert len(store.calls) == calls

    def test_async_hooks_and_the_decorator_load_the_session(self):
        app = falcon.asgi.App()
        sessions = sojourn.install(app, store="memory://", secret=SECRET, autoload=False)

        class Hooked:
            @falcon.before(load_session_async)
            async def on_get(self, req, resp, name):
                resp.media = [name, req.context.session.increment("n")]

            @sessions.route
            async def on_post(self, req, resp, name):
                resp.media = [name, req.context.session.increment("n")]

            on_put = sessions.route(on_store_failure="anonymous")(on_post)

        app.add_route("/hooked/{name}", Hooked())
        browser = Browser(app)
        answers = [browser.request("/hooked/a", each).json for each in ("GET", "POST", "PUT")]
        assert answers == [["a", 1], ["a", 2], ["a", 3]]

    @pytest.mark.parametrize("make", [wsgi, asgi])
    def test_csrf_hook_checks_the_token(self, make):
        """The token of the session, in a header."""

        class Buy:
            @falcon.before(require_csrf)
            def on_post(self, req, resp):
                resp.media = "bought"

            def on_get(self, req, resp):
                resp.media = req.context.session.csrf_token

        class AsyncBuy:
            @falcon.before(require_csrf_async)
            async def on_post(self, req, resp):
                resp.media = "bought"

            async def on_get(self, req, resp):
                resp.media = req.context.session.csrf_token

        app = make()
        app.add_route("/buy", Buy() if make is wsgi else AsyncBuy())
        browser = Browser(app)
        token = browser.request("/buy").json
        assert browser.request("/buy", "POST").status_code == 403
        result = browser.request("/buy", "POST", headers={"X-CSRF-Token": token})
        assert result.json == "bought"


class TestStreams:
    """Streams and server-sent events."""

    def test_a_stream_commits_at_its_end(self):
        """A11."""

        class Stream:
            def on_get(self, req, resp):
                session = req.context.session

                def parts():
                    yield b"first "
                    session.increment("n")
                    yield b"last"

                resp.stream = parts()

        app = wsgi()
        app.add_route("/stream", Stream())
        browser = Browser(app)
        browser.request("/count")
        assert browser.request("/stream").text == "first last"
        assert browser.request("/count").json == 3

    @pytest.mark.anyio
    async def test_server_sent_events(self):
        """A11, A13."""

        class Events:
            async def on_get(self, req, resp):
                session = req.context.session

                async def emitter():
                    for _ in range(2):
                        yield falcon.asgi.SSEvent(text=str(session.increment("n")))

                resp.sse = emitter()

        app = asgi()
        app.add_route("/events", Events())
        async with testing.ASGIConductor(app) as client:
            first = await client.simulate_get("/count")
            cookies = {name: each.value for name, each in first.cookies.items()}
            result = await client.simulate_get("/events", cookies=cookies)
            assert "data: 2" in result.text
            assert "data: 3" in result.text
            assert result.headers["vary"].lower() == "cookie"
            assert (await client.simulate_get("/count", cookies=cookies)).json == 4


class Echo:
    async def on_websocket(self, req, ws):
        session = req.context.session
        await ws.accept()
        while True:
            try:
                text = await ws.receive_text()
            except falcon.WebSocketDisconnected:
                return
            session["last"] = text
            await ws.send_text(f"{session.user}: {text}")


class PrivateSocket:
    async def on_websocket(self, req, ws):
        req.context.session.require_user()
        await ws.accept()


class FailingSocket:
    async def on_websocket(self, req, ws):
        await ws.accept()
        req.context.session["n"] = 100
        raise LookupError("planned by the test")


class Show:
    async def on_get(self, req, resp):
        resp.media = req.context.session.copy()


class Login:
    async def on_get(self, req, resp):
        req.context.session.login("ada")


def socket_app() -> Any:
    app = asgi()
    for path, resource in {
        "/echo": Echo(),
        "/private": PrivateSocket(),
        "/failing": FailingSocket(),
        "/show": Show(),
        "/login": Login(),
    }.items():
        app.add_route(path, resource)
    return app


@pytest.mark.anyio
class TestSockets:
    """``on_websocket``."""

    async def test_changes_are_committed_before_each_message(self):
        """W1, W2."""
        async with testing.ASGIConductor(socket_app()) as client:
            first = await client.simulate_get("/login")
            cookies = {name: each.value for name, each in first.cookies.items()}
            header = {"Cookie": "; ".join(f"{k}={v}" for k, v in cookies.items())}
            async with client.simulate_ws("/echo", headers=header) as ws:
                await ws.send_text("hello")
                assert await ws.receive_text() == "ada: hello"
                shown = await client.simulate_get("/show", cookies=cookies)
                assert shown.json == {"last": "hello"}

    async def test_a_revocation_closes_the_socket(self):
        """W4: within a second, with 4401."""
        app = socket_app()
        async with testing.ASGIConductor(app) as client:
            first = await client.simulate_get("/login")
            cookies = {name: each.value for name, each in first.cookies.items()}
            header = {"Cookie": "; ".join(f"{k}={v}" for k, v in cookies.items())}
            async with client.simulate_ws("/echo", headers=header) as ws:
                await ws.send_text("hello")
                await ws.receive_text()
                started = time.monotonic()
                await sojourn.get(app).arevoke_user("ada")
                with pytest.raises(falcon.WebSocketDisconnected):
                    await ws.receive_text()
                assert ws.close_code == 4401
                assert time.monotonic() - started < 1

    async def test_missing_login_closes_with_4401(self):
        """W4."""
        async with testing.ASGIConductor(socket_app()) as client:
            with pytest.raises(falcon.WebSocketDisconnected) as caught:
                async with client.simulate_ws("/private") as ws:
                    await ws.receive_text()
            assert caught.value.code == 4401

    async def test_failing_handler_drops_its_changes(self):
        """A10."""
        async with testing.ASGIConductor(socket_app()) as client:
            first = await client.simulate_get("/count")
            cookies = {name: each.value for name, each in first.cookies.items()}
            header = {"Cookie": "; ".join(f"{k}={v}" for k, v in cookies.items())}
            with pytest.raises(falcon.WebSocketDisconnected) as caught:
                async with client.simulate_ws("/failing", headers=header) as ws:
                    await ws.receive_text()
            assert caught.value.code == 1011
            shown = await client.simulate_get("/show", cookies=cookies)
            assert shown.json == {"n": 1}
