"""FrameworkExchange: sessions for frameworks with a server of their own, tested without one."""

import asyncio
import json
import logging

import pytest

from sojourn import Sessions
from sojourn.errors import (
    ConfigurationError,
    SessionError,
    SessionRequired,
    StoreError,
    StoreUnavailable,
)
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore
from sojourn.web.framework_exchange import (
    FrameworkExchange,
    RequestHeaders,
    call_on_error,
    default_response,
    is_answerable,
    read_request_headers,
)

pytestmark = pytest.mark.anyio

SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"
FAILURE = StoreUnavailable("the store is down")


class Exchange(FrameworkExchange):
    """A request of a framework that keeps the session in an attribute."""

    def __init__(self, web, *, path="/", cookies=None, headers=None, scheme="https"):
        super().__init__(web)
        self._scheme = scheme
        self._path = path
        self._headers = {"host": "shop.example", **(headers or {})}
        self._cookies = cookies
        self.place_of_session = None

    def read_request(self):
        return read_request_headers(self._scheme, self._headers, self._cookies)

    def header(self, name):
        return self._headers.get(name)

    def path(self):
        return self._path

    def request_session(self):
        return self.place_of_session

    def set_request_session(self, session):
        self.place_of_session = session


class World:
    """An installation and the cookie of a visitor whose session holds ``n == 1``."""

    def __init__(self, **options):
        self.store = FaultyStore(MemoryStore())
        self.sessions = Sessions(store=self.store, secret=SECRET, **options)
        self.web = self.sessions.web
        self.cookies = None

    async def begin(self):
        """Store the visitor's session."""
        async with self.sessions.open(url="https://shop.example/") as visit:
            visit.session["n"] = 1
        self.cookies = [dict(visit.response_headers())["set-cookie"].partition(";")[0]]
        self.store.calls.clear()
        return self

    def exchange(self, **request):
        """Return a request of the visitor."""
        return Exchange(self.web, cookies=self.cookies, **request)

    async def loaded(self, **request):
        """Return a request whose session is loaded."""
        exchange = self.exchange(**request)
        await exchange.load()
        return exchange

    async def data(self):
        """Return what the stored session holds."""
        exchange = await self.loaded()
        found = dict(exchange.session)
        exchange.end()
        return found


@pytest.fixture
async def world():
    return await World().begin()


class TestRequestHeaders:
    def test_cookie_headers_are_joined(self):
        """HTTP/2 splits the Cookie header (RFC 9113 8.2.3)."""
        found = read_request_headers("http", {"host": "h:80"}, ["a=1", "b=2"])
        assert found == RequestHeaders("http", b"h:80", b"a=1; b=2", proxied=False)

    @pytest.mark.parametrize("cookies", [None, []])
    def test_absent_headers_are_none(self, cookies):
        assert read_request_headers("ws", {}, cookies) == ("ws", None, None, False)

    @pytest.mark.parametrize("name", ["forwarded", "via", "x-forwarded-for", "x-forwarded-proto"])
    def test_forwarded_header_marks_a_proxied_request(self, name):
        assert read_request_headers("http", {name: "x"}, None).proxied

    def test_header_value_round_trips_as_bytes(self):
        """Frameworks decode header values differently; a ticket is read from the bytes."""
        undecoded = b"\xffa".decode("utf-8", "surrogateescape")
        found = read_request_headers("http", {"host": undecoded}, [undecoded, "b"])
        assert found[1:3] == (b"\xffa", b"\xffa; b")
        found = read_request_headers(
            "http", {"host": "\xff\u2603"}, ["\xff\u2603"], encoding="latin-1", errors="replace"
        )
        assert found[1:3] == (b"\xff?", b"\xff?")


