"""SessionMiddleware for WSGI: PEP 3333, and the laws of requests where WSGI differs.

The handler of the standard library's server (`wsgiref.handlers`) serves the requests; the trace
records the bytes it writes and the calls of the store. The request suite tests what every
framework has in common; tests/integration starts real processes.
"""

import asyncio
import contextlib
import gc
import io
import logging
import sys
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

import sojourn
from sojourn.errors import (
    ConfigurationError,
    InsecureTransport,
    ResponseStarted,
    SessionTooLarge,
    StoreUnavailable,
)
from sojourn.stores.memory import MemoryStore
from sojourn.testing.faults import FaultyStore
from sojourn.web.lifecycle import SessionLifecycle
from sojourn.web.wsgi import WSGIExchange

PLAIN = (("Content-Type", "text/plain"),)
LOCAL = {"HTTP_HOST": "localhost"}


class Wire(io.BytesIO):
    """The output to the client; records each byte string among the calls of the store."""

    def __init__(self, trace, leave_after):
        super().__init__()
        self._trace = trace
        self._leave_after = leave_after

    def write(self, data):
        if self._leave_after == 0:
            raise BrokenPipeError("the client has left")
        if self._leave_after is not None and b"\r\n\r\n" in self.getvalue():
            self._leave_after -= 1
        if data and self._trace[-1:] != ["bytes"]:
            self._trace.append("bytes")
        return super().write(data)

    def flush(self):
        pass


class Server(SimpleHandler):
    """The WSGI server of the standard library for one request; keeps the application's error."""

    origin_server = False  # no status line of HTTP/1.1, no Date, no Server
    os_environ = {}  # noqa: RUF012 - as the base class has it
    error = None

    def get_stderr(self):
        return sys.stderr

    def log_exception(self, exc_info):
        self.error = exc_info[1]


class Status:
    """The response that a client received."""

    def __init__(self, wire, error):
        head, _, self.body = wire.getvalue().partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = lines[0].removeprefix("Status: ")
        self.headers = [tuple(line.split(": ", 1)) for line in lines[1:]]
        self.error = error

    def get(self, name):
        values = [value for key, value in self.headers if key.lower() == name]
        return ", ".join(values) if values else None


class Site:
    """An application behind the middleware, and one visitor with a cookie jar."""

    def __init__(self, app, **options):
        self.store = FaultyStore(MemoryStore())
        self.trace = self.store.calls
        self.sessions = sojourn.Sessions(
            store=self.store, secret="7jQk2v9XwP4tLmZ8sRb1NcYd6HfGa3Ue", **options
        )
        self.app = sojourn.wsgi.SessionMiddleware(app, self.sessions)
        self.cookie = None

    def request(self, path="/", *, leave_after=None, validate=True, **environ):
        """Send a request; the client disconnects after the given number of body parts."""
        full_environ = {
            "PATH_INFO": path,
            "SCRIPT_NAME": "",
            "QUERY_STRING": "",
            **LOCAL,
            **environ,
        }
        if self.cookie:
            full_environ.setdefault("HTTP_COOKIE", self.cookie)
        setup_testing_defaults(full_environ)
        self.trace.clear()
        wire = Wire(self.trace, leave_after)
        server = Server(io.BytesIO(), wire, sys.stderr, full_environ)
        server.run(validator(self.app) if validate else self.app)
        answer = Status(wire, server.error)
        for name, value in answer.headers:
            if name.lower() == "set-cookie":
                pair, _, attributes = value.partition(";")
                self.cookie = None if "Max-Age=0" in attributes else pair
        return answer

    def data(self):
        """Return the visitor's stored session data."""
        seen = {}

        def look(environ, start_response):
            seen.update(environ["sojourn.session"])
            start_response("200 OK", [*PLAIN])
            return [b"ok"]

        app, self.app.app = self.app.app, look
        self.request()
        self.app.app = app
        return seen


def answer_error(start_response, status, text):
    """Call start_response again with exc_info, as an application does after an error."""
    try:
        raise ValueError(text)  # noqa: TRY301 - a server may re-raise what is being handled
    except ValueError:
        start_response(status, [*PLAIN], sys.exc_info())


def counting(environ, start_response):
    session = environ["sojourn.session"]
    session["n"] = session.get("n", 0) + 1
    start_response("200 OK", [*PLAIN])
    return [str(session["n"]).encode()]


# The forms of a response


def as_list(environ, start_response):
    start_response("200 OK", [*PLAIN])
    environ["sojourn.session"]["n"] = environ["sojourn.session"].get("n", 0) + 1
    return [b"a", b"b"]


def as_tuple(environ, start_response):
    return tuple(as_list(environ, start_response))


