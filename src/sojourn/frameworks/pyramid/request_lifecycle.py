"""RequestLifecycle: the session of a request that passed no WSGI layer of sojourn.

Sub-requests that were made from nothing but a URL, requests of tests and scripts, and all requests
of an application that calls ``set_session_factory`` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sojourn.errors import StoreError
from sojourn.session import Session
from sojourn.web.asgi_scope import client_labels
from sojourn.web.cache_headers import TextHeaders
from sojourn.web.error_response import unavailable_response
from sojourn.web.installation import WebInstallation
from sojourn.web.lifecycle import SessionLifecycle, decode_headers, encode_headers, run
from sojourn.web.wsgi_environ import is_proxied, read_header, read_path


class RequestLifecycle(SessionLifecycle):
    """The session of one request; committed by Pyramid's response callbacks.

    Args:
        web: the web layer of the installation.
        request: of Pyramid.
    """

    __slots__ = ("_request",)

    def __init__(self, web: WebInstallation, request: Any) -> None:
        super().__init__(web)
        self._request = request

    def load(self) -> Session[Any]:
        """Load the session and register the callbacks that commit it.

        Raises:
            StoreUnavailable: the store failed.
        """
        request = self._request
        environ = request.environ
        waiting = self.begin(
            environ.get("wsgi.url_scheme", "https"),  # absent in a request that a test made
            read_header(environ, "HTTP_HOST"),
            read_header(environ, "HTTP_COOKIE"),
            is_proxied(environ),
        )
        if waiting is not None:
            run(waiting)
        request.add_response_callback(self._complete)
        request.add_finished_callback(self._finish)
        session = self.session
        assert session is not None  # noqa: S101 - begin has set it
        return session

    def labels(self) -> dict[str, str]:
        """Return the labels of the client."""
        environ = self._request.environ
        return client_labels(environ.get("REMOTE_ADDR"), environ.get("HTTP_USER_AGENT"))

    def method(self) -> str:
        """Return the method of the request."""
        method: str = self._request.method
        return method

    def path(self) -> str:
        """Return the path of the request."""
        return read_path(self._request.environ)

    def header(self, name: str) -> str | None:
        """Return a header of the request; None if it is absent."""
        value: str | None = self._request.headers.get(name)
        return value

    def _complete(self, request: Any, response: Any) -> None:
        """Commit, after the application's own callbacks, and add the headers."""
        if any(each != self._complete for each in request.response_callbacks):
            request.add_response_callback(self._complete)
            return
        complete = isinstance(response.app_iter, list | tuple)
        try:
            waiting = self.respond(
                response.status_int, encode_headers(response.headerlist), complete
            )
            headers = waiting if isinstance(waiting, list) else run(waiting)
        except StoreError:
            raw, body = unavailable_response(read_header(request.environ, "HTTP_ACCEPT"))
            response.status = 503
            response.headerlist = _title_case(decode_headers(raw))
            response.app_iter = [body]
            self.mark_failed()
            self.response_started: bool = True
            return
        response.headerlist = _title_case(decode_headers(headers))
        if not complete:
            response.app_iter = _CommittedStream(response.app_iter, self)

    def _finish(self, _: Any) -> None:
        """Commit what is kept if the request has no response."""
        if not self.response_started:
            waiting = self.fail()
            if waiting is not None:
                run(waiting)


def _title_case(headers: TextHeaders) -> TextHeaders:
    """Return headers whose names are spelled as Pyramid does, for code that compares them."""
    return [(name.title() if name.islower() else name, value) for name, value in headers]


class _CommittedStream:
    """The body of a response; its end commits what it has changed (law A11)."""

    def __init__(self, parts: Iterable[bytes], lifecycle: RequestLifecycle) -> None:
        self._parts = parts
        self._lifecycle = lifecycle

    def __iter__(self) -> Iterator[bytes]:
        """Yield the parts."""
        try:
            yield from self._parts
        except Exception:
            self._lifecycle.mark_failed()
            raise

    def close(self) -> None:
        """Close the body and commit."""
        close = getattr(self._parts, "close", None)
        try:
            if close is not None:
                close()
        finally:
            waiting = self._lifecycle.finish()
            if waiting is not None:
                run(waiting)
