"""Tickets and cookies of an installation, and the lifecycle of one request."""

import logging
from contextlib import nullcontext
from types import CoroutineType

import pytest

from sojourn import Sessions
from sojourn._core.codec import decode
from sojourn._crypto.tickets import KeyRing, Ticket
from sojourn.errors import (
    ConfigurationError,
    InsecureTransport,
    ResponseStarted,
    SessionTooLarge,
    StoreUnavailable,
)
from sojourn.events import Rejected
from sojourn.session import NullSession, Session
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore
from sojourn.web.asgi import SessionMiddleware
from sojourn.web.asgi_exchange import HTTPExchange
from sojourn.web.asgi_scope import CONNECTION
from sojourn.web.lifecycle import (
    SessionLifecycle,
    decode_headers,
    encode_headers,
    warn_overruled,
)
from sojourn.web.transport_security import TransportSecurity
from sojourn.web.websocket import WebSocketConnection
from sojourn.web.wsgi import WSGIExchange
from tests.support.working_copies import copy_of

pytestmark = pytest.mark.anyio

SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"


class Request(SessionLifecycle):
    def __init__(self, web, path="/"):
        super().__init__(web)
        self._path = path

    def labels(self):
        return {"browser": "B"}

    def path(self):
        return self._path


SCHEMES = {
    TransportSecurity.SECURE: ("https", b"example.com"),
    TransportSecurity.LOCAL: ("http", b"localhost"),
}
INSECURE = ("http", b"example.com")


class World:
    def __init__(self, **options):
        self.clock = FakeClock()
        self.store = FaultyStore(MemoryStore())
        options = {"store": self.store, "secret": SECRET, "clock": self.clock, **options}
        self.sessions = Sessions(**options)
        self.web = self.sessions.web
        self.rejected = []
        self.sessions.on(Rejected, lambda event: self.rejected.append(event.reason))

    async def admit(self, cookies, transport=TransportSecurity.SECURE):
        """Return the session of a request."""
        lifecycle = Request(self.web)
        scheme, host = SCHEMES.get(transport, INSECURE)
        waiting = lifecycle.begin(scheme, host, cookies)
        if waiting is not None:
            await waiting
        return lifecycle.session

    async def commit(self, session):
        await self.web.engine.commit(copy_of(session))

    def set_cookie(self, session, transport=TransportSecurity.SECURE):
        return self.web.set_cookie(copy_of(session), transport)

    async def begin(self, transport=TransportSecurity.SECURE):
        """Return a stored session and the pair of name and value that its cookie has."""
        session = await self.admit(None, transport)
        session["a"] = 1
        await self.commit(session)
        header = self.set_cookie(session, transport)
        return session, header.partition(b";")[0]


async def test_cookie_that_was_set_loads_the_session():
    world = World()
    session, pair = await world.begin()
    assert pair.startswith(b"__Host-sid=")
    again = await world.admit(pair)
    assert (again.id, again["a"]) == (session.id, 1)
    assert world.rejected == []


async def test_request_without_a_session_cookie_makes_no_store_call():
    """A1, A15."""
    world = World()
    world.store.fail()
    for cookies in (None, b"", b"other=1", b"sid=1", b"__Host-sid2=x", b"=__Host-sid=x"):
        assert (await world.admit(cookies)).new
    assert world.store.calls == []
    assert world.rejected == []


async def test_invalid_ticket_makes_no_store_call():
    """A8, B-13, B-27, B-29, B-31: the same code path for every defect."""
    world = World()
    _, pair = await world.begin()
    name, _, value = pair.partition(b"=")
    other_realm = KeyRing([SECRET.encode()], realm="other")
    other_key = KeyRing([b"another secret of 32 random bytes"], realm="default")
    ticket = Ticket(bytes(16), bytes(16))
    world.store.calls.clear()
    bad = [
        b"", b" ", b"x", b"A" * 66, value[:-1], value + b"A", b"%" + value, b'"' + value + b'"',
        value.swapcase(), b"\xff" * 66, b"null", b'{"id":1}',
        other_realm.seal(ticket, name=name).encode(), other_key.seal(ticket, name=name).encode(),
        KeyRing([SECRET.encode()], realm="default").seal(ticket, name=b"sid").encode(),
    ]  # fmt: skip
    for text in bad:
        assert (await world.admit(name + b"=" + text)).new
    assert world.store.calls == []
    well_formed = [b"A" * 66, *bad[-3:]]
    assert world.rejected == ["forged" if text in well_formed else "malformed" for text in bad]


async def test_two_different_session_cookies_are_rejected():
    """A8: one of them may be planted by an attacker."""
    world = World()
    _, one = await world.begin()
    _, two = await world.begin()
    world.store.calls.clear()
    for cookies in (one + b"; " + two, two + b";" + one, one + b"; __Host-sid=x"):
        assert (await world.admit(cookies)).new
    assert world.rejected == ["duplicate"] * 3
    assert world.store.calls == []
    assert not (await world.admit(one + b"; " + one)).new


async def test_failing_store_does_not_give_an_empty_session():
    """A15."""
    world = World()
    _, pair = await world.begin()
    world.store.fail("load")
    with pytest.raises(StoreUnavailable):
        await world.admit(pair)


async def test_insecure_request_raises_at_the_first_access():
    """NIST SESS-13: plain http to a remote host; no error before the access."""
    world = World()
    _, secure = await world.begin()
    _, plain = await world.begin(TransportSecurity.LOCAL)  # the cookie name of plain http
    world.store.calls.clear()
    session = await world.admit(b"; ".join((secure, plain)), TransportSecurity.INSECURE)
    await world.commit(session)
    assert world.set_cookie(session, TransportSecurity.INSECURE) is None
    assert world.store.calls == []
    with pytest.raises(InsecureTransport, match=r"example\.com"):
        _ = session["a"]