class TestLoad:
    @pytest.mark.parametrize("immediately", [True, False])
    async def test_session_is_loaded_once_and_set_on_the_request(self, world, immediately):
        if not immediately:
            world.store.slow("load", seconds=0)
        exchange = world.exchange()
        session = await exchange.load()
        assert session["n"] == 1
        assert exchange.place_of_session is session
        assert await exchange.load() is session
        assert world.store.calls == ["load"]
        assert exchange.failure is None

    @pytest.mark.parametrize(
        ("headers", "name"),
        [
            ({"host": "localhost"}, "LOCAL"),
            ({"host": "shop.example"}, "INSECURE"),
            ({"host": "localhost", "via": "1.1 proxy"}, "INSECURE"),
        ],
    )
    async def test_proxied_request_to_localhost_is_not_local(self, headers, name):
        """A14: the Host may be "localhost" because a proxy connects to the server by that name."""
        exchange = World().exchange(scheme="http", headers=headers)
        await exchange.load()
        assert exchange.transport.name == name

    async def test_load_failure_is_recorded_and_an_empty_session_set(self, world):
        """A15."""
        world.store.fail("load", error=FAILURE)
        exchange = world.exchange()
        with pytest.raises(StoreUnavailable):
            await exchange.load()
        assert exchange.failure is FAILURE
        assert exchange.place_of_session is exchange.session
        assert exchange.unavailable

    async def test_a_failure_is_raised_again_without_another_load(self, world):
        """A15: a handler that catches the first error gets no session from a second load."""
        world.store.fail("load", error=FAILURE)
        exchange = world.exchange()
        for _ in range(2):
            exchange.failure = None
            with pytest.raises(StoreUnavailable) as raised:
                await exchange.load()
            assert exchange.failure is raised.value
        assert world.store.calls == ["load"]

    async def test_on_store_failure_of_the_route_takes_precedence(self, world):
        world.store.fail("load")
        session = await world.exchange().load("anonymous")
        assert dict(session) == {}
        anonymous = await World(on_store_failure="anonymous").begin()
        anonymous.store.fail("load")
        assert dict(await anonymous.exchange().load()) == {}
        with pytest.raises(StoreUnavailable):
            await anonymous.exchange().load("error")

    async def test_a_deferred_failure_is_raised_by_every_use(self, world):
        world.store.fail("load", error=FAILURE)
        exchange = world.exchange()
        exchange.defer(FAILURE)  # not loaded: there is no session to use
        with pytest.raises(StoreUnavailable):
            await exchange.load()
        exchange.defer(FAILURE)
        for use in (lambda: exchange.session["n"], lambda: exchange.session.get("n")):
            with pytest.raises(StoreUnavailable):
                use()

    async def test_may_load_later_depends_on_path_and_ticket(self):
        world = await World(exclude=["/static/*"]).begin()
        assert world.exchange().wanted()
        assert world.exchange().may_load_later()
        assert not world.exchange(path="/static/a.png").wanted()
        assert not world.exchange(path="/static/a.png").may_load_later()
        world.cookies = ["theme=dark"]
        assert not world.exchange().may_load_later()

    async def test_a_ticket_in_a_header_may_be_loaded_later(self):
        world = World(transport="header")
        assert world.exchange(headers={"authorization": "Session x"}).may_load_later()
        assert not world.exchange().may_load_later()


