"""FrameworkExchange: the session of one HTTP request of a framework with a server of its own.

The adapters of aiohttp, Sanic and Tornado translate between their framework and this class.
"""

from __future__ import annotations

import asyncio
import inspect
from abc import abstractmethod
from collections.abc import Coroutine, Sequence
from typing import Any, NamedTuple, Protocol

from sojourn.errors import ConfigurationError, SessionRequired, SojournError, StoreError
from sojourn.session import Session
from sojourn.web.asgi_scope import PROXY_HEADERS
from sojourn.web.cache_headers import RawHeaders, TextHeaders
from sojourn.web.error_response import unauthorized_response, unavailable_response
from sojourn.web.installation import OnStoreFailure, WebInstallation
from sojourn.web.lifecycle import ResponseHeaders, SessionLifecycle, decode_headers
from sojourn.web.origin import Refusal, refusal_response
from sojourn.web.status import SERVER_ERROR, UNAVAILABLE


class RequestHeaders(NamedTuple):
    """What ``SessionLifecycle.begin`` needs of a request, in its order."""

    scheme: str
    host: bytes | None
    cookies: bytes | None
    proxied: bool


class HeaderLookup(Protocol):
    """The headers of a request; names in any case."""

    def get(self, key: str, /) -> str | None:
        """Return the first header of a name; None if it is absent."""
        ...

    def __contains__(self, key: object, /) -> bool:
        """Return whether there is a header of a name."""
        ...


def read_request_headers(
    scheme: str,
    headers: HeaderLookup,
    cookies: Sequence[str] | None,
    *,
    encoding: str = "utf-8",
    errors: str = "surrogateescape",
) -> RequestHeaders:
    """Return what ``begin`` needs of a request whose headers a framework has decoded.

    Args:
        scheme: http, https, ws or wss.
        headers: of the request.
        cookies: all Cookie headers; None or empty for none.
        encoding: of the framework, with which the bytes come back.
        errors: see ``str.encode``.
    """
    host = headers.get("host")
    proxied = False
    for name in PROXY_HEADERS:
        if name in headers:
            proxied = True
    return RequestHeaders(
        scheme,
        None if host is None else host.encode(encoding, errors),
        "; ".join(cookies).encode(encoding, errors) if cookies else None,
        proxied,
    )


class ErrorResponse(NamedTuple):
    """A built-in response."""

    status: int
    headers: TextHeaders
    body: bytes