def as_generator(environ, start_response):
    yield from as_list(environ, start_response)


def as_late_generator(environ, start_response):
    start_response("200 OK", [*PLAIN])
    yield b""
    environ["sojourn.session"]["n"] = environ["sojourn.session"].get("n", 0) + 1
    yield b""
    yield b"ab"


def as_iterator(environ, start_response):
    return iter(as_list(environ, start_response))


def as_writes(environ, start_response):
    write = start_response("200 OK", [*PLAIN])
    write(b"")
    environ["sojourn.session"]["n"] = environ["sojourn.session"].get("n", 0) + 1
    write(b"a")
    write(b"b")
    return []


def as_writes_then_iterator(environ, start_response):
    write = start_response("200 OK", [*PLAIN])
    environ["sojourn.session"]["n"] = environ["sojourn.session"].get("n", 0) + 1
    write(b"a")
    return iter([b"b"])


def as_file(environ, start_response):
    as_list(environ, start_response)
    return environ["wsgi.file_wrapper"](io.BytesIO(b"ab"))


def as_closing(environ, start_response):
    return Closing(as_list(environ, start_response))


class Closing:
    """An iterable with ``close``, like those of Django and Werkzeug."""

    def __init__(self, parts, at_close=lambda: None):
        self.parts = parts
        self.closed = 0
        self.at_close = at_close

    def __iter__(self):
        return iter(self.parts)

    def close(self):
        self.closed += 1
        self.at_close()


FORMS = [
    as_list,
    as_tuple,
    as_generator,
    as_late_generator,
    as_iterator,
    as_writes,
    as_writes_then_iterator,
    as_file,
    as_closing,
]


@pytest.mark.parametrize("app", FORMS)
@pytest.mark.parametrize("validate_inside", [True, False])
def test_the_commit_comes_before_the_first_byte(app, validate_inside):
    """A2, A4, A5: for each form of the body; both sides conform to PEP 3333."""
    site = Site(validator(app) if validate_inside else app)
    first = site.request()
    assert (first.status, first.body, first.error) == ("200 OK", b"ab", None)
    assert site.trace == ["create", "bytes"]
    assert first.get("set-cookie").startswith("sid=")
    assert first.get("cache-control") == "private, no-store"
    second = site.request()
    assert site.trace == ["load", "save", "bytes"]
    assert (second.get("set-cookie"), second.get("vary")) == (None, "Cookie")
    assert site.data() == {"n": 2}


#: Their bodies are known when the callable returns.
COMPLETE = (as_list, as_tuple, as_file)


@pytest.mark.parametrize("app", FORMS)
def test_response_is_unchanged_if_the_session_is_not_accessed(app):
    """A1: the store is not called.

    A13: a stream may access the session later, so its headers are those of an access.
    """

    def quiet(environ, start_response):
        # A copy, because a session that is replaced in the environ itself is adopted (law A24).
        return app({**environ, "sojourn.session": {}}, start_response)

    site = Site(quiet)
    answer = site.request()
    caching = (None, None) if app in COMPLETE else ("Cookie", "private")
    assert (answer.get("vary"), answer.get("cache-control")) == caching
    assert answer.get("set-cookie") is None
    assert site.trace == ["bytes"]


@pytest.mark.parametrize("app", FORMS)
def test_the_response_starts_before_the_callable_returns(app):
    """A2: granian reads the status and the headers then, and calls no write function."""
    if app in (as_writes, as_writes_then_iterator):
        return
    site = Site(app)
    started = []
    environ = {"HTTP_HOST": "localhost", "wsgi.file_wrapper": FileWrapper}
    setup_testing_defaults(environ)
    body = site.app(environ, lambda status, headers, exc_info=None: started.append(dict(headers)))
    [headers] = started
    assert headers["set-cookie"].startswith("sid=")
    assert site.trace == ["create"]
    assert b"".join(body) == b"ab"
    if hasattr(body, "close"):
        body.close()


