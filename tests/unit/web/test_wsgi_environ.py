"""Reading a WSGI environ."""

import pytest

from sojourn import Sessions
from sojourn.web.origin import Refusal
from sojourn.web.wsgi_environ import (
    check_origin,
    is_proxied,
    may_load_later,
    read_header,
    read_labels,
    read_path,
    read_text_header,
)


def request(**environ):
    """Return the environ of a POST request to an https site; other keys are added in upper case."""
    return {
        "REQUEST_METHOD": "POST",
        "wsgi.url_scheme": "https",
        "HTTP_HOST": "shop.example",
        **{name.upper(): value for name, value in environ.items()},
    }


def protected(**options):
    return Sessions(store="memory://", protect=True, **options).web


def test_header_may_be_bytes_or_text():
    environ = {"HTTP_X_REQUEST_ID": "caf\xe9"}
    assert read_header(environ, "HTTP_X_REQUEST_ID") == b"caf\xe9"
    assert read_text_header(environ, "x-request-id") == "caf\xe9"
    assert read_header(environ, "HTTP_HOST") is None
    assert read_text_header(environ, "host") is None


def test_character_outside_latin_1_is_replaced():
    """PEP 3333 forbids it; a server that sends it must not make the request fail."""
    assert read_header({"HTTP_COOKIE": "theme=\u2603; a=1"}, "HTTP_COOKIE") == b"theme=?; a=1"
    assert read_path({"PATH_INFO": "/\u2603/a"}) == "/?/a"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"PATH_INFO": "/account"}, "/account"),
        ({"PATH_INFO": ""}, "/"),
        ({}, "/"),
        ({"PATH_INFO": "/caf\xc3\xa9"}, "/caf\xe9"),
        ({"PATH_INFO": "/\xff"}, "/\ufffd"),
        ({"PATH_INFO": "/account", "SCRIPT_NAME": "/shop"}, "/account"),
    ],
)
def test_path_is_decoded_as_utf_8(environ, expected):
    """PEP 3333: WSGI decodes the bytes of a path as Latin-1."""
    assert read_path(environ) == expected


@pytest.mark.parametrize(
    "name",
    ["HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO"],
)
def test_forwarded_header_marks_a_proxied_request(name):
    assert is_proxied({name: ""})
    assert not is_proxied({"HTTP_HOST": "localhost", name.lower(): ""})


def test_the_labels_are_address_and_browser():
    environ = {"REMOTE_ADDR": "10.0.0.7", "HTTP_USER_AGENT": "Firefox"}
    assert read_labels(environ) == {"address": "10.0.0.7", "browser": "Firefox"}
    assert read_labels({}) == {}


class TestOrigin:
    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            ({"http_sec_fetch_site": "cross-site"}, Refusal.CROSS_SITE),
            ({"http_sec_fetch_site": "same-origin"}, None),
            ({"http_origin": "https://shop.example"}, None),
            ({"http_origin": "https://evil.test"}, Refusal.ORIGIN),
            ({"http_origin": "https://shop.example", "http_host": "other.example"}, Refusal.ORIGIN),
            ({"http_sec_fetch_site": "cross-site", "request_method": "GET"}, None),
            ({}, None),
        ],
    )
    def test_origin_is_checked_by_its_headers(self, headers, expected):
        """ASVS 3.5.1."""
        assert check_origin(protected(), request(**headers)) is expected

    def test_request_with_a_cookie_needs_an_origin(self):
        """ASVS 3.5.1."""
        web = protected(secret="Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa")
        sessions = Sessions(store="memory://", secret="Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa")
        with sessions.open(url="https://shop.example/") as visit:
            visit.session["n"] = 1
        cookie = dict(visit.response_headers())["set-cookie"].partition(";")[0]
        assert check_origin(web, request(http_cookie=cookie)) is Refusal.UNKNOWN
        assert check_origin(web, request(http_cookie="theme=dark")) is None

    def test_a_request_of_a_proxy_is_not_local(self):
        """Local programs need no Origin; a proxy forwards requests of remote clients."""
        secret = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"
        with Sessions(store="memory://", secret=secret).open(url="http://localhost/") as visit:
            visit.session["n"] = 1
        cookie = dict(visit.response_headers())["set-cookie"].partition(";")[0]
        environ = request(http_cookie=cookie, http_host="localhost")
        environ["wsgi.url_scheme"] = "http"
        web = protected(secret=secret, secure=False)
        assert check_origin(web, environ) is None
        assert check_origin(web, {**environ, "HTTP_VIA": "1.1 proxy"}) is Refusal.UNKNOWN

    def test_a_ticket_in_a_header_needs_no_origin(self):
        """ASVS 3.5.1: the header made the browser send a preflight request."""
        web = protected(transport=["cookie", "header"])
        headers = {"http_authorization": "Session", "http_sec_fetch_site": "cross-site"}
        assert check_origin(web, request(**headers)) is None


class TestLoadLater:
    SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"

    def ticket(self, url="https://shop.example/", **options):
        """Return the Cookie header of a visitor with a session."""
        sessions = Sessions(store="memory://", secret=self.SECRET, **options)
        with sessions.open(url=url) as visit:
            visit.session["n"] = 1
        return dict(visit.response_headers())["set-cookie"].partition(";")[0]

    def test_request_with_a_ticket_may_load_later(self):
        web = Sessions(store="memory://", secret=self.SECRET).web
        assert may_load_later(web, request(http_cookie=self.ticket()), "/")
        assert not may_load_later(web, request(http_cookie="theme=dark"), "/")
        assert not may_load_later(web, request(), "/")

    def test_excluded_path_may_not_load_later(self):
        web = Sessions(store="memory://", secret=self.SECRET, exclude=["/static/*"]).web
        environ = request(http_cookie=self.ticket())
        assert may_load_later(web, environ, "/account")
        assert not may_load_later(web, environ, "/static/logo.png")

    def test_cookie_name_depends_on_the_transport(self):
        """A14: its name has a prefix over https."""
        web = Sessions(store="memory://", secret=self.SECRET).web
        cookie = self.ticket("http://localhost/")
        local = {**request(http_cookie=cookie, http_host="localhost"), "wsgi.url_scheme": "http"}
        assert may_load_later(web, local, "/")
        assert not may_load_later(web, {**local, "wsgi.url_scheme": "https"}, "/")

    def test_request_with_a_ticket_in_a_header_may_load_later(self):
        web = Sessions(store="memory://", secret=self.SECRET, transport="header").web
        sessions = Sessions(store="memory://", secret=self.SECRET, transport="header")
        with sessions.open(headers={"Authorization": "Session"}) as visit:
            visit.session["n"] = 1
        ticket = dict(visit.response_headers())["session-ticket"]
        assert may_load_later(web, request(http_authorization=f"Session {ticket}"), "/")
