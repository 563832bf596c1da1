"""Tickets and cookies of an installation, and the lifecycle of one request."""

import pytest

from sojourn import Sessions
from sojourn._crypto.tickets import KeyRing, Ticket
from sojourn.errors import InsecureTransport, StoreUnavailable
from sojourn.events import Rejected
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore
from sojourn.web.lifecycle import SessionLifecycle
from sojourn.web.transport import Transport

pytestmark = pytest.mark.anyio

SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"


SCHEMES = {Transport.SECURE: ("https", b"example.com"), Transport.LOCAL: ("http", b"localhost")}
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

    async def admit(self, cookies, transport=Transport.SECURE):
        """Return the session of a request."""
        lifecycle = SessionLifecycle(self.web)
        scheme, host = SCHEMES.get(transport, INSECURE)
        waiting = lifecycle.begin(scheme, host, cookies)
        if waiting is not None:
            await waiting
        return lifecycle.session

    async def commit(self, session):
        await self.web.engine.commit(session._copy)

    def set_cookie(self, session, transport=Transport.SECURE):
        return self.web.set_cookie(session._copy, transport)

    async def begin(self, transport=Transport.SECURE):
        """Return a stored session and the pair of name and value that its cookie has."""
        session = await self.admit(None, transport)
        session["a"] = 1
        await self.commit(session)
        header = self.set_cookie(session, transport)
        return session, header.partition(b";")[0]


async def test_the_cookie_that_was_set_opens_the_session():
    world = World()
    session, pair = await world.begin()
    assert pair.startswith(b"__Host-sid=")
    again = await world.admit(pair)
    assert (again.id, again["a"]) == (session.id, 1)
    assert world.rejected == []


async def test_no_cookie_of_ours_never_waits_for_the_store():
    """A1, A15."""
    world = World()
    world.store.fail()
    for cookies in (None, b"", b"other=1", b"sid=1", b"__Host-sid2=x", b"=__Host-sid=x"):
        assert (await world.admit(cookies)).new
    assert world.store.calls == []
    assert world.rejected == []


async def test_what_is_no_ticket_of_ours_never_reaches_the_store():
    """A8, B-13, B-27, B-29, B-31: one code path, whatever is wrong."""
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
    assert world.rejected == ["forged"] * len(bad)


async def test_two_different_cookies_of_our_name_count_as_none():
    """A8: somebody planted one of them."""
    world = World()
    _, one = await world.begin()
    _, two = await world.begin()
    world.store.calls.clear()
    for cookies in (one + b"; " + two, two + b";" + one, one + b"; __Host-sid=x"):
        assert (await world.admit(cookies)).new
    assert world.rejected == ["duplicate"] * 3
    assert world.store.calls == []
    assert not (await world.admit(one + b"; " + one)).new


async def test_a_failing_store_is_no_empty_session():
    """A15."""
    world = World()
    _, pair = await world.begin()
    world.store.fail("load")
    with pytest.raises(StoreUnavailable):
        await world.admit(pair)


async def test_plain_http_to_elsewhere_never_reaches_the_cookie():
    """NIST SESS-13: an error at the first look, none before it."""
    world = World()
    _, secure = await world.begin()
    _, plain = await world.begin(Transport.LOCAL)  # of the name that plain http has
    world.store.calls.clear()
    session = await world.admit(b"; ".join((secure, plain)), Transport.INSECURE)
    await world.commit(session)
    assert world.set_cookie(session, Transport.INSECURE) is None
    assert world.store.calls == []
    with pytest.raises(InsecureTransport, match=r"example\.com"):
        _ = session["a"]


async def test_https_and_http_have_a_cookie_each():
    world = World()
    _, secure = await world.begin()
    _, local = await world.begin(Transport.LOCAL)
    assert local.startswith(b"sid=")
    assert (await world.admit(local.replace(b"sid", b"__Host-sid"))).new, "sealed for its name"
    assert (await world.admit(secure.replace(b"__Host-sid", b"sid"), Transport.LOCAL)).new
    assert not (await world.admit(local, Transport.LOCAL)).new


async def test_a_cookie_is_sent_once():
    world = World()
    session = await world.admit(None)
    assert world.set_cookie(session, Transport.SECURE) is None
    session["a"] = 1
    await world.commit(session)
    assert b"Max-Age" not in world.set_cookie(session, Transport.SECURE)
    assert world.set_cookie(session, Transport.SECURE) is None


async def test_a_destroyed_session_clears_its_cookie():
    """B-44, SESS-12."""
    world = World()
    session, pair = await world.begin()
    session.destroy()
    await world.commit(session)
    header = world.set_cookie(session, Transport.SECURE)
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
async def test_a_persistent_cookie_lives_as_long_as_its_session_can(options, seconds):
    """COOK-04, RFC 6265bis 5.5: at most 400 days."""
    world = World(persistent=True, **options)
    session = await world.admit(None)
    session["a"] = 1
    await world.commit(session)
    assert f"Max-Age={seconds}".encode() in world.set_cookie(session, Transport.SECURE)


async def test_a_persistent_cookie_of_a_session_at_its_end_lives_a_second():
    world = World(persistent=True)
    session = await world.admit(None)
    session["a"] = 1
    await world.commit(session)
    world.clock.advance("13 hours")
    assert b"Max-Age=1;" in world.set_cookie(session, Transport.SECURE) + b";"


async def test_a_session_that_ended_in_its_first_request_sends_no_cookie():
    """A7."""
    world = World()
    session = await world.admit(None)
    session["a"] = 1
    await session.acommit()
    await world.sessions.arevoke(session.id)
    session["a"] = 2
    await world.commit(session)
    assert world.set_cookie(session, Transport.SECURE) is None


@pytest.mark.parametrize(
    ("scheme", "host", "proxied", "expected"),
    [
        ("https", b"example.com", False, Transport.SECURE),
        ("http", b"localhost:8000", False, Transport.LOCAL),
        ("http", b"localhost:8000", True, Transport.INSECURE),
        ("http", b"example.com", False, Transport.INSECURE),
        ("ws", b"127.0.0.1", False, Transport.LOCAL),
        ("wss", None, True, Transport.SECURE),
    ],
)
async def test_a_request_that_a_proxy_passed_on_is_not_local(scheme, host, proxied, expected):
    assert World().web.classify(scheme, host, proxied) is expected


async def test_patterns_say_which_paths_have_one():
    patterns = World(include=["/a/*"], exclude=["/a/x"]).web.config.patterns
    assert [patterns.match(path) for path in ("/a/b", "/a/x", "/")] == [True, False, False]
    assert World().web.config.patterns.everything