class TestOrigin:
    def check(self, *, site=None, origin=None, method="POST", **request):
        exchange = Exchange(World(protect=True).web, **request)
        return exchange.check_origin(method, site=site, origin=origin)

    @pytest.mark.parametrize(
        "request_",
        [
            {"site": "cross-site"},
            {"origin": "https://evil.test"},
            {"origin": "https://shop.example", "headers": {"host": "other.example"}},
            {"origin": "https://\u2603.example"},
        ],
    )
    def test_another_origin_is_refused(self, request_):
        """ASVS 3.5.1."""
        refusal = self.check(**request_)
        assert refusal.status == 403
        headers = dict(refusal.headers)
        assert headers["cache-control"] == "no-store"
        assert headers["content-length"] == str(len(refusal.body))
        assert b"allowed_origins" in refusal.body

    @pytest.mark.parametrize(
        "request_",
        [
            {"site": "same-origin"},
            {"origin": "https://shop.example"},
            {"site": "cross-site", "method": "GET"},
            {},
        ],
    )
    def test_same_origin_is_accepted(self, request_):
        """ASVS 3.5.1."""
        assert self.check(**request_) is None

    async def test_request_with_a_cookie_needs_an_origin(self):
        """ASVS 3.5.1."""
        world = await World(protect=True).begin()
        refusal = world.exchange().check_origin("POST", site=None, origin=None)
        assert refusal.status == 403

    def test_request_with_a_ticket_in_a_header_needs_no_origin(self):
        """ASVS 3.5.1: the header made the browser send a preflight request."""
        world = World(protect=True, transport=["cookie", "header"])
        exchange = world.exchange(headers={"authorization": "Session"})
        assert exchange.check_origin("POST", site="cross-site", origin=None) is None


class TestReplacement:
    async def test_mapping_in_place_of_the_session_becomes_its_data(self, world):
        """A24."""
        exchange = await world.loaded()
        exchange.place_of_session = {"m": 2}
        assert await exchange.load() is exchange.session
        assert exchange.place_of_session is exchange.session
        assert dict(exchange.session) == {"m": 2}

    async def test_the_session_of_a_nested_installation_stays(self, world):
        exchange, nested = await world.loaded(), await world.loaded()
        exchange.displaced_by = nested
        exchange.set_request_session(nested.session)
        exchange.adopt_replacement()
        assert exchange.place_of_session is nested.session
        await exchange.settle(ValueError())
        assert exchange.place_of_session is nested.session

    async def test_attribute_is_unchanged_if_no_session_was_loaded(self, world):
        exchange = world.exchange()
        exchange.place_of_session = {"own": 1}
        exchange.adopt_replacement()
        assert exchange.place_of_session == {"own": 1}


async def send(exchange, status, *, headers=(), complete=True):
    """Return the status and the headers of a response, as an adapter sends them."""
    headers = list(headers)
    sent = exchange.start_response(status, headers, complete=complete)
    if not isinstance(sent, list):
        sent = await sent
    return exchange.final_status(status), dict(sent)


async def commit(exchange, status):
    """Commit as an adapter does when the response is known."""
    waiting = exchange.commit_response(status)
    if waiting is not None:
        await waiting


@pytest.mark.parametrize("immediately", [True, False])
class TestCommit:
    @pytest.fixture
    def exchange(self, world, immediately, anyio_backend):
        if not immediately:
            world.store.slow("save", seconds=0)
        return world.exchange()

    async def test_the_commit_of_a_response(self, world, exchange, immediately):
        (await exchange.load()).increment("n")
        await commit(exchange, 200)
        assert await world.data() == {"n": 2}

    async def test_response_headers_commit_later_changes(self, world, exchange, immediately):
        """A5: before the first byte."""
        (await exchange.load()).increment("n")
        given = [(b"x-a", b"1")]
        sent = exchange.start_response(200, given, complete=True)
        sent = sent if isinstance(sent, list) else await sent
        assert given == [(b"x-a", b"1")]
        assert dict(sent) == {b"x-a": b"1", b"vary": b"Cookie", b"cache-control": b"private"}
        assert await world.data() == {"n": 2}

    async def test_a_response_that_does_not_use_the_session_is_unchanged(
        self, world, exchange, immediately
    ):
        """A1; a stream may access the session later, so it is private (A13)."""
        await exchange.load()
        assert await send(exchange, 200) == (200, {})
        streaming = await world.loaded()
        _, headers = await send(streaming, 200, complete=False)
        assert headers[b"cache-control"] == b"private"

    async def test_changes_are_kept_if_the_application_handles_a_store_failure(
        self, world, exchange, immediately
    ):
        """A15: the response of the application is a success."""
        (await exchange.load()).increment("n")
        exchange.failure = FAILURE
        await commit(exchange, 200)
        assert await world.data() == {"n": 2}
        exchange.session.increment("n")
        assert (await send(exchange, 200))[0] == 200
        assert await world.data() == {"n": 3}

    async def test_an_error_response_drops_the_changes(self, world, exchange, immediately):
        """A10."""
        (await exchange.load()).increment("n")
        await commit(exchange, 500)
        status, _ = await send(exchange, 500)
        assert status == 500
        assert await world.data() == {"n": 1}

    async def test_a_replacement_is_committed(self, world, exchange, immediately):
        """A24."""
        await exchange.load()
        exchange.place_of_session = {"m": 2}
        await commit(exchange, 200)
        exchange.place_of_session = {"m": 3}
        await send(exchange, 200, complete=False)
        assert await world.data() == {"m": 3}
        exchange.place_of_session = {"m": 4}
        await exchange.finish_stream()
        assert await world.data() == {"m": 4}


