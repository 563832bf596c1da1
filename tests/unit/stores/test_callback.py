"""CallbackStore: the laws within one process, and the guarantees and limits between processes.

Over a dictionary, and over a real Valkey with plain and with `async` functions.
"""

import asyncio
import dataclasses
import datetime as dt
import json
import math
import threading
import time
from wsgiref.util import setup_testing_defaults

import pytest
import redis
import redis.asyncio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

import sojourn
from sojourn import store as contract
from sojourn._core.concurrency import run
from sojourn.errors import ConfigurationError, NotSerializable, StoreUnavailable
from sojourn.events import Rejected
from sojourn.record import UnreadableRecord
from sojourn.store import GONE, SAVED, Purged, RequiresEventLoop
from sojourn.stores.callback import CallbackStore
from sojourn.testing.records import MINUTE, make_body, make_record, next_version
from sojourn.wsgi import SessionMiddleware, get_session
from tests.contract.store_suite import StoreSuite
from tests.integration.valkey import Valkey, running
from tests.support.interleave import interleave

SECRET = "7jQk2v9XwP4tLmZ8sRb1NcYd6HfGa3Ue"


class Service:
    """A dictionary with two functions, such as an application has."""

    def __init__(self):
        self.values = {}
        self.seconds = {}

    def read(self, session_id):
        return self.values.get(session_id)

    def write(self, session_id, value, seconds):
        if value is None:
            self.values.pop(session_id, None)
        else:
            self.values[session_id] = value
            self.seconds[session_id] = seconds

    def store(self, **options):
        return CallbackStore(read=self.read, write=self.write, **options)

    def async_store(self, **options):
        async def read(session_id):
            await asyncio.sleep(0)  # as a client does that waits for its socket
            return self.read(session_id)

        async def write(session_id, value, seconds):
            await asyncio.sleep(0)
            self.write(session_id, value, seconds)

        return CallbackStore(read=read, write=write, **options)


class OverDictionary(StoreSuite):
    """One dictionary and one store for each realm, as in one process."""

    service_class = Service

    @pytest.fixture(autouse=True)
    def services(self):
        self.service = {}
        self.stores = {}

    def make_store(self, realm):
        if realm not in self.stores:
            self.service[realm] = self.service_class()
            self.stores[realm] = self.over(self.service[realm])
        return self.stores[realm]

    async def overwrite(self, store, session_id, data):
        for realm, made in self.stores.items():
            if made is store:
                self.service[realm].values[session_id.hex()] = data


class TestPlainFunctions(OverDictionary):
    """S1 to S9, S13, S14, and S10 within one process."""

    def over(self, service):
        return service.store()


class TestAsyncFunctions(OverDictionary):
    """The same with `async` functions."""

    requires_event_loop = True

    def over(self, service):
        return service.async_store()


class JSONService(Service):
    """Stores JSON text, made of the dict that `write` receives."""

    def read(self, session_id):
        text = self.values.get(session_id)
        return None if text is None else json.loads(text)

    def write(self, session_id, value, seconds):
        super().write(session_id, None if value is None else json.dumps(value), seconds)


class JSONTextService(JSONService):
    """Stores JSON text, and returns the text."""

    def read(self, session_id):
        return self.values.get(session_id)


class OverJSON(OverDictionary):
    """S9 for text, which may be damaged: `read` returns it unchanged."""

    service_class = JSONTextService


class TestPlainJSONFunctions(OverJSON):
    """S1 to S9, S13, S14, and S10 within one process, with format="json"."""

    def over(self, service):
        return service.store(format="json")


class TestAsyncJSONFunctions(OverJSON):
    """The same with `async` functions."""

    requires_event_loop = True

    def over(self, service):
        return service.async_store(format="json")