async def test_https_and_http_have_different_cookies():
    world = World()
    _, secure = await world.begin()
    _, local = await world.begin(TransportSecurity.LOCAL)
    assert local.startswith(b"sid=")
    assert (await world.admit(local.replace(b"sid", b"__Host-sid"))).new, "sealed for its name"
    assert (await world.admit(secure.replace(b"__Host-sid", b"sid"), TransportSecurity.LOCAL)).new
    assert not (await world.admit(local, TransportSecurity.LOCAL)).new


async def test_cookie_is_sent_in_one_response():
    world = World()
    session = await world.admit(None)
    assert world.set_cookie(session, TransportSecurity.SECURE) is None
    session["a"] = 1
    await world.commit(session)
    assert b"Max-Age" not in world.set_cookie(session, TransportSecurity.SECURE)
    assert world.set_cookie(session, TransportSecurity.SECURE) is None


async def test_a_destroyed_session_clears_its_cookie():
    """B-44, SESS-12."""
    world = World()
    session, pair = await world.begin()
    session.destroy()
    await world.commit(session)
    header = world.set_cookie(session, TransportSecurity.SECURE)
    assert header.startswith(b"__Host-sid=;")
    assert b"Max-Age=0" in header
    assert (await world.admit(pair)).new


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({}, 12 * 3600), ({"absolute_timeout": "1 hour"}, 3600),
        ({"absolute_timeout": None}, 34_560_000), ({"absolute_timeout": "600 days"}, 34_560_000),
    ],
)  # fmt: skip
async def test_max_age_is_the_longest_lifetime_of_the_session(options, seconds):
    """COOK-04, RFC 6265bis 5.5: at most 400 days."""
    world = World(persistent=True, **options)
    session = await world.admit(None)
    session["a"] = 1
    await world.commit(session)
    assert f"Max-Age={seconds}".encode() in world.set_cookie(session, TransportSecurity.SECURE)


async def test_max_age_of_a_new_cookie_equals_the_timeout():
    """COOK-04: also if the response is sent some milliseconds after the creation."""
    world = World(persistent=True, timeout="14 days")
    session = await world.admit(None)
    session["a"] = 1
    await world.commit(session)
    world.clock.advance(0.9)
    header = world.set_cookie(session, TransportSecurity.SECURE)
    assert b"; Max-Age=1209600; Expires=" in header


async def test_max_age_of_a_later_cookie_is_the_remaining_lifetime():
    """COOK-04: rounded down, so that the cookie does not outlive its session."""
    world = World(persistent=True, timeout="14 days")
    session, pair = await world.begin()
    world.clock.advance(3600.1)
    session = await world.admit(pair)
    session.rotate()
    await world.commit(session)
    assert b"; Max-Age=%d; Expires=" % (1_209_600 - 3601) in world.set_cookie(
        session, TransportSecurity.SECURE
    )


async def test_max_age_is_at_least_one_second():
    world = World(persistent=True)
    session = await world.admit(None)
    session["a"] = 1
    await world.commit(session)
    world.clock.advance("13 hours")
    assert b"Max-Age=1;" in world.set_cookie(session, TransportSecurity.SECURE) + b";"


async def test_session_destroyed_in_its_first_request_sends_no_cookie():
    """A7."""
    world = World()
    session = await world.admit(None)
    session["a"] = 1
    await session.acommit()
    await world.sessions.arevoke(session.id)
    session["a"] = 2
    await world.commit(session)
    assert world.set_cookie(session, TransportSecurity.SECURE) is None


@pytest.mark.parametrize(
    ("scheme", "host", "proxied", "expected"),
    [
        ("https", b"example.com", False, TransportSecurity.SECURE),
        ("http", b"localhost:8000", False, TransportSecurity.LOCAL),
        ("http", b"localhost:8000", True, TransportSecurity.INSECURE),
        ("http", b"example.com", False, TransportSecurity.INSECURE),
        ("ws", b"127.0.0.1", False, TransportSecurity.LOCAL),
        ("wss", None, True, TransportSecurity.SECURE),
    ],
)
async def test_proxied_request_is_not_local(scheme, host, proxied, expected):
    assert World().web.classify(scheme, host, proxied) is expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (("http", b"localhost", False), ("https", b"localhost", False), TransportSecurity.SECURE),
        (("http", b"localhost", False), ("http", b"localhost", True), TransportSecurity.INSECURE),
        (("http", b"localhost", False), ("https", b"localhost", True), TransportSecurity.SECURE),
        (("http", None, False), ("http", b"localhost", False), TransportSecurity.LOCAL),
        (
            ("http", b"localhost", False),
            ("http", b"example.com", False),
            TransportSecurity.INSECURE,
        ),
    ],
)
async def test_transport_is_determined_for_each_request(first, second, expected):
    """NIST SESS-13: the scheme and the proxy's headers count, also for a host that is cached."""
    world = World()
    for scheme, host, proxied in (first, second):
        request = Request(world.web)
        request.begin(scheme, host, None, proxied)
    assert request.transport is expected


async def test_include_and_exclude_define_which_paths_have_a_session():
    patterns = World(include=["/a/*"], exclude=["/a/x"]).web.config.patterns
    assert [patterns.match(path) for path in ("/a/b", "/a/x", "/")] == [True, False, False]
    assert World().web.config.patterns.everything


# The lifecycle of one request


