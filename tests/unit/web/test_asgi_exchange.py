"""The two layers of a framework with middleware and error handlers of its own (law A23).

The session is loaded outside of the application's middleware, and committed inside of it.
"""

import asyncio

import pytest

from sojourn import Sessions
from sojourn.errors import (
    ConfigurationError,
    ResponseStarted,
    SessionError,
    SessionGone,
    SessionRequired,
    SessionTooLarge,
    StoreUnavailable,
)
from sojourn.session import Session
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore
from sojourn.web.asgi import ErrorMiddleware, SessionMiddleware, error_page
from sojourn.web.asgi_scope import CONNECTION
from tests.support.broadcast_store import Bus
from tests.support.near_cache_process import OneStore
from tests.unit.web.asgi_client import begin, receive, request, stored, visit

pytestmark = pytest.mark.anyio

SECRET = "layers-5Tq8Wn2rXv7Lk4-Bz"
FAILURE = StoreUnavailable("the store is down")


def start(status=200, headers=()):
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data=b"", *, more=False):
    return {"type": "http.response.body", "body": data, "more_body": more}


def respond(status=200, data=b"page", headers=()):
    """Return an application with a complete response."""

    async def app(scope, receive, send):
        await send(start(status, [(b"content-length", b"%d" % len(data)), *headers]))
        await send(body(data))

    return app


class Framework:
    """A framework with a dictionary of error handlers by exception type."""

    def __init__(self):
        self.handlers = {}
        self.handled = []

    def make_request(self, scope, receive):
        return scope, receive

    async def call_handler(self, request, error):
        self.handled.append((request, error))
        return self.handlers.get(type(error))


class World:
    """An application of one page, with a middleware that adds a header to each response."""

    def __init__(self, **options):
        self.store = options.pop("store", None) or FaultyStore(MemoryStore())
        self.calls = getattr(self.store, "calls", [])
        self.sessions = Sessions(store=self.store, secret=SECRET, **options)
        self.framework = Framework()
        self.cookie = None
        self.sent = []
        self.send_error = None
        self.middleware = self.add_header

    async def begin(self):
        """Store a session with ``counter == 0`` for the following requests."""
        _, self.cookie = await visit(self.sessions, begin)
        self.calls.clear()
        return self

    def add_header(self, app):
        async def middleware(scope, receive, send):
            async def send_with_header(message):
                if message["type"] == "http.response.start":
                    message["headers"] = [*message["headers"], (b"x-cors", b"*")]
                await send(message)

            await app(scope, receive, send_with_header)

        return middleware

    async def send(self, message):
        """Send a message as a server does, or raise ``send_error``."""
        await asyncio.sleep(0)
        if self.send_error is not None:
            raise self.send_error
        self.sent.append(message)

    async def get(self, page, *, method="GET", headers=(), scheme="http", **options):
        """Serve a request; return the status, the headers as a dictionary and the body."""
        app = ErrorMiddleware(page, self.sessions, framework=self.framework)
        app = SessionMiddleware(
            self.middleware(app),
            self.sessions,
            framework=self.framework,
            layered=True,
            **options,
        )
        self.sent = []
        await request(
            app,
            self.send,
            cookie=self.cookie,
            headers=headers,
            scheme=scheme,
            method=method,
        )
        first, *rest = self.sent
        assert first["type"] == "http.response.start"
        parts = [message["body"] for message in rest]
        return first["status"], dict(first["headers"]), b"".join(parts)

    async def data(self):
        """Return what the visitor's session holds."""
        return await stored(self.sessions, self.cookie)


@pytest.fixture
async def world():
    return await World().begin()


def write(session):
    session["counter"] = 1


def page_that(change, response=None):
    """Return a page that changes its session before it responds."""

    async def page(scope, receive, send):
        change(scope["session"])
        await (response or respond())(scope, receive, send)

    return page