class TestFunctionsThatParseJSON(OverDictionary):
    """`read` returns the parsed text, as in the example of the documentation."""

    service_class = JSONService

    def over(self, service):
        return service.store(format="json")

    async def overwrite(self, store, session_id, data):
        """Store text that `json.loads` accepts; for any other text, `read` itself raises."""
        try:
            json.loads(data)
        except ValueError:
            data = b"{}"
        await super().overwrite(store, session_id, data)


@pytest.fixture(scope="module")
def valkey(tmp_path_factory):
    with running(Valkey(tmp_path_factory.mktemp("valkey"))) as server:
        yield server


class OverValkey(StoreSuite):
    """A real server, which can be stopped or silent (S12)."""

    format = "bytes"

    def encode(self, value):
        return json.dumps(value) if self.format == "json" else value

    @pytest.fixture(autouse=True)
    def server(self, valkey):
        self.valkey = valkey
        self.stores = {}
        redis.Redis.from_url(valkey.url).flushall()

    async def overwrite(self, store, session_id, data):
        redis.Redis.from_url(self.valkey.url).set(f"default:{session_id.hex()}", data)

    def outage(self, kind):
        return self.valkey.refusing() if kind == "refuse" else self.valkey.hanging()


class TestPlainFunctionsOverValkey(OverValkey):
    """S1 to S9, S12 to S14, and S10 within one process."""

    def make_store(self, realm):
        if realm in self.stores:
            return self.stores[realm]
        client = redis.Redis.from_url(self.valkey.url, socket_timeout=1)

        def read(session_id):
            return client.get(f"{realm}:{session_id}")

        def write(session_id, value, seconds):
            if value is None:
                client.delete(f"{realm}:{session_id}")
            else:
                client.set(f"{realm}:{session_id}", self.encode(value), ex=seconds)

        self.stores[realm] = CallbackStore(read=read, write=write, format=self.format)
        return self.stores[realm]


class TestAsyncFunctionsOverValkey(OverValkey):
    """The same with `async` functions, in the event loop's own thread."""

    requires_event_loop = True

    def make_store(self, realm):
        if realm in self.stores:
            return self.stores[realm]
        client = redis.asyncio.Redis.from_url(self.valkey.url)

        async def read(session_id):
            return await client.get(f"{realm}:{session_id}")

        async def write(session_id, value, seconds):
            if value is None:
                await client.delete(f"{realm}:{session_id}")
            else:
                await client.set(f"{realm}:{session_id}", self.encode(value), ex=seconds)

        self.stores[realm] = CallbackStore(read=read, write=write, format=self.format)
        return self.stores[realm]


class TestPlainJSONFunctionsOverValkey(TestPlainFunctionsOverValkey):
    """The same with format="json"."""

    format = "json"


class TestAsyncJSONFunctionsOverValkey(TestAsyncFunctionsOverValkey):
    """The same with format="json"."""

    format = "json"


# Between processes: two store objects over one dictionary, which share nothing else


def two_processes(stage, form="bytes"):
    """Return two stores over one dictionary; each call of a function is a step of the schedule."""
    service = Service()

    async def read(session_id):
        if stage.current is None:
            return service.read(session_id)
        async with stage.current.step("read"):
            return service.read(session_id)

    async def write(session_id, value, seconds):
        if stage.current is None:
            return service.write(session_id, value, seconds)
        async with stage.current.step("write"):
            return service.write(session_id, value, seconds)

    return tuple(CallbackStore(read=read, write=write, format=form) for _ in range(2))


@pytest.mark.parametrize("form", ["bytes", "json"])
@pytest.mark.parametrize("verb", ["save", "touch"])
def test_a_session_deleted_by_another_process_is_not_revived(verb, form):
    """A7, S5: in every order of the calls."""

    async def scene(stage):
        here, there = two_processes(stage, form)
        record = make_record()
        await here.create(record)
        later = record.with_seen_at(record.seen_at + MINUTE)
        late = here.save(next_version(record), 1) if verb == "save" else here.touch(later)
        _, ended = await stage.together(late, there.delete(record.id))
        assert ended is True
        assert await here.load(record.id) is None
        assert await there.load(record.id) is None
        assert await here.save(next_version(record), 1) is GONE

    assert interleave(scene) > 10


