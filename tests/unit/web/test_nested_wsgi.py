"""Nested WSGI installations: each request sees the session of its own installation (law A24)."""

import pytest

import sojourn
from sojourn.errors import ConfigurationError
from sojourn.stores.memory import MemoryStore
from sojourn.web.wsgi import EXCHANGE, SESSION, get_session
from tests.unit.web.test_wsgi import FORMS, PLAIN, Site


def entries(environ):
    return environ.get(SESSION), environ.get(EXCHANGE)


class Nested(Site):
    """An installation with a nested one of another realm.

    Attributes:
        restored: after each inner request, whether the outer session was restored in the environ.
        between: called with the environ before the inner request.
    """

    def __init__(self, page, **options):
        self.inner = sojourn.Sessions(
            store=MemoryStore(), secret="7jQk2v9XwP4tLmZ8sRb1NcYd6HfGa3Ue", realm="inner", **options
        )
        self.restored = []
        self.between = lambda environ: None
        self.nested = sojourn.wsgi.SessionMiddleware(page, self.inner)
        super().__init__(self.call_nested)

    def call_nested(self, environ, start_response):
        self.between(environ)
        outer = entries(environ)
        try:
            result = self.nested(environ, start_response)
            try:
                yield from result
            finally:
                getattr(result, "close", lambda: None)()
        finally:
            self.restored.append(entries(environ) == outer)


def counting_inside(environ, start_response):
    environ["sojourn.session"].increment("n")
    start_response("200 OK", [*PLAIN])
    return [b"ok"]


@pytest.mark.parametrize("form", FORMS)
def test_outer_session_is_restored_after_the_inner_request(form):
    """A24: for each form of a body; only the inner session is written."""
    site = Nested(form)
    answer = site.request(validate=False)
    assert (answer.status, answer.body, answer.error) == ("200 OK", b"ab", None)
    assert answer.get("set-cookie").startswith("sid-inner=")
    assert site.restored == [True]
    assert (site.inner.usage().creates, site.sessions.usage().creates) == (1, 0)


def test_outer_session_is_restored_after_a_failing_inner_request():
    """A24."""

    def fail(environ, start_response):
        raise LookupError("planned by the test")

    site = Nested(fail)
    assert isinstance(site.request(validate=False).error, LookupError)
    assert site.restored == [True]


def test_outer_session_is_restored_after_an_inner_stream():
    """A24, A11: changes at the end of the stream are committed to the inner session."""

    def stream(environ, start_response):
        start_response("200 OK", [*PLAIN])
        yield b"a"
        environ["sojourn.session"]["late"] = True

    site = Nested(counting_inside)
    site.request(validate=False)
    site.nested.app = stream
    site.request(validate=False)
    assert site.restored == [True, True]
    assert (site.inner.usage().writes, site.sessions.usage().writes) == (1, 0)


def test_outer_session_is_writable_after_the_inner_request():
    """A24: by a middleware between the two."""
    site = Nested(counting_inside)

    def late(environ, start_response):
        list(site.nested(environ, start_response))
        environ["sojourn.session"]["after"] = 1
        assert get_session(environ) is environ["sojourn.session"]
        return [b"ok"]

    site.app.app = late
    answer = site.request(validate=False)
    cookies = sorted(value[:4] for name, value in answer.headers if name.lower() == "set-cookie")
    assert cookies == ["sid-", "sid="]
    assert (site.inner.usage().creates, site.sessions.usage().creates) == (1, 1)


def test_a_session_that_is_replaced_before_the_inner_request_is_adopted():
    """A24: the inner session takes its place in the environ afterwards."""
    site = Nested(counting_inside)
    site.between = lambda environ: environ.update({SESSION: {"a": 1}})
    site.request(validate=False)
    assert site.sessions.usage().creates == 1


def test_replacement_of_the_inner_session_does_not_affect_the_outer_one():
    """A24."""

    def page(environ, start_response):
        environ["sojourn.session"] = {"inner": True}
        start_response("200 OK", [*PLAIN])
        return [b"ok"]

    site = Nested(page)
    site.request(validate=False)
    assert (site.inner.usage().creates, site.sessions.usage().creates) == (1, 0)


def test_inner_installation_without_autoload_keeps_the_outer_session():
    """A24: with ``autoload=False``."""

    def page(environ, start_response):
        environ["sojourn.session"]["n"] = 1
        start_response("200 OK", [*PLAIN])
        return [b"ok"]

    site = Nested(page, autoload=False)
    site.request(validate=False)
    assert site.restored == [True]
    assert (site.inner.usage().creates, site.sessions.usage().creates) == (0, 1)


def test_nested_installations_with_one_cookie_name_are_refused():
    """A24."""
    site = Nested(counting_inside, cookie="sid")
    assert isinstance(site.request(validate=False).error, ConfigurationError)
