"""SessionMiddleware for ASGI: which connections have a session, and nested installations."""

import time

import pytest

from sojourn import Sessions
from sojourn.errors import ConfigurationError
from sojourn.web.asgi import FAILED, SessionMiddleware
from sojourn.web.asgi_scope import CONNECTION

pytestmark = pytest.mark.anyio

SECRET = "nested-3Wz8Kv5Rt2Lq9Xm-Pd"


def make(**options):
    return Sessions(store="memory://", secret=SECRET, **options)


async def call(app, *, method="GET", kind="http", headers=(), sent=None):
    """Serve a request or a WebSocket; return the scope and the messages."""
    sent = [] if sent is None else sent

    async def receive():
        return {"type": "http.request" if kind == "http" else "websocket.connect"}

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "path": "/", "scheme": "http" if kind == "http" else "ws",
             "headers": [(b"host", b"localhost"), *headers], "client": None}  # fmt: skip
    if kind == "http":
        scope["method"] = method
    await app(scope, receive, send)
    return scope, sent


def cookies(sent):
    """Return the names of the cookies that the start of a response sets."""
    headers = sent[0].get("headers", ())
    return [value.partition(b"=")[0] for name, value in headers if name == b"set-cookie"]


async def respond(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


async def write(scope, receive, send):
    scope["session"]["n"] = 1
    await respond(scope, receive, send)


class TestUnchangedMessages:
    """The application receives the server's scope and messages unchanged."""

    async def get(self, app, scope):
        async def receive():
            return {"type": "http.request", "body": b"posted"}

        sent = []

        async def send(message):
            sent.append(message)

        await app(scope, receive, send)
        return sent

    async def echo(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": (await receive())["body"]})

    def scope(self, *headers):
        headers = [(b"host", b"localhost"), *headers]
        return {"type": "http", "method": "POST", "path": "/", "scheme": "http",
                "headers": headers, "client": None}  # fmt: skip

    @pytest.mark.parametrize("layers", [1, 2])
    async def test_a_request_has_its_body(self, layers):
        sessions, app = make(), self.echo
        for _ in range(layers):
            app = SessionMiddleware(app, sessions)
        sent = await self.get(app, self.scope())
        assert [message["type"] for message in sent] == [
            "http.response.start",
            "http.response.body",
        ]
        assert sent[1]["body"] == b"posted"

    @pytest.mark.parametrize("kind", ["lifespan", "uninstalled"])
    async def test_scope_type_without_a_session_is_passed_on(self, kind):
        """A20."""
        sessions = make()
        scope = self.scope()
        if kind == "uninstalled":
            sessions.web.active = False
        else:
            scope["type"] = "lifespan"
        sent = await self.get(SessionMiddleware(self.echo, sessions), scope)
        assert sent[1]["body"] == b"posted"
        assert "session" not in scope

    async def test_several_cookie_headers_are_one(self):
        """HTTP/2 splits the Cookie header (RFC 9113 8.2.3)."""
        sessions = make()
        with_ticket = []

        async def page(scope, receive, send):
            with_ticket.append(scope["session"].get("n"))
            scope["session"]["n"] = 1
            await respond(scope, receive, send)

        app = SessionMiddleware(page, sessions)
        sent = await self.get(app, self.scope())
        ticket = dict(sent[0]["headers"])[b"set-cookie"].split(b";")[0]
        for headers in (
            [ticket, b"theme=dark"],
            [b"theme=dark", ticket],
            [b"theme=dark", ticket, b"a=1"],
        ):
            await self.get(app, self.scope(*((b"cookie", header) for header in headers)))
        assert with_ticket == [None, 1, 1, 1]

    @pytest.mark.timeout(20)
    async def test_many_cookie_headers_are_joined_in_linear_time(self):
        """A19, B-57: uvicorn limits neither their number nor their size."""
        app = SessionMiddleware(self.echo, make())
        scope = self.scope(*[(b"cookie", b"theme=dark")] * 100_000)
        started = time.process_time()
        await self.get(app, scope)
        assert time.process_time() - started < 0.5

    @pytest.mark.parametrize("headers", [[], [(b"content-length", b"0")]])
    async def test_a_response_without_a_body_is_sent(self, headers):
        """The start waits for the first part of the body."""

        async def page(scope, receive, send):
            await send({"type": "http.response.start", "status": 204, "headers": headers})

        sent = await self.get(SessionMiddleware(page, make()), self.scope())
        assert [message["status"] for message in sent] == [204]

    async def test_session_removed_from_the_scope_is_destroyed(self):
        """A24."""
        sessions = make()

        async def page(scope, receive, send):
            scope["session"]["n"] = 1
            await respond(scope, receive, send)
            del scope["session"]

        await self.get(SessionMiddleware(page, sessions), self.scope())
        assert await sessions.acount() == 0

    async def test_a_session_that_is_replaced_after_the_response_is_adopted(self):
        """A11, A24."""
        sessions = make()
        seen = []

        async def page(scope, receive, send):
            seen.append(dict(scope["session"]))
            scope["session"]["n"] = 1
            await respond(scope, receive, send)
            scope["session"] = {"n": 2}

        app = SessionMiddleware(page, sessions)
        sent = await self.get(app, self.scope())
        ticket = dict(sent[0]["headers"])[b"set-cookie"].split(b";")[0]
        await self.get(app, self.scope((b"cookie", ticket)))
        assert seen == [{}, {"n": 2}]


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_inner_request_replaces_and_restores_the_outer_session(kind):
    """A24: the scope has the inner session during the inner request, then the outer one again."""
    outer, inner = make(), make(realm="inner")
    nested = SessionMiddleware(write, inner)
    restored = []

    async def between(scope, receive, send):
        before = scope["session"], scope[CONNECTION]
        await nested(scope, receive, send)
        restored.append((scope["session"], scope[CONNECTION]) == before)

    scope, sent = await call(SessionMiddleware(between, outer), kind=kind)
    assert restored == [True]
    assert scope[CONNECTION] is None
    assert cookies(sent) == [b"sid-inner"]
    assert (inner.usage().creates, outer.usage().creates) == (1, 0)


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_outer_session_is_restored_after_a_failing_inner_request(kind):
    """A24."""
    restored = []

    async def fail(scope, receive, send):
        raise LookupError

    nested = SessionMiddleware(fail, make(realm="inner"))

    async def between(scope, receive, send):
        before = scope["session"], scope[CONNECTION]
        try:
            await nested(scope, receive, send)
        finally:
            restored.append((scope["session"], scope[CONNECTION]) == before)

    with pytest.raises(LookupError):
        await call(SessionMiddleware(between, make()), kind=kind)
    assert restored == [True]


async def test_a_session_that_is_replaced_before_the_inner_request_is_adopted():
    """A24: the inner session takes its place in the scope afterwards."""
    outer, inner = make(), make(realm="inner")
    nested = SessionMiddleware(respond, inner)

    async def between(scope, receive, send):
        scope["session"] = {"a": 1}
        await nested(scope, receive, send)

    _, sent = await call(SessionMiddleware(between, outer))
    assert cookies(sent) == [b"sid"]
    assert (inner.usage().creates, outer.usage().creates) == (0, 1)


async def test_inner_request_does_not_access_the_outer_session():
    """A13, A24: its response may be cached."""
    nested = SessionMiddleware(respond, make(realm="inner"))
    _, sent = await call(SessionMiddleware(nested, make()))
    assert sent[0]["headers"] == []


async def test_value_in_the_place_of_an_unloaded_outer_session_is_not_adopted():
    """A24."""
    outer = make(autoload=False)
    nested = SessionMiddleware(write, make(realm="inner"))

    async def between(scope, receive, send):
        scope["session"] = {"a": 1}
        await nested(scope, receive, send)

    _, sent = await call(SessionMiddleware(between, outer))
    assert cookies(sent) == [b"sid-inner"]
    assert outer.usage().creates == 0


async def test_inner_installation_without_autoload_keeps_the_outer_session():
    """A24: with ``autoload=False``."""
    outer, inner = make(), make(realm="inner", autoload=False)
    _, sent = await call(SessionMiddleware(SessionMiddleware(write, inner), outer))
    assert cookies(sent) == [b"sid"]


async def test_nested_installations_with_one_cookie_name_are_refused():
    """A24: each would replace the cookie of the other."""
    app = SessionMiddleware(SessionMiddleware(write, make()), make())
    with pytest.raises(ConfigurationError, match="both use the cookie"):
        await call(app)


class TestOneInstallation:
    """A route with a second middleware of the same installation."""

    async def test_nested_middlewares_share_one_session(self):
        sessions = make()
        app = SessionMiddleware(SessionMiddleware(write, sessions), sessions)
        _, sent = await call(app)
        assert cookies(sent) == [b"sid"]

    async def test_inner_middleware_loads_if_the_outer_one_does_not(self):
        sessions = make()
        app = SessionMiddleware(SessionMiddleware(write, sessions), sessions, autoload=False)
        _, sent = await call(app)
        assert cookies(sent) == [b"sid"]

    async def test_excluded_path_has_no_session_in_either(self):
        sessions = make(exclude=["/"])

        async def page(scope, receive, send):
            assert "session" not in scope
            await respond(scope, receive, send)

        await call(SessionMiddleware(SessionMiddleware(page, sessions), sessions))


class TestUnansweredError:
    """The application raises, and no handler responds."""

    async def serve(self, app):
        """Return the arguments of the framework's error page, and the messages."""
        calls, sent = [], []

        async def page(error, scope, receive, send):
            calls.append((type(error), scope["path"], (await receive())["type"], send is not None))
            if send is not None:
                await send({"type": "http.response.start", "status": 500, "headers": []})
                await send({"type": "http.response.body", "body": b"sorry"})

        with pytest.raises(LookupError):
            await call(SessionMiddleware(app, make(), error_page=page), sent=sent)
        return calls, sent

    async def test_error_page_has_the_headers_of_the_session(self):
        """A13."""

        async def fail(scope, receive, send):
            assert scope["session"].new
            raise LookupError

        calls, sent = await self.serve(fail)
        assert calls == [(LookupError, "/", "http.request", True)]
        assert (sent[0]["status"], sent[1]["body"]) == (500, b"sorry")
        assert (b"vary", b"Cookie") in sent[0]["headers"]

    async def test_error_after_the_start_of_a_response_is_only_reported(self):
        async def fail(scope, receive, send):
            await respond(scope, receive, send)
            raise LookupError

        calls, sent = await self.serve(fail)
        assert calls == [(LookupError, "/", "http.request", False)]
        assert [message.get("status") for message in sent] == [200, None]

    async def test_error_without_a_framework_leaves_nothing_in_the_scope(self):
        """An exchange there would form a reference cycle with its scope."""
        scopes = []

        async def fail(scope, receive, send):
            scopes.append(scope)
            raise LookupError

        with pytest.raises(LookupError):
            await call(SessionMiddleware(fail, make()))
        assert FAILED not in scopes[0]
        assert scopes[0][CONNECTION] is None


async def test_an_excluded_path_has_no_session_and_is_not_checked():
    """``protect`` protects sessions."""
    sessions = make(exclude=["/"], protect=True)

    async def page(scope, receive, send):
        assert "session" not in scope
        await respond(scope, receive, send)

    headers = [(b"sec-fetch-site", b"cross-site")]
    _, sent = await call(SessionMiddleware(page, sessions), method="POST", headers=headers)
    assert sent[0]["status"] == 200


async def test_a_request_of_another_origin_is_refused_before_the_application():
    """ASVS 3.5.1."""
    app = SessionMiddleware(pytest.fail, make(protect=True))
    headers = [(b"sec-fetch-site", b"cross-site"), (b"accept", b"application/json")]
    _, sent = await call(app, method="POST", headers=headers)
    assert sent[0]["status"] == 403
    assert dict(sent[0]["headers"])[b"content-type"] == b"application/json"
    assert b"another site" in sent[1]["body"]


@pytest.mark.parametrize(
    ("header", "local"),
    [((b"x-forwarded-for", b"10.0.0.7"), False), ((b"origin", b"http://localhost"), True)],
)
async def test_a_request_of_a_proxy_is_not_local(header, local):
    """A14: the Host may be "localhost" because the proxy connects to the server by that name."""
    found = []

    async def page(scope, receive, send):
        found.append(scope[CONNECTION].transport.name)
        await respond(scope, receive, send)

    await call(SessionMiddleware(page, make()), headers=[header])
    assert found == ["LOCAL" if local else "INSECURE"]


async def test_session_of_another_librarys_outer_middleware_is_refused():
    """A24."""

    async def outer(scope, receive, send):
        scope["session"] = {}
        await SessionMiddleware(write, make())(scope, receive, send)

    with pytest.raises(ConfigurationError, match="is set already"):
        await call(outer)