def test_between_processes_a_save_may_overwrite_another():
    """Without compare-and-set, some orders of the calls lose a change."""
    lost = []

    async def scene(stage):
        here, there = two_processes(stage)
        record = make_record()
        await here.create(record)
        answers = await stage.together(
            here.save(next_version(record, body=make_body(mine=1)), 1),
            there.save(next_version(record, body=make_body(yours=1)), 1),
        )
        lost.append(answers == [SAVED, SAVED])

    interleave(scene)
    assert any(lost)
    assert not all(lost)


def test_a_tombstone_does_not_affect_a_later_session_with_its_id():
    """S2, S7: a new record under the ID of a deleted session can be saved and touched."""
    store = Service().store()
    record = make_record()
    run(store.create(record))
    run(store.delete(record.id))
    again = make_record(id=record.id, created_at=record.created_at + 1)
    assert run(store.create(again)) is True
    assert run(store.save(next_version(again), 1)) is SAVED
    assert run(store.touch(again.with_seen_at(again.seen_at + 1))) is True


def test_unreadable_bytes_are_not_overwritten():
    """S9: save finds no record, create finds an existing one; delete removes them."""
    service, record = Service(), make_record()
    store = service.store()
    service.values[record.session_id] = b"foreign"
    assert run(store.save(next_version(record), 1)) is GONE
    assert run(store.touch(record)) is False
    assert run(store.create(record)) is False
    assert service.values == {record.session_id: b"foreign"}
    assert run(store.delete(record.id)) is True
    assert service.values == {}


# Arguments of the functions


def test_the_functions_receive_the_public_id_bytes_and_seconds():
    """The seconds are the idle timeout and a minute; None deletes."""
    service = Service()
    store = service.store()
    record = make_record(idle_timeout=30 * MINUTE)
    run(store.create(record))
    assert service.values == {record.session_id: record.to_bytes()}
    assert service.seconds[record.session_id] == 31 * 60
    short = make_record(absolute_at=record.seen_at + 5 * MINUTE, seen_at=record.seen_at)
    run(store.create(short))
    assert service.seconds[short.session_id] == 6 * 60
    run(store.delete(record.id))
    assert record.session_id not in service.values


def test_purge_deletes_nothing():
    """S8: the storage of the application expires the bytes."""
    service = Service()
    assert run(service.store().purge(0, 10)) == Purged(0, finished=True)
    assert not hasattr(service.store(), "purge_interval")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_bytes_type_is_read(kind):
    record = make_record()
    store = CallbackStore(read=lambda _: kind(record.to_bytes()), write=lambda *_: None)
    assert run(store.load(record.id)) == record


def test_objects_with_an_async_call_are_async_functions():
    class Reader:
        async def __call__(self, session_id):
            await asyncio.sleep(0)

    store = CallbackStore(read=Reader(), write=lambda *_: None)
    assert store.requires_event_loop() is not None
    assert asyncio.run(store.load(bytes(16))) is None


# The format of JSON


def cookie_of(visit):
    """Return the cookie of a finished request, as a browser sends it."""
    headers = dict(visit.response_headers())
    return headers["set-cookie"].split(";")[0]


def test_the_example_of_the_documentation_works():
    """The data is accepted by `json.dumps`, so that other programs can read it."""
    service = JSONService()
    sessions = sojourn.Sessions(store=service.store(format="json"), secret=SECRET)
    with sessions.open() as visit:
        visit.session["counter"] = 1
        visit.session["cart"] = {"apple": [2, 0.5, None, True]}
        visit.session.login("ada")
    kept = json.loads(service.values[visit.session.id])
    assert kept["format"] == 1
    assert kept["state"] == {"counter": 1, "cart": {"apple": [2, 0.5, None, True]}}
    assert kept["metadata"]["user"] == "ada"
    cookie = cookie_of(visit)
    with sessions.open(cookies=cookie) as again:
        assert again.session.user == "ada"
        again.session["counter"] += 1
        again.session["cart"]["apple"].append("new")
    kept = json.loads(service.values[visit.session.id])
    assert kept["state"] == {"counter": 2, "cart": {"apple": [2, 0.5, None, True, "new"]}}
    with sessions.open(cookies=cookie) as last:
        last.session.destroy()
    assert visit.session.id not in service.values


