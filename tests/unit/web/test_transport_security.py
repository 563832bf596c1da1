"""Which transports may have a session."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.errors import InsecureTransport
from sojourn.web.transport_security import TransportSecurity, classify, refusal

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
        assert classify(scheme, host, secure=secure) is TransportSecurity.SECURE

    @pytest.mark.parametrize("scheme", ["http", "ws"])
    @pytest.mark.parametrize("secure", ["auto", True, False])
    @pytest.mark.parametrize("host", THIS_MACHINE)
    def test_loopback_host_is_local(self, scheme, host, secure):
        """RFC 6761 6.2 and 6.3, RFC 1122 3.2.1.3, RFC 4291 2.5.3."""
        assert classify(scheme, host, secure=secure) is TransportSecurity.LOCAL

    @pytest.mark.parametrize("scheme", ["http", "ws"])
    @pytest.mark.parametrize("host", ELSEWHERE)
    def test_plain_http_to_a_remote_host_is_insecure_unless_allowed(self, scheme, host):
        """ASVS 3.3.1, NIST SESS-13: the developer must set ``secure=False``."""
        assert classify(scheme, host, secure="auto") is TransportSecurity.INSECURE
        assert classify(scheme, host, secure=True) is TransportSecurity.SECURE
        assert classify(scheme, host, secure=False) is TransportSecurity.PLAIN

    @given(st.text(max_size=40))
    def test_any_host_is_classified_without_an_error(self, host):
        assert classify("http", host, secure="auto") in (
            TransportSecurity.LOCAL,
            TransportSecurity.INSECURE,
        )

    @pytest.mark.parametrize("host", ["example.com", None, "x" * 70_000])
    def test_refusal_contains_advice(self, host):
        error = refusal(host)
        assert isinstance(error, InsecureTransport)
        text = str(error)
        for remedy in ("https", "--proxy-headers", "secure=True", "localhost", "secure=False"):
            assert remedy in text
        assert (host or "no host")[:80] in text
        assert len(text) < 1000
