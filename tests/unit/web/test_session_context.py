"""``sessions.open``: a visitor's session in a ``with`` or ``async with`` block."""

import asyncio
from http.cookies import SimpleCookie

import pytest

from sojourn import Sessions
from sojourn.errors import ConfigurationError, InsecureTransport, StoreUnavailable
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore

SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"


class Failure(Exception):
    """Raised by a block."""


class Installation:
    """Sessions over a store that can fail.

    Args:
        mode: "with" or "async with".
        options: of ``Sessions``.
    """

    def __init__(self, mode, **options):
        self.store = FaultyStore(MemoryStore())
        self.clock = FakeClock()
        self.sessions = Sessions(store=self.store, secret=SECRET, clock=self.clock, **options)
        self.mode = mode

    def visit(self, block, **request):
        """Run a block with its session; return the opened context."""
        opened = self.sessions.open(**request)
        if self.mode == "with":
            with opened as entered:
                assert entered is opened
                block(opened.session)
        else:

            async def run_block():
                async with opened as entered:
                    assert entered is opened
                    block(opened.session)

            asyncio.run(run_block())
        return opened

    def begin(self, **request):
        """Store a session; return its cookie as a mapping."""
        opened = self.visit(lambda session: session.update(n=1), **request)
        return dict([set_cookie(opened).split(";")[0].split("=", 1)])

    def data(self, cookies, **request):
        """Return the visitor's stored session data."""
        found = {}
        self.visit(found.update, cookies=cookies, **request)
        return found


@pytest.fixture(params=["with", "async with"])
def site(request):
    return Installation(request.param)


def set_cookie(opened):
    """Return the Set-Cookie header; None if there is none."""
    return dict(opened.response_headers()).get("set-cookie")


def test_new_visitor_gets_a_cookie(site):
    opened = site.visit(lambda session: session.update(n=1))
    assert set_cookie(opened).startswith("__Host-sid=")
    headers = dict(opened.response_headers())
    assert headers["cache-control"] == "private, no-store"
    assert headers["vary"] == "Cookie"
    assert site.store.calls == ["create"]


def test_new_visitor_that_writes_nothing_makes_no_store_call(site):
    opened = site.visit(lambda session: None)
    assert opened.response_headers() == []
    opened = site.visit(lambda session: session.get("n"))
    assert dict(opened.response_headers()) == {"vary": "Cookie", "cache-control": "private"}
    assert site.store.calls == []


def test_cookies_may_be_a_mapping_or_a_header(site):
    cookies = site.begin()
    [(name, value)] = cookies.items()
    assert site.data(cookies) == {"n": 1}
    assert site.data({"other": "1", **cookies}) == {"n": 1}
    assert site.data(f"{name}={value}") == {"n": 1}
    assert site.data(f"other=1; {name}={value}; third=3") == {"n": 1}
    assert site.data(f"{name}={value}x") == {}
    assert site.data("") == site.data({}) == site.data(None) == {}


def test_returning_visitor_keeps_the_cookie(site):
    cookies = site.begin()
    opened = site.visit(lambda session: session.increment("n"), cookies=cookies)
    assert set_cookie(opened) is None
    assert site.data(cookies) == {"n": 2}


def test_a_touch_that_falls_due_during_a_slow_commit_is_left_to_the_next_visit(site):
    """A2: the session was created, so the visitor gets its cookie."""

    async def wait():
        site.clock.advance("61 seconds")

    site.store.meanwhile("create", wait)
    cookies = site.begin()
    assert site.store.calls == ["create"]
    assert site.data(cookies) == {"n": 1}
    assert site.store.calls[-1] == "touch"


def test_changes_of_a_block_that_raises_are_dropped(site):
    """A10."""
    cookies = site.begin()

    def block(session):
        session["n"] = 2
        raise Failure

    with pytest.raises(Failure):
        site.visit(block, cookies=cookies)
    assert site.data(cookies) == {"n": 1}


def test_logout_of_a_block_that_raises_is_kept(site):
    """A10."""
    cookies = site.begin()
    opened = site.sessions.open(cookies=cookies)

    def destroy_and_fail():
        with opened:
            opened.session.destroy()
            raise Failure

    with pytest.raises(Failure):
        destroy_and_fail()
    assert set_cookie(opened).startswith("__Host-sid=;")
    assert site.data(cookies) == {}


def test_a_new_visitor_whose_block_raises_gets_no_cookie(site):
    opened = site.sessions.open()

    def write_and_fail():
        with opened:
            opened.session["n"] = 1
            raise Failure

    with pytest.raises(Failure):
        write_and_fail()
    assert set_cookie(opened) is None
    assert site.store.calls == []


def test_https_and_http_have_different_cookies(site):
    """The name prefix needs HTTPS; plain HTTP is for localhost only."""
    secure = site.begin(url="https://shop.example/cart")
    local = site.begin(url="http://localhost:8000/cart")
    assert (list(secure), list(local)) == (["__Host-sid"], ["sid"])
    both = {**secure, **local, "n": "1"}
    site.visit(lambda session: session.update(n=2), cookies=both, url="https://shop.example/")
    assert site.data(both, url="https://shop.example/") == {"n": 2}
    assert site.data(both, url="http://localhost:8000/") == {"n": 1}
    opened = site.visit(lambda session: session.rotate(), cookies=both, url="https://shop.example/")
    assert "Secure" in set_cookie(opened)