def test_the_dict_contains_no_ticket():
    """A18: only the hash of the verifier."""
    service = JSONService()
    sessions = sojourn.Sessions(store=service.store(format="json"), secret=SECRET)
    with sessions.open() as visit:
        visit.session["n"] = 1
    ticket = cookie_of(visit).partition("=")[2]
    assert ticket not in service.values[visit.session.id]


def test_write_receives_a_dict_seconds_and_none():
    """A tombstone is a dict as well."""
    given = []
    service = JSONService()

    def write(*arguments):
        given.append(arguments)
        service.write(*arguments)

    store = CallbackStore(read=service.read, write=write, format="json")
    record = make_record(idle_timeout=30 * MINUTE)
    run(store.create(record))
    run(store.delete(record.id))
    (one, kept, seconds), (tombstone, ended, long), (two, nothing, zero) = given
    assert one == two == record.session_id != tombstone
    assert kept["state"] == {"n": 0}
    assert (seconds, long, nothing, zero) == (31 * 60, 600, None, 0)
    assert ended == {"format": 1, "ended": True}


@dataclasses.dataclass
class Profile:
    born: dt.date | None = None
    tags: list[str] = dataclasses.field(default_factory=list)


ASSIGNMENTS = {
    "item": lambda session: session.__setitem__("k", b"x"),
    "update": lambda session: session.update(k={1}),
    "setdefault": lambda session: session.setdefault("k", dt.date(2026, 1, 1)),
    "inside": lambda session: session.__setitem__("k", {"a": [math.nan]}),
    "integer key": lambda session: session.__setitem__("k", {1: 2}),
    "append": lambda session: session.append("k", b"x"),
    "add": lambda session: session.add("k", "member"),
    "increment": lambda session: session.increment("k", 2**53),
    "overflow": lambda session: [session.increment("k", 1e308) for _ in range(2)],
    "in place": lambda session: (session.setdefault("k", []).append(b"x"), session.commit()),
    "state": lambda session: setattr(session.state, "born", dt.date(2026, 1, 1)),
}


@pytest.mark.parametrize("assignment", ASSIGNMENTS.values(), ids=ASSIGNMENTS)
def test_a_value_that_json_cannot_represent_is_refused_at_the_assignment(assignment):
    """The error names the key, and the session is unchanged."""
    service = JSONService()
    store = service.store(format="json")
    sessions = sojourn.Sessions(store=store, secret=SECRET, state=Profile)
    with sessions.open() as visit:
        visit.session["before"] = 1
        with pytest.raises(NotSerializable, match="holds sessions as JSON") as refused:
            assignment(visit.session)
        assert refused.value.key in ("k", "born")
        visit.session.pop("k", None)
        visit.session["after"] = 1
    state = json.loads(service.values[visit.session.id])["state"]
    assert state == {"before": 1, "after": 1}


def test_other_formats_and_stores_accept_every_value():
    for store in (Service().store(), Service().store(format="bytes"), "memory://"):
        sessions = sojourn.Sessions(store=store, secret=SECRET)
        with sessions.open() as visit:
            visit.session["k"] = [b"x", {1}, math.nan, 2**70]
        assert contract.value_check(sessions.store) is None


