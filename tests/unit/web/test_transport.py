"""Which transports may have a session, and which origins may open a WebSocket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.errors import ConfigurationError, InsecureTransport
from sojourn.web.transport import Transport, classify, origin_allowed, refusal, validate_origins

THIS_MACHINE = [
    "localhost", "localhost:8000", "LocalHost:8000", "localhost.", "app.localhost", "a.b.localhost",
    "127.0.0.1", "127.0.0.1:80", "127.1.2.3:8000", "[::1]", "[::1]:8000",
    "testserver", "testserver:80", "test", "app.test", "app.test:8000",
    "testserver.local", "localhost.local", "mockserver", "mockserver:1234", "falconframework.org",
]  # fmt: skip
ELSEWHERE = [
    None, "", "example.com", "example.com:80", "localhost.example.com", "notlocalhost",
    "localhost@example.com", "127.0.0.1.example.com", "128.0.0.1", "10.0.0.1", "192.168.0.1:8000",
    "0.0.0.0:8000", "[::2]", "[::1].example.com", "[fe80::1]:8000", "testserver.com", "contest",
    "x.testserver", "x.mockserver", "www.falconframework.org", "falconframework-org",
    "testserver.local.example.com", "printer.local", "localhost\n", "localhost:8000.example.com",
    "evil/localhost", ":8000",
    "x" * 300 + ".localhost",
]  # fmt: skip


class TestClassify:
    @pytest.mark.parametrize("scheme", ["https", "wss"])
    @pytest.mark.parametrize("secure", ["auto", True, False])
    @pytest.mark.parametrize("host", ["example.com", "localhost", None])
    def test_https_is_secure(self, scheme, host, secure):
        assert classify(scheme, host, secure=secure) is Transport.SECURE

    @pytest.mark.parametrize("scheme", ["http", "ws"])
    @pytest.mark.parametrize("secure", ["auto", True, False])
    @pytest.mark.parametrize("host", THIS_MACHINE)
    def test_loopback_host_is_local(self, scheme, host, secure):
        """RFC 6761 6.2 and 6.3, RFC 1122 3.2.1.3, RFC 4291 2.5.3."""
        assert classify(scheme, host, secure=secure) is Transport.LOCAL

    @pytest.mark.parametrize("scheme", ["http", "ws"])
    @pytest.mark.parametrize("host", ELSEWHERE)
    def test_plain_http_to_a_remote_host_is_insecure_unless_allowed(self, scheme, host):
        """ASVS 3.3.1, NIST SESS-13: the developer must set ``secure=False``."""
        assert classify(scheme, host, secure="auto") is Transport.INSECURE
        assert classify(scheme, host, secure=True) is Transport.SECURE
        assert classify(scheme, host, secure=False) is Transport.PLAIN

    @given(st.text(max_size=40))
    def test_any_host_is_classified_without_an_error(self, host):
        assert classify("http", host, secure="auto") in (Transport.LOCAL, Transport.INSECURE)

    @pytest.mark.parametrize("host", ["example.com", None, "x" * 70_000])
    def test_refusal_contains_advice(self, host):
        error = refusal(host)
        assert isinstance(error, InsecureTransport)
        text = str(error)
        for remedy in ("https", "--proxy-headers", "secure=True", "localhost", "secure=False"):
            assert remedy in text
        assert (host or "no host")[:80] in text
        assert len(text) < 1000


def allowed(origin, scheme="wss", host="example.com", extra=(), *, local=False):
    return origin_allowed(origin, scheme, host=host, allowed=validate_origins(extra), local=local)


class TestOrigin:
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