class TestCachingOfStreams:
    """A13: the first part of the body decides, not the Content-Length."""

    @staticmethod
    def site(parts, form, length, *, look=False, **headers):
        def app(environ, start_response):
            session = environ["sojourn.session"]

            def body():
                for n, part in enumerate(parts):
                    if n and look:
                        session.get("user")
                    yield part

            start_response("200 OK", [*PLAIN, ("CONTENT-length", length), *headers.items()])
            return form(body())

        return Site(app)

    @pytest.mark.parametrize("visitor", ["new", "known"])
    def test_stream_of_known_length_that_reads_late_is_private(self, visitor):
        """A13, B-7: the session is read before the second part."""
        site = self.site([b"a", b"b"], iter, "2", look=True)
        if visitor == "known":
            app, site.app.app = site.app.app, counting
            site.request()
            site.app.app = app
        answer = site.request()
        assert answer.body == b"ab"
        assert (answer.get("vary"), answer.get("cache-control")) == ("Cookie", "private")

    def test_stream_keeps_the_cache_control_of_the_application(self):
        """A13."""
        site = self.site([b"a", b"b"], iter, "2", **{"Cache-Control": "public, max-age=60"})
        answer = site.request()
        assert answer.get("vary") == "Cookie"
        assert answer.get("cache-control") == "public, max-age=60"

    @pytest.mark.parametrize(
        ("parts", "form", "length"),
        [
            ([b"a", b"b"], list, "2"),  # the callable returned a complete body
            ([b"ab"], list, "2"),
            ([b"ab"], iter, "2"),  # as Flask and Django return every page
            ([b"", b"ab"], iter, " 2 "),
            ([], iter, "2"),  # HEAD
        ],
    )
    def test_complete_body_is_no_stream(self, parts, form, length):
        """A1: the session cannot be accessed later, so shared caches may store the response."""
        answer = self.site(parts, form, length).request(validate=False)
        assert (answer.get("vary"), answer.get("cache-control")) == (None, None)

    def test_stream_without_a_session_is_unchanged(self):
        """A13: `exclude`, without a ticket."""

        def app(environ, start_response):
            start_response("200 OK", [*PLAIN])
            return iter([b"a", b"b"])

        site = Site(app, exclude=["/static/*"])
        answer = site.request("/static/file")
        assert (answer.get("vary"), answer.get("cache-control")) == (None, None)


@pytest.mark.parametrize(
    ("method", "status", "parts"),
    [
        ("HEAD", "200 OK", []),
        ("GET", "304 Not Modified", []),
        ("GET", "204 No Content", []),
        ("GET", "302 Found", []),
    ],
)
@pytest.mark.parametrize("form", [list, iter])
def test_a_response_without_a_body_has_its_cookie_and_caching_headers(method, status, parts, form):
    """A2, A13: on HEAD, 304, 204 and redirects too."""

    def app(environ, start_response):
        environ["sojourn.session"]["n"] = 1
        start_response(status, [] if status[0:3] in ("304", "204") else [*PLAIN])
        return form(parts)

    site = Site(app)
    answer = site.request(REQUEST_METHOD=method)
    assert answer.status == status
    assert answer.get("vary") == "Cookie"
    assert answer.get("set-cookie").startswith("sid=")
    assert site.trace == ["create", "bytes"]
    assert site.data() == {"n": 1}


def test_list_is_returned_to_the_server_unchanged():
    """So that the server can compute its length."""

    def one(environ, start_response):
        as_list(environ, start_response)
        return [b"abc"]

    assert Site(one).request(validate=False).get("content-length") == "3"


def test_file_wrapper_is_returned_to_the_server_unchanged():
    """PEP 3333: only an unwrapped `wsgi.file_wrapper` may be sent by the operating system."""
    files = []

    def app(environ, start_response):
        as_list(environ, start_response)
        files.append(environ["wsgi.file_wrapper"](io.BytesIO(b"ab")))
        return files[0]

    environ = {"HTTP_HOST": "localhost", "wsgi.file_wrapper": FileWrapper}
    setup_testing_defaults(environ)
    started = []
    result = Site(app).app(environ, lambda *response: started.append(response))
    assert result is files[0]
    assert "set-cookie" in dict(started[0][1])


def test_server_refuses_parts_that_are_not_bytes():
    def app(environ, start_response):
        start_response("200 OK", [*PLAIN])
        return iter(["text"])

    assert isinstance(Site(app).request(validate=False).error, AssertionError)


# start_response


def test_a_body_without_start_response_is_an_error():
    for body in ([b"body"], iter([b"body"]), []):
        answer = Site(lambda environ, start_response, body=body: body).request(validate=False)
        assert isinstance(answer.error, RuntimeError)
        assert "before it called start_response" in str(answer.error)


def test_second_start_response_without_exc_info_is_an_error():
    def app(environ, start_response):
        start_response("200 OK", [*PLAIN])
        start_response("200 OK", [*PLAIN])
        return []

    answer = Site(app).request(validate=False)
    assert isinstance(answer.error, RuntimeError)
    assert "exc_info" in str(answer.error)


@pytest.mark.parametrize("form", [list, iter])
def test_exc_info_before_the_first_byte_replaces_the_response(form):
    """PEP 3333; A10: the changes are dropped."""

    def app(environ, start_response):
        session = environ["sojourn.session"]
        session["n"] = session.get("n", 0) + 1
        start_response("200 OK", [*PLAIN, ("X-Page", "1")])
        answer_error(start_response, "500 Internal Server Error", "late")
        return form([b"sorry"])

    site = Site(app)
    answer = site.request()
    assert (answer.status, answer.body) == ("500 Internal Server Error", b"sorry")
    assert answer.get("x-page") is None
    assert answer.get("set-cookie") is None
    assert answer.get("vary") == "Cookie"
    assert site.trace == ["bytes"]