def test_grants_flashes_csrf_tokens_and_leases_are_stored():
    """Reserved keys are part of the metadata."""
    service = JSONService()
    sessions = sojourn.Sessions(store=service.store(format="json"), secret=SECRET)
    with sessions.open() as visit:
        visit.session.login("ada", methods=["password", "totp"])
        visit.session.flash("saved", "info")
        visit.session.grant("transfer")
        token = visit.session.csrf_token
    kept = json.loads(service.values[visit.session.id])
    assert kept["state"] == {}
    assert {"auth", "flash", "grant:transfer"} <= kept["metadata"]["reserved"].keys()
    with sessions.open(cookies=cookie_of(visit)) as again:
        assert again.session.check_csrf(token)
        assert again.session.use_grant("transfer")
        with again.session.exclusive():
            kept = json.loads(service.values[visit.session.id])
            assert "lease" in kept["metadata"]["reserved"]
        assert [message for message, *_ in again.session.flashes()]
    assert "lease" not in json.loads(service.values[visit.session.id])["metadata"]["reserved"]


@pytest.mark.parametrize("encrypt", [True, "ticket"])
def test_encryption_is_refused(encrypt):
    """Other programs could not read the dict."""
    with pytest.raises(ConfigurationError, match=r"encrypt=.*format='json'.*leave encrypt out"):
        sojourn.Sessions(store=Service().store(format="json"), secret=SECRET, encrypt=encrypt)
    assert sojourn.Sessions(store=Service().store(), secret=SECRET, encrypt=encrypt)


@pytest.mark.parametrize("name", ["text", "JSON", None, 1])
def test_an_unknown_format_is_refused(name):
    with pytest.raises(ConfigurationError, match="expects 'bytes' or 'json', found"):
        CallbackStore(format=name)


@pytest.mark.parametrize("text", ['{"format": 1,', "", "\ufeff{}", "[" * 100_000, "NaN", b"\xff"])
def test_damaged_text_is_unreadable(text):
    """S9, B-21: truncated or deeply nested text."""
    store = CallbackStore(read=lambda _: text, write=lambda *_: None, format="json")
    with pytest.raises(UnreadableRecord):
        run(store.load(bytes(16)))
    assert run(store.save(next_version(make_record()), 1)) is GONE


@pytest.mark.parametrize("value", [{}, [], 7, 1.5, True, "{}", {"error": "rate limited"}])
def test_foreign_json_is_reported_and_counts_as_absent(value):
    """S9: the visitor has an empty session, and the text is not overwritten."""
    service = JSONService()
    rejected, written = [], []
    sessions = sojourn.Sessions(store=service.store(format="json"), secret=SECRET)
    with sessions.open() as visit:
        visit.session["n"] = 1
    sessions.on(Rejected, rejected.append)
    sessions.on_read(lambda _: value)
    sessions.on_write(lambda *arguments: written.append(arguments))
    with sessions.open(cookies=cookie_of(visit)) as again:
        assert dict(again.session) == {}
    assert [event.session_id for event in rejected] == [visit.session.id]
    assert "unreadable" in rejected[0].reason
    assert written == []


def test_an_object_of_a_client_instead_of_its_content_raises():
    store = CallbackStore(read=lambda _: object(), write=lambda *_: None, format="json")
    with pytest.raises(ConfigurationError, match=r"must return the dict.*returned object"):
        run(store.load(bytes(16)))


def test_bytes_of_the_other_format_are_unreadable():
    """S9: after a change of the format visitors get new sessions."""
    service, record = Service(), make_record()
    run(service.store().create(record))
    with pytest.raises(UnreadableRecord):
        run(service.store(format="json").load(record.id))


@pytest.mark.parametrize("kind", [str, str.encode, lambda text: bytearray(text.encode())])
def test_text_is_accepted_as_str_and_bytes(kind):
    service, record = JSONTextService(), make_record()
    run(service.store(format="json").create(record))
    text = service.values[record.session_id]
    store = CallbackStore(read=lambda _: kind(text), write=lambda *_: None, format="json")
    assert run(store.load(record.id)) == record


# Plain functions and event loops


