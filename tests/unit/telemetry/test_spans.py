"""Spans of loads and commits: one of each, children of the request's span."""

import asyncio
import threading

import pytest
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import SpanKind, StatusCode

from sojourn import Sessions
from sojourn.asgi import SessionMiddleware as ASGIMiddleware
from sojourn.errors import StoreUnavailable
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore
from sojourn.testing.app_suite.served_app import SECRET
from sojourn.wsgi import SessionMiddleware as WSGIMiddleware
from tests.support.telemetry import Exporters
from tests.unit.telemetry.test_numbers import Visitor, increment
from tests.unit.web.asgi_client import begin, connect, visit

LOAD, COMMIT = "load session", "commit session"

STORES = {
    "memory": lambda: "memory://",  # without a coroutine
    "sqlite": lambda: "sqlite:///sessions.db",
    "suspending": lambda: FaultyStore(MemoryStore()),
}


@pytest.fixture
def exporters():
    with Exporters() as made:
        yield made


def check_children(exporters, request, names):
    """Each span of sojourn since the last call is a child of the request's span."""
    spans = exporters.spans()
    for span in spans:
        assert span.parent is not None, span.name
        assert span.parent.span_id == request.get_span_context().span_id
        assert span.start_time <= span.end_time
    assert exporters.take_spans() == names


@pytest.mark.parametrize("store", STORES)
def test_one_load_and_one_commit_span(store, exporters):
    sessions = Sessions(store=STORES[store](), secret=SECRET)
    exporters.opentelemetry(sessions)
    visitor = Visitor(sessions)
    with exporters.request() as request:
        visitor.visit(increment)
    check_children(exporters, request, [COMMIT])
    for _ in range(2):
        with exporters.request() as request:
            visitor.visit(increment)
        check_children(exporters, request, [LOAD, COMMIT])
    with exporters.request() as request:
        visitor.visit(lambda session: session.get("n"))
    check_children(exporters, request, [LOAD])
    sessions.close()


def test_a_request_without_a_ticket_has_no_span(exporters):
    """A1."""
    sessions = Sessions(store="memory://")
    exporters.opentelemetry(sessions)
    visitor = Visitor(sessions)
    visitor.visit(lambda session: session.get("n"))
    visitor.cookie = "session=forged"
    visitor.visit()
    assert exporters.take_spans() == []


def test_attributes_follow_the_conventions_for_databases(exporters):
    sessions = Sessions(store="sqlite:///sessions.db")
    exporters.opentelemetry(sessions)
    visitor = Visitor(sessions)
    for _ in range(3):
        visitor.visit(increment)
    for span in exporters.spans():
        assert span.kind is SpanKind.CLIENT
        assert span.status.status_code is StatusCode.UNSET
        assert dict(span.attributes) == {
            "db.system.name": "sqlite",
            "db.operation.name": span.name.partition(" ")[0],
            "sojourn.realm": "default",
            "sojourn.result": "ok",
        }
    sessions.close()


@pytest.mark.parametrize("store", STORES)
def test_the_session_id_is_in_spans_if_that_was_enabled(store, exporters):
    sessions = Sessions(store=STORES[store](), secret=SECRET)
    exporters.opentelemetry(sessions, include_session_id=True)
    visitor = Visitor(sessions)
    ids = {visitor.visit(increment).id for _ in range(3)}
    assert len(exporters.spans()) == 5
    assert {span.attributes["session.id"] for span in exporters.spans()} == ids
    sessions.close()


@pytest.mark.parametrize("verb", ["load", "save"])
def test_a_failure_is_an_error_without_its_message(verb, exporters):
    """A15; A18: the message of an error may name a user or a host."""
    store = FaultyStore(MemoryStore())
    sessions = Sessions(store=store, secret=SECRET)
    exporters.opentelemetry(sessions)
    visitor = Visitor(sessions)
    visitor.visit(increment)
    visitor.visit(increment)
    exporters.take_spans()
    store.fail(verb, error=StoreUnavailable("no answer for alice"))
    with pytest.raises(StoreUnavailable):
        visitor.visit(increment)
    span = exporters.spans(LOAD if verb == "load" else COMMIT)[-1]
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is None
    assert span.attributes["error.type"] == "sojourn.errors.StoreUnavailable"
    assert span.events == ()
    assert "alice" not in span.to_json()


class BrokenProcessor(SpanProcessor):
    """Raises an error at the start or at the end of each span."""

    def __init__(self, moment):
        self.moment = moment

    def on_start(self, span, parent_context=None):
        if self.moment == "start":
            raise RuntimeError("a broken processor")

    def on_end(self, span):
        if self.moment == "end":
            raise RuntimeError("a broken processor")