class FrameworkExchange(SessionLifecycle):
    """One HTTP request of a framework, and its response.

    Attributes:
        failure: the error because of which the response could not be made.
        settled: what is kept of a failed request was committed; after that, only what the handler
            of its error does is (``commit_after_error``).
        sent_unavailable: an error response of the framework becomes 503.
        displaced_by: the exchange of a nested application's installation, whose session handlers
            find instead of this one's; None for none.
    """

    __slots__ = ("displaced_by", "failure", "sent_unavailable", "settled")

    def __init__(self, web: WebInstallation) -> None:
        super().__init__(web)
        self.failure: BaseException | None = None
        self.settled: bool = False
        self.sent_unavailable: bool = False
        self.displaced_by: SessionLifecycle | None = None

    # What a framework defines

    @abstractmethod
    def read_request(self) -> RequestHeaders:
        """Return scheme, Host header, all Cookie headers as one, and whether a proxy was passed."""

    @abstractmethod
    def request_session(self) -> object:
        """Return what handlers find as the session of the request."""

    @abstractmethod
    def set_request_session(self, session: Session[Any]) -> None:
        """Let handlers find a session as that of the request."""

    # The request

    def start(
        self, on_store_failure: OnStoreFailure | None = None
    ) -> Coroutine[Any, Any, None] | None:
        """Load the session for the handlers; return a coroutine to wait for, or None.

        Args:
            on_store_failure: the route's choice; None for the installation's.

        Raises:
            StoreError: the store failed, also by the coroutine.
        """
        scheme, host, cookies, proxied = self.read_request()
        try:
            waiting = self.begin(scheme, host, cookies, proxied, on_store_failure)
        except StoreError as error:
            self.failure = error
            raise
        if waiting is not None:
            return self._start_after(waiting)
        assert self.session is not None  # noqa: S101 - begin has set it
        self.set_request_session(self.session)
        return None

    async def _start_after(self, waiting: Coroutine[Any, Any, None]) -> None:
        try:
            await waiting
        except StoreError as error:
            self.failure = error
            raise
        finally:
            if self.session is not None:
                self.set_request_session(self.session)

    async def load(self, on_store_failure: OnStoreFailure | None = None) -> Session[Any]:
        """Load the session of this request, once, for the handlers.

        Args:
            on_store_failure: the route's choice; None for the installation's.

        Raises:
            StoreUnavailable: the store failed.
        """
        self.adopt_replacement()
        copy = self.working_copy
        if copy is None or copy.store_error is not None:
            waiting = self.start(on_store_failure)
            if waiting is not None:
                await waiting
        session = self.session
        assert session is not None  # noqa: S101 - begin has set it
        return session

    def defer(self, error: StoreError) -> None:
        """Let every use of the session raise the error that loading it has raised."""
        copy = self.working_copy
        if copy is not None:
            copy.transport_error = error

    def wanted(self) -> bool:
        """Return whether the path has a session, by ``include`` and ``exclude``."""
        patterns = self.web.config.patterns
        return patterns.everything or patterns.match(self.path())

    def may_load_later(self) -> bool:
        """Return whether the request has a ticket and its path may have a session."""
        if not self.wanted():
            return False
        scheme, host, cookies, proxied = self.read_request()
        transport = self.web.classify(scheme, host, proxied)
        return self.web.has_ticket(transport, cookies, self.header)

    def check_origin(
        self, method: str, *, site: str | None, origin: str | None
    ) -> ErrorResponse | None:
        """Return the refusal of a request of another origin, with ``protect`` (ASVS 3.5.1).

        Args:
            method: of the request.
            site: the Sec-Fetch-Site header; None if absent.
            origin: the Origin header; None if absent.
        """
        scheme, host, cookies, proxied = self.read_request()
        refusal = self.web.check_origin(
            method,
            scheme,
            site=_encode(site),
            origin=_encode(origin),
            host=host,
            cookies=cookies,
            proxied=proxied,
            read=self.header,
        )
        return None if refusal is None else _refuse(refusal)

    def adopt_replacement(self) -> None:
        """Adopt what the application has set in place of its session (law A24).

        Raises:
            SessionError: it is no mapping.
        """
        session = self.session
        if session is None or self.displaced_by is not None:
            return  # not loaded, or handlers find the session of a nested installation
        replacement = self.request_session()
        if replacement is not session:
            self.set_request_session(session)
            self.adopt(replacement)

    # The response

    def commit_response(self, status: int) -> Coroutine[Any, Any, None] | None:
        """Commit when the response is known, so that the application can answer an error of it.

        Args:
            status: of the response.

        Returns:
            A coroutine to wait for, or None.
        """
        if self.settled:
            return self._commit_settled()
        if status >= SERVER_ERROR and self._store_failed():
            return None
        try:
            self.adopt_replacement()
            waiting = self.commit(status)
        except Exception as error:
            self.failure = error
            raise
        return None if waiting is None else self._recording_failure(waiting)

    def _commit_settled(self) -> Coroutine[Any, Any, None] | None:
        """Commit what the handler of an error has ended or rotated."""
        self._adopt_after_error()
        waiting = self.commit_after_error(store_failed=self._store_failed())
        return None if waiting is None else self._recording_unavailable(waiting)

    async def _recording_unavailable(self, waiting: Coroutine[Any, Any, bool]) -> None:
        if not await waiting:
            self.sent_unavailable = True

    async def _recording_failure(self, waiting: Coroutine[Any, Any, None]) -> None:
        try:
            await waiting
        except BaseException as error:
            self.failure = error
            raise

    def start_response(
        self, status: int, headers: RawHeaders, *, complete: bool
    ) -> RawHeaders | ResponseHeaders:
        """Commit what is left and return the headers; see ``respond``.

        Args:
            status: of the response. Send ``final_status`` instead.
            headers: those of ``cache_headers.select_caching``. The given list is not changed.
            complete: the body cannot access the session any more.

        Returns:
            What replaces these headers; the same list if nothing changes; or a coroutine.
        """
        if self.sent_unavailable or (status >= SERVER_ERROR and self._store_failed()):
            if self.final_status(status) == UNAVAILABLE:  # also the application's own 503
                headers = self.unavailable_headers(headers)
            if not self.has_kept_changes():
                self.mark_failed()
                self.settled = True  # a store that has just failed is not called again
        if self.settled:
            waiting = self._commit_settled()
            if waiting is not None:
                return self._start_settled_response(headers, waiting)  # type: ignore[return-value] # a CoroutineType, as of each `async def`
            return self.error_headers(headers)
        self.adopt_replacement()
        return self.respond(status, headers, complete)

    async def _start_settled_response(
        self, headers: RawHeaders, waiting: Coroutine[Any, Any, None]
    ) -> RawHeaders:
        """Return the headers of a response whose error handler ended or rotated the session."""
        await waiting
        if self.sent_unavailable:
            headers = self.unavailable_headers(headers)
        return self.error_headers(headers)

    def final_status(self, status: int) -> int:
        """Return the status to send: 503 for an error response because the store failed."""
        if status == SERVER_ERROR and self._store_failed():
            self.sent_unavailable = True
        return UNAVAILABLE if self.sent_unavailable else status

    async def finish_stream(self) -> None:
        """Commit what a stream has changed; call it before its last byte (law A11)."""
        if self.settled:
            late = self.commit_after_error(store_failed=True)
            if late is not None:
                await late
            return
        self.adopt_replacement()
        waiting = self.finish()
        if waiting is not None:
            await waiting

    # Errors

    def _store_failed(self) -> bool:
        return self.unavailable or self.sent_unavailable or isinstance(self.failure, StoreError)

    async def settle(self, error: BaseException) -> None:
        """Commit what is kept of a request that raised, once.

        Raises:
            StoreError: the store failed.
        """
        self.failure = self.failure or error
        if self.settled:
            if self.response_started:  # the stream of an error page was interrupted
                await asyncio.shield(self.finish_stream())
            return
        self.settled = True
        self._adopt_after_error()
        if isinstance(error, asyncio.CancelledError):
            waiting = self.fail(cancelled=True)
            if waiting is not None:
                await asyncio.shield(waiting)
            return
        if isinstance(error, StoreError) and not self.has_kept_changes():
            self.mark_failed()
            return
        try:
            await self.commit_kept()
        except StoreError as failure:
            self.failure = failure
            raise

    def _adopt_after_error(self) -> None:
        """Adopt what a failed request has set in place of its session."""
        session = self.session
        if session is not None and self.displaced_by is None:
            replacement = self.request_session()
            if replacement is not session:
                self.set_request_session(session)
                self.adopt_after_error(replacement)