def test_plain_functions_never_run_in_the_thread_of_the_event_loop():
    """They would block every other request."""
    service, threads = Service(), set()

    def read(session_id):
        threads.add(threading.get_ident())
        return service.read(session_id)

    def write(*arguments):
        threads.add(threading.get_ident())
        service.write(*arguments)

    async def main():
        store = CallbackStore(read=read, write=write)
        record = make_record()
        await store.create(record)
        await store.save(next_version(record), 1)
        await store.load(record.id)
        await store.delete(record.id)
        return threading.get_ident()

    assert asyncio.run(main()) not in threads
    assert threads


def test_a_plain_and_an_async_function_can_be_combined():
    service = Service()
    loop_thread = []

    async def write(*arguments):
        loop_thread.append(threading.get_ident())
        service.write(*arguments)

    async def main():
        store = CallbackStore(read=service.read, write=write)
        record = make_record()
        assert await store.create(record)
        assert await store.load(record.id) == record
        assert loop_thread == [threading.get_ident()]

    asyncio.run(main())


def test_without_a_loop_plain_functions_run_in_the_callers_thread():
    """No thread is started under WSGI."""
    seen = []
    store = CallbackStore(read=lambda _: seen.append(threading.get_ident()), write=lambda *_: None)
    run(store.load(bytes(16)))
    assert seen == [threading.get_ident()]


# Failures


class BrokenError(Exception):
    """An exception that a client raises."""


@pytest.mark.parametrize("verb", ["load", "create", "save", "touch", "delete"])
@pytest.mark.parametrize("is_async", [False, True])
def test_an_error_of_a_function_raises_store_unavailable(verb, is_async):
    """S12."""

    def plain(*_):
        raise BrokenError("down")

    async def coroutine(*_):
        raise BrokenError("down")

    function = coroutine if is_async else plain
    store = CallbackStore(read=function, write=function)
    record = make_record()
    arguments = {
        "load": (record.id,),
        "create": (record,),
        "save": (next_version(record), 1),
        "touch": (record,),
        "delete": (record.id,),
    }[verb]
    with pytest.raises(
        StoreUnavailable, match=r"the read function of .* raised BrokenError: down$"
    ) as at:
        asyncio.run(getattr(store, verb)(*arguments))
    assert isinstance(at.value.__cause__, BrokenError)
    assert at.value.application_error is at.value.__cause__


def broken_client():
    """Return a client of one page and one WebSocket whose store's functions raise."""

    def read(session_id):
        raise BrokenError("no such table: sessions")

    async def page(request):
        return PlainTextResponse(str(request.session.get("n")))

    async def socket(websocket):
        await websocket.accept()

    app = Starlette(routes=[Route("/", page), WebSocketRoute("/socket", socket)])
    working = Service()
    sessions = sojourn.install(app, store=working.store(), secret=SECRET)
    with sessions.open(url="http://testserver/") as visit:
        visit.session["n"] = 1
    name, _, value = cookie_of(visit).partition("=")
    sessions.on_read(read)
    return TestClient(app, cookies={name: value})


def request_log_record(caplog):
    """Return the log record of the request, after that of the outage."""
    outage, record = [one for one in caplog.records if one.name == "sojourn"]
    assert outage.getMessage().startswith("the session store failed (load): ")
    return record


@pytest.mark.parametrize("path", ["/", "/socket"])
def test_an_error_of_a_function_is_logged_once_with_text_and_traceback(caplog, path):
    """A15: over HTTP and WebSocket; the traceback shows the line that raised."""
    client = broken_client()
    if path == "/":
        assert client.get("/").status_code == 503
    else:
        with pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)):
            client.websocket_connect(path).__enter__()
    record = request_log_record(caplog)
    assert "raised BrokenError: no such table: sessions" in record.getMessage()
    assert isinstance(record.exc_info[1], BrokenError)
    assert caplog.text.count("Traceback") == 1
    assert 'raise BrokenError("no such table: sessions")' in caplog.text