def test_success_status_of_the_last_start_response_keeps_the_changes():
    """A10: the status of the last call counts."""

    def app(environ, start_response):
        environ["sojourn.session"]["n"] = 1
        start_response("500 Internal Server Error", [*PLAIN])
        answer_error(start_response, "200 OK", "harmless")
        return [b"ok"]

    site = Site(app)
    site.request()
    assert site.data() == {"n": 1}


@pytest.mark.parametrize("way", ["write", "iterate"])
def test_after_the_first_byte_exc_info_raises_the_error(way):
    """PEP 3333: the server re-raises it; changes since the first byte are dropped (A10)."""

    def app(environ, start_response):
        session = environ["sojourn.session"]
        session["n"] = 1
        write = start_response("200 OK", [*PLAIN])
        if way == "write":
            write(b"beginning")
        else:
            yield b"beginning"
        session["n"] = 2
        answer_error(start_response, "500 Internal Server Error", "too late")
        yield b"never"

    site = Site(app)
    answer = site.request()
    assert (answer.status, answer.body) == ("200 OK", b"beginning")
    assert isinstance(answer.error, ValueError)
    assert site.data() == {"n": 1}


def test_exc_info_after_the_first_byte_drops_the_changes_even_if_caught():
    """A10: a request with exc_info has failed, also if a body is returned."""

    def app(environ, start_response):
        session = environ["sojourn.session"]
        session["n"] = 1
        start_response("200 OK", [*PLAIN])
        yield b"beginning"
        session["n"] = 2
        with contextlib.suppress(ValueError):
            answer_error(start_response, "500 Internal Server Error", "too late")
        yield b", end"

    site = Site(app)
    answer = site.request()
    assert (answer.body, answer.error) == (b"beginning, end", None)
    assert site.data() == {"n": 1}


# Failing


def failing_application(how, change):
    """Return an application that changes its session and then fails in some way."""

    def app(environ, start_response):
        change(environ["sojourn.session"])
        if how == "status":
            start_response("503 Service Unavailable", [*PLAIN])
            return [b"no"]
        if how == "raise":
            raise ValueError("no")
        start_response("200 OK", [*PLAIN])
        if how == "iterate":
            return failing()
        raise ValueError("no")

    def failing():
        yield b""
        raise ValueError("no")

    return app


@pytest.mark.parametrize("how", ["status", "raise", "raise late", "iterate"])
def test_failing_request_drops_the_changes(how):
    """A10: 5xx, or an exception before or during the body."""
    site = Site(counting)
    site.request()
    site.app.app = failing_application(how, lambda session: session.update(n=100, more=1))
    answer = site.request()
    assert isinstance(answer.error, ValueError) == (how != "status")
    assert site.trace == ["load", "bytes"]
    assert site.data() == {"n": 1}


@pytest.mark.parametrize("how", ["status", "raise", "raise late", "iterate"])
def test_failing_request_still_destroys_its_session(how):
    """A10: the cookie is deleted if the application sends the error response."""
    site = Site(counting)
    site.request()
    cookie = site.cookie
    site.app.app = failing_application(how, lambda session: session.destroy())
    site.request()
    assert site.trace == ["load", "delete", "bytes"]
    assert (site.cookie is None) == (how == "status")
    site.cookie = cookie
    assert site.data() == {}


@pytest.mark.parametrize("how", ["status", "raise", "raise late", "iterate"])
def test_save_on_error_keeps_the_changes(how):
    site = Site(counting, save_on_error=True)
    site.request()
    site.app.app = failing_application(how, lambda session: session.update(more=1))
    site.request()
    assert site.data() == {"n": 1, "more": 1}


def test_a_session_over_the_limit_fails_the_request_and_closes_its_body():
    """No partial response; the error is raised to the server; close() is called."""
    body = Closing([b"x"])

    def app(environ, start_response):
        environ["sojourn.session"]["big"] = "x" * 5000
        start_response("200 OK", [*PLAIN])
        return body

    site = Site(app, max_bytes=1000)
    assert isinstance(site.request().error, SessionTooLarge)
    assert site.trace == ["bytes"]
    assert body.closed == 1


