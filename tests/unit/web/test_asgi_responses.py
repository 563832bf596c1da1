"""Responses and commits of ASGI requests: delayed starts, late loads, store failures."""

import asyncio
import contextlib
import logging

import pytest

from sojourn import Sessions
from sojourn.errors import (
    ConfigurationError,
    NotSerializable,
    ResponseStarted,
    SessionError,
    SessionRequired,
    SessionTooLarge,
    StoreUnavailable,
)
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore
from sojourn.web.asgi import SessionMiddleware
from sojourn.web.asgi_scope import CONNECTION
from tests.support.broadcast_store import Bus
from tests.support.near_cache_process import OneStore, Process, Time
from tests.unit.web.asgi_client import begin, request, stored, visit

pytestmark = pytest.mark.anyio

SECRET = "responses-6Kd3Vn8rXw2Lq5-Ty"
LENGTH = (b"content-length", b"2")


def start(*headers, status=200):
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data=b"ok", *, more=False):
    return {"type": "http.response.body", "body": data, "more_body": more}


async def respond(scope, receive, send):
    await send(start(LENGTH))
    await send(body())


class Site:
    """An installation over a store that may fail, and one visitor.

    Attributes:
        cookie: of the visitor, without its name.
        sent: the messages of the last request.
        send_error: raised by the server's ``send``, unless None.
    """

    def __init__(self, **options):
        self.clock = FakeClock()
        self.store = FaultyStore(MemoryStore())
        self.sessions = Sessions(store=self.store, secret=SECRET, clock=self.clock, **options)
        self.cookie = None
        self.sent = []
        self.send_error = None

    async def begin(self):
        _, self.cookie = await visit(self.sessions, begin)
        self.store.calls.clear()
        return self

    async def send(self, message):
        """Send a message as a server does, or raise ``send_error``."""
        await asyncio.sleep(0)
        if self.send_error is not None:
            raise self.send_error
        self.sent.append(message)

    async def get(self, page, *, headers=(), scheme="http", autoload=True, **scope):
        self.sent = []
        await request(
            SessionMiddleware(page, self.sessions, autoload=autoload),
            self.send,
            cookie=self.cookie,
            headers=headers,
            scheme=scheme,
            **scope,
        )
        return self.status, dict(self.sent[0]["headers"])

    @property
    def status(self):
        return self.sent[0]["status"]

    async def data(self):
        return await stored(self.sessions, self.cookie)


@pytest.fixture
async def site():
    return await Site().begin()


def write(session):
    session["counter"] = 1


class TestLateLoad:
    """A handler that loads its session itself, with ``autoload=False``."""

    async def test_a_second_load_adopts_a_replaced_session(self, site):
        """A24."""

        async def page(scope, receive, send):
            await scope[CONNECTION].load()
            scope["session"] = {"a": 1}
            session = await scope[CONNECTION].load()
            assert dict(session) == {"a": 1}
            assert scope["session"] is session
            await respond(scope, receive, send)

        await site.get(page, autoload=False)
        assert await site.data() == {"a": 1}

    async def test_a_second_load_does_not_access_the_session(self, site):
        """A13: the response of a handler without an access has no headers of the session."""

        async def page(scope, receive, send):
            await scope[CONNECTION].load()
            await scope[CONNECTION].load()
            await respond(scope, receive, send)

        assert await site.get(page, autoload=False) == (200, dict([LENGTH]))

    @pytest.mark.parametrize(
        ("options", "transport"),
        [
            ({}, "LOCAL"),
            ({"scheme": "https"}, "SECURE"),
            ({"headers": [(b"x-forwarded-for", b"10.0.0.7")]}, "INSECURE"),
        ],
    )
    async def test_its_session_has_the_transport_of_the_request(self, options, transport):
        """A14: the same as of a session that is loaded before the handler runs."""
        found = []

        async def page(scope, receive, send):
            await scope[CONNECTION].load()
            found.append(scope[CONNECTION].transport.name)
            await respond(scope, receive, send)

        await Site().get(page, autoload=False, **options)
        assert found == [transport]


def test_only_an_unsafe_method_loads_from_the_store():
    """N1: with ``near_cache``."""
    site, time, bus = Site(), Time(), Bus()
    process = Process(OneStore(site.store, [bus], bus), time)
    site.sessions = process.sessions
    loads = []

    async def page(scope, receive, send):
        assert dict(scope["session"]) == {"counter": 0}
        await respond(scope, receive, send)

    process.confirm()
    asyncio.run(site.begin())
    for method in ("GET", "GET", "POST"):
        time.now += 0.002
        process.confirm()
        site.store.calls.clear()
        asyncio.run(site.get(page, method=method))
        loads.append(site.store.calls.count("load"))
    process.sessions.close()
    assert loads == [1, 0, 1]


