"""Headers of ASGI streams: delayed until the first body message, for a bounded time (law A13)."""

import asyncio

import pytest

import sojourn
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore
from sojourn.web.asgi import SessionMiddleware
from sojourn.web.asgi_scope import CONNECTION
from tests.unit.web.asgi_client import begin, visit

pytestmark = pytest.mark.anyio

SECRET = "streams: 7Jm2Qw9vXc4Rk1-Zt"
LENGTH = (b"content-length", b"2")


class Exchange:
    """One request to an application, in a task.

    Attributes:
        sent: the messages to the client.
    """

    def __init__(self, app, sessions, *, cookie=None, spec_version="2.4", path="/"):
        self.sent = []
        self.started = asyncio.Event()
        headers = [(b"host", b"localhost")]
        if cookie is not None:
            headers.append((b"cookie", b"sid=" + cookie.encode()))
        scope = {"type": "http", "method": "GET", "path": path, "scheme": "http",
                 "headers": headers, "client": None,
                 "asgi": {"version": "3.0", "spec_version": spec_version}}  # fmt: skip
        serving = SessionMiddleware(app, sessions)(scope, None, self._send)
        self.task = asyncio.get_running_loop().create_task(serving)

    async def _send(self, message):
        self.sent.append(message)
        self.started.set()
        await asyncio.sleep(0)

    async def done(self):
        await self.task
        return self

    @property
    def headers(self):
        return dict(self.sent[0]["headers"])

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.sent[1:])


def start(*headers, status=200):
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data, *, more=False):
    return {"type": "http.response.body", "body": data, "more_body": more}


def sessions_of(**options):
    return sojourn.Sessions(store=MemoryStore(), secret=SECRET, **options)


def is_private(exchange):
    headers = exchange.headers
    return (headers.get(b"vary"), headers.get(b"cache-control")) == (b"Cookie", b"private")


@pytest.mark.parametrize("headers", [(), (LENGTH,)], ids=["chunked", "length"])
@pytest.mark.parametrize("stored", [False, True])
async def test_a_complete_body_needs_no_headers(headers, stored):
    """A1, A13: a page that does not access the session stays as the application wrote it."""

    async def page(scope, receive, send):
        await send(start(*headers))
        await send(body(b"ok"))

    sessions = sessions_of()
    cookie = (await visit(sessions, begin))[1] if stored else None
    exchange = await Exchange(page, sessions, cookie=cookie).done()
    assert exchange.sent == [start(*headers), body(b"ok")]


@pytest.mark.parametrize("spec_version", ["2.0", "2.4"])
@pytest.mark.parametrize("headers", [(), (LENGTH,)], ids=["chunked", "length"])
@pytest.mark.parametrize("stored", [False, True])
async def test_a_body_in_parts_is_private(headers, stored, spec_version):
    """A13: decided by ``more_body`` of the first message, not by Content-Length."""

    async def page(scope, receive, send):
        await send(start(*headers))
        await send(body(b"o", more=True))
        await send(body(str(len(scope["session"]))[:1].encode()))

    sessions = sessions_of()
    cookie = (await visit(sessions, begin))[1] if stored else None
    exchange = await Exchange(page, sessions, cookie=cookie, spec_version=spec_version).done()
    assert is_private(exchange)
    assert exchange.body == (b"o1" if stored else b"o0")


async def test_session_written_between_start_and_body_sends_its_cookie():
    """A2: the start is not sent yet, so the cookie is added to it."""

    async def page(scope, receive, send):
        await send(start(LENGTH))
        scope["session"]["late"] = True
        await send(body(b"ok"))

    exchange = await Exchange(page, sessions_of()).done()
    assert exchange.headers[b"set-cookie"].startswith(b"sid=")