class Exchange:
    """One request of a browser with a cookie; records which steps awaited the store."""

    def __init__(self, world, cookie=None, *, path="/"):
        self.lifecycle = Request(world.web, path)
        self.waited = []
        self._cookie = cookie

    @property
    def session(self):
        return self.lifecycle.session

    async def _wait(self, step, result):
        if isinstance(result, CoroutineType):
            self.waited.append(step)
            return await result
        return result

    async def begin(self, on_store_failure=None):
        waiting = self.lifecycle.begin(
            "https", b"example.com", self._cookie, False, on_store_failure
        )
        await self._wait("begin", waiting)
        return self.session

    async def respond(self, status=200, headers=(), *, complete=False):
        sent = self.lifecycle.respond(status, list(headers), complete=complete)
        return await self._wait("respond", sent)

    async def finish(self):
        await self._wait("finish", self.lifecycle.finish())

    async def fail(self, **options):
        await self._wait("fail", self.lifecycle.fail(**options))


def cookie_of(headers):
    """Return the pair of name and value that a response sets; None if it sets no cookie."""
    found = [value for name, value in headers if name == b"set-cookie"]
    assert len(found) <= 1
    return found[0].partition(b";")[0] if found else None


async def data(world, session_id):
    """Return what the store has; None if the session is gone."""
    info = await world.sessions.aget(session_id)
    if info is None:
        return None
    record = await world.store.store.load(bytes.fromhex(session_id))
    contents = world.web.engine.context.cipher.decrypt(record, b"")
    return {key: decode(value) for key, value in contents.data.items()}


