"""Methods of an installation that adapters call in addition to the lifecycle steps."""

import pytest

from sojourn import Sessions
from sojourn._core.concurrency import run
from sojourn.errors import ConfigurationError
from sojourn.events import Rejected
from sojourn.web.lifecycle import SessionLifecycle
from sojourn.web.origin import Refusal
from sojourn.web.transport_security import TransportSecurity

SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"
SECURE, LOCAL, INSECURE = (
    TransportSecurity.SECURE,
    TransportSecurity.LOCAL,
    TransportSecurity.INSECURE,
)


def make(**options):
    return Sessions(store="memory://", secret=SECRET, **options)


def header(sessions, url="https://shop.example/"):
    """Return the Cookie header of a new session."""
    with sessions.open(url=url) as visit:
        visit.session["n"] = 1
    return dict(visit.response_headers())["set-cookie"].partition(";")[0].encode()


def reader(**headers):
    """Return a function that reads request headers; underscores in names mean hyphens."""
    return {name.replace("_", "-"): value for name, value in headers.items()}.get


def test_cookie_attributes_are_in_lower_case():
    sessions = make()
    sessions.web.lower_case_attributes()
    for url, name in (("https://shop.example/", "__Host-sid="), ("http://localhost/", "sid=")):
        with sessions.open(url=url) as visit:
            visit.session["n"] = 1
        sent = dict(visit.response_headers())["set-cookie"]
        assert sent.startswith(name)
        assert "; path=/;" in sent
        assert sent.endswith("; httponly; samesite=lax")


def test_long_cookie_header_is_read_and_not_cached():
    """A19."""
    sessions = make()
    cookies = header(sessions) + b"; theme=" + b"x" * 10_000
    with sessions.open(cookies=cookies.decode()) as visit:
        assert visit.session["n"] == 1
    assert sessions.web.cookie_variant(SECURE).tickets == {}


def test_cache_of_parsed_cookies_is_bounded():
    """A19."""
    sessions = make()
    cookies = header(sessions)
    variant = sessions.web.cookie_variant(SECURE)
    for number in range(5_000):
        assert sessions.web.read_ticket(SECURE, cookies + b"; n=%d" % number) is not None
    assert 0 < len(variant.tickets) < 5_000


def test_cache_of_hosts_is_bounded():
    """A19."""
    web = make().web
    for number in range(5_000):
        assert web.classify("http", b"h%d.example" % number, False) is INSECURE
    assert 0 < len(web.transports) < 5_000
    assert web.classify("http", b"localhost", False) is LOCAL


class TestTicketOfHeader:
    def test_a_cookie_is_not_read_unless_the_option_allows_it(self):
        sessions = make(transport="header")
        cookies = header(make())
        assert sessions.web.read_header_ticket(SECURE, cookies, reader()) is None
        both = make(transport=["cookie", "header"])
        assert both.web.read_header_ticket(SECURE, cookies, reader()) is not None

    def test_insecure_request_has_no_ticket(self):
        sessions = make(transport=["cookie", "header"])
        with sessions.open(headers={"Authorization": "Session"}) as visit:
            visit.session["n"] = 1
        ticket = dict(visit.response_headers())["session-ticket"]
        read = reader(authorization=f"Session {ticket}")
        assert sessions.web.read_header_ticket(SECURE, None, read) is not None
        assert sessions.web.read_header_ticket(INSECURE, None, read) is None

    def test_request_for_a_ticket_is_not_counted_as_rejected(self):
        sessions = make(transport=["cookie", "header"])
        rejected = []
        sessions.on(Rejected, lambda event: rejected.append(event.reason))
        read = reader(authorization="Session")
        assert sessions.web.read_header_ticket(SECURE, None, read) is None
        assert sessions.web.read_header_ticket(SECURE, header(make()), read) is not None
        assert rejected == []


class TestHasTicket:
    @pytest.mark.parametrize(
        ("transport", "cookie", "authorization", "expected"),
        [
            ("cookie", True, None, True),
            ("cookie", False, "Session x", False),
            ("header", True, None, False),
            ("header", False, "Session x", True),
            ("header", False, "Session", False),
            (["cookie", "header"], True, None, True),
            (["cookie", "header"], True, "Session", True),
            (["cookie", "header"], False, "Session x", True),
            (["cookie", "header"], False, None, False),
        ],
    )
    def test_ticket_is_found_in_the_place_of_its_transport(
        self, transport, cookie, authorization, expected
    ):
        web = make(transport=transport).web
        read = reader() if authorization is None else reader(authorization=authorization)
        cookies = b"__Host-sid=x" if cookie else b"theme=dark"
        assert web.has_ticket(SECURE, cookies, read) is expected

    def test_only_the_cookie_counts_without_headers(self):
        web = make(transport=["cookie", "header"]).web
        assert web.has_ticket(SECURE, b"__Host-sid=x")
        assert not web.has_ticket(LOCAL, b"__Host-sid=x")
        assert web.has_ticket(LOCAL, b"sid=x")
        assert not web.has_ticket(SECURE, None)


