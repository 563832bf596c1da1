"""The session of one HTTP request of Tornado."""

from __future__ import annotations

from typing import Any

from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler

from sojourn.session import Session
from sojourn.web.asgi_scope import client_labels
from sojourn.web.framework_exchange import FrameworkExchange, RequestHeaders, read_request_headers
from sojourn.web.installation import WebInstallation


class TornadoExchange(FrameworkExchange):
    """One HTTP request of Tornado.

    Attributes:
        handler: of the request.
        present: the session, or what the application has set instead.
    """

    __slots__ = ("handler", "present")

    def __init__(self, web: WebInstallation, handler: RequestHandler) -> None:
        super().__init__(web)
        self.handler: RequestHandler = handler
        self.present: object = None

    def read_request(self) -> RequestHeaders:
        """Return what the session needs of the request."""
        return read_request(self.handler.request)

    def labels(self) -> dict[str, str]:
        """Return the labels of the client."""
        request = self.handler.request
        return client_labels(request.remote_ip, request.headers.get("User-Agent"))

    def method(self) -> str:
        """Return the method of the request."""
        method: str = self.handler.request.method or ""
        return method

    def path(self) -> str:
        """Return the path of the request."""
        return self.handler.request.path

    def header(self, name: str) -> str | None:
        """Return a header of the request; several of one name as one."""
        values = self.handler.request.headers.get_list(name)
        return ", ".join(values) if values else None

    def request_session(self) -> object:
        """Return what ``handler.session`` is."""
        return self.present

    def set_request_session(self, session: Session[Any]) -> None:
        """Set ``handler.session``."""
        self.present = session


def read_request(request: HTTPServerRequest) -> RequestHeaders:
    """Return what the session needs of a request; header lines are Latin-1 in Tornado."""
    headers = request.headers
    return read_request_headers(
        request.protocol,
        headers,
        headers.get_list("Cookie"),
        encoding="latin-1",
        errors="replace",
    )