class TestOrder:
    async def test_first_request_creates_before_the_headers(self):
        """The record is created before the headers are sent; the cookie is one of them."""
        world = World()
        exchange = Exchange(world)
        session = await exchange.begin()
        assert session.new
        session["a"] = 1
        headers = await exchange.respond(200, [(b"x-own", b"1")])
        assert headers[0] == (b"x-own", b"1")
        assert cookie_of(headers).startswith(b"__Host-sid=")
        assert exchange.lifecycle.response_started
        await exchange.finish()
        exchange.lifecycle.end()
        assert exchange.waited == ["respond"]
        assert world.store.calls == ["create"]
        assert (await world.admit(cookie_of(headers)))["a"] == 1

    async def test_reading_request_awaits_nothing_if_the_store_answers_at_once(self):
        world = World()
        _, cookie = await world.begin()
        world.store.calls.clear()
        exchange = Exchange(world, cookie)
        session = await exchange.begin()
        assert session["a"] == 1
        headers = await exchange.respond(complete=True)
        assert dict(headers) == {b"vary": b"Cookie", b"cache-control": b"private"}
        await exchange.finish()
        assert (exchange.waited, world.store.calls) == ([], ["load"])

    async def test_writing_request_awaits_nothing_if_the_store_answers_at_once(self):
        world = World()
        session, cookie = await world.begin()
        world.store.calls.clear()
        exchange = Exchange(world, cookie)
        (await exchange.begin())["a"] = 2
        headers = await exchange.respond()
        assert cookie_of(headers) is None
        await exchange.finish()
        assert (exchange.waited, world.store.calls) == ([], ["load", "save"])
        assert await data(world, session.id) == {"a": 2}

    async def test_each_step_awaits_a_store_that_suspends(self):
        world = World()
        session, cookie = await world.begin()
        world.store.slow("load", "save", seconds=0)
        exchange = Exchange(world, cookie)
        (await exchange.begin())["a"] = 2
        await exchange.respond()
        exchange.session["b"] = 3
        await exchange.finish()
        assert exchange.waited == ["begin", "respond", "finish"]
        assert await data(world, session.id) == {"a": 2, "b": 3}

    async def test_an_unused_session_changes_no_header_of_a_complete_response(self):
        """A13."""
        world = World()
        _, cookie = await world.begin()
        for exchange in (Exchange(world), Exchange(world, cookie)):
            await exchange.begin()
            assert await exchange.respond(200, [(b"x-own", b"1")], complete=True) == [
                (b"x-own", b"1")
            ]
        for ticket in (cookie, None):
            assert (await self.stream(world, ticket)) == [b"vary", b"cache-control"]

    @staticmethod
    async def stream(world, cookie):
        """Return the header names of a stream, which may access the session later."""
        exchange = Exchange(world, cookie)
        await exchange.begin()
        return [name for name, _ in await exchange.respond()]

    async def test_a_known_length_does_not_make_a_response_complete(self):
        """A13: its body may be streamed."""
        world = World()
        _, cookie = await world.begin()
        exchange = Exchange(world, cookie)
        await exchange.begin()
        names = [name for name, _ in await exchange.respond(200, [(b"Content-Length", b"0")])]
        assert names == [b"Content-Length", b"vary", b"cache-control"]

    @pytest.mark.parametrize("ticket", [True, False])
    async def test_a_stream_that_may_load_its_session_later_is_private(self, ticket):
        """A13: a route that has not loaded its session (``autoload=False``)."""

        class Later(Request):
            def may_load_later(self):
                return ticket

        lifecycle = Later(World().web)
        names = [name for name, _ in lifecycle.respond(200, [])]
        assert names == ([b"vary", b"cache-control"] if ticket else [])

    async def test_headers_of_the_application_are_not_changed_in_place(self):
        world = World()
        _, cookie = await world.begin()
        exchange = Exchange(world, cookie)
        assert (await exchange.begin())["a"] == 1
        given = [(b"x-own", b"1")]
        sent = exchange.lifecycle.respond(200, given)
        assert (given, len(sent)) == ([(b"x-own", b"1")], 3)

    async def test_begin_loads_once(self):
        world = World()
        _, cookie = await world.begin()
        world.store.calls.clear()
        exchange = Exchange(world, cookie)
        assert await exchange.begin() is await exchange.begin()
        assert world.store.calls == ["load"]

    async def test_concurrent_begin_calls_share_one_session(self):
        world = World()
        _, cookie = await world.begin()
        world.store.slow("load", seconds=0)
        lifecycle = Request(world.web)
        first = lifecycle.begin("https", b"example.com", cookie)
        second = lifecycle.begin("https", b"example.com", cookie)
        await first
        session = lifecycle.session
        await second
        assert lifecycle.session is session

    async def test_steps_without_begin_do_nothing(self):
        world = World()
        exchange = Exchange(world)
        assert await exchange.respond(200, [(b"x-own", b"1")]) == [(b"x-own", b"1")]
        await exchange.finish()
        await exchange.fail()
        assert exchange.lifecycle.commit(200) is None
        assert exchange.lifecycle.ticket_header() is None
        assert not exchange.lifecycle.unavailable
        assert not exchange.lifecycle.destroys_session()
        exchange.lifecycle.end()
        assert world.store.calls == []

    async def test_end_drops_the_request(self):
        world = World()
        exchange = Exchange(world)
        session = await exchange.begin()
        exchange.lifecycle.end()
        assert exchange.lifecycle.working_copy.client is None
        assert dict(session.labels) == {}
        session["a"] = 1
        await session.acommit()  # a background task may still write to the session
        assert (await data(world, session.id)) == {"a": 1}

    async def test_commit_leaves_the_cookie_to_ticket_header(self):
        """For adapters whose response is not a list of headers."""
        world = World()
        exchange = Exchange(world)
        (await exchange.begin())["a"] = 1
        waiting = exchange.lifecycle.commit(200)
        await waiting
        pair = exchange.lifecycle.ticket_header()[1].partition(b";")[0]
        assert (await world.admit(pair))["a"] == 1

    async def test_text_headers(self):
        """WSGI: raw headers are text in Latin-1; the given list is returned if nothing is added."""
        world = World()
        given = encode_headers([("X-Own", "\xe9")])
        assert decode_headers(given) == [("X-Own", "\xe9")]
        lifecycle = Request(world.web)
        assert lifecycle.begin("https", b"example.com", None) is None
        assert lifecycle.respond(200, given, complete=True) is given

    async def test_second_commit_awaits_nothing(self):
        world = World()
        session, cookie = await world.begin()
        exchange = Exchange(world, cookie)
        (await exchange.begin())["a"] = 2
        assert exchange.lifecycle.commit(200) is None
        assert await data(world, session.id) == {"a": 2}

    async def test_a_touch_of_an_unused_session_changes_no_header(self):
        """A3, A13: after half of the idle timeout the record is touched."""
        world = World(timeout="1 hour")
        _, cookie = await world.begin()
        world.clock.advance("40 minutes")
        world.store.slow("touch", seconds=0)
        world.store.calls.clear()
        exchange = Exchange(world, cookie)
        await exchange.begin()
        assert await exchange.respond(200, [(b"x-own", b"1")], complete=True) == [(b"x-own", b"1")]
        assert (exchange.waited, world.store.calls) == (["respond"], ["load", "touch"])

    async def test_an_error_response_of_an_unused_session_changes_no_header(self):
        """A13."""
        world = World()
        _, cookie = await world.begin()
        exchange = Exchange(world, cookie)
        await exchange.begin()
        await exchange.fail()
        given = [(b"x-own", b"1")]
        assert exchange.lifecycle.error_headers(given) is given

    @pytest.mark.parametrize("begun", [False, True])
    async def test_stream_varies_on_the_header_of_the_ticket(self, begun):
        """A13: with ``transport="header"``, also if the session was not used yet."""

        class Later(Request):
            def may_load_later(self):
                return True

            def header(self, name):
                return None

        lifecycle = Later(World(transport="header").web)
        if begun:
            lifecycle.begin("https", b"example.com", None)
        assert dict(lifecycle.respond(200, []))[b"vary"] == b"Authorization"

    @pytest.mark.parametrize("logged_in", [False, True])
    async def test_a_late_response_to_a_previous_ticket_is_private(self, logged_in):
        """A7, A13: it sets no cookie, which could replace a newer one in the browser."""
        world = World()
        session, previous = await world.begin()
        if logged_in:
            session.login("ada")
            await world.commit(session)
            previous = world.set_cookie(session).partition(b";")[0]
        rotating = Exchange(world, previous)
        (await rotating.begin()).rotate()
        assert cookie_of(await rotating.respond()) is not None
        late, handshake = Exchange(world, previous), Exchange(world, previous)
        assert (await late.begin())["a"] == 1
        await handshake.begin()
        world.clock.advance("1 minute")
        headers = await late.respond(200, [(b"x-own", b"1")], complete=True)
        control = b"private, no-store" if logged_in else b"private"
        assert headers == [(b"x-own", b"1"), (b"vary", b"Cookie"), (b"cache-control", control)]
        assert handshake.lifecycle.handshake_headers() == []

    async def test_page_of_a_session_revoked_meanwhile_is_no_store(self):
        """A13: it may show data of the session from before the revocation."""
        world = World()
        session, _ = await world.begin()
        session.login("ada")
        await world.commit(session)
        exchange = Exchange(world, world.set_cookie(session).partition(b";")[0])
        session = await exchange.begin()
        assert session.user == "ada"
        await world.sessions.arevoke_user("ada")
        session["a"] = 2
        headers = await exchange.respond(200, [], complete=True)
        assert (b"cache-control", b"private, no-store") in headers

    @pytest.mark.parametrize("slow", [False, True])
    async def test_a_login_stores_the_labels_of_its_request(self, slow):
        """ASVS 7.5.2: also if the store suspends."""

        class Other(Request):
            def labels(self):
                return {"browser": "C"}

        world = World()
        _, cookie = await world.begin()
        if slow:
            world.store.slow("load", seconds=0)
        lifecycle = Other(world.web)
        waiting = lifecycle.begin("https", b"example.com", cookie)
        assert (waiting is not None) is slow
        if waiting is not None:
            await waiting
        lifecycle.session.login("ada")
        await lifecycle.respond(200, [])
        info = await world.sessions.aget(lifecycle.session.id)
        assert info.labels == {"browser": "C"}

    async def test_the_session_is_of_the_class_of_the_framework(self):
        """A24: it has the members of the framework, also if the store failed."""

        class Own(Session):
            pass

        class OwnNull(NullSession):
            pass

        world = World()
        _, cookie = await world.begin()
        world.web.session_class, world.web.null_session_class = Own, OwnNull
        assert type(await Exchange(world).begin()) is Own
        assert type(await Exchange(world, cookie).begin()) is Own
        world.store.slow("load", seconds=0)
        assert type(await Exchange(world, cookie).begin()) is Own
        world.store.heal()
        world.store.fail("load")
        assert type(await Exchange(world, cookie).begin("anonymous")) is OwnNull

    async def test_a_passive_request_is_not_activity(self):
        """W6: polling does not keep a session alive."""
        world = World(passive=["/poll"])
        session, cookie = await world.begin()
        for path, expected in (("/poll", 0), ("/", 60_000)):
            before = world.clock.now
            world.clock.advance("1 minute")
            exchange = Exchange(world, cookie, path=path)
            (await exchange.begin())["path"] = path
            await exchange.respond()
            record = await world.store.store.load(bytes.fromhex(session.id))
            assert record.seen_at - before == expected


