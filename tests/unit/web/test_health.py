"""The health endpoint: readiness calls the store, liveness does not."""

import asyncio
import io
import json
import logging
import time

import pytest
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

import sojourn
from sojourn import Sessions
from sojourn.errors import ConfigurationError, StoreUnavailable
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore
from sojourn.web.health import HealthReport

pytestmark = pytest.mark.anyio

SECRET = "3Lw9-health-xQ7r_Vb2kTz6Yp"


@pytest.fixture
def store():
    return FaultyStore(MemoryStore())


@pytest.fixture
def sessions(store):
    return Sessions(store=store, secret=SECRET, store_timeout="0.2 seconds")


async def call_asgi(application, path="/health", method="GET"):
    """Return status, headers and body."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": []}
    await application(scope, None, send)
    start, body = sent
    assert set(start) == {"type", "status", "headers"}
    assert (start["type"], body["type"]) == ("http.response.start", "http.response.body")
    return start["status"], dict(start["headers"]), body["body"]


def call_wsgi(application, path="/health", method="GET"):
    """Return status, headers and body."""
    started = []
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "wsgi.input": io.BytesIO()}
    parts = application(environ, lambda status, headers: started.append((status, headers)))
    ((status, headers),) = started
    return status, dict(headers), b"".join(parts)


async def test_a_websocket_handshake_is_refused(sessions, store):
    """Without an error of the application and without a store call."""
    sent = []

    async def send(message):
        sent.append(message)

    await sojourn.health(sessions)({"type": "websocket", "path": "/health"}, None, send)
    assert sent == [{"type": "websocket.close", "code": 1000}]
    assert store.calls == []


async def test_available_store_is_ready(sessions, store):
    status, headers, body = await call_asgi(sojourn.health(sessions))
    assert status == 200
    report = json.loads(body)
    assert report.pop("round_trip_ms") >= 0
    assert report == {"status": "ok", "store": "ok"}
    assert headers == {
        b"content-type": b"application/json",
        b"content-length": str(len(body)).encode(),
        b"cache-control": b"no-store",
    }
    assert store.calls.count("load") == 1


def test_available_store_is_ready_under_wsgi(sessions):
    status, headers, body = call_wsgi(sojourn.health(sessions))
    assert status == "200 OK"
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["store"] == "ok"


async def test_a_store_that_fails_is_not_ready(sessions, store):
    """A15, A23: 503 with Retry-After, without the cause."""
    store.fail("load")
    status, headers, body = await call_asgi(sojourn.health(sessions))
    assert (status, headers[b"retry-after"]) == (503, b"2")
    assert json.loads(body) == {"status": "unavailable", "store": "unavailable"}


def test_a_store_that_fails_is_not_ready_under_wsgi(sessions, store):
    """A15, A23."""
    store.fail("load")
    status, headers, _ = call_wsgi(sojourn.health(sessions))
    assert (status, headers["retry-after"]) == ("503 Service Unavailable", "2")


async def test_a_store_that_hangs_is_not_ready_within_its_deadline(sessions, store):
    store.hang("load")
    began = time.monotonic()
    status, _, _ = await call_asgi(sojourn.health(sessions))
    assert status == 503
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("path", ["/live", "/health/live", "/health/live/"])
async def test_liveness_does_not_call_the_store(sessions, store, path):
    store.fail("load")
    status, _, body = await call_asgi(sojourn.health(sessions), path)
    assert (status, json.loads(body)) == (200, {"status": "ok"})
    assert call_wsgi(sojourn.health(sessions), path)[0] == "200 OK"
    assert store.calls == []


async def test_a_head_request_has_no_body(sessions):
    status, headers, body = await call_asgi(sojourn.health(sessions), method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers[b"content-length"]) > 0
    assert call_wsgi(sojourn.health(sessions), method="HEAD")[2] == b""


async def test_other_methods_are_refused(sessions, store):
    """RFC 9110 15.5.6."""
    status, headers, body = await call_asgi(sojourn.health(sessions), method="POST")
    assert (status, body) == (405, b"")
    assert headers == {
        b"allow": b"GET, HEAD",
        b"cache-control": b"no-store",
        b"content-length": b"0",
    }
    assert call_wsgi(sojourn.health(sessions), method="POST")[0] == "405 Method Not Allowed"
    assert store.calls == []


async def test_other_secrets_are_reported(tmp_path, caplog):
    """An application that shares a realm by mistake never becomes ready."""
    store = f"sqlite:///{tmp_path}/sessions.db"
    first = Sessions(store=store, secret=SECRET)
    await first.aping()
    other = Sessions(store=store, secret="n8Fs-another-Jd4u_Hc5mWe1Ra")
    status, _, body = await call_asgi(sojourn.health(other))
    first.close()
    other.close()
    assert (status, json.loads(body)["store"]) == (503, "misconfigured")
    assert SECRET not in caplog.text
    assert b"realm" not in body
    assert "realm" in caplog.text


class Ping:
    """A stub of ``Sessions``: ``ping`` returns the seconds or raises the error."""

    def __init__(self, result):
        self.result = result

    def ping(self):
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    async def aping(self):
        return self.ping()


async def test_the_round_trip_is_in_milliseconds():
    application = sojourn.health(Ping(0.0123456))
    assert application.report() == HealthReport("ok", "ok", 12.346)
    assert await application.areport() == HealthReport("ok", "ok", 12.346)


@pytest.mark.parametrize("form", ["async", "blocking"])
async def test_a_misconfigured_store_is_logged_once_until_it_is_ready(form, caplog):
    """Load balancers probe every few seconds."""
    ping = Ping(ConfigurationError("the realm is used"))
    application = sojourn.health(ping)

    async def probe():
        return await application.areport() if form == "async" else application.report()

    for _ in range(3):
        assert await probe() == HealthReport("unavailable", "misconfigured")
    assert caplog.messages == ["the store is misconfigured: the realm is used"]
    ping.result = 0.0
    assert (await probe()).status == "ok"
    ping.result = ConfigurationError("the realm is used")
    await probe()
    assert len(caplog.messages) == 2


@pytest.mark.parametrize(
    "path",
    [
        {"SCRIPT_NAME": "/live", "PATH_INFO": ""},
        {"SCRIPT_NAME": "/health/live", "PATH_INFO": "/"},
        {"SCRIPT_NAME": "/live"},
        {"PATH_INFO": "/live"},
    ],
)
def test_liveness_may_be_mounted_at_a_path(path):
    """Under WSGI the path of a mounted application is split into SCRIPT_NAME and PATH_INFO."""
    started = []
    environ = {"REQUEST_METHOD": "GET", **path}
    application = sojourn.health(Ping(StoreUnavailable("down")))
    body = application(environ, lambda *response: started.append(response))
    assert started[0][0] == "200 OK"
    assert b"".join(body) == b'{"status":"ok"}'


async def test_an_outage_is_logged_once_and_its_end_once(sessions, store, caplog, monkeypatch):
    """A15: through probes only, without a request."""
    monkeypatch.setattr("sojourn.web.event_log._QUIET_TIME", 0)
    caplog.set_level(logging.WARNING, "sojourn")
    application = sojourn.health(sessions)
    await call_asgi(application)
    store.fail("load")
    for _ in range(3):
        await call_asgi(application)
    store.heal()
    for _ in range(2):
        await call_asgi(application)
    failed, recovered = caplog.messages
    assert failed.startswith("the session store failed (ping): ")
    assert recovered.startswith("the session store answers again after 0.")
    assert recovered.endswith("failed calls: 3 (ping 3)")
    assert SECRET not in caplog.text


async def test_other_connections_are_refused(sessions):
    """A server takes an error for "lifespan" as: not supported."""
    with pytest.raises(ValueError, match="lifespan"):
        await sojourn.health(sessions)({"type": "lifespan"}, None, None)


def test_endpoint_is_mounted_next_to_a_wsgi_application(sessions):
    def page(environ, start_response):
        start_response("200 OK", [])
        return [b"page"]

    client = Client(DispatcherMiddleware(page, {"/health": sojourn.health(sessions)}))
    assert client.get("/").data == b"page"
    assert client.get("/health").json["store"] == "ok"
    assert client.get("/health/live").json == {"status": "ok"}


async def test_ping_returns_seconds(store):
    sessions = Sessions(store=store, secret=SECRET)  # a stall must not exceed its deadline

    async def load_slowly(session_id):
        await asyncio.sleep(0.02)  # the time that must be measured

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions.store, "load", load_slowly)
        assert 0.02 <= await sessions.aping() < 2


def test_ping_raises_the_error_of_the_store(sessions, store):
    """A15."""
    store.fail("load")
    with pytest.raises(StoreUnavailable):
        sessions.ping()
