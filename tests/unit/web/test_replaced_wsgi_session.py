"""A WSGI application that assigns another value to ``environ["sojourn.session"]`` (law A24)."""

import pytest

from sojourn.errors import SessionError
from sojourn.web.wsgi import get_session
from tests.unit.web.test_wsgi import FORMS, PLAIN, Site

MISSING = object()


class Replacing:
    """An application that replaces ``environ["sojourn.session"]`` on ``/replace``.

    Attributes:
        value: the value it assigns; MISSING deletes the key.
        error: raised after that, unless None.
        status: of the response.
    """

    def __init__(self, form=None):
        self.form = form
        self.value = None
        self.error = None
        self.status = "200 OK"

    def __call__(self, environ, start_response):
        session = environ["sojourn.session"]
        match environ["PATH_INFO"]:
            case "/begin":
                session.update(a=1, cart={"apple": 1, "pear": 2})
            case "/login":
                session.login("ada")
            case "/replace":
                if self.value is MISSING:
                    del environ["sojourn.session"]
                else:
                    environ["sojourn.session"] = self.value
                if self.error is not None:
                    raise self.error
                if self.form is not None:
                    return self.form({**environ, "sojourn.session": {}}, start_response)
        start_response(self.status, [*PLAIN])
        return [b"ok"]


def replacing(value, form=None, **options):
    """Return an application that replaces its session by a value, and its site."""
    app = Replacing(form)
    app.value = value
    return app, Site(app, **options)


@pytest.mark.parametrize("form", FORMS)
def test_a_mapping_is_adopted(form):
    """A24: for each form of a body; equal items are not written."""
    _, site = replacing({"cart": {"apple": 5, "plum": 1}, "b": [1]}, form)
    site.request("/begin")
    answer = site.request("/replace")
    assert (answer.status, answer.get("vary")) == ("200 OK", "Cookie")
    assert site.data() == {"cart": {"apple": 5, "plum": 1}, "b": [1]}
    assert site.sessions.usage().writes == 1


def test_an_equal_mapping_changes_nothing():
    """A24."""
    _, site = replacing({"a": 1, "cart": {"apple": 1, "pear": 2}})
    site.request("/begin")
    site.request("/replace")
    assert site.sessions.usage().writes == 0


def test_a_mapping_begins_a_session():
    """A24, A2: its cookie is sent."""
    _, site = replacing({"a": 1})
    assert site.request("/replace").get("set-cookie") is not None
    assert site.data() == {"a": 1}


@pytest.mark.parametrize("value", [None, MISSING])
def test_none_destroys_the_session(value):
    """A24: the response deletes the cookie."""
    _, site = replacing(value)
    site.request("/login")
    assert "Max-Age=0" in site.request("/replace").get("set-cookie")
    assert site.sessions.usage().removes == 1


@pytest.mark.parametrize("value", [None, MISSING, {}])
def test_none_in_place_of_a_new_session_makes_no_store_call(value):
    """A1, A24."""
    _, site = replacing(value)
    assert site.request("/replace").get("set-cookie") is None
    assert site.trace == ["bytes"]


@pytest.mark.parametrize("value", [5, "text", [("a", 1)]])
def test_value_of_another_type_is_an_error_for_on_error(value):
    """A24, A23: nothing is written, and the response has the session's headers."""
    errors = []

    def answer(environ, error):
        errors.append(error)
        assert environ["sojourn.session"]["a"] == 1

        def respond(environ, start_response):
            start_response("418 Replaced", [*PLAIN])
            return [b"replaced"]

        return respond

    _, site = replacing(value, on_error=answer)
    site.request("/begin")
    reply = site.request("/replace")
    assert (reply.status, reply.body, reply.get("vary")) == ("418 Replaced", b"replaced", "Cookie")
    [error] = errors
    assert isinstance(error, SessionError)
    assert type(value).__qualname__ in str(error)
    assert site.data()["a"] == 1


def test_failing_request_destroys_its_session_and_drops_its_data():
    """A24, A10."""
    app, site = replacing({"a": 2})
    app.error = LookupError("planned by the test")
    site.request("/begin")
    assert site.request("/replace").status.startswith("500")
    assert site.data()["a"] == 1
    app.value = None
    site.request("/replace")
    assert site.data() == {}
    assert site.sessions.usage().removes == 1


def test_failing_request_raises_its_own_error(caplog):
    """A24: an invalid replacement is logged."""
    app, site = replacing(5)
    app.error = LookupError("planned by the test")
    site.request("/begin")
    assert isinstance(site.request("/replace").error, LookupError)
    assert "object of type int" in caplog.text


def test_a_request_without_its_session_saves_no_replacement():
    """A15, A24: with ``on_store_failure="anonymous"``."""
    _, site = replacing({"a": 7}, on_store_failure="anonymous")
    site.request("/begin")
    site.store.fail("load")
    assert site.request("/replace").status == "200 OK"
    site.store.heal()
    assert site.data()["a"] == 1


def test_a_replacement_during_a_stream_is_adopted_at_its_end():
    """A11, A24."""

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/begin":
            environ["sojourn.session"]["a"] = 1
        start_response("200 OK", [*PLAIN])
        yield b"x"
        if environ["PATH_INFO"] == "/stream":
            environ["sojourn.session"] = {"a": 2}

    site = Site(app)
    site.request("/begin")
    assert site.request("/stream").body == b"x"
    assert site.data() == {"a": 2}


def test_loading_a_replaced_session_adopts_the_replacement():
    """A24: ``get_session`` after a middleware has replaced the session."""

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/replace":
            environ["sojourn.session"] = {"a": 2}
            get_session(environ)["b"] = 3
        start_response("200 OK", [*PLAIN])
        return [b"ok"]

    site = Site(app)
    site.request("/replace")
    assert site.data() == {"a": 2, "b": 3}