@pytest.mark.parametrize("headers", [(), (LENGTH,)], ids=["chunked", "length"])
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("kind", ["pathsend", "zerocopysend"])
async def test_body_of_another_kind_is_passed_on_after_the_headers(kind, headers, stored):
    """A1, A2: the body may be a path (granian) or a file descriptor, not only bytes."""
    message = {"type": f"http.response.{kind}", "path": "/favicon.ico"}

    async def page(scope, receive, send):
        await send(start(*headers))
        await send(dict(message))

    sessions = sessions_of()
    cookie = (await visit(sessions, begin))[1] if stored else None
    exchange = await Exchange(page, sessions, cookie=cookie).done()
    assert exchange.sent == [start(*headers), message]


async def test_headers_are_sent_before_the_first_part_of_an_event_stream():
    """A13: an event stream starts before its first event."""
    event = asyncio.Event()

    async def page(scope, receive, send):
        await send(start((b"content-type", b"text/event-stream")))
        await event.wait()
        await send(body(b"data: 1\n\n", more=True))
        await send(body(b""))

    exchange = Exchange(page, sessions_of())
    async with asyncio.timeout(5):
        await exchange.started.wait()
    assert is_private(exchange)
    event.set()
    assert (await exchange.done()).body == b"data: 1\n\n"


async def test_first_part_is_sent_after_the_headers():
    """A13: also if a touch of the store precedes the headers."""
    clock = FakeClock()
    store = FaultyStore(MemoryStore())
    sessions = sojourn.Sessions(store=store, secret=SECRET, clock=clock)

    async def page(scope, receive, send):
        store.hang("touch")
        await send(start())
        await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_later(0.01, store.heal)
        await send(body(b"o", more=True))
        await send(body(b"k"))

    _, cookie = await visit(sessions, begin)
    clock.advance("5 minutes")
    exchange = await Exchange(page, sessions, cookie=cookie).done()
    assert [message["type"][14:] for message in exchange.sent] == ["start", "body", "body"]
    assert is_private(exchange)
    assert "touch" in store.calls


async def test_a_response_without_a_body_is_sent():
    async def page(scope, receive, send):
        await send(start(status=204))

    exchange = await Exchange(page, sessions_of()).done()
    assert exchange.sent == [start(status=204)]


@pytest.mark.parametrize("headers", [(), (LENGTH,)], ids=["chunked", "length"])
async def test_start_is_not_sent_if_the_application_fails_before_the_body(headers):
    """Nothing was sent, so the server can respond to the exception."""

    async def page(scope, receive, send):
        await send(start(*headers))
        raise LookupError("planned by the test")

    exchange = Exchange(page, sessions_of())
    with pytest.raises(LookupError):
        await exchange.done()
    await asyncio.sleep(0)
    assert exchange.sent == []


@pytest.mark.parametrize("ticket", [True, False])
@pytest.mark.parametrize("exclude", [(), ("/",)], ids=["included", "excluded"])
async def test_stream_is_private_if_its_request_has_a_ticket(ticket, exclude):
    """A13: it may load its session late; a stream of an excluded path is never private."""

    async def page(scope, receive, send):
        await send(start())
        await send(body(b"o", more=True))
        if not exclude:
            await scope[CONNECTION].load()
        await send(body(b"k"))

    store = MemoryStore()
    _, cookie = await visit(sojourn.Sessions(store=store, secret=SECRET), begin)
    sessions = sojourn.Sessions(store=store, secret=SECRET, autoload=False, exclude=exclude)
    exchange = await Exchange(page, sessions, cookie=cookie if ticket else None).done()
    assert is_private(exchange) == (ticket and not exclude)


async def test_start_is_sent_at_once_without_asyncio(monkeypatch):
    """A13: with the headers of a stream."""

    def no_loop():
        raise RuntimeError("no running event loop")

    async def page(scope, receive, send):
        monkeypatch.setattr("sojourn.web.asgi_exchange.asyncio.get_running_loop", no_loop)
        await send(start())
        monkeypatch.undo()
        await send(body(b"ok"))

    assert is_private(await Exchange(page, sessions_of()).done())