class TestFailures:
    @pytest.mark.parametrize("save_on_error", [False, True])
    @pytest.mark.parametrize("status", [500, 503])
    async def test_an_error_response_drops_the_changes(self, status, save_on_error):
        """A10."""
        world = World(save_on_error=save_on_error)
        session, cookie = await world.begin()
        exchange = Exchange(world, cookie)
        (await exchange.begin())["a"] = 2
        await exchange.respond(status)
        exchange.session["b"] = 3
        await exchange.finish()
        kept = {"a": 2, "b": 3} if save_on_error else {"a": 1}
        assert await data(world, session.id) == kept

    async def test_4xx_response_keeps_the_changes(self):
        world = World()
        session, cookie = await world.begin()
        exchange = Exchange(world, cookie)
        (await exchange.begin())["a"] = 2
        await exchange.respond(499)
        assert await data(world, session.id) == {"a": 2}

    async def test_an_error_response_to_a_new_visitor_creates_nothing(self):
        world = World()
        exchange = Exchange(world)
        (await exchange.begin())["a"] = 1
        headers = await exchange.respond(500)
        assert cookie_of(headers) is None
        assert world.store.calls == []

    @pytest.mark.parametrize("step", ["respond", "commit"])
    async def test_an_error_response_still_rotates_and_drops_the_changes(self, step):
        """A10: one save stores the new verifier without the data."""
        world = World()
        session, cookie = await world.begin()
        exchange = Exchange(world, cookie)
        (await exchange.begin())["a"] = 2
        exchange.session.rotate()
        if step == "respond":
            sent = cookie_of(await exchange.respond(500))
        else:
            await exchange.lifecycle.commit(500)
            sent = exchange.lifecycle.ticket_header()[1].partition(b";")[0]
        assert sent != cookie
        assert await data(world, session.id) == {"a": 1}
        assert (await world.admit(sent))["a"] == 1

    async def test_a_failed_commit_without_a_response_drops_the_changes(self):
        """A10."""
        world = World()
        session, cookie = await world.begin()
        exchange = Exchange(world, cookie)
        (await exchange.begin())["a"] = 2
        assert exchange.lifecycle.commit(500) is None
        assert await data(world, session.id) == {"a": 1}

    async def test_repeated_attempt_may_succeed(self):
        """A10: the failure of the first attempt does not drop the changes of the second."""
        world = World()
        session, cookie = await world.begin()
        exchange = Exchange(world, cookie)
        (await exchange.begin())["a"] = 2
        exchange.lifecycle.mark_failed()
        exchange.lifecycle.restart()
        assert (await exchange.begin())["a"] == 1
        exchange.session["b"] = 3
        await exchange.respond()
        assert await data(world, session.id) == {"a": 1, "b": 3}

    async def test_an_error_response_still_destroys(self):
        """A10: a logout is committed, whatever happens afterwards."""
        world = World()
        session, cookie = await world.begin()
        exchange = Exchange(world, cookie)
        (await exchange.begin()).destroy()
        assert exchange.lifecycle.destroys_session()
        headers = await exchange.respond(500)
        assert not exchange.lifecycle.destroys_session()
        assert cookie_of(headers) == b"__Host-sid="
        assert await data(world, session.id) is None

    async def failed_exchange(self, **options):
        """Return an exchange whose handler has raised, its world, and the ID of its session."""
        world = World(**options)
        session, cookie = await world.begin()
        exchange = Exchange(world, cookie)
        (await exchange.begin())["a"] = 2
        await exchange.fail()
        return exchange, world, session.id

    async def test_failed_request_without_a_session_has_no_error_session(self):
        """A10."""
        assert Request(World().web).commit_after_error(store_failed=False) is None

    @pytest.mark.parametrize(("save_on_error", "found"), [(False, {"a": 1}), (True, {"a": 3})])
    async def test_error_handler_may_change_data_with_save_on_error(self, save_on_error, found):
        """A10: as the failed handler may, with ``save_on_error``."""
        exchange, world, session_id = await self.failed_exchange(save_on_error=save_on_error)
        assert exchange.lifecycle.commit_after_error(store_failed=False) is None
        exchange.session["a"] = 3
        waiting = exchange.lifecycle.commit_after_error(store_failed=False)
        assert (waiting is not None) is save_on_error
        assert waiting is None or await waiting
        assert await data(world, session_id) == found

    async def test_data_of_an_error_handler_that_cannot_be_saved_is_logged(self, caplog):
        """A10: with ``save_on_error``; a rotation is still committed."""
        exchange, world, session_id = await self.failed_exchange(save_on_error=True, max_bytes=2000)
        exchange.session["a"] = "x" * 9000
        exchange.session.rotate()
        assert await exchange.lifecycle.commit_after_error(store_failed=False)
        assert "was not saved" in caplog.text
        assert world.sessions.usage().rotations == 1
        assert await data(world, session_id) == {"a": 2}

    @pytest.mark.parametrize("act", [Session.destroy, Session.rotate])
    async def test_an_error_handler_destroys_and_rotates(self, act):
        """A10, A7: the response has the headers of both."""
        exchange, world, session_id = await self.failed_exchange()
        act(exchange.session)
        assert await exchange.lifecycle.commit_after_error(store_failed=False)
        headers = exchange.lifecycle.error_headers([])
        cookie = cookie_of(headers)
        assert cookie.startswith(b"__Host-sid=")
        if act is Session.destroy:
            assert cookie == b"__Host-sid="
            assert await data(world, session_id) is None
        else:
            assert await data(world, session_id) == {"a": 1}

    async def test_failed_rotation_is_not_retried(self):
        """A23: the application's response to the error is sent."""
        exchange, _, _ = await self.failed_exchange()
        exchange.session.rotate()
        assert exchange.lifecycle.commit_after_error(store_failed=True) is None

    async def test_a_failing_store_after_an_error_is_reported(self, caplog):
        """A23: the response must be 503; the delete is attempted once."""
        exchange, world, session_id = await self.failed_exchange()
        exchange.session.destroy()
        world.store.fail("delete")
        assert not await exchange.lifecycle.commit_after_error(store_failed=True)
        assert "the session store failed (delete)" in caplog.text
        assert exchange.lifecycle.commit_after_error(store_failed=True) is None
        assert await data(world, session_id) == {"a": 1}

    @pytest.mark.parametrize("started", [False, True])
    async def test_a_failing_store_after_an_error_is_logged_by_its_effect(self, started, caplog):
        """A23: after the start of a response its status is not changed."""
        exchange, world, _ = await self.failed_exchange()
        if started:
            exchange.lifecycle.error_headers([])
        exchange.session.destroy()
        world.store.fail("delete")
        with caplog.at_level(logging.DEBUG, "sojourn"):
            assert not await exchange.lifecycle.commit_after_error(store_failed=True)
        messages = [record.getMessage() for record in caplog.records]
        assert any(each.startswith("answered 503 because") for each in messages) is not started
        uncommitted = "the session of a failed request could not be committed"
        assert any(each.startswith(uncommitted) for each in messages) is started

    @pytest.mark.parametrize("save_on_error", [False, True])
    async def test_error_handler_of_a_value_that_cannot_be_stored(self, save_on_error, caplog):
        """A10, A23: the value is dropped, and the handler may rotate."""
        world = World(save_on_error=save_on_error)
        session, cookie = await world.begin()
        exchange = Exchange(world, cookie)
        current = await exchange.begin()
        current["values"] = []
        current["values"].append(object())
        await exchange.lifecycle.commit_kept()
        assert ("was not saved" in caplog.text) is save_on_error
        assert exchange.lifecycle.commit_after_error(store_failed=False) is None
        current.rotate()
        assert await exchange.lifecycle.commit_after_error(store_failed=False)
        assert world.sessions.usage().rotations == 1
        assert await data(world, session.id) == {"a": 1}

    @pytest.mark.parametrize("save_on_error", [False, True])
    async def test_a_handler_that_raises_drops_its_changes(self, save_on_error):
        """A10."""
        world = World(save_on_error=save_on_error)
        session, cookie = await world.begin()
        exchange = Exchange(world, cookie)
        (await exchange.begin())["a"] = 2
        await exchange.fail()
        assert await data(world, session.id) == {"a": 2 if save_on_error else 1}

    async def test_a_handler_that_raises_still_destroys(self):
        world = World()
        session, cookie = await world.begin()
        exchange = Exchange(world, cookie)
        (await exchange.begin()).destroy()
        await exchange.fail()
        assert await data(world, session.id) is None

    @pytest.mark.parametrize("started", [False, True], ids=["before", "after the response started"])
    @pytest.mark.parametrize("end", ["cancelled", "disconnected"])
    async def test_disconnect_keeps_the_changes_of_a_stream_only(self, end, started):
        """A11, A12: changes of a request without a response are dropped."""
        world = World()
        session, cookie = await world.begin()
        exchange = Exchange(world, cookie)
        await exchange.begin()
        if started:
            await exchange.respond()
        exchange.session["a"] = 2
        exchange.lifecycle.client_disconnected = end == "disconnected"
        await exchange.fail(cancelled=end == "cancelled")
        assert await data(world, session.id) == {"a": 2 if started else 1}

    async def test_cancelled_error_response_drops_the_changes(self):
        world = World()
        session, cookie = await world.begin()
        exchange = Exchange(world, cookie)
        await exchange.begin()
        await exchange.respond(500)
        exchange.session["a"] = 2
        await exchange.fail(cancelled=True)
        assert await data(world, session.id) == {"a": 1}

    async def test_a_session_that_is_too_large_raises_before_the_headers(self):
        """B-54: also if the store does not suspend."""
        world = World(max_bytes=300)
        session, cookie = await world.begin()
        exchange = Exchange(world, cookie)
        (await exchange.begin())["large"] = "x" * 400
        with pytest.raises(SessionTooLarge):
            await exchange.respond()
        assert not exchange.lifecycle.response_started
        assert await data(world, session.id) == {"a": 1}