@pytest.mark.parametrize("moment", ["start", "end"])
@pytest.mark.parametrize("store", STORES)
def test_an_error_of_a_span_processor_does_not_fail_a_request(store, moment, exporters, caplog):
    """B-34: what a request has written is there, and the error is logged once."""
    sessions = Sessions(store=STORES[store](), secret=SECRET)
    exporters.tracers.add_span_processor(BrokenProcessor(moment))
    exporters.opentelemetry(sessions)
    visitor = Visitor(sessions)
    for _ in range(3):
        visitor.visit(increment)
    assert visitor.visit()["n"] == 3
    assert caplog.text.count("telemetry failed") == 1
    sessions.close()


def test_an_absent_session_is_no_error(exporters):
    sessions = Sessions(store="memory://")
    exporters.opentelemetry(sessions)
    visitor = Visitor(sessions)
    sessions.revoke(visitor.visit(increment).id)
    exporters.take_spans()
    visitor.visit()
    (span,) = exporters.spans()
    assert span.attributes["sojourn.result"] == "absent"
    assert span.status.status_code is StatusCode.UNSET


def test_a_cancelled_request_is_no_error(exporters):
    store = FaultyStore(MemoryStore())
    sessions = Sessions(store=store, secret=SECRET)
    exporters.opentelemetry(sessions)
    visitor = Visitor(sessions)
    visitor.visit(increment)
    exporters.take_spans()

    async def cancelled():
        store.hang("load")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), sessions.open(cookies=visitor.cookie):
                pass
        store.heal()

    asyncio.run(cancelled())
    (span,) = exporters.spans()
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes["error.type"] == "asyncio.exceptions.CancelledError"


def test_explicit_commits_and_claims_have_spans(exporters):
    sessions = Sessions(store="memory://")
    exporters.opentelemetry(sessions)
    visitor = Visitor(sessions)
    visitor.visit(increment)
    exporters.take_spans()

    def change(session):
        session["a"] = 1
        session.commit()
        assert session.claim("a") == 1

    visitor.visit(change)
    assert exporters.take_spans() == [LOAD, COMMIT, COMMIT]


def test_spans_of_threads_belong_to_their_requests(exporters):
    """WSGI: eight threads at a time, each with the span of its own request."""

    def application(environ, start_response):
        environ["sojourn.session"].increment("n")
        start_response("200 OK", [])
        return [b""]

    sessions = Sessions(store="memory://")
    exporters.opentelemetry(sessions)
    app = WSGIMiddleware(application, sessions)
    cookies = [Visitor(sessions) for _ in range(8)]
    for visitor in cookies:
        visitor.visit(increment)
    exporters.take_spans()
    requests = {}

    def serve(visitor):
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/",
            "wsgi.url_scheme": "https",
            "HTTP_HOST": "localhost",
            "HTTP_COOKIE": visitor.cookie,
        }
        with exporters.request() as request:
            body = app(environ, lambda *_: None)
            b"".join(body)
            getattr(body, "close", lambda: None)()
        requests[request.get_span_context().span_id] = 0

    threads = [threading.Thread(target=serve, args=(visitor,)) for visitor in cookies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for span in exporters.spans():
        requests[span.parent.span_id] += 1
    assert list(requests.values()) == [2] * 8


def test_parallel_requests_of_an_event_loop_have_their_own_spans(exporters):
    """ASGI: the store suspends, so that the requests alternate."""

    async def application(scope, receive, send):
        await asyncio.sleep(0)
        scope["session"].increment("n")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    store = FaultyStore(MemoryStore())
    sessions = Sessions(store=store, secret=SECRET)
    exporters.opentelemetry(sessions)
    app = ASGIMiddleware(application, sessions)
    visitors = [Visitor(sessions) for _ in range(8)]
    for visitor in visitors:
        visitor.visit(increment)
    exporters.take_spans()
    requests = {}

    async def serve(visitor):
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "scheme": "https",
            "headers": [(b"host", b"localhost"), (b"cookie", visitor.cookie.encode())],
        }

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            await asyncio.sleep(0)

        with exporters.request() as request:
            await app(scope, receive, send)
        requests[request.get_span_context().span_id] = 0

    async def serve_all():
        store.slow("load", seconds=0.01)
        await asyncio.gather(*map(serve, visitors))

    asyncio.run(serve_all())
    for span in exporters.spans():
        requests[span.parent.span_id] += 1
    assert list(requests.values()) == [2] * 8


def test_a_socket_has_one_load_and_a_commit_for_each_message(exporters):
    """W2."""

    async def application(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            scope["session"].increment("n")
            await send({"type": "websocket.send", "text": "ok"})

    async def messages():
        _, cookie = await visit(sessions, begin)
        exporters.opentelemetry(sessions)
        async with connect(application, sessions, cookie=cookie) as wire:
            for _ in range(3):
                wire.send("x")
                await wire.recv()

    sessions = Sessions(store="memory://")
    asyncio.run(messages())
    assert exporters.take_spans() == [LOAD, COMMIT, COMMIT, COMMIT]
    sessions.close()