class TestFailures:
    async def test_a_replacement_of_another_type_is_a_failure(self, world):
        """A24."""
        exchange = await world.loaded()
        exchange.place_of_session = 7
        with pytest.raises(SessionError) as raised:
            exchange.commit_response(200)
        assert exchange.failure is raised.value

    async def test_a_failed_commit_is_a_failure(self, world):
        """A15, A23: the application can answer it."""
        exchange = await world.loaded()
        exchange.session["n"] = 2
        world.store.fail("save", error=FAILURE)
        with pytest.raises(StoreUnavailable):
            await commit(exchange, 200)
        assert exchange.failure is FAILURE

    @pytest.mark.parametrize(("status", "sent"), [(500, 503), (503, 503), (501, 501), (404, 404)])
    async def test_500_after_a_store_failure_becomes_503(self, world, status, sent):
        """A23: the framework turns an exception of a handler into a 500 response."""
        exchange = await world.loaded()
        exchange.session["n"] = 2
        exchange.failure = FAILURE
        calls = [*world.store.calls]
        if status >= 500:
            assert exchange.commit_response(status) is None
        found, headers = await send(exchange, status, headers=[(b"cache-control", b"public")])
        assert found == sent
        assert headers.get(b"retry-after") == (b"2" if sent == 503 else None)
        if status >= 500:
            assert exchange.failed
            assert exchange.settled
            assert world.store.calls == calls  # a failed store is not called again

    async def test_a_status_that_was_changed_stays(self, world):
        """A23: a framework may read the status of one response several times."""
        exchange = await world.loaded()
        assert exchange.final_status(500) == 500
        exchange.failure = FAILURE
        assert exchange.final_status(500) == 503
        exchange.failure = None
        assert exchange.final_status(200) == 503

    async def test_destroyed_session_stays_destroyed(self, world):
        """A10: an error response commits it, although the store has failed before."""
        exchange = await world.loaded()
        exchange.session.destroy()
        exchange.failure = FAILURE
        status, _ = await send(exchange, 500)
        assert status == 503
        assert await world.data() == {}

    async def test_request_that_failed_commits_no_data(self, world):
        """A10: also if the error handler responds with success."""
        exchange = await world.loaded()
        await exchange.settle(ValueError())
        exchange.session["n"] = 2
        assert exchange.commit_response(200) is None
        _, headers = await send(exchange, 200)
        assert headers[b"vary"] == b"Cookie"
        exchange.session["n"] = 3
        await exchange.finish_stream()
        assert await world.data() == {"n": 1}

    async def test_error_handler_may_destroy_the_session(self, world):
        """A10: it is committed before the response, which clears the cookie."""
        exchange = await world.loaded()
        await exchange.settle(ValueError())
        exchange.session["n"] = 2
        exchange.session.destroy()
        status, headers = await send(exchange, 200)
        assert status == 200
        assert b"Max-Age=0" in headers[b"set-cookie"]
        assert await world.data() == {}

    async def test_error_handler_may_replace_the_session(self, world):
        """A10, A24: None destroys it."""
        exchange = await world.loaded()
        await exchange.settle(ValueError())
        exchange.place_of_session = None
        await send(exchange, 200)
        assert await world.data() == {}

    async def test_stream_of_an_error_response_may_destroy_the_session(self, world):
        """A10, A11."""
        exchange = await world.loaded()
        await exchange.settle(ValueError())
        await send(exchange, 500)
        exchange.session.destroy()
        await exchange.finish_stream()
        assert await world.data() == {}

    async def test_logout_response_becomes_503_if_the_delete_fails(self, world):
        """A10, A23."""
        exchange = await world.loaded()
        await exchange.settle(ValueError())
        exchange.session.destroy()
        world.store.fail("delete")
        status, headers = await send(exchange, 200)
        assert (status, headers[b"retry-after"]) == (503, b"2")
        assert b"set-cookie" not in headers

    async def test_failed_delete_is_not_retried(self, world):
        """A23: the application's response to the error is sent."""
        exchange = await world.loaded()
        exchange.session.destroy()
        world.store.fail("delete")
        with pytest.raises(StoreError):
            await exchange.settle(ValueError())
        calls = [*world.store.calls]
        assert (await send(exchange, 418))[0] == 418
        assert world.store.calls == calls


