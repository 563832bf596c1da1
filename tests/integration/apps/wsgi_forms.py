"""A bare WSGI application that counts visits; the path selects the form of its body."""

import os

import sojourn


def as_list(environ, start_response):
    count = environ["sojourn.session"].increment("visits")
    start_response("201 Created", [("Content-Type", "text/plain"), ("X-Form", "list")])
    return [b"visits: ", str(count).encode()]


def as_generator(environ, start_response):
    """Start the response at the first `next`, as generator functions do."""
    count = environ["sojourn.session"].increment("visits")
    start_response("201 Created", [("Content-Type", "text/plain"), ("X-Form", "generator")])
    yield b"visits: "
    yield str(count).encode()


def as_iterator(environ, start_response):
    count = environ["sojourn.session"].increment("visits")
    start_response("201 Created", [("Content-Type", "text/plain"), ("X-Form", "iterator")])
    return iter([b"", b"visits: ", str(count).encode()])


def as_page(environ, start_response):
    """Return an iterator over one part, as Flask does for every page."""
    body = b"visits: %d" % environ["sojourn.session"].increment("visits")
    headers = [("Content-Type", "text/plain"), ("X-Form", "page")]
    start_response("201 Created", [*headers, ("Content-Length", str(len(body)))])
    return iter([body])


def as_empty(environ, start_response):
    environ["sojourn.session"].increment("visits")
    start_response("204 No Content", [("X-Form", "empty")])
    return iter([])


def as_error(environ, start_response):
    """Fail before the first part of the body."""
    yield b""
    raise ValueError("an error of the application")


FORMS = {
    "/list": as_list,
    "/generator": as_generator,
    "/iterator": as_iterator,
    "/page": as_page,
    "/empty": as_empty,
    "/error": as_error,
}


def application(environ, start_response):
    return FORMS[environ["PATH_INFO"]](environ, start_response)


sessions = sojourn.Sessions(store=os.environ["STORE"])
app = sojourn.wsgi.SessionMiddleware(application, sessions)