class TestSuccess:
    async def test_a_page_has_the_body_of_its_request(self, world):
        """Also in an application that is mounted with its own layer."""

        async def page(scope, receive, send):
            await respond(data=(await receive())["body"])(scope, receive, send)

        inner = ErrorMiddleware(page, world.sessions, framework=world.framework)
        for app in (page, inner):
            assert (await world.get(app))[2] == b"posted"

    async def test_changes_are_committed_before_the_response_reaches_the_middleware(self, world):
        """A5, A23."""
        seen = []

        def middleware(app):
            async def record(scope, receive, send):
                async def look(message):
                    seen.append(await world.data())
                    await send(message)

                await app(scope, receive, look)

            return record

        world.middleware = middleware
        status, headers, data = await world.get(page_that(write))
        assert (status, data) == (200, b"page")
        assert headers[b"cache-control"] == b"private"
        assert seen == [{"counter": 1}, {"counter": 1}]

    async def test_a_new_session_has_its_cookie_and_the_header_of_the_middleware(self):
        """A2."""
        world = World()
        status, headers, _ = await world.get(page_that(write))
        assert (status, headers[b"x-cors"]) == (200, b"*")
        assert headers[b"set-cookie"].startswith(b"sid=")
        assert headers[b"cache-control"] == b"private, no-store"
        assert world.calls == ["create"]

    async def test_a_request_without_a_session_is_unchanged(self):
        """A1."""
        world = World()
        _, headers, _ = await world.get(respond())
        assert headers == {b"content-length": b"4", b"x-cors": b"*"}
        assert world.calls == []

    async def test_a_stream_commits_before_its_last_part(self, world):
        """A11."""

        async def page(scope, receive, send):
            await send(start())
            await send(body(b"a", more=True))
            write(scope["session"])
            await send(body(b"b"))
            assert await world.data() == {"counter": 1}

        assert (await world.get(page))[2] == b"ab"

    async def test_a_response_without_a_body_is_sent(self, world):
        async def page(scope, receive, send):
            write(scope["session"])
            await send(start(204))

        assert (await world.get(page))[0] == 204
        assert await world.data() == {"counter": 1}

    @pytest.mark.parametrize("headers", [(), [(b"content-length", b"0")]], ids=["open", "length"])
    async def test_response_without_a_body_reaches_the_middleware(self, world, headers):
        """A23: its headers are added."""

        async def page(scope, receive, send):
            await send(start(204, headers))

        status, found, _ = await world.get(page)
        assert (status, found[b"x-cors"]) == (204, b"*")

    async def test_a_stream_cannot_begin_a_session(self):
        """A11: also if its first part has passed a middleware."""

        async def page(scope, receive, send):
            await send(start())
            await send(body(b"a", more=True))
            with pytest.raises(ResponseStarted):
                write(scope["session"])
            await send(body(b"b"))

        assert (await World().get(page))[2] == b"ab"

    async def test_changes_of_a_stream_are_kept_if_the_client_disconnects_at_the_start(self, world):
        """A11: the start of the stream was handed to the server."""

        async def page(scope, receive, send):
            await send(start())
            world.send_error = OSError("left")
            try:
                await send(body(b"a", more=True))
            finally:
                write(scope["session"])

        with pytest.raises(OSError, match="left"):
            await world.get(page)
        assert await world.data() == {"counter": 1}

    async def test_changes_of_a_stream_are_kept_if_the_client_disconnects(self, world):
        """A11."""

        async def page(scope, receive, send):
            await send(start())
            await send(body(b"a", more=True))
            write(scope["session"])
            world.send_error = OSError("left")
            await send(body(b"b", more=True))

        with pytest.raises(OSError, match="left"):
            await world.get(page)
        assert await world.data() == {"counter": 1}

    async def test_changes_are_dropped_if_the_client_disconnects_before_the_response(self, world):
        """A12."""
        world.send_error = OSError("left")
        with pytest.raises(OSError, match="left"):
            await world.get(page_that(lambda session: session.destroy()))
        assert await world.data() == {}

    async def test_second_layer_of_one_request_does_nothing(self, world):
        """For example a mounted router with its own middleware."""
        inner = ErrorMiddleware(respond(), world.sessions, framework=world.framework)
        assert (await world.get(inner))[0] == 200

    async def test_layer_of_another_installation_does_nothing(self, world):
        other = ErrorMiddleware(respond(), World().sessions, framework=world.framework)
        assert (await world.get(other))[0] == 200

    async def test_inner_layer_without_an_outer_layer_does_nothing(self, world):
        app = ErrorMiddleware(respond(), world.sessions, framework=world.framework)
        sent = []

        async def send(message):
            sent.append(message)

        await app({"type": "websocket"}, None, send)
        assert len(sent) == 2


