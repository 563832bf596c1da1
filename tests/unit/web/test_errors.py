"""Error handling in bare ASGI applications, where ``on_error`` is the only handler (law A23)."""

import asyncio
import json

import pytest
from starlette.responses import PlainTextResponse

import sojourn
from sojourn.errors import (
    ConfigurationError,
    SessionTooLarge,
    StoreError,
    StoreUnavailable,
)
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore
from sojourn.web.asgi import SessionMiddleware
from tests.unit.web.asgi_client import begin, visit

pytestmark = pytest.mark.anyio

SECRET = "errors-7Jm2Qw9vXc4Rk1-Zt"


async def serve(page, *, accept=None, **options):
    """Serve one request of a visitor with a session; return the messages, and what was raised."""
    store = FaultyStore(MemoryStore())
    sessions = sojourn.Sessions(store=store, secret=SECRET, **options)
    _, cookie = await visit(sessions, begin)
    headers = [(b"host", b"localhost"), (b"cookie", b"sid=" + cookie.encode())]
    if accept is not None:
        headers.append((b"accept", accept))
    scope = {"type": "http", "method": "GET", "path": "/", "scheme": "http",
             "headers": headers, "client": None}  # fmt: skip
    sent = []

    async def send(message):
        await asyncio.sleep(0)
        sent.append(message)

    async def app(scope, receive, send):
        await page(scope["session"], store)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    try:
        await SessionMiddleware(app, sessions)(scope, None, send)
    except Exception as error:  # noqa: BLE001 - the tests compare it
        return sent, error
    return sent, None


async def unavailable(session, store):
    store.fail("save")
    session["n"] = 1


async def explicit(session, store):
    await unavailable(session, store)
    await session.acommit()


async def large(session, store):
    session["n"] = "x" * 100_000


async def broken(session, store):
    raise LookupError("planned by the test")


async def no_store():
    raise StoreError("planned by the test")


async def misconfigured(session, store):
    raise ConfigurationError("planned by the test")


@pytest.mark.parametrize("page", [unavailable, explicit])
async def test_by_default_a_failing_store_is_503(page):
    """A23: in the form that the client accepts."""
    sent, error = await serve(page, accept=b"application/json")
    assert error is None
    assert sent[0]["status"] == 503
    assert dict(sent[0]["headers"])[b"retry-after"]
    assert "unavailable" in json.loads(sent[1]["body"])["detail"]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("page", "kind"),
    [(unavailable, StoreUnavailable), (explicit, StoreUnavailable), (large, SessionTooLarge)],
)
async def test_on_error_returns_a_response(page, kind, asynchronous):
    """A23: it gets the scope and the error; its response is an ASGI application."""
    seen = []

    def handle(scope, error):
        seen.append((scope["path"], type(error)))
        return PlainTextResponse("sorry", 418)

    async def handle_later(scope, error):
        await asyncio.sleep(0)
        return handle(scope, error)

    sent, error = await serve(page, on_error=handle_later if asynchronous else handle)
    assert error is None
    assert (sent[0]["status"], sent[1]["body"]) == (418, b"sorry")
    assert dict(sent[0]["headers"])[b"vary"] == b"Cookie"
    assert seen == [("/", kind)]


@pytest.mark.parametrize(("page", "status"), [(unavailable, 503), (large, None)])
async def test_on_error_that_returns_none_keeps_the_default(page, status):
    """A23: 503 for a failing store; any other error is raised to the server."""
    sent, error = await serve(page, on_error=lambda scope, error: None)
    assert [message["status"] for message in sent[:1]] == ([status] if status else [])
    assert isinstance(error, SessionTooLarge) == (status is None)


@pytest.mark.parametrize(
    ("page", "kind"), [(broken, LookupError), (misconfigured, ConfigurationError)]
)
async def test_on_error_is_not_called_for_other_errors(page, kind):
    """A23: nor for configuration errors, which must reach the developer."""
    handled = []
    sent, error = await serve(page, on_error=lambda *arguments: handled.append(arguments))
    assert (sent, type(error), handled) == ([], kind, [])


async def test_error_of_on_error_is_raised_to_the_server():
    def handle(scope, error):
        raise LookupError("planned by the test")

    sent, error = await serve(large, on_error=handle)
    assert sent == []
    assert isinstance(error, LookupError)


async def test_a_500_for_a_failing_store_becomes_503():
    """A23: if ``on_error`` returns no response, the 503 has Retry-After."""
    sent, _ = await serve(unavailable, on_error=lambda *_: PlainTextResponse("sorry", 500))
    assert sent[0]["status"] == 503
    assert dict(sent[0]["headers"])[b"retry-after"]


async def test_500_of_the_framework_becomes_503():
    """A23: the framework sends its error page while it handles the exception."""
    sessions = sojourn.Sessions(store=FaultyStore(MemoryStore()), secret=SECRET)
    sent = []

    async def app(scope, receive, send):
        try:
            await no_store()
        except StoreError:
            await send({"type": "http.response.start", "status": 500, "headers": []})
            await send({"type": "http.response.body", "body": b"oops"})
            raise

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": "/", "scheme": "http", "headers": [], "client": None}
    await SessionMiddleware(app, sessions)(scope, None, send)
    assert (sent[0]["status"], sent[1]["body"]) == (503, b"oops")


def test_the_option_expects_a_function():
    with pytest.raises(ConfigurationError, match="on_error expects a function"):
        sojourn.Sessions(store=MemoryStore(), secret=SECRET, on_error="503")