class TestStreams:
    async def test_changes_after_the_first_byte_are_committed_at_the_end(self):
        """A11."""
        world = World()
        session, cookie = await world.begin()
        exchange = Exchange(world, cookie)
        (await exchange.begin())["a"] = 2
        await exchange.respond()
        assert await data(world, session.id) == {"a": 2}
        exchange.session["b"] = 3
        assert await data(world, session.id) == {"a": 2}
        await exchange.finish()
        assert await data(world, session.id) == {"a": 2, "b": 3}

    async def test_a_commit_with_an_unknown_outcome_is_repeated_at_the_end(self):
        """A21: each operation is applied exactly once."""
        world = World()
        session, cookie = await world.begin()
        exchange = Exchange(world, cookie)
        await exchange.begin()
        await exchange.respond()
        exchange.session.increment("a")
        world.store.fail("save", times=1)
        with pytest.raises(StoreUnavailable):
            await exchange.session.acommit()
        assert await data(world, session.id) == {"a": 1}
        await exchange.finish()
        assert await data(world, session.id) == {"a": 2}

    async def test_changes_inside_a_nested_value_are_committed(self):
        world = World()
        session, cookie = await world.begin()
        exchange = Exchange(world, cookie)
        (await exchange.begin())["list"] = []
        await exchange.respond()
        exchange.session["list"].append(1)
        await exchange.finish()
        assert await data(world, session.id) == {"a": 1, "list": [1]}

    async def test_a_stream_may_destroy_its_session(self):
        world = World()
        session, cookie = await world.begin()
        exchange = Exchange(world, cookie)
        await exchange.begin()
        await exchange.respond()
        exchange.session.destroy()
        await exchange.finish()
        assert await data(world, session.id) is None

    async def test_a_new_session_cannot_begin_after_the_headers(self):
        world = World()
        exchange = Exchange(world)
        session = await exchange.begin()
        await exchange.respond()
        with pytest.raises(ResponseStarted):
            session["a"] = 1

    async def test_a_session_may_be_loaded_after_the_headers(self):
        """It can be read and written; a cookie can no longer be set."""
        world = World(rotate_interval="1 minute")
        stored, cookie = await world.begin()
        world.clock.advance("2 minutes")
        exchange = Exchange(world, cookie)
        assert await exchange.respond() == []
        session = await exchange.begin()
        session["b"] = session["a"] + 1
        await exchange.finish()
        assert await data(world, stored.id) == {"a": 1, "b": 2}
        assert exchange.lifecycle.ticket_header() is None
        again = Exchange(world, cookie)
        assert (await again.begin())["b"] == 2, "the ticket was not replaced"

    async def test_session_of_a_new_visitor_loaded_after_the_headers_refuses_writes(self):
        world = World()
        exchange = Exchange(world)
        await exchange.respond()
        session = await exchange.begin()
        assert session.get("a") is None
        with pytest.raises(ResponseStarted):
            session["a"] = 1