class TestUnloaded:
    """A stream of a route that has not loaded the session but may load it later (law A13)."""

    async def stream(self, scope, receive, send):
        await send(start())
        await send(body(more=True))
        await send(body())

    @pytest.mark.parametrize(
        ("include", "private"), [(["/api"], True), (["/other"], False)], ids=["in", "out"]
    )
    async def test_stream_is_private_on_a_path_with_sessions(self, include, private):
        """A13."""
        site = Site(include=include, autoload=False)
        site.cookie = "ticket"
        _, headers = await site.get(self.stream, path="/api")
        assert (headers.get(b"cache-control") == b"private") == private

    @pytest.mark.parametrize(
        ("scheme", "proxied", "cookie", "private"),
        [
            ("https", (), b"__Host-sid=ticket", True),
            ("https", (), b"sid=ticket", False),
            ("http", (), b"sid=ticket", True),
            ("http", (), b"__Host-sid=ticket", False),
        ],
    )
    async def test_stream_is_private_with_the_cookie_of_its_transport(
        self, scheme, proxied, cookie, private
    ):
        """A13, A14."""
        headers = [*proxied, (b"cookie", cookie)]
        site = Site(autoload=False)
        _, headers = await site.get(self.stream, scheme=scheme, headers=headers)
        assert (headers.get(b"cache-control") == b"private") == private

    async def test_stream_is_private_with_a_ticket_in_a_header(self):
        """A13: with ``transport="header"``."""
        site = Site(transport="header", autoload=False)
        sent = [(b"authorization", b"Session " + b"t" * 66)]
        _, headers = await site.get(self.stream, headers=sent)
        assert headers[b"vary"] == b"Authorization"


class TestDelayedStart:
    async def test_a_start_with_a_length_waits_for_the_body(self):
        """A2: a handler may begin a session between both messages."""

        async def page(scope, receive, send):
            await send(start(LENGTH))
            for _ in range(5):
                await asyncio.sleep(0)
            write(scope["session"])
            await send(body())

        _, headers = await Site().get(page)
        assert headers[b"set-cookie"].startswith(b"sid=")

    @pytest.mark.parametrize("accesses", [False, True])
    async def test_a_start_may_have_no_headers(self, site, accesses):
        """ASGI: ``headers`` may be absent."""

        async def page(scope, receive, send):
            if accesses:
                len(scope["session"])
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body"})

        status, headers = await site.get(page)
        expected = {b"vary": b"Cookie", b"cache-control": b"private"} if accesses else {}
        assert (status, headers) == (200, expected)

    async def test_a_page_that_does_not_access_the_session_extends_the_idle_time(self, site):
        """A17: activity counts, also if the handler does not use the session."""
        site.clock.advance("20 minutes")
        await site.get(respond)
        assert "touch" in site.store.calls

    async def test_a_session_cannot_begin_after_the_response(self):
        """A11."""

        async def page(scope, receive, send):
            await respond(scope, receive, send)
            with pytest.raises(ResponseStarted):
                write(scope["session"])

        assert (await Site().get(page))[0] == 200

    async def test_error_after_the_response_is_raised_to_the_server(self):
        """A23: a second response is not sent."""
        site = Site()

        async def page(scope, receive, send):
            await respond(scope, receive, send)
            raise SessionRequired("late")

        with pytest.raises(SessionRequired):
            await site.get(page)
        assert site.sent == [start(LENGTH), body()]


class TestDisconnect:
    """A client that disconnects during a stream."""

    async def write_late(self, scope, receive, send):
        await send(start())
        await send(body(more=True))
        write(scope["session"])
        self.site.send_error = OSError("left")
        await send(body(more=True))

    @pytest.mark.parametrize(
        "asgi",
        [
            {"version": "3.0"},
            {"version": "3.0", "spec_version": "2.3"},
            {"version": "3.0", "spec_version": "2.4"},
        ],
        ids=lambda asgi: asgi.get("spec_version", "absent"),
    )
    async def test_an_error_of_send_is_a_disconnect_from_asgi_2_4_on(self, site, asgi):
        """A10, A11: before ASGI 2.4 an ``OSError`` of ``send`` has no defined meaning."""
        self.site = site
        with pytest.raises(OSError, match="left"):
            await site.get(self.write_late, asgi=asgi)
        kept = asgi.get("spec_version") == "2.4"
        assert await site.data() == {"counter": 1 if kept else 0}

    async def test_changes_of_a_cancelled_stream_are_kept(self, site):
        """A11: servers cancel the handler when its client disconnects."""

        async def page(scope, receive, send):
            await send(start())
            await send(body(more=True))
            write(scope["session"])
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await site.get(page)
        assert await site.data() == {"counter": 1}


