"""Reading an ASGI scope."""

import time

import pytest
from starlette.middleware import sessions as starlette_sessions

from sojourn.errors import ConfigurationError
from sojourn.web.asgi_scope import (
    check_outer_session,
    check_replacement,
    client_labels,
    read_accept,
    read_header,
    read_headers,
    read_labels,
    read_path,
    read_site,
)


class StarletteSession(dict):
    """The class of the sessions of newer versions of Starlette."""

    __module__ = starlette_sessions.__name__


@pytest.mark.parametrize(
    ("root", "path", "own"),
    [
        ("", "/account", "/account"),
        ("/api", "/api/account", "/account"),
        ("/api", "/api", "/"),
        ("/api", "/account", "/account"),
        ("/api", "/apikeys/new", "/apikeys/new"),
        ("/api", "/api/api/x", "/api/x"),
        ("", "", "/"),
    ],
)
def test_path_is_relative_to_the_root_path(root, path, own):
    assert read_path({"path": path, "root_path": root}) == own
    assert read_path({"path": own}) == own


def test_cookie_headers_are_joined():
    """HTTP/2 splits the Cookie header (RFC 9113 8.2.3)."""
    headers = [(b"accept", b"x"), (b"cookie", b"a=1"), (b"host", b"h"), (b"cookie", b"b=2")]
    assert read_headers({"headers": headers}) == (b"h", b"a=1; b=2", None, False)


@pytest.mark.timeout(20)
def test_many_cookie_headers_are_joined_in_linear_time():
    """A19, B-57: uvicorn limits neither their number nor their size."""
    headers = [(b"cookie", b"theme=dark")] * 100_000
    started = time.process_time()
    _, cookies, _, _ = read_headers({"headers": headers})
    assert time.process_time() - started < 0.5
    assert cookies == b"; ".join([b"theme=dark"] * 100_000)


@pytest.mark.parametrize("name", [b"via", b"forwarded", b"x-forwarded-for", b"x-forwarded-proto"])
def test_forwarded_header_marks_a_proxied_request(name):
    assert read_headers({"headers": [(name, b"x"), (b"origin", b"o")]}) == (None, None, b"o", True)


class TestSingleHeaders:
    def test_several_headers_of_one_name_are_joined(self):
        """RFC 9110 5.3."""
        headers = [(b"accept", b"text/html"), (b"te", b"x"), (b"accept", b"*/*;q=0.1")]
        assert read_accept({"headers": headers}) == b"text/html, */*;q=0.1"
        assert read_header({"headers": headers}, "accept") == "text/html, */*;q=0.1"

    def test_header_is_decoded_as_latin_1(self):
        assert read_header({"headers": [(b"x-id", b"caf\xe9")]}, "x-id") == "caf\xe9"

    def test_an_absent_header_is_none(self):
        scope = {"headers": [(b"host", b"example.com")]}
        assert read_accept(scope) is None
        assert read_header(scope, "accept") is None
        assert read_site(scope) is None

    def test_sec_fetch_site_is_read(self):
        headers = [(b"host", b"example.com"), (b"sec-fetch-site", b"cross-site")]
        assert read_site({"headers": headers}) == b"cross-site"


class TestLabels:
    def test_labels_are_address_and_browser(self):
        headers = [(b"accept", b"x"), (b"user-agent", b"Fire\xe9")]
        labels = read_labels({"client": ("10.0.0.7", 443), "headers": headers})
        assert labels == {"address": "10.0.0.7", "browser": "Fire\xe9"}

    @pytest.mark.parametrize("scope", [{}, {"client": None}])
    def test_unknown_labels_are_omitted(self, scope):
        """On a Unix socket the client has no address."""
        assert read_labels({"headers": [], **scope}) == {}

    def test_long_labels_are_truncated(self):
        assert client_labels("a" * 201, "b" * 201) == {"address": "a" * 200, "browser": "b" * 200}

    def test_bytes_that_are_not_utf_8_are_replaced(self):
        """A2: a record with a lone surrogate could not be written, so no session would begin."""
        decoded = b"\xff\xc3\xa9x".decode(errors="surrogateescape")
        assert client_labels(None, decoded) == {"browser": "?éx"}
        assert client_labels(None, "\ud800") == {"browser": "?"}


@pytest.mark.parametrize("session", [{}, StarletteSession()])
def test_a_session_of_an_outer_middleware_is_refused(session):
    with pytest.raises(ConfigurationError, match="request to '/shop' is set already") as raised:
        check_outer_session({"session": session, "path": "/shop"})
    assert f"{type(session).__module__}.{type(session).__qualname__}:" in str(raised.value)


@pytest.mark.parametrize("scope", [{}, {"session": None}, {"session": object()}])
def test_scope_without_an_outer_session_is_accepted(scope):
    check_outer_session({"path": "/", **scope})


def test_starlette_session_in_place_of_sojourns_is_refused():
    check_replacement({"path": "/shop"}, {})  # of the application itself
    with pytest.raises(ConfigurationError, match="SessionMiddleware serves '/shop' inside"):
        check_replacement({"path": "/shop"}, StarletteSession())