async def call_on_error(lifecycle: SessionLifecycle, request: Any, error: BaseException) -> Any:
    """Return the response of ``on_error`` to an error of sojourn; None for none (law A23).

    Args:
        lifecycle: of the request.
        request: of the framework.
        error: raised while the request was served.
    """
    on_error = lifecycle.web.config.on_error
    if (
        on_error is None
        or not isinstance(error, SojournError)
        or not is_answerable(error)
        or lifecycle.response_started
    ):
        return None
    response = on_error(request, error)
    return await response if inspect.isawaitable(response) else response


def default_response(
    lifecycle: SessionLifecycle, error: BaseException, accept: str | None
) -> ErrorResponse | None:
    """Return 503 if the store failed, 401 without a required session; None otherwise.

    Args:
        lifecycle: of the request.
        error: raised while the request was served.
        accept: the Accept header; None if absent.
    """
    if lifecycle.response_started or not is_answerable(error):
        return None
    if isinstance(error, StoreError):
        lifecycle.web.event_log.log_failure(
            "answered 503 because the session store failed: %s", error
        )
        headers, body = unavailable_response(_encode(accept))
        return ErrorResponse(UNAVAILABLE, decode_headers(headers), body)
    if isinstance(error, SessionRequired):
        headers, body = unauthorized_response(_encode(accept))
        return ErrorResponse(401, decode_headers(headers), body)
    return None


def is_answerable(error: BaseException) -> bool:
    """Return whether an error of sojourn is answered by ``on_error`` and by default."""
    return isinstance(error, SojournError) and not isinstance(error, ConfigurationError)


def _refuse(refusal: Refusal) -> ErrorResponse:
    headers, body = refusal_response(refusal)
    return ErrorResponse(403, decode_headers(headers), body)


def _encode(value: str | None) -> bytes | None:
    return None if value is None else value.encode("latin-1", "replace")
