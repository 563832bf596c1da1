"""Errors of a session under WSGI: ``on_error``, the default responses, and what is kept."""

import json
import logging

import pytest

from sojourn.errors import (
    ConfigurationError,
    LimitReached,
    LoginRequired,
    SessionTooLarge,
    StoreError,
    StoreUnavailable,
)
from tests.unit.web.test_wsgi import FORMS, PLAIN, Site, counting


def page(status, text, *headers):
    """Return a response that is a WSGI application, like those of frameworks."""

    def response(environ, start_response):
        start_response(status, [*PLAIN, *headers])
        return [text]

    return response


class Handler:
    """An ``on_error`` that records its calls."""

    def __init__(self, response):
        self.calls = []
        self._response = response

    def __call__(self, environ, error):
        self.calls.append((environ["PATH_INFO"], error))
        return self._response


BUSY = page("503 Service Unavailable", b"the shop is closed", ("X-Page", "busy"))


@pytest.mark.parametrize("app", FORMS)
@pytest.mark.parametrize("verb", ["load", "save"])
@pytest.mark.parametrize("kind", [StoreUnavailable, StoreError])
def test_load_and_commit_errors_reach_on_error(app, verb, kind, caplog):
    """A23: for each form of a body, before the response starts."""
    handler = Handler(BUSY)
    site = Site(app, on_error=handler)
    site.request()
    site.store.fail(verb, error=kind("down"))
    answer = site.request("/cart")
    assert (answer.status, answer.body) == ("503 Service Unavailable", b"the shop is closed")
    assert (answer.get("x-page"), answer.get("set-cookie")) == ("busy", None)
    [(path, error)] = handler.calls
    assert (path, type(error)) == ("/cart", kind)
    assert not [one for one in caplog.records if one.levelname == "ERROR"]
    site.store.heal()
    assert site.data()["n"] == 1


@pytest.mark.parametrize("app", [*FORMS])
def test_damaged_store_is_503(app, caplog):
    """A23: an operator must repair it; the visitor may retry later."""
    site = Site(app)
    site.request()
    site.store.fail("save", error=StoreError("the file is damaged"))
    with caplog.at_level(logging.CRITICAL, logger="sojourn"):
        answer = site.request()
    assert answer.status == "503 Service Unavailable"
    assert answer.get("retry-after") == "2"
    assert answer.error is None


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [("application/json", "application/json"), (None, "text/plain; charset=utf-8")],
)
def test_default_response_has_the_media_type_that_the_client_accepts(accept, content_type, caplog):
    """A23."""
    site = Site(counting)
    site.request()
    site.store.fail("load")
    answer = site.request(**({"HTTP_ACCEPT": accept} if accept else {}))
    assert answer.status == "503 Service Unavailable"
    assert answer.get("content-type") == content_type
    assert (answer.get("retry-after"), answer.get("cache-control")) == ("2", "no-store")
    assert len(caplog.records) == 1


def test_on_error_that_returns_none_keeps_the_default(caplog):
    """A23: the default response is sent."""
    site = Site(counting, on_error=lambda environ, error: None)
    site.request()
    site.store.fail("load")
    assert site.request().status == "503 Service Unavailable"


class TestCommitErrors:
    @staticmethod
    def too_large(environ, start_response):
        environ["sojourn.session"]["big"] = "x" * 2_000
        start_response("200 OK", [*PLAIN])
        return iter([b"saved"])

    @pytest.mark.parametrize("keep", [False, True])
    def test_on_error_responds_to_a_session_over_the_limit(self, keep):
        """A23: nothing is written, also with save_on_error."""
        handler = Handler(page("413 Content Too Large", b"too many items"))
        site = Site(self.too_large, max_bytes=1_000, on_error=handler, save_on_error=keep)
        site.app.app = counting
        site.request()
        site.app.app = self.too_large
        answer = site.request()
        assert (answer.status, answer.body) == ("413 Content Too Large", b"too many items")
        assert answer.get("vary") == "Cookie"
        [(_, error)] = handler.calls
        assert isinstance(error, SessionTooLarge)
        assert site.data() == {"n": 1}

    def test_session_over_the_limit_is_raised_to_the_server_without_on_error(self):
        """A23."""
        site = Site(self.too_large, max_bytes=1_000)
        answer = site.request()
        assert answer.status.startswith("500")
        assert isinstance(answer.error, SessionTooLarge)

    def test_on_error_responds_to_a_refused_login(self):
        """A23: LimitReached is found at the commit."""

        def login(environ, start_response):
            environ["sojourn.session"].login("ada")
            start_response("200 OK", [*PLAIN])
            return [b"welcome"]

        handler = Handler(page("409 Conflict", b"log out elsewhere first"))
        site = Site(login, max_sessions=1, on_limit="refuse", on_error=handler)
        assert site.request().body == b"welcome"
        site.cookie = None
        answer = site.request()
        assert (answer.status, answer.get("set-cookie")) == ("409 Conflict", None)
        assert isinstance(handler.calls[0][1], LimitReached)

    def test_explicit_commit_that_fails_reaches_on_error(self):
        """A23: the handler does not catch it."""

        def app(environ, start_response):
            environ["sojourn.session"]["n"] = 5
            environ["sojourn.session"].commit()

        handler = Handler(BUSY)
        site = Site(counting, on_error=handler)
        site.request()
        site.app.app = app
        site.store.fail("save", times=1)
        assert site.request().body == b"the shop is closed"
        assert isinstance(handler.calls[0][1], StoreUnavailable)
        assert site.data() == {"n": 1}