def test_file_is_closed_if_the_commit_fails():
    """The server never receives the file, so it cannot close it."""
    files = []

    def app(environ, start_response):
        environ["sojourn.session"]["big"] = "x" * 5000
        start_response("200 OK", [*PLAIN])
        files.append(io.BytesIO(b"file"))
        return environ["wsgi.file_wrapper"](files[0])

    site = Site(app, max_bytes=1000)
    assert isinstance(site.request(validate=False).error, SessionTooLarge)
    assert files[0].closed


# Streams


def test_changes_of_a_stream_are_committed_at_its_end():
    """A11: before the last byte."""

    def app(environ, start_response):
        session = environ["sojourn.session"]
        session["n"] = 1
        start_response("200 OK", [*PLAIN])
        yield b"a"
        session.increment("n")
        yield b"b"
        session.increment("n")

    site = Site(app)
    assert site.request().error is None
    assert site.trace == ["create", "bytes", "save"]
    assert site.data() == {"n": 3}


@pytest.mark.parametrize("way", ["write", "iterate"])
def test_a_new_session_after_the_first_byte_is_an_error(way):
    """A11: its cookie can no longer be set."""

    def app(environ, start_response):
        write = start_response("200 OK", [*PLAIN])
        if way == "write":
            write(b"beginning")
        else:
            yield b"beginning"
        environ["sojourn.session"]["n"] = 1
        yield b"never"

    answer = Site(app).request()
    assert answer.body == b"beginning"
    assert isinstance(answer.error, ResponseStarted)


@pytest.mark.parametrize("way", ["write", "iterate"])
def test_changes_of_a_stream_are_kept_at_the_disconnect(way):
    """A11: the server closes the body early, or its write() raises."""

    def app(environ, start_response):
        session = environ["sojourn.session"]
        session["n"] = 0
        write = start_response("200 OK", [*PLAIN])
        for _ in range(10):
            if way == "write":
                write(b"part")
            else:
                yield b"part"
            session.increment("n")

    site = Site(app)
    site.request(leave_after=3)
    assert site.data() == {"n": 3}


def test_changes_in_the_finally_of_a_closed_generator_are_kept():
    """A11: GeneratorExit runs its `finally`, before the last commit."""

    def app(environ, start_response):
        session = environ["sojourn.session"]
        session["n"] = 0
        start_response("200 OK", [*PLAIN])
        try:
            while True:
                yield b"part"
        finally:
            session["left"] = True

    site = Site(app)
    site.request(leave_after=2)
    assert site.data() == {"n": 0, "left": True}


def test_failed_stream_drops_the_changes_at_the_disconnect():
    """A10: a disconnect during a 500 response does not make it a success."""

    def app(environ, start_response):
        session = environ["sojourn.session"]
        session["n"] = session.get("n", 0) + 1
        start_response("500 Internal Server Error", [*PLAIN])
        write = start_response("500 Internal Server Error", [*PLAIN], (None, None, None))
        while True:
            write(b"part")
            session["n"] += 1

    site = Site(counting)
    site.request()
    site.app.app = app
    site.request(leave_after=2, validate=False)
    assert site.data() == {"n": 1}


def test_changes_are_kept_if_the_server_does_not_send_the_response():
    """A5, A11: they were committed before the callable returned."""
    site = Site(counting)
    site.request()
    site.app.app = as_late_generator
    environ = {"HTTP_HOST": "localhost", "HTTP_COOKIE": site.cookie}
    setup_testing_defaults(environ)
    response = site.app(environ, lambda *_: None)
    assert site.data() == {"n": 2}
    environ["sojourn.session"]["n"] = 100
    response.close()
    assert site.data() == {"n": 100}


def test_close_is_called_once_and_its_changes_are_kept():
    """PEP 3333; teardown code of frameworks runs there."""
    seen = []

    def app(environ, start_response):
        as_list(environ, start_response)

        def at_close():
            environ["sojourn.session"]["closed"] = True

        seen.append(Closing([b"x"], at_close))
        return seen[-1]

    site = Site(app)
    site.request()
    assert seen[0].closed == 1
    assert site.data() == {"n": 1, "closed": True}

    environ = {"HTTP_HOST": "localhost"}
    setup_testing_defaults(environ)
    response = site.app(environ, lambda *_: None)
    list(response)
    response.close()
    response.close()
    assert seen[1].closed == 1


def test_an_error_of_close_is_raised_after_the_commit():
    def app(environ, start_response):
        as_list(environ, start_response)
        environ["later"] = lambda: environ["sojourn.session"].update(late=1)

        def at_close():
            environ["later"]()
            raise ValueError("close")

        return Closing([b"x"], at_close)

    site = Site(app)
    assert isinstance(site.request().error, ValueError)
    assert site.data() == {"n": 1, "late": 1}


# A store that fails