class TestSettle:
    async def test_changes_are_dropped(self, world):
        """A10."""
        exchange, error = await world.loaded(), ValueError()
        exchange.session["n"] = 2
        await exchange.settle(error)
        assert (exchange.failure, exchange.settled, exchange.failed) == (error, True, True)
        assert await world.data() == {"n": 1}

    async def test_the_first_failure_is_kept(self, world):
        exchange = await world.loaded()
        exchange.failure = FAILURE
        await exchange.settle(ValueError())
        assert exchange.failure is FAILURE

    @pytest.mark.parametrize("error", [ValueError(), FAILURE, asyncio.CancelledError()])
    async def test_destroyed_session_stays_destroyed(self, world, error):
        """A10, A12."""
        exchange = await world.loaded()
        exchange.session.destroy()
        await exchange.settle(error)
        assert await world.data() == {}

    @pytest.mark.parametrize("error", [ValueError(), asyncio.CancelledError()])
    async def test_settle_runs_once(self, world, error):
        exchange = await world.loaded()
        await exchange.settle(error)
        exchange.session.destroy()
        await exchange.settle(ValueError())
        assert await world.data() == {"n": 1}

    @pytest.mark.parametrize("error", [ValueError(), asyncio.CancelledError()])
    async def test_session_ended_by_the_stream_of_an_error_page_stays_ended(self, world, error):
        """A10: the stream fails or is cancelled."""
        exchange = await world.loaded()
        await exchange.settle(ValueError())
        await send(exchange, 500)
        exchange.session.destroy()
        await exchange.settle(error)
        assert await world.data() == {}

    async def test_replacement_by_none_destroys_the_session(self, world):
        """A10, A24: None destroys it, also if the request failed."""
        exchange = await world.loaded()
        exchange.place_of_session = None
        await exchange.settle(ValueError())
        assert exchange.place_of_session is exchange.session
        assert await world.data() == {}

    async def test_invalid_replacement_does_not_replace_the_error(self, world, caplog):
        exchange = await world.loaded()
        exchange.place_of_session = 7
        await exchange.settle(ValueError())
        assert "was not adopted" in caplog.text

    async def test_a_store_that_failed_is_not_called_again(self, world):
        exchange = await world.loaded()
        exchange.session["n"] = 2
        world.store.calls.clear()
        await exchange.settle(FAILURE)
        assert exchange.failed
        assert world.store.calls == []

    async def test_store_failure_replaces_the_error_of_the_handler(self, world):
        exchange = await world.loaded()
        exchange.session.destroy()
        world.store.fail("delete", error=FAILURE)
        with pytest.raises(StoreUnavailable) as raised:
            await exchange.settle(ValueError())
        assert raised.value is exchange.failure is FAILURE

    async def test_a_cancelled_task_finishes_the_commit(self, world):
        """A12, A21."""
        exchange = await world.loaded()
        exchange.session.destroy()
        world.store.hang("delete", times=1)
        task = asyncio.create_task(exchange.settle(asyncio.CancelledError()))
        for _ in range(20):
            await asyncio.sleep(0)
        assert world.store.calls[-1] == "delete"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        world.store.heal()
        for _ in range(20):
            await asyncio.sleep(0)
        assert await world.data() == {}

    async def test_a_cancelled_stream_keeps_its_changes(self, world):
        """A11: what a stream wrote before the client disconnected is kept."""
        exchange = await world.loaded()
        await send(exchange, 200, complete=False)
        exchange.session["n"] = 2
        await exchange.settle(asyncio.CancelledError())
        assert await world.data() == {"n": 2}


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (FAILURE, True),
            (SessionRequired("login"), True),
            (ConfigurationError("x"), False),
            (ValueError("x"), False),
        ],
    )
    def test_only_session_errors_are_answerable(self, error, expected):
        """A23: a configuration error is not."""
        assert is_answerable(error) is expected

    @pytest.mark.parametrize("form", ["async", "blocking"])
    async def test_on_error_returns_a_response(self, form):
        """A23."""

        def answer(request, error):
            return request, error

        async def answer_later(request, error):
            return request, error

        exchange = World(on_error=answer if form == "blocking" else answer_later).exchange()
        assert await call_on_error(exchange, "request", FAILURE) == ("request", FAILURE)

    async def test_on_error_is_not_called_for_other_errors_or_after_the_start(self):
        """A23."""
        exchange = World(on_error=lambda request, error: "answer").exchange()
        assert await call_on_error(exchange, None, ValueError()) is None
        assert await call_on_error(exchange, None, ConfigurationError("x")) is None
        assert await call_on_error(exchange, None, FAILURE) == "answer"
        exchange.response_started = True
        assert await call_on_error(exchange, None, FAILURE) is None
        assert await call_on_error(World().exchange(), None, FAILURE) is None

    def test_a_failed_store_is_503(self, caplog):
        """A15, A23."""
        answer = default_response(World().exchange(), FAILURE, "application/json")
        headers = dict(answer.headers)
        assert (answer.status, headers["retry-after"]) == (503, "2")
        assert headers["content-type"] == "application/json"
        assert "detail" in json.loads(answer.body)
        (line,) = caplog.records
        assert line.levelno == logging.ERROR
        assert line.getMessage().endswith("because the session store failed: the store is down")
        assert not line.exc_info

    def test_the_traceback_of_a_function_of_the_application_is_logged(self, caplog):
        error = StoreUnavailable("the store is down")
        error.application_error = KeyError("host")
        default_response(World().exchange(), error, None)
        (line,) = caplog.records
        assert line.exc_info[1] is error.application_error

    def test_a_missing_session_is_401(self, caplog):
        """A23."""
        answer = default_response(World().exchange(), SessionRequired("login"), "application/json")
        headers = dict(answer.headers)
        assert (answer.status, headers["www-authenticate"]) == (401, "Session")
        assert headers["content-type"] == "application/json"
        assert "log in" in json.loads(answer.body)["detail"]
        assert caplog.records == []

    @pytest.mark.parametrize("error", [SessionError("x"), ValueError(), ConfigurationError("x")])
    def test_another_error_has_no_response(self, error):
        assert default_response(World().exchange(), error, None) is None

    def test_a_started_response_is_not_replaced(self):
        exchange = World().exchange()
        exchange.response_started = True
        assert default_response(exchange, FAILURE, None) is None
