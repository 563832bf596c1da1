"""Cross-origin protection: which unsafe requests and handshakes are accepted, by their page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.errors import ConfigurationError
from sojourn.web.origin import (
    SAFE_METHODS,
    Refusal,
    check_protect,
    check_request,
    origin_allowed,
    refusal_response,
    validate_origins,
)

HOST = "shop.example.com"
OURS, SIBLING, FOREIGN = f"https://{HOST}", "https://blog.example.com", "https://evil.test"
ALLOWED = validate_origins([SIBLING])
UNSAFE = ["POST", "PUT", "PATCH", "DELETE", "CONNECT", "PROPFIND", "get", "Get", ""]

unsafe = pytest.mark.parametrize("method", UNSAFE)


def check(method="POST", scheme="https", **request):
    """Check a POST request with a ticket from another machine; keywords replace its properties."""
    usual = {"site": None, "origin": None, "host": HOST, "local": False, "ticket": True}
    return check_request(method, scheme, **{**usual, "allowed": ALLOWED, **request})


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("site", [None, "cross-site", "same-site", "none", "?"])
@pytest.mark.parametrize("origin", [None, "null", FOREIGN])
def test_safe_methods_are_accepted_from_every_origin(method, site, origin):
    """For links from other sites and CORS preflights (RFC 9110 9.2.1)."""
    assert check(method, site=site, origin=origin) is None


def test_no_other_method_is_safe():
    """ASVS 3.5.3."""
    assert {"GET", "HEAD", "OPTIONS", "TRACE"} == SAFE_METHODS


@unsafe
@pytest.mark.parametrize("site", ["same-origin", "none"])
@pytest.mark.parametrize("origin", [None, OURS])
def test_same_origin_requests_are_accepted(method, site, origin):
    assert check(method, site=site, origin=origin) is None


@unsafe
@pytest.mark.parametrize("origin", [None, "null", OURS, SIBLING, FOREIGN])
@pytest.mark.parametrize("ticket", [True, False])
@pytest.mark.parametrize("local", [True, False])
def test_cross_site_requests_are_refused(method, origin, ticket, local):
    """ASVS 3.5.1, 3.5.3: for any other headers; also without a ticket (login CSRF)."""
    found = check(method, site="cross-site", origin=origin, ticket=ticket, local=local)
    assert found is Refusal.CROSS_SITE


@unsafe
def test_same_site_requests_are_refused_unless_allowed(method):
    """ASVS 3.5.1, B-27: an attacker may control a sibling subdomain."""
    for origin in (None, "null", FOREIGN, "https://x.example.com", SIBLING + ":8443"):
        assert check(method, site="same-site", origin=origin) is Refusal.SAME_SITE
    assert check(method, site="same-site", origin=SIBLING) is None
    assert check(method, site="same-site", origin=SIBLING.upper()) is None
    assert check(method, site="same-site", origin=SIBLING, allowed=()) is Refusal.SAME_SITE
    # The same host over http is same-site too: a network attacker can serve that page.
    assert check(method, site="same-site", origin=f"http://{HOST}") is Refusal.SAME_SITE


@unsafe
@pytest.mark.parametrize(
    "site", [None, "", "future-site", "same-origin, cross-site", "SAME-ORIGIN"]
)
def test_origin_is_checked_without_a_known_sec_fetch_site(method, site):
    """ASVS 3.5.1, A.6: the fallback is mandatory; an unknown value counts as absent."""
    assert check(method, site=site, origin=OURS) is None
    assert check(method, site=site, origin=SIBLING) is None
    for origin in (FOREIGN, "null", "", f"http://{HOST}", f"{OURS}:8443", f"{OURS}.evil.test"):
        assert check(method, site=site, origin=origin) is Refusal.ORIGIN


@pytest.mark.parametrize("host", [None, "", "other.example.com"])
def test_origin_that_does_not_match_the_host_is_refused(host):
    assert check(origin=OURS, host=host) is Refusal.ORIGIN


def test_https_origin_is_accepted_over_http_behind_a_tls_proxy():
    assert check(scheme="http", origin=OURS) is None
    assert check(scheme="http", origin=f"http://{HOST}") is None
    assert check(scheme="http", origin=FOREIGN) is Refusal.ORIGIN


@unsafe
def test_request_without_the_headers_is_accepted_only_without_a_ticket(method):
    """ASVS 3.5.1: with a ticket it may be a browser whose headers a proxy stripped."""
    assert check(method, ticket=False) is None
    assert check(method, ticket=True) is Refusal.UNKNOWN
    assert check(method, ticket=True, local=True) is None


def test_origin_of_another_local_port_is_refused():
    """Local clients need no Origin, but an Origin that is sent is checked."""
    host = "localhost:8000"
    for origin, passes in (("http://localhost:8000", True), ("http://localhost:3000", False)):
        found = check(scheme="http", host=host, local=True, origin=origin)
        assert (found is None) is passes


@given(
    st.text(max_size=10),
    st.none() | st.sampled_from(["cross-site", "same-site"]) | st.text(max_size=10),
    st.sampled_from(["null", FOREIGN, f"{OURS}@evil.test"]) | st.text(max_size=20),
)
def test_no_request_of_another_origin_is_accepted(method, site, origin):
    """B-43 for requests: for each origin, method and header that an attacker can choose."""
    if method in SAFE_METHODS or site in ("same-origin", "none"):
        return
    if origin.lower() not in {OURS, SIBLING}:
        assert isinstance(check(method, site=site, origin=origin), Refusal)


@pytest.mark.parametrize("refusal", Refusal)
def test_refusal_states_the_reason_and_is_not_cacheable(refusal):
    """ASVS 14.3.2; security.md A.6: Vary names the headers that were checked."""
    headers, body = refusal_response(refusal)
    fields = dict(headers)
    assert refusal.value in body.decode()
    assert int(fields[b"content-length"]) == len(body)
    assert fields[b"content-type"] == b"text/plain; charset=utf-8"
    assert fields[b"cache-control"] == b"no-store"
    assert fields[b"vary"] == b"Sec-Fetch-Site, Origin, Cookie"
    assert all(name == name.lower() for name in fields)


def test_protect_with_all_origins_allowed_is_refused():
    """B-60: the option would have no effect."""
    with pytest.raises(ConfigurationError, match=r"protect=True .* allowed_origins='\*'"):
        check_protect(protect=True, allowed_origins=validate_origins("*"))
    assert check_protect(protect=True, allowed_origins=ALLOWED) is True
    assert check_protect(protect=False, allowed_origins=validate_origins("*")) is False


def allowed(origin, scheme="wss", host="example.com", extra=(), *, local=False):
    return origin_allowed(origin, scheme, host=host, allowed=validate_origins(extra), local=local)


class TestHandshake:
    """ASVS 4.4.2, B-43, W1: which pages may open a WebSocket with the visitor's cookie."""

    @pytest.mark.parametrize(
        ("origin", "scheme", "host"),
        [
            ("https://example.com", "wss", "example.com"),
            ("https://example.com", "https", "example.com"),
            ("https://example.com", "wss", "example.com:443"),
            ("https://example.com:8443", "wss", "example.com:8443"),
            ("https://example.com", "wss", "EXAMPLE.com"),
            ("http://localhost:8000", "ws", "localhost:8000"),
            ("http://example.com", "ws", "example.com"),
            ("http://example.com", "ws", "example.com:80"),
            ("http://[::1]:8000", "ws", "[::1]:8000"),
            ("https://example.com", "ws", "example.com"),
        ],
    )
    def test_same_origin_is_allowed(self, origin, scheme, host):
        """The last row: a TLS proxy that sends no X-Forwarded-Proto."""
        assert allowed(origin, scheme, host)

    @pytest.mark.parametrize(
        ("origin", "scheme", "host"),
        [
            ("https://evil.example", "wss", "example.com"),
            ("https://sub.example.com", "wss", "example.com"),
            ("https://example.com.evil.example", "wss", "example.com"),
            ("https://evil.example/example.com", "wss", "example.com"),
            ("http://example.com", "wss", "example.com"),
            ("http://example.com:443", "wss", "example.com"),
            ("https://example.com:8443", "wss", "example.com"),
            ("https://example.com", "wss", "example.com:8443"),
            ("https://example.com", "wss", "example.com:80"),
            ("http://localhost:3000", "ws", "localhost:8000"),
            ("http://localhost", "ws", "127.0.0.1"),
            ("https://example.com", "wss", None),
            ("https://", "wss", ""),
            ("", "wss", "example.com"),
            ("null", "wss", "example.com"),
            ("null", "wss", "null"),
            ("https://example.com, https://evil.example", "wss", "example.com"),
        ],
    )
    def test_other_origin_is_refused(self, origin, scheme, host):
        assert not allowed(origin, scheme, host)
        assert not allowed(origin, scheme, host, local=True)

    def test_absent_origin_is_allowed_for_local_clients_only(self):
        assert not allowed(None)
        assert allowed(None, "ws", "localhost:8000", local=True)

    def test_allowed_origins_are_accepted(self):
        listed = ["https://Shop.example", "https://app.example:443", "capacitor://localhost"]
        assert allowed("https://shop.example", extra=listed)
        assert allowed("https://app.example", extra=listed)
        assert allowed("capacitor://localhost", extra=listed)
        assert not allowed("http://shop.example", extra=listed)
        assert not allowed("https://a.shop.example", extra=listed)
        assert not allowed("null", extra=listed)
        assert not allowed(None, extra=listed)

    @pytest.mark.parametrize("origin", [None, "null", "https://evil.example"])
    def test_star_allows_every_origin(self, origin):
        assert allowed(origin, extra=["*"])


class TestValidateOrigins:
    def test_origins_are_normalized_as_browsers_send_them(self):
        found = validate_origins(["HTTPS://Example.com:443", "http://a.b:80", "http://[::1]:8000"])
        assert found == {"https://example.com", "http://a.b", "http://[::1]:8000"}

    def test_single_string_is_one_origin(self):
        assert validate_origins("https://example.com") == {"https://example.com"}

    @pytest.mark.parametrize(
        "text",
        ["", "example.com", "https://", "https://example.com/", "https://example.com/app",
         "https://*.example.com", "null", "https://user@example.com", "https://example.com:",
         "https://example.com?x", "//example.com", "https://bücher.example", "https://a b"],
    )  # fmt: skip
    def test_origin_that_no_browser_sends_is_refused(self, text):
        with pytest.raises(ConfigurationError, match="allowed_origins holds origins such as"):
            validate_origins(["https://ok.example", text])

    def test_websocket_url_is_refused_with_the_http_origin_as_advice(self):
        with pytest.raises(ConfigurationError, match=r"write 'https://example\.com:8443'"):
            validate_origins(["wss://example.com:8443"])