class TestReplaced:
    """An application that assigns another value to ``scope["session"]`` (law A24)."""

    @pytest.mark.parametrize(
        ("value", "error"), [(5, None), ({}, SessionRequired("log in"))], ids=["refused", "error"]
    )
    async def test_session_is_restored_in_the_scope_for_an_error_response(self, value, error):
        """A23, A24: both for an invalid replacement and for an error of the application."""
        found = []

        def on_error(request, error):
            found.append(request["session"])

        site = await Site(on_error=on_error).begin()
        sessions = []

        async def page(scope, receive, send):
            sessions.append(scope["session"])
            scope["session"] = value
            if error is not None:
                raise error
            await respond(scope, receive, send)

        if error is None:
            with pytest.raises(SessionError, match="has replaced its session"):
                await site.get(page)
        else:
            assert (await site.get(page))[0] == 401
        assert found[0] is sessions[0]

    async def test_session_is_restored_in_the_scope_after_the_response(self, site):
        """A24: later changes by the application are committed."""

        async def page(scope, receive, send):
            session = scope["session"]
            scope["session"] = {"a": 1}
            await send(start())
            await send(body(more=True))
            assert scope["session"] is session
            scope["session"]["b"] = 2
            await send(body())

        await site.get(page)
        assert await site.data() == {"a": 1, "b": 2}

    async def test_a_session_of_starlette_is_refused_with_the_path(self, site):
        """A24."""
        foreign = type("Session", (dict,), {"__module__": "starlette.middleware.sessions"})

        async def page(scope, receive, send):
            scope["session"] = foreign()
            await respond(scope, receive, send)

        with pytest.raises(ConfigurationError, match="serves '/shop' inside"):
            await site.get(page, path="/shop")


@pytest.mark.parametrize("end", ["complete", "fail", "cancel", "disconnect"])
async def test_stream_of_an_error_response_ends_the_session(end):
    """A10: also if the stream fails, is cancelled, or has no end because the client left."""

    def on_error(request, error):
        async def stream(scope, receive, send):
            await send(start())
            await send(body(more=True))
            request["session"].destroy()
            if end == "fail":
                raise LookupError("planned by the test")
            if end == "cancel":
                raise asyncio.CancelledError
            if end == "complete":
                await send(body())

        return stream

    async def page(scope, receive, send):
        raise SessionRequired("log in")

    site = await Site(on_error=on_error).begin()
    raised = {"fail": LookupError, "cancel": asyncio.CancelledError}.get(end)
    with contextlib.nullcontext() if raised is None else pytest.raises(raised):
        await site.get(page)
    assert await site.data() == {}


def error_page(change, *, heal=None, status=500):
    """Return a page whose framework catches a commit error and sends its error page."""

    async def page(scope, receive, send):
        try:
            change(scope["session"])
            await scope["session"].acommit()
        except StoreUnavailable:
            if heal is not None:
                heal()
            await send(start(LENGTH, status=status))
            await send(body())

    return page