@pytest.mark.parametrize("app", FORMS)
@pytest.mark.parametrize("verb", ["load", "save"])
def test_failing_store_is_503(app, verb, caplog):
    """A15: with Retry-After, without a cookie, without headers of the application's response."""
    site = Site(app)
    site.request()
    site.store.fail(verb)
    with caplog.at_level(logging.CRITICAL, logger="sojourn"):
        answer = site.request()
    assert answer.status == "503 Service Unavailable"
    assert answer.get("retry-after") == "2"
    assert answer.get("set-cookie") is None
    assert answer.get("cache-control") == "no-store"
    assert b"unavailable" in answer.body
    assert answer.error is None
    site.store.heal()
    assert site.data() == {"n": 1}


def test_body_of_a_replaced_response_is_closed(caplog):
    bodies = []

    def app(environ, start_response):
        bodies.append(Closing(as_list(environ, start_response)))
        return bodies[-1]

    site = Site(app)
    site.store.fail("create")
    with caplog.at_level(logging.CRITICAL, logger="sojourn"):
        assert site.request().status.startswith("503")
    assert [body.closed for body in bodies] == [1]
    assert site.trace == ["create", "bytes"]


@pytest.mark.parametrize("app", FORMS)
def test_a_store_that_failed_is_not_called_again(app, caplog):
    """S12: each call may block a thread for the whole `store_timeout`."""
    site = Site(app, unconfirmed_timeout="1 minute")
    site.request()
    site.store.fail("save")  # due in any case: the client sent the cookie for the first time
    with caplog.at_level(logging.CRITICAL, logger="sojourn"):
        assert site.request().status.startswith("503")
    assert site.trace == ["load", "save", "bytes"]


def test_store_failure_during_a_stream_aborts_it(caplog):
    """The status was sent; the error is raised to the server."""

    def app(environ, start_response):
        yield from as_list(environ, start_response)
        site.store.fail("save")
        environ["sojourn.session"]["n"] = 100

    site = Site(counting)
    site.request()
    site.app.app = app
    with caplog.at_level(logging.CRITICAL, logger="sojourn"):
        answer = site.request()
    assert (answer.status, answer.body) == ("200 OK", b"ab")
    assert isinstance(answer.error, StoreUnavailable)
    site.store.heal()
    assert site.data() == {"n": 2}


def test_failed_delete_is_retried_once(caplog):
    """A10: the session is destroyed although the response is 503."""
    site = Site(counting)
    site.request()
    cookie = site.cookie

    def logout(environ, start_response):
        environ["sojourn.session"].destroy()
        start_response("200 OK", [*PLAIN])
        return [b"bye"]

    site.app.app = logout
    site.store.fail("delete", times=1)
    with caplog.at_level(logging.CRITICAL, logger="sojourn"):
        answer = site.request()
    assert answer.status.startswith("503")
    assert site.trace == ["load", "delete", "delete", "bytes"]
    site.cookie = cookie
    assert site.data() == {}


def test_failed_explicit_commit_is_503(caplog):
    def app(environ, start_response):
        environ["sojourn.session"]["n"] = 1
        environ["sojourn.session"].commit()
        return [b"never"]

    site = Site(app)
    site.store.fail("create")
    with caplog.at_level(logging.CRITICAL, logger="sojourn"):
        assert site.request().status.startswith("503")


def test_the_error_of_a_request_is_raised_and_that_of_its_store_logged(caplog):
    """The error of the request is raised to the server, that of the store is logged."""
    site = Site(counting)
    site.request()
    site.app.app = failing_application("raise", lambda session: session.destroy())
    site.store.fail("delete")
    caplog.set_level(logging.DEBUG, "sojourn")
    assert isinstance(site.request().error, ValueError)
    assert "could not be committed" in caplog.text


# Which requests have a session


@pytest.mark.parametrize(
    ("script", "path", "wanted"),
    [
        ("", "/account/me", True),
        ("", "/account/health", False),
        ("", "/elsewhere", False),
        ("/shop", "/account/me", True),
        ("/account", "/me", False),
        ("", "/café/å".encode().decode("latin-1"), True),
    ],
)
def test_patterns_match_the_path_as_routes_are_written(script, path, wanted):
    """Relative to the mount point; WSGI decodes UTF-8 as Latin-1."""
    found = []

    def app(environ, start_response):
        found.append("sojourn.session" in environ)
        start_response("200 OK", [*PLAIN])
        return []

    site = Site(app, include=["/account/*", "/café/å"], exclude=["/account/health"])
    site.request(path, SCRIPT_NAME=script)
    assert found == [wanted]