def test_an_error_of_a_function_is_logged_alike_under_wsgi(caplog):
    def read(session_id):
        raise BrokenError("no such table: sessions")

    def page(environ, start_response):
        start_response("200 OK", [])
        return [str(get_session(environ).get("n")).encode()]

    service = Service()
    sessions = sojourn.Sessions(store=service.store(), secret=SECRET)
    app = SessionMiddleware(page, sessions)
    with sessions.open(url="http://localhost/") as visit:
        visit.session["n"] = 1
    sessions.on_read(read)
    environ = {"HTTP_COOKIE": cookie_of(visit), "HTTP_HOST": "localhost"}
    setup_testing_defaults(environ)
    status = []
    list(app(environ, lambda line, *_: status.append(line)))
    assert status == ["503 Service Unavailable"]
    record = request_log_record(caplog)
    assert "raised BrokenError: no such table: sessions" in record.getMessage()
    assert isinstance(record.exc_info[1], BrokenError)
    assert caplog.text.count("Traceback") == 1


def test_an_error_without_text_is_logged_with_its_type():
    def read(session_id):
        raise BrokenError

    with pytest.raises(StoreUnavailable, match=r"raised BrokenError$"):
        run(CallbackStore(read=read).load(bytes(16)))


def test_a_failing_write_is_reported_and_changes_nothing():
    service = Service()
    store = service.store()
    record = make_record()
    run(store.create(record))

    def write(*_):
        raise BrokenError

    store.on_write(write)
    with pytest.raises(StoreUnavailable, match="the write function"):
        run(store.save(next_version(record), 1))
    store.on_write(service.write)
    assert run(store.load(record.id)) == record


def test_an_async_function_that_hangs_is_cancelled_at_the_deadline():
    """S12: so that calls do not accumulate."""
    cancelled = []

    async def read(session_id):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(session_id)
            raise

    store = CallbackStore(read=read, write=lambda *_: None)
    store.set_timeout(0.05)
    with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.05 seconds") as at:
        asyncio.run(store.load(bytes(16)))
    assert isinstance(at.value.__cause__, TimeoutError)
    assert cancelled == ["00" * 16]


def test_a_plain_function_that_hangs_is_not_waited_for_after_the_deadline():
    """S12: it completes in its thread, and later changes of the session wait for it."""
    service, release, record = Service(), threading.Event(), make_record()
    store = service.store()
    store.set_timeout(0.1)
    run(store.create(record))

    def slow(*arguments):
        release.wait(20)
        service.write(*arguments)

    async def main():
        store.on_write(slow)
        with pytest.raises(StoreUnavailable):
            await store.save(next_version(record), 1)
        with pytest.raises(StoreUnavailable):
            await store.delete(record.id)  # waits for the save in progress
        release.set()
        store.set_timeout(10)
        await store.delete(record.id)  # unless the previous call has deleted it
        assert await store.load(record.id) is None

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < 10


def test_a_cancelled_save_is_completed():
    """S13: in its thread, with the session locked."""
    service, entered, release, record = (
        Service(),
        threading.Event(),
        threading.Event(),
        make_record(),
    )
    store = service.store()
    run(store.create(record))

    def slow(*arguments):
        entered.set()
        release.wait(20)
        service.write(*arguments)

    async def main():
        store.on_write(slow)
        saving = asyncio.create_task(store.save(next_version(record), 1))
        await asyncio.to_thread(entered.wait, 20)
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
        touching = asyncio.create_task(store.touch(record.with_seen_at(record.seen_at + MINUTE)))
        release.set()
        assert await touching is True
        stored = await store.load(record.id)
        assert (stored.version, stored.seen_at) == (2, record.seen_at + MINUTE)

    asyncio.run(main())


# Configuration errors


