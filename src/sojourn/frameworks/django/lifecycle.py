"""RequestLifecycle: the session of one request of Django."""
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final
from weakref import ref

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from sojourn._core.concurrency import run
from sojourn.errors import SojournError
from sojourn.frameworks.django.current_session import current_session
from sojourn.frameworks.django.response import (
    answer_unavailable,
    error_page,
    raw_headers,
    update_response,
)
from sojourn.session import Session
from sojourn.web.asgi_scope import client_labels
from sojourn.web.installation import OnStoreFailure, WebInstallation
from sojourn.web.lifecycle import SessionLifecycle
from sojourn.web.origin import refusal_response
from sojourn.web.status import SERVER_ERROR
from sojourn.web.wsgi_environ import is_proxied, read_header, read_text_header

#: The attribute of a request by which Django's CSRF protection, and that of DRF, are left out.
_WITHOUT_CSRF: Final = "_dont_enforce_csrf_checks"

#: The attribute of a request that holds its lifecycle.
LIFECYCLE: Final = "sojourn_lifecycle"


class RequestLifecycle(SessionLifecycle):
    """The session of one request.

    Args:
        web: the web layer of the installation.
        request: of Django.

    Attributes:
        error: an error of sojourn that the view raised, and that is answered.
    """

    __slots__ = ("error", "request")

    def __init__(self, web: WebInstallation, request: HttpRequest) -> None:
        super().__init__(web)
        self.request: HttpRequest = request
        self.error: SojournError | None = None

    def labels(self) -> dict[str, str]:
        """Return the labels of the client."""
        meta = self.request.META
        return client_labels(meta.get("REMOTE_ADDR"), meta.get("HTTP_USER_AGENT"))

    def method(self) -> str:
        """Return the method of the request."""
        method: str = self.request.method or ""
        return method

    def path(self) -> str:
        """Return the path, without the prefix of the script."""
        path: str = self.request.path_info
        return path

    def header(self, name: str) -> str | None:
        """Return a header of the request."""
        return read_text_header(self.request.META, name)

    def may_load_later(self) -> bool:
        """Return whether the request has a ticket and its path may have a session."""
        if not self.wanted():
            return False
        meta = self.request.META
        transport = self.web.classify(
            self.request.scheme or "http", _read_host(meta), is_proxied(meta)
        )
        return self.web.has_ticket(transport, _read_cookies(self.request), self.header)

    def wanted(self) -> bool:
        """Return whether ``include`` and ``exclude`` give the path a session."""
        patterns = self.web.config.patterns
        return patterns.everything or patterns.match(self.request.path_info)

    def start(
        self, on_store_failure: OnStoreFailure | None = None
    ) -> Coroutine[Any, Any, None] | None:
        """Load the session; see ``begin``.

        Args:
            on_store_failure: the route's choice; None for the installation's.
        """
        request = self.request
        meta = request.META
        return self.begin(
            request.scheme or "http",
            _read_host(meta),
            _read_cookies(request),
            is_proxied(meta),
            on_store_failure,
        )

    def load(self, on_store_failure: OnStoreFailure | None = None) -> Session[Any]:
        """Return the session; load it in this thread if necessary.

        Raises:
            StoreUnavailable: the store failed.
        """
        waiting = self.start(on_store_failure)
        if waiting is not None:
            run(waiting, instead="aget_session(request)")
        return self.attach()

    async def aload(self, on_store_failure: OnStoreFailure | None = None) -> Session[Any]:
        """Return the session; load it if necessary.

        Raises:
            StoreUnavailable: the store failed.
        """
        waiting = self.start(on_store_failure)
        if waiting is not None:
            await waiting
        return self.attach()

    def attach(self) -> Session[Any]:
        """Make the loaded session ``request.session``, and return it."""
        session = self.session
        assert session is not None  # noqa: S101 - begin has set it
        request: Any = self.request  # Django's requests have attributes that middleware adds
        request.session = session
        if self.has_header_only():  # no page of another site can send it
            setattr(request, _WITHOUT_CSRF, True)
        current_session.set(ref(session))
        return session

    def refuse(self) -> HttpResponse | None:
        """Return the response to a request of a foreign origin; None if it may pass."""
        request = self.request
        meta = request.META
        if not self.web.config.protect or not self.wanted():
            return None
        reason = self.web.check_origin(
            request.method or "GET",
            request.scheme or "http",
            site=read_header(meta, "HTTP_SEC_FETCH_SITE"),
            origin=read_header(meta, "HTTP_ORIGIN"),
            host=_read_host(meta),
            cookies=_read_cookies(request),
            proxied=is_proxied(meta),
            read=self.header,
        )
        if reason is None:
            return None
        return error_page(403, refusal_response(reason, read_header(meta, "HTTP_ACCEPT")))

    def adopt_replacement(self) -> None:
        """Adopt what the application has set in place of ``request.session`` (law A24).

        Raises:
            SessionError: it is no mapping.
        """
        session = self.session
        if session is None:
            return
        request: Any = self.request
        replacement = getattr(request, "session", session)
        if replacement is not session:
            request.session = session
            self.adopt(replacement)

    def begin_response(self, response: HttpResponseBase) -> Coroutine[Any, Any, Any] | None:
        """Commit the changes, and set the headers of the response.

        Returns:
            A coroutine to wait for, or None.
        """
        self.adopt_replacement()
        if self.session is not None and self.working_copy is not None:
            changed: Any = self.session  # a RequestSession
            changed.renew_cookie()
        if self.unavailable and response.status_code >= SERVER_ERROR:
            answer_unavailable(response)
        headers = raw_headers(response)
        sent = self.respond(response.status_code, headers, complete=not is_stream(response))
        if isinstance(sent, list):
            if sent is not headers:
                update_response(response, headers, sent, self.session)
            return None
        return self._begin_later(response, headers, sent)

    async def _begin_later(
        self,
        response: HttpResponseBase,
        headers: list[tuple[bytes, bytes]],
        sent: Coroutine[Any, Any, list[tuple[bytes, bytes]]],
    ) -> None:
        update_response(response, headers, await sent, self.session)

    def end_with(self, response: HttpResponseBase, *, committed: bool = True) -> HttpResponseBase:
        """Return the response to an error; what is kept of the request is committed already.

        Args:
            response: to the error.
            committed: False if the store failed while what the handler of the error has done was
                committed.
        """
        if not committed:
            answer_unavailable(response)
        headers = raw_headers(response)
        update_response(response, headers, self.error_headers(headers), self.session)
        return response


def is_stream(response: HttpResponseBase) -> bool:
    """Return whether the body of a response may change the session while it is sent.

    A file does not: servers may send it without iterating over it.
    """
    body: Any = response
    return body.streaming and getattr(body, "file_to_stream", None) is None


def _read_cookies(request: HttpRequest) -> bytes | None:
    """Return all Cookie headers as one; None if there is none.

    HTTP/2 splits the header (RFC 9113 8.2.3), granian passes its parts on, and Django joins them
    with commas.
    """
    joined = read_header(request.META, "HTTP_COOKIE")
    if joined is None or b"," not in joined:
        return joined
    headers: list[tuple[bytes, bytes]] = getattr(request, "scope", {}).get("headers", [])
    parts = [value for name, value in headers if name == b"cookie"]
    return b"; ".join(parts) if len(parts) > 1 else joined


def _read_host(meta: dict[str, Any]) -> bytes | None:
    """Return the Host header, or the server's name as Django's ``get_host`` and test client do."""
    return read_header(meta, "HTTP_HOST" if "HTTP_HOST" in meta else "SERVER_NAME")