class TestRequirements:
    @staticmethod
    def members(environ, start_response):
        environ["sojourn.session"]["seen"] = True
        user = environ["sojourn.session"].require_user()
        start_response("200 OK", [*PLAIN])
        return [user.encode()]

    def test_missing_login_is_401(self):
        """A23, A10: the changes of the handler are dropped."""
        site = Site(self.members)
        answer = site.request()
        assert answer.status == "401 Unauthorized"
        assert (answer.get("www-authenticate"), answer.get("vary")) == ("Session", "Cookie")
        assert (answer.get("cache-control"), answer.get("set-cookie")) == ("no-store", None)
        assert b"log in" in answer.body
        assert "create" not in site.trace
        answer = site.request(HTTP_ACCEPT="application/json")
        assert json.loads(answer.body)["detail"].endswith("Please log in.")

    def test_missing_session_is_401(self):
        """A23."""

        def app(environ, start_response):
            environ["sojourn.session"].require_existing()
            start_response("200 OK", [*PLAIN])
            return [b"welcome back"]

        site = Site(app)
        assert site.request().status == "401 Unauthorized"
        site.app.app = counting
        site.request()
        site.app.app = app
        assert site.request().body == b"welcome back"

    def test_application_redirects_to_its_login_page(self):
        """A23."""
        login = page("303 See Other", b"", ("Location", "/login"))
        site = Site(
            self.members,
            on_error=lambda environ, error: login if isinstance(error, LoginRequired) else None,
        )
        answer = site.request()
        assert (answer.status, answer.get("location")) == ("303 See Other", "/login")


class TestCommitsOfErrorResponses:
    def test_error_response_clears_the_cookie_of_a_destroyed_session(self):
        """A10: the session is destroyed although the request failed."""

        def app(environ, start_response):
            environ["sojourn.session"].destroy()
            environ["sojourn.session"].require_user()

        site = Site(counting)
        site.request()
        site.app.app = app
        answer = site.request()
        assert answer.status == "401 Unauthorized"
        assert "Max-Age=0" in answer.get("set-cookie")
        assert site.data() == {}

    def test_error_response_has_the_ticket_of_a_rotation(self):
        """A10, A9."""

        def app(environ, start_response):
            environ["sojourn.session"].rotate()
            environ["sojourn.session"].require_user()

        site = Site(counting)
        site.request()
        site.app.app = app
        before = site.cookie
        assert site.request().status == "401 Unauthorized"
        assert site.cookie != before
        assert site.data() == {"n": 1}


class TestOnError:
    def test_on_error_is_not_called_for_errors_of_the_application(self):
        """A23: only for errors of sojourn."""

        def app(environ, start_response):
            raise ValueError("a bug")

        handler = Handler(BUSY)
        answer = Site(app, on_error=handler).request()
        assert isinstance(answer.error, ValueError)
        assert handler.calls == []

    def test_error_after_the_first_byte_is_raised(self):
        """A23: the response can no longer be replaced."""

        def app(environ, start_response):
            start_response("200 OK", [*PLAIN])
            yield b"a"
            environ["sojourn.session"].require_user()

        handler = Handler(BUSY)
        answer = Site(app, on_error=handler).request()
        assert isinstance(answer.error, LoginRequired)
        assert handler.calls == []

    def test_error_of_on_error_is_raised_and_the_body_is_closed(self):
        """A23."""
        closed = []

        class Body:
            def __iter__(self):
                return iter([b"a"])

            def close(self):
                closed.append(True)

        def app(environ, start_response):
            environ["sojourn.session"]["n"] = 2
            start_response("200 OK", [*PLAIN])
            return Body()

        def on_error(environ, error):
            raise RuntimeError("the error page is broken")

        site = Site(counting)
        site.request()
        site = Site(app, on_error=on_error)
        site.store.fail("create")
        answer = site.request()
        assert isinstance(answer.error, RuntimeError)
        assert closed == [True]

    def test_body_that_was_replaced_is_closed_once(self):
        """PEP 3333."""
        closed = []

        class Body:
            def __iter__(self):
                return iter([b"a"])

            def close(self):
                closed.append(True)

        def app(environ, start_response):
            environ["sojourn.session"]["n"] = 2
            start_response("200 OK", [*PLAIN])
            return Body()

        site = Site(app, on_error=Handler(BUSY))
        site.store.fail("create")
        assert site.request().body == b"the shop is closed"
        assert closed == [True]

    def test_on_error_must_be_a_function(self):
        with pytest.raises(ConfigurationError, match="on_error expects a function"):
            Site(counting, on_error="503.html")