def test_a_secret_is_required_because_the_storage_may_be_shared():
    with pytest.raises(ConfigurationError, match="SOJOURN_SECRET=") as at:
        sojourn.Sessions(store=Service().store())
    fresh = str(at.value).split("SOJOURN_SECRET=")[1].split()[0]
    assert sojourn.Sessions(store=Service().store(), secret=fresh)


def test_a_missing_function_is_reported_at_its_first_use():
    store = CallbackStore()
    with pytest.raises(ConfigurationError, match=r"no read function.*sessions\.on_read"):
        run(store.load(bytes(16)))
    store.on_read(lambda _: None)
    with pytest.raises(ConfigurationError, match=r"no write function.*sessions\.on_write"):
        run(store.create(make_record()))


@pytest.mark.parametrize("role", ["read", "write"])
def test_a_function_must_be_callable(role):
    with pytest.raises(ConfigurationError, match=f"{role}=. expects a function, found 7"):
        CallbackStore(**{role: 7})


def test_a_read_function_that_returns_text_raises():
    """A client that decodes what it reads would damage records."""
    store = CallbackStore(read=lambda _: "text", write=lambda *_: None)
    with pytest.raises(ConfigurationError, match=r"returned str.*decode_responses"):
        run(store.load(bytes(16)))


def test_a_plain_function_that_returns_a_coroutine_is_an_error():
    class Client:
        async def get(self, key):
            return None

    client = Client()
    store = CallbackStore(read=lambda key: client.get(key + "!"), write=lambda *_: None)
    with pytest.raises(ConfigurationError, match="returned an awaitable; write it as `async def`"):
        asyncio.run(store.load(bytes(16)))


def test_async_functions_without_a_loop_are_refused():
    """In WSGI, threads and the command line."""

    async def function(*_):
        asyncio.get_running_loop()  # as clients do; without one this is a RuntimeError

    store = CallbackStore(read=function, write=function)
    assert isinstance(store, RequiresEventLoop)
    for call in (store.load(bytes(16)), store.create(make_record())):
        with pytest.raises(ConfigurationError, match=r"needs an event loop.*plain functions"):
            run(call)
    sessions = sojourn.Sessions(store=store, secret=SECRET)
    with pytest.raises(ConfigurationError, match="event loop"):
        sessions.revoke("00" * 16)


# Through Sessions


def test_functions_can_be_registered_later():
    """By a call and as decorators."""
    service = Service()
    sessions = sojourn.Sessions(store=sojourn.CallbackStore(), secret=SECRET)

    @sessions.on_read
    def read(session_id):
        return service.read(session_id)

    assert sessions.on_write(service.write) == service.write
    record = make_record()
    run(sessions.store.create(record))
    assert read(record.session_id) == record.to_bytes()
    assert sessions.get(record.session_id).id == record.session_id
    assert sessions.revoke(record.session_id) is True
    assert sessions.get(record.session_id) is None


def test_other_stores_refuse_functions():
    sessions = sojourn.Sessions(store="memory://")
    for give in (sessions.on_read, sessions.on_write):
        with pytest.raises(ConfigurationError, match=r"MemoryStore.*store=sojourn\.CallbackStore"):
            give(lambda *_: None)


def test_store_timeout_is_passed_to_the_store():
    async def read(session_id):
        await asyncio.Event().wait()

    store = CallbackStore(read=read, write=lambda *_: None)
    sojourn.Sessions(store=store, secret=SECRET, store_timeout="50 ms")
    with pytest.raises(StoreUnavailable, match=r"within 0\.05 seconds"):
        asyncio.run(store.load(bytes(16)))


def test_repr_names_the_missing_guarantee():
    service = Service()
    assert repr(service.store()) == (
        "CallbackStore(read=Service.read, write=Service.write, no compare-and-set)"
    )
    assert repr(service.store(format="json")) == (
        "CallbackStore(read=Service.read, write=Service.write, format='json', no compare-and-set)"
    )
    assert repr(CallbackStore()) == "CallbackStore(read=None, write=None, no compare-and-set)"