def test_ticket_of_one_installation_is_invalid_in_another():
    """Tickets as text, for frameworks that write the cookie themselves."""
    sessions = make()
    copy = run(sessions.engine.load(None))
    copy.edit().set("n", 1)
    run(sessions.engine.commit(copy))
    text = sessions.web.seal(copy)
    assert sessions.web.unseal(text) == copy.ticket()
    assert sessions.web.unseal(text[:-1]) is None
    assert make(realm="other").web.unseal(text) is None


class TestNested:
    @pytest.mark.parametrize(
        ("outer", "inner"),
        [({}, {}), ({"cookie": "__Host-sid"}, {}), ({}, {"cookie": "sid"})],
    )
    def test_two_installations_with_one_cookie_are_refused(self, outer, inner):
        """Each would replace the cookie of the other."""
        with pytest.raises(ConfigurationError, match=r"both use the cookie (__Host-)?sid"):
            make(**inner).web.check_nested(make(**outer).web)

    def test_two_cookies_are_accepted(self):
        make(cookie="inner").web.check_nested(make().web)
        make(realm="admin").web.check_nested(make().web)


class TestRefusedOrigins:
    """ASVS 16.3.3: one line a minute for each origin."""

    FIELDS = ("sojourn_event", "sojourn_origin", "sojourn_reason", "sojourn_count")

    def refuse(self, web, origin=b"https://evil.test", method="POST", site=None):
        return web.check_origin(
            method,
            "https",
            site=site,
            origin=origin,
            host=b"shop.example",
            cookies=b"__Host-sid=x",
            proxied=False,
        )

    def fields(self, record):
        return tuple(getattr(record, name) for name in self.FIELDS)

    def test_refused_request_is_logged(self, caplog):
        web = make(protect=True).web
        for _ in range(3):
            assert self.refuse(web) is Refusal.ORIGIN
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert record.getMessage() == (
            "answered 403 to 'POST' from origin 'https://evil.test', because it was sent by a page "
            "of another origin. If that page is yours, add its origin to allowed_origins. Requests "
            "since the last line: 1"
        )
        assert self.fields(record) == ("OriginRefused", "https://evil.test", "origin", 1)

    def test_each_origin_and_reason_has_its_own_line(self, caplog):
        web = make(protect=True).web
        for _ in range(2):
            self.refuse(web)
            self.refuse(web, b"https://other.test")
            self.refuse(web, b"https://other.test", site=b"cross-site")
            self.refuse(web, None, site=b"same-site")
        assert [self.fields(record)[1:3] for record in caplog.records] == [
            ("https://evil.test", "origin"),
            ("https://other.test", "origin"),
            ("https://other.test", "cross_site"),
            (None, "same_site"),
        ]

    def test_external_text_is_escaped_and_truncated(self, caplog):
        """ASVS 16.4.1."""
        web = make(protect=True).web
        self.refuse(web, b"https://a\r\nforged" + b"x" * 9_000, method="P" * 900)
        self.refuse(web, None, method="POST\n")
        for record in caplog.records:
            assert record.getMessage().isprintable()
            assert len(record.getMessage()) < 700
        assert caplog.records[0].sojourn_origin.startswith("https://a\\r\\nforged")

    def test_refused_handshake_is_logged(self, caplog):
        web = make().web
        for _ in range(3):
            web.log_refused_handshake(b"https://evil.test")
        web.log_refused_handshake(None)
        record, unknown = caplog.records
        assert record.levelname == "WARNING"
        assert record.getMessage() == (
            "refused a WebSocket handshake from origin 'https://evil.test'; if it is yours, add it "
            "to allowed_origins. Handshakes since the last line: 1"
        )
        assert self.fields(record) == ("OriginRefused", "https://evil.test", "websocket", 1)
        assert self.fields(unknown)[1:3] == (None, "websocket")

    @pytest.mark.parametrize(
        ("method", "options", "expected"),
        [
            ("GET", {"protect": True}, None),
            ("POST", {}, None),
            ("POST", {"protect": True, "allowed_origins": ["https://evil.test"]}, None),
            ("POST", {"protect": True}, Refusal.ORIGIN),
        ],
    )
    def test_protect_checks_only_unsafe_methods(self, method, options, expected):
        """ASVS 3.5.1, 3.5.3."""
        assert self.refuse(make(**options).web, method=method) is expected


class TestLifecycleDefaults:
    """Defaults that an adapter may keep."""

    def test_a_request_has_no_labels_and_the_root_path(self):
        lifecycle = SessionLifecycle(make().web)
        assert (lifecycle.labels(), lifecycle.path(), lifecycle.method()) == ({}, "/", "")
        assert lifecycle.may_load_later() is False

    def test_request_authenticated_by_header_is_recognized_after_begin(self):
        """ASVS 3.5.1: such a request needs no CSRF token."""

        class Request(SessionLifecycle):
            def header(self, name):
                return "Session x" if name == "authorization" else None

        web = make(transport=["cookie", "header"]).web
        for cookies, expected in ((None, True), (b"__Host-sid=x", False), (b"theme=dark", True)):
            lifecycle = Request(web)
            assert lifecycle.has_header_only() is False
            lifecycle.begin("https", b"shop.example", cookies)
            assert lifecycle.has_header_only() is expected
        cookies_only = SessionLifecycle(make().web)
        cookies_only.begin("https", b"shop.example", None)
        assert cookies_only.has_header_only() is False