def test_with_autoload_off_a_session_is_loaded_at_the_first_access():
    """Routes that load no session make no store call; loading twice returns the same session."""

    def app(environ, start_response):
        assert "sojourn.session" not in environ
        if environ["PATH_INFO"] == "/load":
            session = sojourn.wsgi.get_session(environ)
            assert sojourn.wsgi.get_session(environ) is session
            assert environ["sojourn.session"] is session
            session["n"] = session.get("n", 0) + 1
        start_response("200 OK", [*PLAIN])
        return [b"ok"]

    site = Site(app, autoload=False)
    site.request("/load")
    assert site.trace == ["create", "bytes"]
    site.request("/other")
    assert site.trace == ["bytes"]
    site.request("/load")
    assert site.trace == ["load", "save", "bytes"]


def test_a_session_loaded_after_the_first_byte_can_be_read_not_created():
    def app(environ, start_response):
        start_response("200 OK", [*PLAIN])
        yield b"a"
        session = sojourn.wsgi.get_session(environ)
        yield str(session.get("n")).encode()
        session["n"] = 2

    site = Site(counting)
    site.request()
    site.sessions.web.config = type(site.sessions.web.config)(
        **{name: getattr(site.sessions.web.config, name) for name in RULES} | {"autoload": False}
    )
    site.app.app = app
    assert site.request().body == b"a1"
    site.cookie = None
    assert isinstance(site.request().error, ResponseStarted)


RULES = ("cookie", "patterns", "save_on_error", "allowed_origins", "autoload")


def test_loading_without_a_middleware_is_an_error_with_advice():
    with pytest.raises(ConfigurationError, match=r"app = sojourn\.wsgi\.SessionMiddleware"):
        sojourn.wsgi.get_session({})


def test_loading_after_the_response_has_ended_is_an_error():
    seen = []

    def app(environ, start_response):
        seen.append(environ)
        start_response("200 OK", [*PLAIN])
        return iter([b"ok"])

    Site(app, autoload=False).request()
    with pytest.raises(RuntimeError, match="has ended"):
        sojourn.wsgi.get_session(seen[0])


def test_nested_middleware_of_the_same_installation_does_nothing():
    site = Site(counting)
    site.app.app = sojourn.wsgi.SessionMiddleware(counting, site.sessions)
    assert site.request().body == b"1"
    assert site.request().body == b"2"
    assert site.trace == ["load", "save", "bytes"]


def test_a_middleware_inside_one_without_autoload_loads():
    """Per route: the outer middleware serves every route, the inner one some of them."""
    site = Site(counting, autoload=False)
    site.app.app = sojourn.wsgi.SessionMiddleware(counting, site.sessions)
    site.request()
    assert site.request().body == b"2"
    assert site.trace == ["load", "save", "bytes"]


def test_two_installations_have_a_session_each():
    """The application gets the inner session; both cookies are sent."""
    inner = sojourn.Sessions(store="memory://", cookie="inner")
    site = Site(sojourn.wsgi.SessionMiddleware(counting, inner), cookie="outer")
    outer = site.app.app

    def both(environ, start_response):
        environ["sojourn.session"]["outer"] = True
        return outer(environ, start_response)

    site.app.app = both
    answer = site.request()
    names = {value.split("=")[0] for key, value in answer.headers if key.lower() == "set-cookie"}
    assert names == {"inner", "outer"}


def test_request_in_flight_during_uninstall_keeps_its_session():
    """A20: later requests have no session."""

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/last":
            site.sessions.web.active = False
        assert ("sojourn.session" in environ) == (environ["PATH_INFO"] != "/after")
        if "sojourn.session" in environ:
            return counting(environ, start_response)
        start_response("200 OK", [*PLAIN])
        return [b"none"]

    site = Site(app)
    site.request()
    assert site.request("/last").body == b"2"
    assert site.trace == ["load", "save", "bytes"]
    assert site.request("/after").body == b"none"


# The request


def test_https_has_the_host_prefixed_cookie():
    answer = Site(counting).request(HTTPS="on", HTTP_HOST="example.com")
    assert answer.get("set-cookie").startswith("__Host-sid=")
    assert "Secure" in answer.get("set-cookie")


@pytest.mark.parametrize(
    "environ",
    [
        {"HTTP_HOST": "example.com"},
        {"HTTP_X_FORWARDED_FOR": "203.0.113.9"},
        {"HTTP_X_FORWARDED_PROTO": "http"},
        {"HTTP_FORWARDED": "for=203.0.113.9"},
        {"HTTP_VIA": "1.1 proxy"},
    ],
)
def test_http_from_a_remote_client_has_no_session(environ):
    """NIST SP 800-63B-4 SESS-13: also if a proxy sends "localhost" as Host for a remote client."""
    assert isinstance(Site(counting).request(**environ).error, InsecureTransport)


