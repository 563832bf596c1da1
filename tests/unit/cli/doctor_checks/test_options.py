"""Problems of an application's options, and of the proxy in front of it."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from flask import Flask

import sojourn
from sojourn import Sessions
from sojourn.cli.doctor_checks import options
from tests.support.examination import SECRET, assert_healthy, codes, examined, found
from tests.support.fake_server import answering


def examined_application(**options):
    """Return the report about an application with options."""
    public_url = options.pop("public_url", None)
    options = {"store": "sqlite:///data/s.db", "secret": SECRET, **options}
    with contextlib.closing(Sessions(**options)) as sessions:
        return examined(store=sessions.store, config=sessions.config, public_url=public_url)


def test_the_defaults_are_healthy():
    report = examined_application()
    assert_healthy(report)
    found(report, "proxy-unknown", "--url https://")


def test_a_cookie_that_is_not_secure():
    found(examined_application(secure=False), "cookie-insecure", "secure=False", "serve https")


def test_a_cookie_for_all_subdomains():
    report = examined_application(domain="example.com")
    found(report, "cookie-domain", "domain='example.com'", "__Secure-sid", "remove domain=")


def test_a_name_without_a_prefix():
    report = examined_application(cookie="session", domain="example.com")
    found(report, "cookie-name", "'session'", "give the name a prefix")
    assert "cookie-name" not in codes(examined_application(cookie="__Host-session"))


def test_same_site_none():
    report = examined_application(same_site="none")
    found(report, "cookie-samesite", "remove same_site='none'")
    report = examined_application(same_site="none", protect=False)
    found(report, "cookie-unprotected", "CSRF", "remove protect=False")


def test_no_absolute_timeout():
    report = examined_application(absolute_timeout=None)
    found(report, "timeout-unlimited", "absolute_timeout=", "30 days")


def test_a_long_idle_timeout():
    found(examined_application(timeout="200 days"), "timeout-long", "timeout is 200 days")


def test_a_store_in_memory():
    found(examined_application(store="memory://"), "store-memory", "memory:// is for tests")


def test_a_store_without_broadcast():
    store = sojourn.CallbackStore()
    store.on_read(lambda key: None)
    store.on_write(lambda key, value, expires_at: None)
    report = examined(store=store)
    found(report, "store-without-broadcast", "connections are checked periodically")


# Behind a proxy


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *_):
        """Write no line for each request."""


@contextlib.contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def application(**options):
    """Serve an application with a session over plain http; yield its address and sessions."""
    app = Flask("shop")
    sessions = sojourn.install(app, store="memory://", secret=SECRET, **options)

    @app.get("/")
    def page():
        from flask import session

        session["seen"] = 1
        return "hello"

    with serving(make_server("127.0.0.1", 0, app, handler_class=QuietHandler)) as url:
        yield url, sessions
    sessions.close()


@contextlib.contextmanager
def proxy(target, host):
    """Forward requests with a Host header, as nginx does, and without the scheme."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            request = Request(target, headers={"Host": host})  # noqa: S310 - of this test
            try:
                answer = urlopen(request, timeout=10)  # noqa: S310 - the target of this test
            except HTTPError as error:
                answer = error
            with answer:
                self.send_response(answer.status)
                for value in answer.headers.get_all("Set-Cookie") or []:
                    self.send_header("Set-Cookie", value)
                self.end_headers()
                self.wfile.write(answer.read())

        def log_message(self, *_):
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as url:
        yield url


def test_a_proxy_that_does_not_forward_the_scheme():
    """The scheme of the request is http to another host, so the session is refused."""
    with application() as (target, sessions), proxy(target, "shop.example") as url:
        report = examined(store=sessions.store, config=sessions.config, public_url=url)
    found(report, "proxy-scheme", "answers 500", "X-Forwarded-Proto")


def test_a_proxy_that_hides_its_host():
    """The application takes the proxy for a visitor on this machine, whose cookie is plain."""
    with application() as (target, sessions), proxy(target, "127.0.0.1") as url:
        report = examined(store=sessions.store, config=sessions.config, public_url=url)
    found(report, "cookie-insecure", "'sid' without Secure", "pass secure=True")


def test_a_proxy_and_an_application_that_fit():
    with application(secure=True) as (target, sessions), proxy(target, "shop.example") as url:
        report = examined(store=sessions.store, config=sessions.config, public_url=url)
    assert {"proxy-scheme", "cookie-insecure", "proxy-unreachable"}.isdisjoint(codes(report))
    found(report, "proxy-http", url, "serve https")


def test_an_address_without_an_answer():
    report = examined_application(public_url="http://127.0.0.1:1/")
    found(report, "proxy-unreachable", "refused", "correct --url")


def test_an_address_that_does_not_exist():
    with application(secure=True) as (target, sessions):
        url = f"{target}typo"
        report = examined(store=sessions.store, config=sessions.config, public_url=url)
    found(report, "proxy-unreachable", "answers 404", "correct --url")


def test_a_password_of_the_address_is_masked():
    """A18."""
    report = examined_application(public_url="http://visitor:s3cr3t-word@127.0.0.1:1/")
    found(report, "proxy-unreachable", "http://***@127.0.0.1:1/")
    assert "s3cr3t" not in repr(report)


@pytest.mark.parametrize("url", ["typo", "https://[", "https://host:port/"])
def test_an_address_that_is_invalid(url):
    found(examined_application(public_url=url), "proxy-unreachable", "correct --url")


def test_an_address_that_answers_in_another_protocol():
    with answering(b"-ERR unknown command\r\n") as port:
        report = examined_application(public_url=f"http://127.0.0.1:{port}/")
    found(report, "proxy-unreachable", "not a valid answer of HTTP", "correct --url")


def test_an_address_that_answers_byte_by_byte(monkeypatch):
    monkeypatch.setattr(options, "_URL_TIMEOUT", 0.3)
    with answering(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 50, pause=0.1) as port:
        report = examined_application(public_url=f"http://127.0.0.1:{port}/")
    found(report, "proxy-unreachable", "no answer within 0.3 s")
