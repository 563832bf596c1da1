"""SessionLifecycle: the session of one request, from its cookie to the end of its response.

It performs no I/O of its own and knows no message format. An adapter for a server protocol or a
framework calls its methods in this order:

1. ``begin`` before the handler runs, or when a handler asks for its session;
2. ``start_response`` before the first byte is sent, then ``response_headers``;
3. ``finish`` after the last byte, ``fail`` if the handler raised;
4. ``close`` at the end.

A method that has to wait for the store returns an awaitable, otherwise None. An adapter without an
event loop passes the awaitable to ``sojourn.web.lifecycle.run``.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import Any, Final, Protocol

from sojourn._core.concurrency import run
from sojourn._core.working_copy import NO_COOKIE_CHANGE, Client, WorkingCopy
from sojourn._crypto.tickets import Ticket
from sojourn.errors import StoreUnavailable
from sojourn.events import Read
from sojourn.session import Session, null_session, raise_store_error
from sojourn.web import cache_headers
from sojourn.web.cache_headers import RawHeaders, TextHeaders
from sojourn.web.installation import OnStoreFailure, WebInstallation, decode_header
from sojourn.web.transport import INSECURE, Transport, refusal

__all__ = [
    "UNAVAILABLE_BODY",
    "UNAVAILABLE_HEADERS",
    "Request",
    "SessionLifecycle",
    "run",
]

logger: logging.Logger = logging.getLogger("sojourn")

#: Responses from here on mean that the request failed (law A10).
_SERVER_ERROR: Final = 500

#: The response if the store failed.
UNAVAILABLE_BODY: Final = b"The session store is unavailable. Please try again in a moment.\n"
UNAVAILABLE_HEADERS: Final = (
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"content-length", str(len(UNAVAILABLE_BODY)).encode()),
    (b"retry-after", b"2"),
    (b"cache-control", b"no-store"),
)

#: Those of them that do not describe the body.
_RETRY_HEADERS: Final = UNAVAILABLE_HEADERS[2:]


class Request(Client, Protocol):
    """What a lifecycle asks of its request, if it needs it."""

    def path(self) -> str:
        """Return the path as the application's routes are written, without a mount prefix."""
        ...