class TestFailingStore:
    @pytest.mark.parametrize("save_on_error", [False, True])
    async def test_failing_store_is_not_called_again(self, save_on_error):
        """A15: the changes are dropped."""
        site = await Site(save_on_error=save_on_error).begin()
        site.store.fail("save")
        status, _ = await site.get(error_page(write, heal=site.store.heal))
        assert status == 503
        assert site.store.calls.count("save") == 1
        assert await site.data() == {"counter": 0}

    async def test_failed_delete_is_retried_at_the_end(self, site):
        """A10."""
        site.store.fail("delete")
        page = error_page(lambda session: session.destroy(), heal=site.store.heal)
        status, headers = await site.get(page)
        assert status == 503
        assert b"Max-Age=0" in headers[b"set-cookie"]
        assert await site.data() == {}

    async def test_failed_rotation_is_retried_at_the_end(self, site):
        """A10."""
        site.store.fail("save")
        page = error_page(lambda session: session.rotate(), heal=site.store.heal)
        status, headers = await site.get(page)
        assert status == 503
        assert headers[b"set-cookie"].startswith(b"sid=")

    @pytest.mark.parametrize("keeps", [False, True])
    async def test_raised_error_keeps_only_the_destruction(self, keeps):
        """A10, A15."""
        site = await Site(save_on_error=True).begin()
        site.store.fail("save", "delete")

        async def page(scope, receive, send):
            session = scope["session"]
            if keeps:
                session.destroy()
            else:
                write(session)
            try:
                await session.acommit()
            finally:
                site.store.heal()

        assert (await site.get(page))[0] == 503
        assert await site.data() == ({} if keeps else {"counter": 0})

    async def test_an_error_page_that_is_sent_later_is_503(self):
        """A15: the framework handled the error, and the request continued."""
        site = await Site(on_store_failure="anonymous").begin()
        site.store.fail()

        async def page(scope, receive, send):
            with contextlib.suppress(StoreUnavailable):
                await scope["session"].acommit()
            await send(start(LENGTH, status=500))
            await send(body())

        status, headers = await site.get(page)
        assert (status, headers[b"retry-after"]) == (503, b"2")

    async def test_store_error_replaces_the_error_of_the_handler(self, site):
        """A15, A23: the session that ends with the request could not be deleted."""
        site.store.fail("delete")

        async def page(scope, receive, send):
            scope["session"].destroy()
            raise SessionRequired("log in")

        assert (await site.get(page))[0] == 503

    async def test_on_error_gets_the_store_error_and_its_response_becomes_503(self):
        """A15, A23."""
        handled = []

        def on_error(request, error):
            handled.append(type(error))

            async def response(scope, receive, send):
                await send(start(status=500))
                await send(body((await receive())["body"]))

            return response

        site = await Site(on_error=on_error).begin()
        site.store.fail("delete")

        async def page(scope, receive, send):
            scope["session"].destroy()
            raise SessionRequired("log in")

        assert (await site.get(page))[0] == 503
        assert handled == [StoreUnavailable]
        assert site.sent[1]["body"] == b"posted"

    async def test_error_page_that_became_503_handles_the_error(self, site, caplog):
        """A15, A23: frameworks raise the exception after they sent its error page."""
        site.store.fail("save", error=StoreUnavailable("planned"))

        async def page(scope, receive, send):
            write(scope["session"])
            try:
                await scope["session"].acommit()
            except StoreUnavailable:
                await send(start(LENGTH, status=500))
                await send(body())
                raise

        with caplog.at_level(logging.DEBUG, "sojourn"):
            assert (await site.get(page))[0] == 503
        messages = [record.getMessage() for record in caplog.records]
        assert messages.count("answered 503 because the session store failed: planned") == 1

    async def test_store_error_is_logged(self, site, caplog):
        """A23: with the cause, which the response does not contain."""
        site.store.fail("load", error=StoreUnavailable("planned"))
        with caplog.at_level(logging.DEBUG, "sojourn"):
            assert (await site.get(pytest.fail))[0] == 503
        messages = [record.getMessage() for record in caplog.records]
        assert "answered 503 because the session store failed: planned" in messages


async def test_commit_error_gets_a_response_if_the_framework_raises_another():
    """A23: also if the store is not called, because the record is too large."""
    handled = []

    def on_error(request, error):
        handled.append(type(error))

    site = await Site(on_error=on_error).begin()

    async def page(scope, receive, send):
        scope["session"]["n"] = "x" * 100_000
        try:
            await respond(scope, receive, send)
        except SessionTooLarge:
            raise RuntimeError("of the framework") from None

    with pytest.raises(RuntimeError):
        await site.get(page)
    assert handled == [SessionTooLarge]


async def test_encoding_error_gets_a_response_if_the_framework_raises_another():
    """A23: a value was changed in place to one that cannot be encoded."""
    handled = []

    def on_error(request, error):
        handled.append(type(error))

    site = await Site(on_error=on_error).begin()

    async def page(scope, receive, send):
        scope["session"]["values"] = []
        list.append(scope["session"]["values"], object())
        try:
            await respond(scope, receive, send)
        except NotSerializable:
            raise RuntimeError("of the framework") from None

    with pytest.raises(RuntimeError):
        await site.get(page)
    assert handled == [NotSerializable]