class TestLoading:
    """The store fails before the application's middleware runs."""

    async def test_response_to_a_load_error_passes_the_middleware(self, world):
        """A15, A23: the response has the CORS headers of the application."""
        world.store.fail("load")
        status, headers, _ = await world.get(pytest.fail)
        assert (status, headers[b"retry-after"], headers[b"x-cors"]) == (503, b"2", b"*")

    async def test_error_handler_of_the_framework_responds(self, world):
        """A23."""
        world.store.fail("load", error=FAILURE)
        world.framework.handlers[StoreUnavailable] = respond(500, b"own")
        status, _, data = await world.get(pytest.fail)
        assert (status, data) == (503, b"own")
        ((request, error),) = world.framework.handled
        assert error is FAILURE
        assert request[0]["path"] == "/"
        assert request[1] is receive

    @pytest.mark.parametrize("form", ["async", "blocking"])
    async def test_on_error_precedes_the_error_handlers(self, form):
        """A23."""
        handled = []

        def on_error(request, error):
            handled.append((request, error))
            return respond(418, b"teapot")

        async def on_error_later(request, error):
            return on_error(request, error)

        world = await World(on_error=on_error if form == "blocking" else on_error_later).begin()
        world.store.fail("load", error=FAILURE)
        status, headers, data = await world.get(pytest.fail)
        assert (status, headers[b"x-cors"], data) == (418, b"*", b"teapot")
        assert [error for _, error in handled] == [FAILURE]
        assert world.framework.handled == []

    async def test_a_middleware_that_uses_the_session_gets_the_error(self, world):
        """A15: it sees no empty session."""
        errors = []

        def middleware(app):
            async def use(scope, receive, send):
                try:
                    scope["session"].get("counter")
                except StoreUnavailable as error:
                    errors.append(error)
                await app(scope, receive, send)

            return use

        world.middleware = middleware
        world.store.fail("load", error=FAILURE)
        assert (await world.get(pytest.fail))[0] == 503
        assert len(errors) == 1

    async def test_error_handlers_respond_without_the_inner_layer(self, world):
        """A23: if no middleware uses the session, only the outer layer is installed."""
        world.framework.handlers[StoreUnavailable] = respond(500, b"own")
        world.store.fail("load", error=FAILURE)
        app = SessionMiddleware(pytest.fail, world.sessions, framework=world.framework)
        headers = [(b"host", b"localhost"), (b"cookie", b"sid=" + world.cookie.encode())]
        scope = {"type": "http", "method": "GET", "path": "/", "scheme": "http",
                 "headers": headers, "client": None}  # fmt: skip
        sent = []

        async def send(message):
            sent.append(message)

        await app(scope, receive, send)
        assert (sent[0]["status"], sent[1]["body"]) == (503, b"own")
        ((request, _),) = world.framework.handled
        assert request == (scope, receive)

    async def test_session_that_a_middleware_loads_after_the_page_adds_its_headers(self, world):
        """A13: with ``autoload=False``; the page has not loaded the session."""

        def middleware(app):
            async def use(scope, receive, send):
                async def read(message):
                    session = await scope[CONNECTION].load()
                    assert session["counter"] == 0
                    await send(message)

                await app(scope, receive, read)

            return use

        world.middleware = middleware
        status, headers, _ = await world.get(respond(), autoload=False)
        assert (status, headers[b"vary"], headers[b"cache-control"]) == (200, b"Cookie", b"private")

    async def test_session_is_not_loaded_without_autoload(self, world):
        world.store.fail("load")
        assert (await world.get(respond(), autoload=False))[0] == 200


class TestRefused:
    """Cross-origin protection, with ``protect``."""

    FOREIGN = ((b"sec-fetch-site", b"cross-site"), (b"accept", b"application/json"))

    async def test_response_to_a_refused_request_passes_the_middleware(self):
        """ASVS 3.5.1; the response has the CORS headers of the application."""
        world = await World(protect=True).begin()
        status, headers, data = await world.get(pytest.fail, method="POST", headers=self.FOREIGN)
        assert (status, headers[b"x-cors"]) == (403, b"*")
        assert headers[b"content-type"] == b"application/json"
        assert b"another site" in data
        assert world.calls == []

    async def test_a_middleware_has_an_empty_session_that_is_not_saved(self):
        """ASVS 3.5.1: the visitor's session is neither read nor written."""
        world = await World(protect=True).begin()
        found = []

        def middleware(app):
            async def use(scope, receive, send):
                found.append(dict(scope["session"]))
                scope["session"]["counter"] = 7
                await app(scope, receive, send)

            return use

        world.middleware = middleware
        status, headers, _ = await world.get(pytest.fail, method="POST", headers=self.FOREIGN)
        assert (status, found) == (403, [{}])
        assert b"set-cookie" not in headers
        assert await world.data() == {"counter": 0}
        world.cookie = None
        _, headers, _ = await world.get(pytest.fail, method="POST", headers=self.FOREIGN)
        assert b"set-cookie" not in headers

    async def refuse(self, world, use):
        """Send a request that is refused; a middleware calls ``use`` before the refusal."""

        def middleware(app):
            async def use_and_pass(scope, receive, send):
                response = await use(scope)
                await (response or app)(scope, receive, send)

            return use_and_pass

        world.middleware = middleware
        return await world.get(pytest.fail, method="POST", headers=self.FOREIGN)

    async def test_a_session_that_a_middleware_loads_is_empty(self):
        """ASVS 3.5.1: a refused request does not get the visitor's session."""
        world = await World(protect=True).begin()

        async def use(scope):
            session = await scope[CONNECTION].load()
            assert session is scope["session"]
            assert dict(session) == {}

        assert (await self.refuse(world, use))[0] == 403
        assert world.calls == []

    async def test_commit_of_a_middleware_in_a_refused_request_writes_nothing(self):
        """ASVS 3.5.1."""
        world = await World(protect=True).begin()

        async def use(scope):
            write(scope["session"])
            with pytest.raises(SessionGone):
                await scope["session"].acommit()

        assert (await self.refuse(world, use))[0] == 403
        assert await world.data() == {"counter": 0}

    async def test_session_of_a_refused_request_has_the_frameworks_class(self):
        """A24: a middleware may use the members that the framework adds."""

        class Own(Session):
            pass

        world = await World(protect=True).begin()
        world.sessions.web.session_class = Own

        async def use(scope):
            assert type(scope["session"]) is Own

        assert (await self.refuse(world, use))[0] == 403

    async def test_a_middleware_that_reads_the_session_responds_privately(self):
        """A13."""
        world = await World(protect=True).begin()

        async def use(scope):
            scope["session"].get("counter")
            return respond()

        status, headers, _ = await self.refuse(world, use)
        assert (status, headers[b"vary"]) == (200, b"Cookie")
        assert headers[b"cache-control"].startswith(b"private")

    async def test_a_middleware_that_replaces_its_session_gets_an_error(self):
        """A24."""
        world = await World(protect=True).begin()

        async def use(scope):
            scope["session"] = 5

        with pytest.raises(SessionError, match="has replaced its session"):
            await self.refuse(world, use)


