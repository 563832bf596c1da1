"""Bare WSGI applications for the laws of requests, and for real servers."""

from collections.abc import Iterator

import sojourn
from sojourn._core.concurrency import run
from sojourn.testing import HandlerResponse


def build(handlers, **options):
    """Return an application that serves each handler at its path, and its installation."""

    def app(environ, start_response):
        session = environ.get("sojourn.session")
        response = run(handlers[environ["PATH_INFO"]](session)) or HandlerResponse()
        start_response(f"{response.status} Because", list(headers_of(response).items()))
        return [response.body] if isinstance(response.body, bytes) else parts_of(response.body)

    sessions = sojourn.Sessions(**options)
    return sojourn.wsgi.SessionMiddleware(app, sessions), sessions


def uninstall(app, sessions):
    """Uninstall sessions from an application that is being served."""
    sessions.web.active = False


def headers_of(response):
    """Return the headers of a response, with its length if it is not a stream."""
    if not isinstance(response.body, bytes):
        return response.headers
    return {"content-length": str(len(response.body)), **response.headers}


def parts_of(stream) -> Iterator[bytes]:
    """Yield the parts of an async generator without an event loop."""
    while True:
        try:
            yield run(anext(stream))
        except StopAsyncIteration:
            return