def test_new_session_stores_the_labels_of_its_client():
    """The device list: address and browser."""
    noted = []

    def app(environ, start_response):
        noted.append(dict(environ["sojourn.session"].labels))
        return counting(environ, start_response)

    site = Site(app)
    client = {"REMOTE_ADDR": "192.0.2.7", "HTTP_USER_AGENT": "B" * 300}
    site.request(**client)
    site.request()
    assert noted == [{}, {"address": "192.0.2.7", "browser": "B" * 200}]


@pytest.mark.parametrize("text", ["sid=é", "sid=\u20ac", "\xff", "sid=a; sid=b", "=" * 70_000])
def test_no_cookie_header_is_an_error(text):
    """A8: invalid text is not a ticket, also if a server decodes it incorrectly."""
    answer = Site(counting).request(HTTP_COOKIE=text)
    assert answer.body == b"1"


def test_public_cache_control_is_replaced_if_a_cookie_is_sent(caplog):
    """A13."""

    def app(environ, start_response):
        environ["sojourn.session"]["n"] = 1
        start_response("200 OK", [*PLAIN, ("Cache-Control", "public, max-age=60")])
        return [b"ok"]

    assert Site(app).request().get("cache-control") == "private, no-store"
    assert "public, max-age=60" in caplog.text


def test_headers_with_other_letters_than_ascii_pass_through():
    """PEP 3333: Latin-1 text that represents bytes."""

    def app(environ, start_response):
        environ["sojourn.session"]["n"] = 1
        start_response("200 OK", [*PLAIN, ("X-Name", "Ren\xe9")])
        return [b"ok"]

    assert Site(app).request(validate=False).get("x-name") == "Ren\xe9"


# The environment of the middleware


class AsyncioStore(MemoryStore):
    """A store whose client is an asyncio one."""

    def requires_event_loop(self):
        return "use redis:// through its blocking client"

    def __repr__(self):
        return "AsyncioStore()"


async def no_bytes(*_):
    """Return None, like the methods of an asyncio client."""


@pytest.mark.parametrize(
    ("store", "text"),
    [
        (AsyncioStore(), r"AsyncioStore\(\) waits for an event loop.*use redis:// through its"),
        (
            sojourn.CallbackStore(read=no_bytes, write=no_bytes),
            r"CallbackStore\(.*waits for an event loop.*plain functions",
        ),
        (
            sojourn.CallbackStore(read=lambda _: None, write=no_bytes),
            "waits for an event loop.*plain functions",
        ),
    ],
    ids=["client", "functions", "one function"],
)
def test_a_store_that_needs_an_event_loop_is_refused_when_the_middleware_is_built(store, text):
    sessions = sojourn.Sessions(store=store, secret="7jQk2v9XwP4tLmZ8sRb1NcYd6HfGa3Ue")
    with pytest.raises(ConfigurationError, match=text):
        sojourn.wsgi.SessionMiddleware(counting, sessions)


def test_plain_functions_serve_wsgi():
    values = {}
    store = sojourn.CallbackStore(
        read=values.get, write=lambda key, value, seconds: values.__setitem__(key, value)
    )
    site = Site(counting)
    sessions = sojourn.Sessions(store=store, secret="7jQk2v9XwP4tLmZ8sRb1NcYd6HfGa3Ue")
    site.app = sojourn.wsgi.SessionMiddleware(counting, sessions)
    assert [site.request().body for _ in range(3)] == [b"1", b"2", b"3"]


def test_a_wsgi_application_in_an_event_loops_thread_gets_an_error():
    """It would block every other request of the event loop."""

    async def serve():
        return Site(counting).request().error

    error = asyncio.run(serve())
    assert isinstance(error, ConfigurationError)
    assert "an event loop runs" in str(error)


@pytest.mark.usefixtures("small_heap")
@pytest.mark.parametrize("app", FORMS)
def test_finished_request_leaves_no_reference_cycle(app):
    """The garbage collector is a considerable cost of a server."""
    site = Site(app)

    def alive():
        kinds = WSGIExchange | SessionLifecycle | sojourn.Session
        return {id(thing) for thing in gc.get_objects() if issubclass(type(thing), kinds)}

    gc.collect()
    gc.disable()
    try:
        others = alive()  # objects of earlier tests
        site.request(validate=False)
        assert alive() <= others
    finally:
        gc.enable()


def test_requests_of_a_reused_thread_never_share_a_session():
    """A16: also after an exception."""
    site = Site(counting)
    site.request()
    ada = site.cookie
    site.cookie = None
    site.app.app = failing_application("iterate", lambda session: session.update(secret=1))
    site.request()
    site.app.app = counting
    assert site.request().body == b"1"
    site.cookie = ada
    assert site.request().body == b"2"