class TestFailing:
    """The page, or the commit of its changes, fails."""

    async def test_response_to_a_commit_error_passes_the_middleware(self, world):
        """A15, A23."""
        world.store.fail("save")
        status, headers, _ = await world.get(page_that(write))
        assert (status, headers[b"retry-after"], headers[b"x-cors"]) == (503, b"2", b"*")

    async def test_error_handler_responds_to_a_failed_commit(self, world):
        """A23: also if the framework caught the error before."""

        async def page(scope, receive, send):
            scope["session"]["n"] = "x" * 100_000
            try:
                await respond()(scope, receive, send)
            except SessionTooLarge:
                raise RuntimeError("of the framework") from None

        world.framework.handlers[SessionTooLarge] = respond(413, b"too large")
        status, _, data = await world.get(page)
        assert (status, data) == (413, b"too large")
        assert await world.data() == {"counter": 0}

    async def test_page_that_returns_after_a_failed_commit_gets_an_error_response(self, world):
        """A23: the framework may have discarded the error."""

        async def page(scope, receive, send):
            scope["session"]["n"] = "x" * 100_000
            with pytest.raises(SessionTooLarge):
                await respond()(scope, receive, send)

        world.framework.handlers[SessionTooLarge] = respond(413, b"too large")
        assert (await world.get(page))[0] == 413

    async def test_an_error_page_for_a_failing_store_is_503(self, world):
        """A15, A23: the framework turns every exception into a 500 response."""

        async def page(scope, receive, send):
            world.store.fail("save")
            write(scope["session"])
            try:
                await scope["session"].acommit()
            except StoreUnavailable:
                await respond(500, b"error", [(b"cache-control", b"public")])(scope, receive, send)

        status, headers, _ = await world.get(page)
        assert (status, headers[b"retry-after"]) == (503, b"2")
        assert b"public" not in headers[b"cache-control"]

    async def test_a_missing_login_is_401(self, world):
        """A23."""

        async def page(scope, receive, send):
            raise SessionRequired("log in")

        status, headers, _ = await world.get(page)
        assert (status, headers[b"www-authenticate"]) == (401, b"Session")
        assert headers[b"x-cors"] == b"*"

    @pytest.mark.parametrize("error", [ValueError("own"), ConfigurationError("wrong")])
    async def test_other_errors_are_raised_to_the_server(self, world, error):
        """A10: its changes are dropped."""

        async def page(scope, receive, send):
            write(scope["session"])
            raise error

        with pytest.raises(type(error)) as raised:
            await world.get(page)
        assert raised.value is error
        assert world.framework.handled == []
        assert await world.data() == {"counter": 0}

    async def test_session_error_without_a_response_is_raised_to_the_server(self, world):
        """A23."""

        async def page(scope, receive, send):
            raise SessionError("planned")

        with pytest.raises(SessionError, match="planned"):
            await world.get(page)
        assert len(world.framework.handled) == 1

    async def test_session_is_destroyed_although_the_page_fails(self, world):
        """A10."""

        async def page(scope, receive, send):
            scope["session"].destroy()
            raise SessionRequired("log in")

        status, headers, _ = await world.get(page)
        assert status == 401
        assert b"Max-Age=0" in headers[b"set-cookie"]
        assert await world.data() == {}

    async def test_failed_delete_replaces_the_error_of_the_page(self, world):
        """A15, A23: the session that the page destroyed could not be deleted."""
        world.store.fail("delete", error=FAILURE)
        world.framework.handlers[StoreUnavailable] = respond(500, b"own")

        async def page(scope, receive, send):
            scope["session"].destroy()
            raise SessionRequired("log in")

        status, headers, data = await world.get(page)
        assert (status, headers[b"retry-after"], data) == (503, b"2", b"own")

    async def test_cookie_of_a_destroyed_session_is_deleted_once(self, world):
        """A7, A10: in the response to an error."""

        async def page(scope, receive, send):
            scope["session"].destroy()
            raise SessionRequired("log in")

        await world.get(page)
        names = [name for name, _ in world.sent[0]["headers"]]
        assert len(names) == len(set(names))

    async def test_changes_are_dropped_if_a_middleware_ends_a_failed_stream(self, world):
        """A10: also if the middleware drops the error."""

        def middleware(app):
            async def end_body(scope, receive, send):
                try:
                    await app(scope, receive, send)
                except ValueError:
                    await send(body(b"b"))

            return end_body

        world.middleware = middleware

        async def page(scope, receive, send):
            await send(start())
            await send(body(b"a", more=True))
            write(scope["session"])
            raise ValueError("own")

        assert (await world.get(page))[2] == b"ab"
        assert await world.data() == {"counter": 0}

    async def test_middleware_error_after_a_page_without_a_response_gets_an_error_response(
        self, world
    ):
        """A23."""

        def middleware(app):
            async def require(scope, receive, send):
                await app(scope, receive, send)
                raise SessionRequired("log in")

            return require

        async def page(scope, receive, send):
            pass

        world.middleware = middleware
        assert (await world.get(page))[0] == 401

    async def test_an_error_after_the_start_drops_the_changes(self, world):
        """A10: the response cannot be replaced any more."""

        async def page(scope, receive, send):
            await send(start())
            await send(body(b"a", more=True))
            write(scope["session"])
            raise SessionRequired("late")

        with pytest.raises(SessionRequired):
            await world.get(page)
        assert world.sent[0]["status"] == 200
        assert await world.data() == {"counter": 0}

    async def test_stream_of_an_error_response_may_destroy_the_session(self, world):
        """A10, A11."""

        def answer(scope):
            async def stream(_, receive, send):
                await send(start(500))
                await send(body(b"a", more=True))
                scope["session"].destroy()
                await send(body(b"b"))

            return stream

        async def page(scope, receive, send):
            write(scope["session"])
            world.framework.handlers[SessionRequired] = answer(scope)
            raise SessionRequired("log in")

        assert (await world.get(page))[2] == b"ab"
        assert await world.data() == {}

    async def test_error_between_start_and_body_gets_an_error_response(self, world):
        """A23: the start of a stream is held until its first part."""

        async def page(scope, receive, send):
            await send(start())
            raise SessionRequired("log in")

        assert (await world.get(page))[0] == 401

    async def test_session_is_destroyed_although_the_request_is_cancelled(self, world):
        """A12."""

        async def page(scope, receive, send):
            scope["session"].destroy()
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await world.get(page)
        assert await world.data() == {}