def test_plain_http_to_a_remote_host_raises_at_the_first_access(site):
    """NIST SESS-13."""
    site.visit(lambda session: None, url="http://shop.example/")
    with pytest.raises(InsecureTransport, match=r"shop\.example"):
        site.visit(lambda session: session.get("n"), url="http://shop.example/")


def test_labels_and_path_belong_to_the_request(site):
    site = Installation(site.mode, passive=["/poll"])
    labels = {"browser": "Script", "address": "192.0.2.1"}
    cookies = site.begin(labels=labels)
    seen = []
    site.visit(lambda session: seen.append(dict(session.labels)), cookies=cookies)
    assert seen == [labels]
    site.clock.advance("10 minutes")
    site.visit(lambda session: session.get("n"), cookies=cookies, url="https://localhost/poll")
    assert "touch" not in site.store.calls
    site.visit(lambda session: session.get("n"), cookies=cookies, url="https://localhost")
    assert site.store.calls[-1] == "touch"


def test_a_failing_store_raises(site):
    """A15."""
    cookies = site.begin()
    site.store.fail("load")
    with pytest.raises(StoreUnavailable):
        site.data(cookies)
    site.store.heal()
    site.store.fail("save")
    with pytest.raises(StoreUnavailable):
        site.visit(lambda session: session.update(n=2), cookies=cookies)
    site.store.heal()
    assert site.data(cookies) == {"n": 1}


def test_store_that_suspends_is_awaited(site):
    cookies = site.begin()
    site.store.slow("load", "save", seconds=0)
    opened = site.visit(lambda session: session.increment("n"), cookies=cookies)
    assert set_cookie(opened) is None
    assert site.data(cookies) == {"n": 2}


def test_with_block_under_an_event_loop_suggests_async_with():
    """It may block on the store, which would block the event loop."""
    site = Installation("with")

    async def block():
        with site.sessions.open() as opened:
            opened.session["n"] = 1

    with pytest.raises(ConfigurationError, match=r"`async with sessions\.open\(\.\.\.\)`"):
        asyncio.run(block())


def test_a_with_block_under_an_event_loop_leaves_no_coroutine(site):
    """With a store that suspends; an unawaited coroutine would warn, which fails the test."""
    cookies = site.begin()
    site.store.slow("load", seconds=0)

    async def block():
        with site.sessions.open(cookies=cookies):
            raise AssertionError("the block must not be entered")

    with pytest.raises(ConfigurationError, match=r"`async with sessions\.open\(\.\.\.\)`"):
        asyncio.run(block())


def test_attributes_are_available_in_their_order(site):
    opened = site.sessions.open()
    with pytest.raises(RuntimeError, match="`with` or `async with` block"):
        _ = opened.session

    with pytest.raises(RuntimeError, match="when the block has ended"):
        opened.response_headers()
    with opened, pytest.raises(RuntimeError, match="when the block has ended"):
        opened.response_headers()
    assert opened.response_headers() == []
    assert opened.session.new


@pytest.mark.parametrize(
    "url",
    ["", "/cart", "localhost/cart", "https://", "https:///cart", "ftp://localhost/", "ws://x/"],
)
def test_a_url_without_scheme_or_host_is_refused(url):
    with pytest.raises(ValueError, match="expects an http or https URL with a host") as caught:
        Installation("with").sessions.open(url=url)
    assert repr(url) in str(caught.value)


def test_characters_that_no_header_can_carry_are_replaced(site):
    """A cookie of another application must not make every visit fail."""
    cookies = site.begin()
    assert site.data({"theme": "\u2603", **cookies}) == {"n": 1}
    assert site.data(cookies, url="https://\u2603.example/") == {"n": 1}


@pytest.mark.parametrize(
    "cookies", [b"sid=ticket", ["sid=ticket"], 5, SimpleCookie("sid=ticket"), {"sid": ["ticket"]}]
)
def test_cookies_that_are_no_texts_are_refused_and_not_shown(cookies):
    """A18, A24: they would be read as no session."""
    sessions = Sessions(store="memory://")
    with pytest.raises(TypeError, match="cookies expects a Cookie header") as raised:
        sessions.open(cookies=cookies)
    assert "ticket" not in str(raised.value)


@pytest.mark.parametrize(
    "labels", [{"browser": 5}, {5: "Firefox"}, {"browser": "\ud800"}, "Firefox", ["Firefox"]]
)
def test_labels_that_are_no_texts_are_refused(labels):
    """S9: a record with them would be unreadable."""
    sessions = Sessions(store="memory://")
    with pytest.raises(TypeError, match="labels expects a dict from text to text"):
        sessions.open(labels=labels)


@pytest.mark.parametrize("mode", ["with", "async with"])
def test_a_context_serves_one_block(mode):
    """A24: what a second block, or one inside the first, wrote would be lost."""
    opened = Installation(mode).visit(lambda session: session.update(n=1))
    with pytest.raises(RuntimeError, match="serves one block"), opened:
        pass  # pragma: no cover - not entered

    async def enter():
        async with opened:
            pass  # pragma: no cover - not entered

    with pytest.raises(RuntimeError, match="serves one block"):
        asyncio.run(enter())
