"""WebApplication: serves the pages of a routing table over ASGI, WSGI and framework adapters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from http import HTTPStatus
from typing import Any, Final, overload
from urllib.parse import quote

from sojourn._core.concurrency import run
from sojourn._core.coroutine_function import mark_coroutine_function
from sojourn.admin.csrf import check_csrf
from sojourn.admin.errors import ClientDisconnected, PageError
from sojourn.admin.request import (
    AdminRequest,
    load_environ_session,
    load_scope_session,
    missing_session,
    read_body,
    read_environ,
    read_scope,
    receive_body,
)
from sojourn.admin.response import AdminResponse, redirect
from sojourn.admin.routes import Routes
from sojourn.admin.stylesheet import Stylesheet
from sojourn.errors import RevocationIncomplete, StoreError
from sojourn.session import NullSession
from sojourn.web.asgi_scope import Receive, Scope, Send
from sojourn.web.error_response import RETRY_HEADERS
from sojourn.web.installation import WebInstallation
from sojourn.web.origin import SAFE_METHODS
from sojourn.web.wsgi_environ import Environ

Admit = Callable[[AdminRequest], Awaitable[AdminResponse | None]]
"""Raises ``PageError`` or returns a response for a visitor who is not admitted; otherwise None."""

ShowError = Callable[[AdminRequest, PageError], AdminResponse]

ReadBody = Callable[[], Awaitable[bytes]]

StartResponse = Callable[[str, list[tuple[str, str]]], object]

_RETRY: Final = tuple((name.decode(), value.decode()) for name, value in RETRY_HEADERS)


class WebApplication:
    """An ASGI and WSGI application of a few pages, mounted into the application of its visitors.

    It uses the session that the host application has for the request. Each request with an unsafe
    method is checked for its origin and a CSRF token before its handler runs.

    Args:
        web: of the installation whose ``allowed_origins`` count.
        routes: the pages.
        admit: called before each page.
        show_error: returns the page of an error.
        stylesheet: served to every visitor.
    """

    def __init__(
        self,
        web: WebInstallation,
        routes: Routes,
        *,
        admit: Admit,
        show_error: ShowError,
        stylesheet: Stylesheet,
    ) -> None:
        self.routes: Routes = routes
        self._web = web
        self._admit = admit
        self._show_error = show_error
        self._stylesheet = stylesheet

    def needs_session(self, path: str) -> bool:
        """Return whether the response for a path below the mount depends on the session."""
        return not self._stylesheet.serves(path)

    @overload
    def __call__(self, environ: Environ, start_response: StartResponse, /) -> Iterable[bytes]: ...
    @overload
    def __call__(self, scope: Scope, receive: Receive, send: Send, /) -> Awaitable[None]: ...
    @mark_coroutine_function
    def __call__(self, *args: Any) -> Iterable[bytes] | Awaitable[None]:
        """Answer a request: two arguments are WSGI's, three are ASGI's."""
        return self._serve_wsgi(*args) if len(args) == 2 else self._serve_asgi(*args)  # noqa: PLR2004 - PEP 3333

    def respond(self, request: AdminRequest, read: ReadBody | None = None) -> AdminResponse:
        """Return the response to a request. For threads; see ``arespond``."""
        return run(self.arespond(request, read), instead="arespond()")

    async def arespond(self, request: AdminRequest, read: ReadBody | None = None) -> AdminResponse:
        """Return the response to a request, also to one that is refused.

        Args:
            request: with its session and ``query_string``.
            read: reads the body after the visitor was admitted; None if ``form`` is set.
        """
        if self._stylesheet.serves(request.path) and request.method in ("GET", "HEAD"):
            return self._stylesheet.response()
        if not request.path:
            return _add_slash(request)
        try:
            return await self._respond(request, read)
        except PageError as error:
            return self._show_error(request, error)
        except StoreError as error:
            return self._show_error(request, _unavailable(error))

    async def _respond(self, request: AdminRequest, read: ReadBody | None) -> AdminResponse:
        if request.session is None:
            raise missing_session()
        if isinstance(request.session, NullSession):
            raise _unavailable(None)
        response = await self._admit(request)
        if response is not None:
            return response
        handler, parameters = self.routes.find(request)
        is_safe = request.method in SAFE_METHODS
        if read is not None and not is_safe:
            request.check_length()
            request.body = await read()
        request.parse()
        if not is_safe:
            check_csrf(request, self._web)
        return await handler(request, **parameters)

    async def _serve_asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})  # the server answers 403
            return
        if scope["type"] != "http":
            raise ValueError(f"expected an HTTP request, found {scope['type']!r}")
        request = read_scope(scope)
        try:
            response = await self._respond_to_scope(request, scope, receive)
        except ClientDisconnected:
            return
        await send(
            {
                "type": "http.response.start",
                "status": int(response.status),
                "headers": [
                    (name.encode("ascii"), value.encode("ascii"))
                    for name, value in response.complete_headers()
                ],
            }
        )
        body = b"" if request.method == "HEAD" else response.body
        await send({"type": "http.response.body", "body": body})

    async def _respond_to_scope(
        self, request: AdminRequest, scope: Scope, receive: Receive
    ) -> AdminResponse:
        if not self._stylesheet.serves(request.path):
            try:
                request.session = await load_scope_session(scope)
            except StoreError as error:
                return self._show_error(request, _unavailable(error))
            request.user = _user(request)
        return await self.arespond(request, partial(receive_body, receive))

    def _respond_to_environ(self, request: AdminRequest, environ: Environ) -> AdminResponse:
        if not self._stylesheet.serves(request.path):
            try:
                request.session = load_environ_session(environ)
            except StoreError as error:
                return self._show_error(request, _unavailable(error))
            request.user = _user(request)
        return self.respond(request, partial(read_body, environ))

    def _serve_wsgi(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        request = read_environ(environ)
        response = self._respond_to_environ(request, environ)
        headers = [(name.title(), value) for name, value in response.complete_headers()]
        start_response(f"{int(response.status)} {response.status.phrase}", headers)
        return [b"" if request.method == "HEAD" else response.body]


def _add_slash(request: AdminRequest) -> AdminResponse:
    """Return a redirect from ``/admin`` to ``/admin/``, where relative links are right."""
    segment = quote(request.mount.rpartition("/")[2])
    query = f"?{quote(request.query_string, safe='=&+%')}" if request.query_string else ""
    # "./", so that a colon in the segment does not end a scheme.
    return redirect(f"./{segment}/{query}", HTTPStatus.TEMPORARY_REDIRECT)


def _user(request: AdminRequest) -> str | None:
    session = request.session
    return None if session is None or isinstance(session, NullSession) else session.user


def _unavailable(error: StoreError | None) -> PageError:
    title = "The session store is unavailable"
    detail = "The session store did not answer. Try again in a moment."
    if isinstance(error, RevocationIncomplete):
        title, detail = "The revocation is incomplete", f"{error}."
    return PageError(HTTPStatus.SERVICE_UNAVAILABLE, title, detail, _RETRY)