class TestStoreFailure:
    """`on_store_failure`, and a second `begin` of the same request."""

    async def broken(self, **options):
        world = World(**options)
        _, cookie = await world.begin()
        world.store.calls.clear()
        world.store.fail("load")
        return world, cookie

    @pytest.mark.parametrize("policy", [None, "error"])
    async def test_by_default_and_with_error_the_request_fails(self, policy):
        """A15."""
        world, cookie = await self.broken()
        exchange = Exchange(world, cookie)
        with pytest.raises(StoreUnavailable):
            await exchange.begin(policy)
        assert exchange.lifecycle.unavailable
        assert isinstance(exchange.session, NullSession)
        with pytest.raises(StoreUnavailable):
            await exchange.begin("anonymous")  # the request has failed
        assert world.store.calls == ["load"]

    async def test_request_continues_with_anonymous_and_saves_nothing(self, caplog):
        """A15: the visitor keeps the cookie, and the outage is logged once."""
        world, cookie = await self.broken()
        with caplog.at_level(logging.WARNING, "sojourn"):
            for _ in range(2):
                exchange = Exchange(world, cookie)
                session = await exchange.begin("anonymous")
                session["a"] = 5
                headers = await exchange.respond()
                assert cookie_of(headers) is None
                await exchange.finish()
                assert not exchange.lifecycle.unavailable
        assert set(world.store.calls) == {"load"}
        assert len(caplog.records) == 1
        world.store.heal()
        assert (await world.admit(cookie))["a"] == 1

    async def test_each_request_that_continues_is_logged_at_the_level_debug(self, caplog):
        """A15: a higher level would repeat the line about the outage."""
        world, cookie = await self.broken()
        with caplog.at_level(logging.DEBUG, "sojourn"):
            exchange = Exchange(world, cookie)
            await exchange.begin("anonymous")
        error = exchange.lifecycle.working_copy.store_error
        expected = "a request continues without its session, because the session store failed: "
        (record,) = [each for each in caplog.records if each.getMessage() == f"{expected}{error}"]
        assert record.levelno == logging.DEBUG

    async def test_on_store_failure_applies_by_path(self):
        world, cookie = await self.broken(on_store_failure="anonymous")
        assert (await Exchange(world, cookie).begin()).new
        with pytest.raises(StoreUnavailable):
            await Exchange(world, cookie).begin("error")
        world, cookie = await self.broken(on_store_failure=["/shop/*"])
        assert (await Exchange(world, cookie, path="/shop/1").begin()).new
        with pytest.raises(StoreUnavailable):
            await Exchange(world, cookie, path="/account").begin()

    async def test_route_with_on_store_failure_error_does_not_continue(self):
        """A15: the session was loaded with "anonymous" before the route loaded it with "error"."""
        world, cookie = await self.broken()
        exchange = Exchange(world, cookie)
        session = await exchange.begin("anonymous")
        assert await exchange.begin() is session
        assert await exchange.begin("anonymous") is session
        with pytest.raises(StoreUnavailable):
            await exchange.begin("error")
        assert exchange.lifecycle.unavailable
        with pytest.raises(StoreUnavailable):
            await exchange.begin()  # after the first error, each access raises
        assert world.store.calls == ["load"]

    async def test_verb_that_needs_the_store_fails_the_request(self):
        world, cookie = await self.broken()
        exchange = Exchange(world, cookie)
        session = await exchange.begin("anonymous")
        with pytest.raises(StoreUnavailable):
            session.login("ada")
        assert exchange.lifecycle.unavailable

    async def test_a_visitor_without_a_cookie_is_not_affected(self):
        world, _ = await self.broken()
        exchange = Exchange(world)
        assert not isinstance(await exchange.begin("error"), NullSession)
        assert world.store.calls == []

    async def test_a_save_that_fails_raises_before_the_headers(self):
        """A15."""
        world = World()
        session, cookie = await world.begin()
        world.store.fail("save")
        exchange = Exchange(world, cookie)
        (await exchange.begin())["a"] = 2
        with pytest.raises(StoreUnavailable):
            await exchange.respond()
        assert not exchange.lifecycle.response_started
        assert await data(world, session.id) == {"a": 1}

    async def test_an_error_response_becomes_503(self):
        given = [(b"Cache-Control", b"public"), (b"x-own", b"1")]
        headers = SessionLifecycle(World().web).unavailable_headers(given)
        assert headers == [
            (b"x-own", b"1"),
            (b"retry-after", b"2"),
            (b"cache-control", b"no-store"),
        ]
        given = [(b"Retry-After", b"60")]  # of the application
        headers = SessionLifecycle(World().web).unavailable_headers(given)
        assert headers == [(b"Retry-After", b"60"), (b"cache-control", b"no-store")]

    async def test_failing_legacy_store_follows_on_store_failure(self):
        """A15: the route's choice applies to its store as well."""

        class Broken:
            async def load(self, *_):
                raise StoreUnavailable("planned by the test")

        world = World()
        world.web.legacy = Broken()
        for policy, expected in (("anonymous", None), ("error", StoreUnavailable)):
            exchange = Exchange(world, b"old=1")
            with pytest.raises(expected) if expected else nullcontext():
                assert isinstance(await exchange.begin(policy), NullSession)