class SessionLifecycle:
    """The session of one HTTP request or WebSocket handshake.

    Args:
        web: the web layer of the installation: ``sessions.web``.
        request: see ``Request``.

    Attributes:
        session: None until ``begin`` is done.
        failed: the request failed, so data changes are not written (law A10).
        response_started: the status and the headers were handed to the server.
        client_disconnected: set by the adapter when the server reports it.
    """

    __slots__ = (
        "_copy",
        "_transport",
        "client_disconnected",
        "failed",
        "request",
        "response_started",
        "session",
        "web",
    )

    def __init__(self, web: WebInstallation, request: Request) -> None:
        self.web: WebInstallation = web
        self.request: Request | None = request
        self.session: Session[Any] | None = None
        self.failed: bool = False
        self.response_started: bool = False
        self.client_disconnected: bool = False
        self._copy: WorkingCopy | None = None
        self._transport: Transport = INSECURE

    @property
    def working_copy(self) -> WorkingCopy | None:
        """The session's working copy, for the adapters of this package; None before ``begin``."""
        return self._copy

    # The request

    def begin(
        self,
        scheme: str,
        host: bytes | None,
        cookies: bytes | None,
        proxied: bool = False,  # noqa: FBT001, FBT002 - positional: called for every request
        on_store_failure: OnStoreFailure | None = None,
    ) -> Coroutine[Any, Any, None] | None:
        """Load the session of the request, once.

        Args:
            scheme: http, https, ws or wss, in lower case.
            host: the Host header; None if there is none.
            cookies: all Cookie headers, joined with "; "; None if there is none.
            proxied: the request has a header that only proxies add (Forwarded, Via,
                X-Forwarded-For or X-Forwarded-Proto).
            on_store_failure: the route's choice; None for the installation's.

        Returns:
            A coroutine to wait for, or None. ``session`` is set afterwards.

        Raises:
            StoreUnavailable: the store failed, also by the coroutine.
        """
        if self._copy is not None:
            self._check_store_failure(self._copy, on_store_failure)
            return None
        web = self.web
        self._transport = transport = web.classify(scheme, host, proxied)
        ticket = None if cookies is None else web.read_ticket(transport, cookies)
        if ticket is None:
            copy = WorkingCopy(web.engine.context, None, b"", self.request)
            if transport is INSECURE:
                copy.transport_error = refusal(decode_header(host))
        else:
            immediate = web.engine.load_immediately(ticket, self.request)
            if immediate is None:
                return self._load(ticket, on_store_failure)
            copy = immediate
        self._use(copy, Session(copy, web.engine))
        return None

    async def _load(self, ticket: Ticket, on_store_failure: OnStoreFailure | None) -> None:
        engine = self.web.engine
        session: Session[Any]
        try:
            copy = await engine.load(ticket, self.request)
            session = Session(copy, engine)
        except StoreUnavailable as error:
            copy = WorkingCopy(engine.context, None, b"", self.request)
            copy.store_error = error
            session = null_session(engine, copy)
            if not self._continues(error, on_store_failure):
                copy.store_error_raised = True
                self._use(copy, session)
                raise
        if self._copy is None:  # a parallel task of the handler may have been faster
            self._use(copy, session)

    def _use(self, copy: WorkingCopy, session: Session[Any]) -> None:
        self._copy = copy
        self.session = session
        passive = self.web.config.passive
        if (
            passive is not None
            and copy.record is not None
            and self.request is not None
            and passive.match(self.request.path())
        ):
            copy.active_at = copy.record.seen_at  # the request is not activity of the visitor
        if self.response_started:
            copy.mark_response_started()

    # Failures of the store

    def _continues(self, error: StoreUnavailable, on_store_failure: OnStoreFailure | None) -> bool:
        """Return whether the request continues without its session; log the first of an outage."""
        web = self.web
        if on_store_failure is None:
            patterns = web.config.anonymous
            if patterns is None or self.request is None:
                return False
            if not patterns.match(self.request.path()):
                return False
        elif on_store_failure == "error":
            return False
        reads = web.engine.context.dispatcher.counts[Read]
        if reads != web.reads_at_failure:  # the store has answered since: this is another outage
            web.reads_at_failure = reads
            logger.warning(
                "the session store failed, and requests go on without their session until it "
                "answers: %s",
                error,
            )
        return True

    def _check_store_failure(
        self, copy: WorkingCopy, on_store_failure: OnStoreFailure | None
    ) -> None:
        if copy.store_error is not None and (
            on_store_failure == "error" or copy.store_error_raised
        ):
            raise_store_error(copy)

    @property
    def unavailable(self) -> bool:
        """Whether an error response of the framework must be 503, because the store failed."""
        return self._copy is not None and self._copy.store_error_raised

    # The response

    def start_response(self, status: int) -> Coroutine[Any, Any, None] | None:
        """Commit the changes; call it before the first byte of the response is sent.

        Args:
            status: of the response. From 500 on, data changes are dropped unless ``save_on_error``.

        Returns:
            A coroutine to wait for before ``response_headers``, or None.
        """
        if status >= _SERVER_ERROR:
            self.failed = not self.web.config.save_on_error
        copy = self._copy
        if copy is None:
            return None
        engine = self.web.engine
        failed = self.failed
        if copy.record is None:
            if not (copy.accessed and copy.modified()):
                return None
        elif not failed and engine.commit_immediately(copy):
            return None
        clock = engine.clock
        now = clock()
        step = engine.plan(copy, now, failed)
        return None if step is None else engine.execute(step, copy, now, failed=failed)

    def response_headers(self, headers: RawHeaders, *, complete: bool = False) -> RawHeaders:
        """Return the headers to send: with Set-Cookie, Vary and Cache-Control as needed (law A13).

        Call it once, when the headers are handed to the server. The given list is not changed.

        Args:
            headers: the application's, names in any case.
            complete: the whole body is known, so the session cannot be accessed any more.
        """
        self.response_started = True
        copy = self._copy
        if copy is None:
            return headers
        copy.response_started = True
        accessed = copy.accessed or (
            # A stream may access the session later, when the headers cannot tell any more.
            copy.record is not None and not complete and not _has_content_length(headers)
        )
        if copy.cookie_change is NO_COOKIE_CHANGE and not copy.destroyed_by_visitor:
            if not accessed:
                return headers
            return cache_headers.looked_at(headers, copy.authenticated())
        web = self.web
        cleared = web.clear_site_data_header(copy, self._transport)
        headers = cache_headers.apply(
            headers,
            looked=accessed,
            private=copy.authenticated(),
            set_cookie=web.set_cookie(copy, self._transport),
            overruled=_warn_overruled,
        )
        if cleared is not None:
            headers = [*headers, (b"clear-site-data", cleared)]
        return headers

    def response_text_headers(self, headers: TextHeaders, *, complete: bool = False) -> TextHeaders:
        """Return the headers to send as text, as WSGI spells them; see ``response_headers``."""
        copy = self._copy
        if copy is None or (
            copy.cookie_change is NO_COOKIE_CHANGE and not copy.destroyed_by_visitor
        ):
            self.response_started = True
            if copy is None:
                return headers
            copy.response_started = True
            accessed = copy.accessed or (
                copy.record is not None and not complete and not _has_content_length(headers)
            )
            return cache_headers.apply_text(
                headers, looked=accessed, private=copy.authenticated(), set_cookie=None
            )
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        sent = self.response_headers(raw, complete=complete)
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in sent]

    def unavailable_headers(self, headers: RawHeaders) -> RawHeaders:
        """Return the headers of a framework's error response that becomes 503."""
        kept = [(n, v) for n, v in headers if n.lower() != b"cache-control"]
        return [*kept, *_RETRY_HEADERS]

    def set_cookie(self) -> bytes | None:
        """Return the Set-Cookie header of a handshake response; None for none."""
        return None if self._copy is None else self.web.set_cookie(self._copy, self._transport)

    def finish(self) -> Coroutine[Any, Any, None] | None:
        """Commit what the handler changed after the response had started (law A11).

        Returns:
            A coroutine to wait for, or None.
        """
        copy = self._copy
        if copy is None or copy.changes is None or not copy.modified():
            return None
        return self.web.engine.commit(copy, failed=self.failed)

    def fail(self, *, cancelled: bool = False) -> Coroutine[Any, Any, None] | None:
        """Commit what is kept of a request whose handler raised.

        Destroying and rotating are carried out; data changes are dropped unless ``save_on_error``
        (law A10). If the client disconnected, the handler did not fail: what a stream did up to
        then is kept (A11), what a request without a response did is not (A12).

        Args:
            cancelled: the handler was cancelled; the adapter must shield the coroutine.

        Returns:
            A coroutine to wait for, or None.
        """
        self.mark_failed(cancelled=cancelled)
        copy = self._copy
        return None if copy is None else self.web.engine.commit(copy, failed=self.failed)

    def mark_failed(self, *, cancelled: bool = False) -> None:
        """Decide whether later commits of this request drop its data changes; see ``fail``."""
        if cancelled or self.client_disconnected:
            self.failed = self.failed or not self.response_started
        else:
            self.failed = not self.web.config.save_on_error

    def destroys_session(self) -> bool:
        """Return whether the handler destroyed the session and that is not carried out yet."""
        return self._copy is not None and self._copy.destroyed_record is not None

    def close(self) -> None:
        """Drop the references to the request, so that no reference cycle is left."""
        self.request = None
        if self._copy is not None:
            self._copy.client = None


def _has_content_length(headers: RawHeaders | TextHeaders) -> bool:
    return any(name.lower() in (b"content-length", "content-length") for name, _ in headers)


def _warn_overruled(header: str) -> None:
    logger.warning(
        "%r was replaced by 'Cache-Control: private, no-store', because this response sets the "
        "session cookie and a shared cache would give it to other visitors",
        header,
    )