class TestMiddleware:
    """The application's own middleware replaces or changes a response."""

    def responding(self, response, change=lambda session: None):
        """Return a middleware that responds without calling the page."""

        def middleware(app):
            async def respond_itself(scope, receive, send):
                change(scope["session"])
                await response(scope, receive, send)

            return respond_itself

        return middleware

    def replacing(self, change=lambda session: None):
        """Return a middleware that replaces the response of the page."""

        def middleware(app):
            async def replace(scope, receive, send):
                async def send_other(message):
                    if message["type"] == "http.response.start":
                        change(scope.get("session"))
                        message = start(203, [(b"x-other", b"1")])
                    await send(message)

                await app(scope, receive, send_other)

            return replace

        return middleware

    async def test_response_of_the_middleware_has_the_session_headers(self, world):
        world.middleware = self.responding(respond(302), write)
        status, headers, _ = await world.get(pytest.fail)
        assert (status, headers[b"cache-control"]) == (302, b"private")
        assert await world.data() == {"counter": 1}

    async def test_error_page_of_the_middleware_drops_the_changes(self, world):
        """A10."""
        world.middleware = self.responding(respond(500), write)
        assert (await world.get(pytest.fail))[0] == 500
        assert await world.data() == {"counter": 0}

    def changing(self, change):
        """Return a middleware that uses the session while it passes on the response."""

        def middleware(app):
            async def pass_on(scope, receive, send):
                async def send_changed(message):
                    if message["type"] == "http.response.start":
                        change(scope["session"])
                    await send(message)

                await app(scope, receive, send_changed)

            return pass_on

        return middleware

    @pytest.mark.parametrize("change", [write, lambda session: session.require_user()])
    async def test_middleware_may_destroy_the_session_while_it_passes_on_the_body(
        self, world, change
    ):
        """A10, A11: after it replaced the response; also of an error response."""

        def middleware(app):
            async def pass_on(scope, receive, send):
                async def send_changed(message):
                    if message["type"] == "http.response.start":
                        message = {**message, "headers": [*message["headers"], (b"x-a", b"b")]}
                    elif not message.get("more_body", False):
                        scope["session"].destroy()
                    await send(message)

                await app(scope, receive, send_changed)

            return pass_on

        world.middleware = middleware
        status, headers, _ = await world.get(page_that(change))
        assert status == (200 if change is write else 401)
        assert headers[b"x-a"] == b"b"
        assert await world.data() == {}

    @pytest.mark.parametrize("change", [write, lambda session: session.require_user()])
    async def test_middleware_may_destroy_the_session_while_it_passes_on_the_start(
        self, world, change
    ):
        """A5, A10: of a page that accessed the session, and of an error response."""
        world.middleware = self.changing(lambda session: session.destroy())
        status, headers, _ = await world.get(page_that(change))
        assert status == (200 if change is write else 401)
        assert b"Max-Age=0" in headers[b"set-cookie"]
        assert await world.data() == {}

    async def test_a_replaced_response_keeps_the_cookie(self):
        """A2: a middleware that copies no headers does not lose the session."""
        world = World()
        world.middleware = self.replacing()
        status, headers, data = await world.get(page_that(write))
        assert (status, headers[b"x-other"], data) == (203, b"1", b"page")
        assert headers[b"set-cookie"].startswith(b"sid=")
        assert headers[b"cache-control"] == b"private, no-store"

    async def test_replaced_response_keeps_the_headers_of_a_logout(self):
        """A7, ASVS 14.3.1: the deletion of the cookie, and Clear-Site-Data."""
        world = World(clear_site_data=["cache"])
        world.middleware = self.replacing()
        _, headers, _ = await world.get(page_that(write), scheme="https")
        world.cookie = headers[b"set-cookie"].split(b";")[0].partition(b"=")[2].decode()
        page = page_that(lambda session: session.logout())
        _, headers, _ = await world.get(page, scheme="https")
        assert b"Max-Age=0" in headers[b"set-cookie"]
        assert headers[b"clear-site-data"] == b'"cache"'
        assert headers[b"cache-control"] == b"private, no-store"
        assert len(headers) == len(world.sent[0]["headers"])

    async def test_replaced_response_keeps_the_read_your_writes_cookie(self):
        """N3."""
        bus = Bus()
        store = OneStore(FaultyStore(MemoryStore()), [bus], bus)
        world = World(near_cache="2 seconds", store=store)
        await world.begin()
        world.middleware = self.replacing()
        _, headers, _ = await world.get(page_that(write))
        world.sessions.close()
        assert headers[b"set-cookie"].startswith(b"sid-written=1;")

    async def test_a_replaced_response_keeps_the_header_of_the_ticket(self):
        """A2, A13: with ``transport="header"``."""
        world = World(transport="header")
        world.middleware = self.replacing()
        _, headers, _ = await world.get(page_that(write))
        assert len(headers[b"session-ticket"]) == 66
        assert headers[b"vary"] == b"Authorization"
        assert headers[b"cache-control"] == b"private, no-store"

    async def test_replaced_response_keeps_ticket_and_read_your_writes_cookie(self):
        """A2, N3: of a request that rotates its ticket and then writes."""
        bus = Bus()
        store = OneStore(FaultyStore(MemoryStore()), [bus], bus)
        world = World(near_cache="2 seconds", store=store)
        await world.begin()
        world.middleware = self.replacing()

        async def page(scope, receive, send):
            scope["session"].rotate()
            await scope["session"].acommit()
            write(scope["session"])
            await respond()(scope, receive, send)

        await world.get(page)
        world.sessions.close()
        cookies = [value for name, value in world.sent[0]["headers"] if name == b"set-cookie"]
        assert [cookie.partition(b"=")[0] for cookie in cookies] == [b"sid", b"sid-written"]

    @pytest.mark.parametrize("form", ["another message", "another list", "in place"])
    @pytest.mark.parametrize("control", [b"public, max-age=60", b"private", b"max-age=60"])
    async def test_response_with_a_cookie_is_no_store(self, form, control, caplog):
        """A13, B-6: also if a middleware sets Cache-Control for every page."""

        def middleware(app):
            async def cache(scope, receive, send):
                async def send_cacheable(message):
                    if message["type"] == "http.response.start":
                        if form == "another message":
                            message = dict(message)
                        if form != "in place":
                            message["headers"] = list(message["headers"])
                        headers = message["headers"]
                        headers[:] = [pair for pair in headers if pair[0] != b"cache-control"]
                        headers.append((b"cache-control", control))
                    await send(message)

                await app(scope, receive, send_cacheable)

            return cache

        world = World()
        world.middleware = middleware
        _, headers, data = await world.get(page_that(write))
        assert headers[b"set-cookie"].startswith(b"sid=")
        assert headers[b"cache-control"] == b"private, no-store"
        assert headers[b"vary"] == b"Cookie"
        assert data == b"page"
        assert len(caplog.records) == (control != b"private")
        names = [name for name, _ in world.sent[0]["headers"]]
        assert len(names) == len(set(names))

    async def test_a_cookie_is_sent_once(self):
        """A2: also if a middleware copies the headers into another message."""
        world = World()

        def middleware(app):
            async def copy(scope, receive, send):
                async def send_copy(message):
                    await send(dict(message))

                await app(scope, receive, send_copy)

            return copy

        world.middleware = middleware
        await world.get(page_that(write))
        names = [name for name, _ in world.sent[0]["headers"]]
        assert names.count(b"set-cookie") == 1

    async def test_a_replaced_response_is_private(self, world):
        """A13."""
        world.middleware = self.replacing()
        _, headers, _ = await world.get(page_that(lambda session: session.get("counter")))
        assert headers[b"vary"] == b"Cookie"
        assert headers[b"cache-control"] == b"private"

    async def test_change_by_the_replacing_middleware_is_committed(self, world):
        """A5."""
        world.middleware = self.replacing(write)
        assert (await world.get(respond()))[0] == 203
        assert await world.data() == {"counter": 1}

    async def test_session_that_the_middleware_begins_is_created(self):
        """A2: also if the middleware does not change the response."""
        world = World()

        def middleware(app):
            async def write_late(scope, receive, send):
                async def write_and_send(message):
                    if message["type"] == "http.response.start":
                        write(scope["session"])
                    await send(message)

                await app(scope, receive, write_and_send)

            return write_late

        world.middleware = middleware
        _, headers, _ = await world.get(respond())
        assert headers[b"set-cookie"].startswith(b"sid=")

    async def test_stream_with_a_replaced_start_commits_before_its_last_part(self, world):
        """A11."""
        world.middleware = self.replacing()

        async def page(scope, receive, send):
            await send(start())
            await send(body(b"a", more=True))
            write(scope["session"])
            await send(body(b"b", more=True))
            assert await world.data() == {"counter": 0}
            await send(body(b"c"))
            assert await world.data() == {"counter": 1}

        assert (await world.get(page))[2] == b"abc"

    def writing_at_the_end(self, app):
        """Replace the start of a response; write before the last part is sent."""

        async def replace(scope, receive, send):
            async def send_other(message):
                if message["type"] == "http.response.start":
                    message = start(203)
                elif not message.get("more_body"):
                    write(scope["session"])
                    message = {"type": "http.response.body", "body": message["body"]}
                await send(message)

            await app(scope, receive, send_other)

        return replace

    def record_data(self, world):
        """Record the stored data at each message to the server; return the list."""
        found = []
        send = world.send

        async def send_and_read(message):
            found.append(await world.data())
            await send(message)

        world.send = send_and_read
        return found

    @pytest.mark.parametrize("fails", [False, True])
    async def test_change_by_the_middleware_at_the_end_is_committed_before_the_last_part(
        self, world, fails
    ):
        """A5, A11; A10: except in an error response."""
        world.middleware = self.writing_at_the_end
        found = self.record_data(world)

        async def page(scope, receive, send):
            if fails:
                raise SessionRequired("log in")
            await send(start())
            await send(body(b"a", more=True))
            await send(body(b"b"))

        assert (await world.get(page))[0] == 203
        expected = [0, 0] if fails else [0, 0, 1]
        assert [data["counter"] for data in found] == expected
        assert await world.data() == {"counter": expected[-1]}

    async def test_a_replaced_response_of_a_request_without_a_session_is_sent(self, world):
        """A1: its session was not loaded."""
        world.middleware = self.replacing()
        status, _, data = await world.get(respond(), autoload=False)
        assert (status, data) == (203, b"page")

    async def test_the_store_is_not_called_again_for_a_replaced_503(self):
        """A15: the changes are dropped, so the failing store is not called again."""
        world = await World(save_on_error=True).begin()
        world.middleware = self.replacing()
        world.store.fail("save")
        await world.get(page_that(write))
        assert world.calls.count("save") == 1

    @pytest.mark.parametrize("known", [True, False])
    @pytest.mark.parametrize("status", [200, 401])
    async def test_response_is_private_if_a_middleware_reads_the_session_at_its_start(
        self, known, status
    ):
        """A13: also if it does not change the response, and in an error response."""
        world = World()
        if known:
            await world.begin()

        def middleware(app):
            async def read_late(scope, receive, send):
                async def read_and_send(message):
                    if message["type"] == "http.response.start":
                        scope["session"].get("counter")
                    await send(message)

                await app(scope, receive, read_and_send)

            return read_late

        async def fail(scope, receive, send):
            raise SessionRequired("log in")

        world.framework.handlers[SessionRequired] = respond(status)
        world.middleware = middleware
        found, headers, data = await world.get(respond() if status == 200 else fail)
        assert (found, data) == (status, b"page")
        assert (headers[b"vary"], headers[b"cache-control"]) == (b"Cookie", b"private")

    @pytest.mark.parametrize("verb", ["write", "login", "rotate", "destroy", "acommit"])
    async def test_cookie_change_by_a_middleware_is_sent_if_the_page_read_the_session(self, verb):
        """A2, A7, A9: also if the middleware does not change the response."""
        world = World()
        if verb != "write":
            await world.begin()

        def middleware(app):
            async def change_late(scope, receive, send):
                async def change_and_send(message):
                    session = scope["session"]
                    if message["type"] != "http.response.start":
                        pass
                    elif verb == "write":
                        write(session)
                    elif verb == "login":
                        session.login("ada")
                    elif verb == "rotate":
                        session.rotate()
                    else:
                        session.destroy()
                        if verb == "acommit":
                            await session.acommit()
                    await send(message)

                await app(scope, receive, change_and_send)

            return change_late

        world.middleware = middleware
        _, headers, data = await world.get(page_that(lambda session: session.get("counter")))
        deleted = b"Max-Age=0" in headers[b"set-cookie"]
        assert deleted == (verb in {"destroy", "acommit"})
        assert headers[b"cache-control"] == b"private, no-store"
        assert data == b"page"

    async def test_failed_commit_of_a_replaced_response_gets_an_error_page(self, world):
        """A15, A23: the start was not sent, so an error page can be."""

        def middleware(app):
            replaced = self.replacing(write)(app)

            async def answer(scope, receive, send):
                try:
                    await replaced(scope, receive, send)
                except StoreUnavailable:
                    await respond(500, b"error")(scope, receive, send)

            return answer

        world.middleware = middleware
        world.store.fail("save")
        status, headers, data = await world.get(respond())
        assert (status, headers[b"retry-after"], data) == (503, b"2", b"error")

    async def test_on_error_replaces_the_middlewares_error_page(self):
        """A23: a framework sends an error page before it raises the exception."""

        def middleware(app):
            async def answer(scope, receive, send):
                try:
                    scope["session"]["n"] = "x" * 100_000
                    await scope["session"].acommit()
                except SessionTooLarge:
                    await respond(500, b"error")(scope, receive, send)
                    raise

            return answer

        world = await World(on_error=lambda request, error: respond(413, b"large")).begin()
        world.middleware = middleware
        status, _, data = await world.get(pytest.fail)
        assert (status, data) == (413, b"large")

    async def test_middlewares_error_page_is_sent_without_on_error(self, world):
        """A23."""

        def middleware(app):
            async def answer(scope, receive, send):
                try:
                    scope["session"]["n"] = "x" * 100_000
                    await scope["session"].acommit()
                except SessionTooLarge:
                    await respond(500, b"error")(scope, receive, send)

            return answer

        world.middleware = middleware
        status, _, data = await world.get(pytest.fail)
        assert (status, data) == (500, b"error")


class TestErrorPage:
    """The error page of a framework that handles errors outside both layers."""

    async def test_error_page_has_the_session_headers(self, world):
        """A7: the browser deletes the cookie of an ended session."""
        sent = []

        async def page(scope, receive, send):
            scope["session"].destroy()
            raise ValueError("own")

        async def send(message):
            sent.append(message)

        app = SessionMiddleware(page, world.sessions, framework=world.framework)
        headers = [(b"host", b"localhost"), (b"cookie", b"sid=" + world.cookie.encode())]
        scope = {"type": "http", "method": "GET", "path": "/", "scheme": "http",
                 "headers": headers, "client": None}  # fmt: skip
        with pytest.raises(ValueError, match="own"):
            await app(scope, None, send)
        assert sent == []

        async def error(scope, receive, send):
            await respond(500, (await receive())["body"])(scope, receive, send)

        await error_page(error, scope)(scope, receive, send)
        assert (sent[0]["status"], sent[1]["body"]) == (500, b"posted")
        assert b"Max-Age=0" in dict(sent[0]["headers"])[b"set-cookie"]
        assert await world.data() == {}

    async def test_error_page_of_a_request_without_a_session_is_unchanged(self):
        page = respond(500)
        assert error_page(page, {}) is page