def test_a_replaced_cache_control_is_logged(caplog):
    """B-6, B-8: the line states the header, its replacement and the reason."""
    warn_overruled("cache-control: public")
    (message,) = caplog.messages
    assert message == (
        "'cache-control: public' was replaced by 'Cache-Control: private, no-store', because this "
        "response sets the session cookie and a shared cache would give it to other visitors"
    )


def test_an_adapter_that_reads_no_headers_is_named():
    with pytest.raises(ConfigurationError, match=r"'authorization', and Request does not read"):
        Request(World().web).header("authorization")


@pytest.mark.parametrize("adapter", [HTTPExchange, WSGIExchange, WebSocketConnection])
def test_adapters_override_no_lifecycle_method(adapter):
    """The base class would call a private method of the same name."""
    own = {name for name in vars(adapter) if not name.startswith("__")}
    replaced = {name for name in own if hasattr(SessionLifecycle, name)}
    assert {"header", "labels", "path"} <= replaced
    # The last one calls the step that it replaces.
    assert replaced <= {"header", "labels", "path", "method", "may_load_later", "restart"}


async def test_no_repr_shows_a_secret():
    """A18: neither the cookie nor the verifier, also to debuggers that use `__rich_repr__`."""
    world = World()
    session, cookie = await world.begin()
    seen = []

    async def application(scope, receive, send):
        exchange = scope[CONNECTION]
        seen.extend((exchange, exchange.working_copy, exchange.session))

    scope = {"type": "http", "path": "/", "scheme": "https"}
    scope["headers"] = [(b"host", b"example.com"), (b"cookie", cookie)]
    await SessionMiddleware(application, world.sessions)(scope, None, None)
    request = Exchange(world, cookie)
    await request.begin()
    seen.append(request.lifecycle)
    verifier = request.lifecycle.working_copy.verifier
    value = cookie.partition(b"=")[2].decode()
    assert [type(each).__name__ for each in seen] == [
        "HTTPExchange",
        "WorkingCopy",
        "Session",
        "Request",
    ]
    for each in seen:
        rich = getattr(each, "__rich_repr__", list)()
        for shown in (repr(each), str(each), f"{each}", repr(list(rich))):
            assert value not in shown
            assert verifier.hex() not in shown
            assert repr(verifier)[2:-1] not in shown
    assert session.id in repr(request.lifecycle.working_copy)
