"""SessionLifecycle: the session of one request, from its cookie to the end of its response."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Mapping, MutableMapping
from types import CoroutineType
from typing import Any, Final, TypeAlias

import msgspec

from sojourn._core.concurrency import run
from sojourn._core.operations import same
from sojourn._core.plan import Write
from sojourn._core.working_copy import NO_COOKIE_CHANGE, WorkingCopy
from sojourn._crypto.tickets import Ticket
from sojourn.errors import (
    ConfigurationError,
    NotSerializable,
    SessionError,
    SojournError,
    StoreError,
    StoreUnavailable,
)
from sojourn.session import Session, create_session, null_session, raise_store_error
from sojourn.web import cache_headers
from sojourn.web.cache_headers import RawHeaders, TextHeaders
from sojourn.web.error_response import RETRY_HEADERS, unavailable_response
from sojourn.web.installation import OnStoreFailure, WebInstallation, decode_header
from sojourn.web.origin import SAFE_METHODS
from sojourn.web.status import SERVER_ERROR
from sojourn.web.transport_security import ENCRYPTED, INSECURE, TransportSecurity, refusal

__all__ = [
    "UNAVAILABLE_BODY",
    "UNAVAILABLE_HEADERS",
    "SessionLifecycle",
    "decode_headers",
    "encode_headers",
    "run",
    "warn_overruled",
]

#: A coroutine that returns the headers of a response. The concrete type, because a check against
#: ``collections.abc.Coroutine`` costs each request a thousand instructions.
ResponseHeaders: TypeAlias = "CoroutineType[Any, Any, RawHeaders]"

logger: logging.Logger = logging.getLogger("sojourn")

#: The response of WSGI if the store failed.
_UNAVAILABLE: Final = unavailable_response(None)
UNAVAILABLE_HEADERS: Final = tuple(_UNAVAILABLE[0])
UNAVAILABLE_BODY: Final = _UNAVAILABLE[1]


class PlannedCommit(msgspec.Struct, gc=False):
    """A commit before a response.

    Attributes:
        step: what it has to write.
        now: when it was planned, milliseconds since 1970 UTC.
    """

    step: Write
    now: int


class SessionLifecycle:
    """The session of one HTTP request or WebSocket handshake; the base class of adapters.

    It performs no I/O of its own and depends on no message format. An adapter for a server protocol
    or a framework is a subclass that calls the methods in this order:

    1. ``begin`` before the handler runs, or when a handler requests its session;
    2. ``respond`` before the first byte is sent: it commits and returns the headers;
    3. ``finish`` after the last byte, ``fail`` if the handler raised;
    4. ``end`` at the end.

    A method that has to wait for the store returns a coroutine. An adapter without an event loop
    passes it to ``run``.

    A subclass adds ``labels`` and ``path`` of its requests, and whatever its protocol needs.

    Args:
        web: the web layer of the installation: ``sessions.web``.

    Attributes:
        session: None until ``begin`` is done.
        failed: the request failed, so data changes are not written (law A10).
        response_started: the status and the headers were handed to the server.
        client_disconnected: set by the adapter when the server reports it.
        transport: of the request: encrypted, local or insecure.
        working_copy: of the session, for adapters of this package; None until ``begin`` is done.
    """

    __slots__ = (
        "_has_header_only",
        "client_disconnected",
        "failed",
        "response_started",
        "session",
        "transport",
        "web",
        "working_copy",
    )

    def __init__(self, web: WebInstallation) -> None:
        self.web: WebInstallation = web
        self.session: Session[Any] | None = None
        self.working_copy: WorkingCopy | None = None
        self.failed: bool = False
        self.response_started: bool = False
        self.client_disconnected: bool = False
        self.transport: TransportSecurity = INSECURE

    def labels(self) -> dict[str, str]:
        """Return short texts about the client, such as ``browser`` and ``address``.

        They are stored when a session is created and at a login.
        """
        return {}

    def path(self) -> str:
        """Return the path as the application's routes are written, without a mount prefix.

        It is compared with ``passive`` and ``on_store_failure``.
        """
        return "/"

    def header(self, name: str) -> str | None:
        """Return a header of the request; None if it is absent.

        Called only with ``transport="header"``: for the header that carries the ticket, and for
        ``sec-websocket-protocol``.

        Args:
            name: in lower case.

        Raises:
            ConfigurationError: the adapter does not support this transport.
        """
        raise ConfigurationError(
            f"transport='header' needs the request header {name!r}, and {type(self).__name__} does "
            "not read headers; override SessionLifecycle.header in the adapter, or use cookies"
        )

    def method(self) -> str:
        """Return the method of the request in upper case, such as ``GET``.

        Called only with ``near_cache``: the session of a request whose method is unsafe, or not
        known, is loaded from the store (law N1). WebSocket handshakes have none.
        """
        return ""

    @property
    def answers_in_header(self) -> bool:
        """Whether a new ticket is sent in a response header, because the request carried one."""
        headers = self.web.header_transport
        return headers is not None and (not headers.cookies or bool(headers.find(self.header)))

    def has_header_only(self) -> bool:
        """Return whether the request carries the ticket's header, and no cookie with a ticket.

        Such a request needs no CSRF token: see ``WebInstallation.has_header_only``.

        Returns:
            False before ``begin``.
        """
        if self.web.header_transport is None or self.working_copy is None:
            return False
        return self._has_header_only

    def may_load_later(self) -> bool:
        """Return whether a session may be loaded after the headers were sent.

        Called for streams of requests that have not loaded one (``autoload=False``).

        Returns:
            True if the request has a session cookie, valid or not.
        """
        return False

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
        loading = self.begin_load(scheme, host, cookies, proxied, on_store_failure)
        return None if loading is None else self._load_session(loading, on_store_failure)

    def begin_load(
        self,
        scheme: str,
        host: bytes | None,
        cookies: bytes | None,
        proxied: bool = False,  # noqa: FBT001, FBT002 - positional: called for every request
        on_store_failure: OnStoreFailure | None = None,
    ) -> Coroutine[Any, Any, WorkingCopy] | None:
        """Begin as ``begin`` does, with one coroutine less.

        Returns:
            None if ``session`` is set. Otherwise a coroutine to wait for: give its result to
            ``loaded``, or the ``StoreUnavailable`` that it raised to ``load_failed``.

        Raises:
            StoreUnavailable: an earlier load of this request failed.
        """
        if self.working_copy is not None:
            self._check_store_failure(self.working_copy, on_store_failure)
            return None
        web = self.web
        transport = None if proxied or scheme in ENCRYPTED else web.transports.get(host)
        if transport is None:
            transport = web.classify(scheme, host, proxied)
        self.transport = transport
        if web.header_transport is not None:
            ticket = web.read_header_ticket(transport, cookies, self.header)
            self._has_header_only = web.has_header_only(transport, cookies, self.header)
        else:
            ticket = None if cookies is None else web.read_ticket(transport, cookies)
        if ticket is None:
            if cookies is not None and web.legacy is not None and transport is not INSECURE:
                return web.legacy.load(cookies, transport, self)
            copy = WorkingCopy(web.engine.context, None, b"", self)
            if transport is INSECURE:
                copy.transport_error = refusal(decode_header(host))
        else:
            engine = web.engine
            # Local names: to call an attribute of the engine that is no method costs more.
            load_immediately, load = engine.load_immediately, engine.load
            immediate = load_immediately(ticket, self) if engine.loads_immediately else None
            if immediate is None and web.written_cookie_suffix is not None:
                immediate = self._load_from_memory(ticket, cookies)
            if immediate is None:
                return load(ticket, self)
            copy = immediate
        session: Session[Any] = create_session(copy, web.engine, web.session_class)
        if self.response_started or web.config.passive is not None:
            self._use_session(copy, session)
        else:  # as `_use_session` does
            self.working_copy = copy
            self.session = session
        return None

    def _load_from_memory(self, ticket: Ticket, cookies: bytes | None) -> WorkingCopy | None:
        """Load the session from the near cache; None if the store has to be called (N1, N3)."""
        web = self.web
        if (
            web.written_cookie_suffix is None
            or cookies is None
            or web.written_cookie_suffix in cookies
            or self.method() not in SAFE_METHODS
        ):
            return None
        return web.engine.load_from_memory(ticket, self)

    async def _load_session(
        self,
        loading: Coroutine[Any, Any, WorkingCopy],
        on_store_failure: OnStoreFailure | None,
    ) -> None:
        try:
            copy = await loading
        except StoreUnavailable as error:
            self.load_failed(error, on_store_failure)
        else:
            self.loaded(copy)

    def loaded(self, copy: WorkingCopy) -> None:
        """Use the session that was loaded; see ``begin_load``."""
        if self.working_copy is None:  # a parallel task of the handler may have been faster
            web = self.web
            session: Session[Any] = create_session(copy, web.engine, web.session_class)
            if self.response_started or web.config.passive is not None:
                self._use_session(copy, session)
            else:  # as `_use_session` does
                self.working_copy = copy
                self.session = session

    def load_failed(
        self, error: StoreUnavailable, on_store_failure: OnStoreFailure | None = None
    ) -> None:
        """Use a session that cannot be loaded, or raise the error; see ``begin_load``.

        Raises:
            StoreUnavailable: the request does not continue without its session.
        """
        engine = self.web.engine
        copy = WorkingCopy(engine.context, None, b"", self)
        copy.store_error = error
        session = null_session(engine, copy, self.web.null_session_class)
        if not self._continues(error, on_store_failure):
            copy.store_error_raised = True
            self._use_session(copy, session)
            raise error
        if self.working_copy is None:  # a parallel task of the handler may have been faster
            self._use_session(copy, session)

    def _use_session(self, copy: WorkingCopy, session: Session[Any]) -> None:
        self.working_copy = copy
        self.session = session
        passive = self.web.config.passive
        if passive is not None and copy.record is not None and passive.match(self.path()):
            copy.active_at = copy.record.seen_at  # the request is not activity of the visitor
        if self.response_started:
            copy.mark_response_started()

    # Failures of the store

    def _continues(self, error: StoreUnavailable, on_store_failure: OnStoreFailure | None) -> bool:
        """Return whether the request continues without its session."""
        web = self.web
        if on_store_failure is None:
            patterns = web.config.anonymous
            if patterns is None or not patterns.match(self.path()):
                return False
        elif on_store_failure == "error":
            return False
        web.event_log.log_failure(
            "a request continues without its session, because the session store failed: %s", error
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
        return self.working_copy is not None and self.working_copy.store_error_raised

    # The response

    def respond(
        self,
        status: int,
        headers: RawHeaders,
        complete: bool = False,  # noqa: FBT001, FBT002 - positional: called for every request
    ) -> RawHeaders | ResponseHeaders:
        """Commit the changes and return the headers to send.

        Call it once, before the first byte of the response is sent.

        Args:
            status: of the response. From 500 on, data changes are dropped unless ``save_on_error``.
            headers: the application's, names in any case. The given list is not changed.
            complete: the whole body is known, so the session cannot be accessed any more. A body
                that is streamed may access it later, whether or not its length is known: such a
                response gets the headers of one that did, if the request has a session or a ticket
                (``may_load_later``).

        Returns:
            The headers with Set-Cookie, Vary and Cache-Control as needed (law A13), or a coroutine
            that returns them.
        """
        planned = self.plan_response(status, headers, complete)
        if isinstance(planned, PlannedCommit):
            return self._respond_after(planned, headers, complete)  # type: ignore[return-value] # a CoroutineType, as of each `async def`
        return planned

    def plan_response(
        self,
        status: int,
        headers: RawHeaders,
        complete: bool,  # noqa: FBT001 - positional: called for every request
    ) -> RawHeaders | PlannedCommit:
        """Respond as ``respond`` does, without a coroutine.

        Returns:
            The headers, or a commit to wait for: ``execute`` of the engine carries it out, and
            ``response_headers`` then returns the headers.
        """
        if status >= SERVER_ERROR:
            self.failed = self.failed or not self.web.config.save_on_error
        copy = self.working_copy
        if copy is None:
            self.response_started = True
            if complete or not self.may_load_later():
                return headers
            return cache_headers.add_private_headers(headers, False, self.web.vary)
        record = copy.record
        if record is None and not copy.accessed:
            self.response_started = copy.response_started = True
            if complete:
                return headers
            return cache_headers.add_private_headers(headers, False, self.web.vary)
        engine = self.web.engine
        failed = self.failed
        if record is None or failed or not engine.commit_immediately(copy):
            clock = engine.clock
            now = clock()
            step = engine.plan(copy, now, failed)
            if step is not None:
                return PlannedCommit(step, now)
        return self._headers_with_session(copy, headers, complete)

    def commit(self, status: int) -> Coroutine[Any, Any, None] | None:
        """Commit the changes without response headers; see ``respond``.

        Returns:
            A coroutine to wait for, or None.
        """
        if status >= SERVER_ERROR:
            self.failed = self.failed or not self.web.config.save_on_error
        copy = self.working_copy
        if copy is None:
            return None
        engine = self.web.engine
        failed = self.failed
        if copy.record is not None and not failed and engine.commit_immediately(copy):
            return None
        now = engine.clock()
        step = engine.plan(copy, now, failed)
        return None if step is None else engine.execute(step, copy, now, failed=failed)

    async def _respond_after(
        self,
        planned: PlannedCommit,
        headers: RawHeaders,
        complete: bool,  # noqa: FBT001 - positional, as the caller has it
    ) -> RawHeaders:
        """Commit and return the headers."""
        copy = self.working_copy
        assert copy is not None  # noqa: S101 - the commit was planned for it
        await self.web.engine.execute(planned.step, copy, planned.now, failed=self.failed)
        return self.response_headers(headers, complete)

    def response_headers(
        self,
        headers: RawHeaders,
        complete: bool,  # noqa: FBT001 - positional, as the caller has it
    ) -> RawHeaders:
        """Return the headers to send after a commit; see ``plan_response``."""
        copy = self.working_copy
        assert copy is not None  # noqa: S101 - the commit was planned for it
        return self._headers_with_session(copy, headers, complete)

    def _headers_with_session(
        self,
        copy: WorkingCopy,
        headers: RawHeaders,
        complete: bool,  # noqa: FBT001 - positional: called for every request
    ) -> RawHeaders:
        self.response_started = copy.response_started = True
        record = copy.record
        # A stream may access the session later, when the headers have been sent.
        accessed = copy.accessed or not complete
        # A revoked session has no record any more; its data may have been read before.
        private = (
            (record is not None and record.authenticated_at > 0)
            or (copy.renewal is not None and copy.authenticated())
            or copy.revoked
        )
        web = self.web
        if (
            copy.cookie_change is NO_COOKIE_CHANGE
            and not copy.destroyed_by_visitor
            and not copy.retired_cookie
            and not (copy.written and web.written_cookie_suffix is not None)
        ):
            if not accessed:
                return headers
            return cache_headers.add_private_headers(headers, private, web.vary)
        cleared = web.clear_site_data_header(copy, self.transport)
        name, value = self.ticket_header() or (b"set-cookie", None)
        written_cookie = web.set_written_cookie(copy, self.transport)
        headers = cache_headers.apply(
            headers,
            accessed=accessed,
            private=private,
            set_cookie=written_cookie if value is None else value,
            overruled=warn_overruled,
            ticket_name=name,
            vary=web.vary,
        )
        if cleared is not None:
            headers = [*headers, (b"clear-site-data", cleared)]
        if copy.retired_cookie:
            headers = [*headers, *web.retire_cookie(copy, value)]
        if written_cookie is not None and value is not None:
            headers = [*headers, (b"set-cookie", written_cookie)]
        return headers

    def error_headers(self, headers: RawHeaders) -> RawHeaders:
        """Return the headers of a response to an error; ``fail`` has committed what is kept."""
        copy = self.working_copy
        if copy is None:
            self.response_started = True
            return headers
        return self._headers_with_session(copy, headers, True)

    def adopt(self, replacement: object) -> None:
        """Adopt what the application has set in place of its session (law A24).

        Args:
            replacement: a mapping is what the session holds from now on; an empty one clears it.
                None, and the ``Empty`` of Litestar, destroy it.

        Raises:
            SessionError: it is none of these.
        """
        session, copy = self.session, self.working_copy
        assert session is not None  # noqa: S101 - begin has set both
        assert copy is not None  # noqa: S101 - begin has set it
        if copy.store_error is not None:
            return  # a request that continues without its session
        if replacement is None or _is_litestar_empty(replacement):
            session.destroy()
        elif not isinstance(replacement, Mapping):
            raise SessionError(
                "the application has replaced its session by an object of type "
                f"{type(replacement).__qualname__}; expected a mapping, or None to end the "
                "session. Change the session itself: session.update(...), session.logout()"
            )
        elif replacement:
            _assign(session, replacement)
        elif session.user is not None or len(session):
            session.clear()

    def adopt_after_error(self, replacement: object) -> None:
        """Adopt as ``adopt`` does, for a request that failed: its own error is not replaced.

        Data changes of such a request are dropped, but an ended session stays ended (law A10).
        """
        try:
            self.adopt(replacement)
        except SojournError as error:
            logger.error("the replaced session of a failed request was not adopted: %s", error)  # noqa: TRY400 - one line

    def unavailable_headers(self, headers: RawHeaders) -> RawHeaders:
        """Return the headers of a framework's error response that becomes 503.

        A Retry-After of the application is kept.
        """
        kept = [(n, v) for n, v in headers if n.lower() != b"cache-control"]
        known = {name.lower() for name, _ in kept}
        return [*kept, *(header for header in RETRY_HEADERS if header[0] not in known)]

    def ticket_header(self) -> tuple[bytes, bytes] | None:
        """Return the header of a handshake response that carries a new ticket; None for none.

        Set-Cookie, or the response header of ``transport="header"``. Call it once, after the
        commit: the change counts as sent.
        """
        copy, web = self.working_copy, self.web
        if copy is None or copy.cookie_change is NO_COOKIE_CHANGE:
            return None
        headers = web.header_transport
        if headers is not None and self.answers_in_header:
            name, value = headers.response_header, web.ticket_header(copy, self.transport)
        else:
            name, value = b"set-cookie", web.set_cookie(copy, self.transport)
        return None if value is None else (name, value)

    def handshake_headers(self) -> RawHeaders:
        """Return the headers of a handshake response: ``ticket_header``, and a retired cookie."""
        copy = self.working_copy
        if copy is None:
            return []
        header = self.ticket_header()
        own, value = ([], None) if header is None else ([header], header[1])
        written_cookie = self.web.set_written_cookie(copy, self.transport)
        if written_cookie is not None:
            own.append((b"set-cookie", written_cookie))
        return [*own, *self.web.retire_cookie(copy, value)]

    def finish(self) -> Coroutine[Any, Any, None] | None:
        """Commit what the handler changed after the response had started (law A11).

        Returns:
            A coroutine to wait for, or None.
        """
        copy = self.working_copy
        if copy is None:
            return None
        changes = copy.changes
        if changes is None or not (
            # A failed request drops its data, also a value that cannot be stored.
            ((changes.states or changes.cleared) and not self.failed and changes.modified())
            or copy.destroyed_record is not None
            or copy.renewal is not None
            or copy.unsettled is not None
        ):  # as `copy.modified()`
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
        copy = self.working_copy
        return None if copy is None else self.web.engine.commit(copy, failed=self.failed)

    async def commit_kept(self) -> None:
        """Commit as ``fail`` does; drop the data if it cannot be saved.

        Raises:
            StoreError: the store failed.
        """
        waiting = self.fail()
        if waiting is None:
            return
        try:
            await waiting
        except SessionError as refused:  # with save_on_error
            logger.error("the data of a failed request was not saved: %s", refused)  # noqa: TRY400 - one line
            self.failed = True
            waiting = self.finish()
            if waiting is not None:
                await waiting

    def restart(self) -> None:
        """Drop the session and its changes, so that ``begin`` loads it again.

        For a framework that runs the handler of a request another time.
        """
        if not self.response_started:
            self.session = None
            self.working_copy = None
            self.failed = False

    def mark_failed(self, *, cancelled: bool = False) -> None:
        """Decide whether later commits of this request drop its data changes; see ``fail``."""
        if cancelled or self.client_disconnected:
            self.failed = self.failed or not self.response_started
        else:
            self.failed = self.failed or not self.web.config.save_on_error

    def destroys_session(self) -> bool:
        """Return whether the handler destroyed the session and that is not carried out yet."""
        return self.working_copy is not None and self.working_copy.destroyed_record is not None

    def has_kept_changes(self) -> bool:
        """Return whether a failed request has something to commit (law A10)."""
        copy = self.working_copy
        return copy is not None and (copy.destroyed_record is not None or copy.renewal is not None)

    def commit_after_error(self, *, store_failed: bool) -> Coroutine[Any, Any, bool] | None:
        """Commit what the handler of an error has done after ``fail`` (law A10).

        Call it before ``error_headers``, when the response to the error is known.

        Args:
            store_failed: the error, or ``fail``, says that the store failed: what ``fail`` has
                tried is not tried again.

        Returns:
            None if there is nothing, or a coroutine. It returns False if the store failed, so that
            the response must be 503: a logout that it may announce has not taken effect.
        """
        copy = self.working_copy
        if copy is None:
            return None
        if copy.destroyed_record is not None:
            if copy.removal_interrupted:
                return None
        elif store_failed or not self._has_changes_after_error(copy):
            return None
        return self._commit_after_error(copy)

    def _has_changes_after_error(self, copy: WorkingCopy) -> bool:
        if self.failed:
            return copy.renewal is not None
        try:
            return copy.modified()
        except SessionError:  # a value that cannot be stored: the commit logs it
            return True

    async def _commit_after_error(self, copy: WorkingCopy) -> bool:
        engine = self.web.engine
        try:
            try:
                await engine.commit(copy, failed=self.failed)
            except SessionError as refused:  # with save_on_error: the data cannot be saved
                logger.error("the data of a failed request was not saved: %s", refused)  # noqa: TRY400 - one line
                self.failed = True
                await engine.commit(copy, failed=True)
        except StoreError as error:
            if self.response_started:
                self.web.event_log.log_failure(
                    "the session of a failed request could not be committed: %s", error
                )
            else:
                self.web.event_log.log_failure(
                    "answered 503 because the session store failed: %s", error
                )
            return False
        return True

    def end(self) -> None:
        """Drop the reference to the request, so that no reference cycle is left."""
        if self.working_copy is not None:
            self.working_copy.client = None


def _is_litestar_empty(value: object) -> bool:
    """Return whether this is Litestar's ``Empty``, which is not imported here."""
    kind = value if isinstance(value, type) else type(value)
    return kind.__module__.partition(".")[0] == "litestar" and "Empty" in kind.__qualname__


def _assign(container: MutableMapping[str, Any], replacement: Mapping[str, Any]) -> None:
    """Make a container equal to a mapping, with as few operations as possible."""
    for key in [key for key in container if key not in replacement]:
        del container[key]
    for key, value in replacement.items():
        present = key in container
        found = container[key] if present else None
        if present and isinstance(found, dict) and isinstance(value, Mapping):
            _assign(found, value)
        elif not present or not _same(found, value):
            container[key] = value


def _same(found: Any, value: Any) -> bool:
    """Return whether two values are stored alike; 1, 1.0 and True are not, also in a list."""
    try:
        return same(found, value)
    except NotSerializable:  # an object of a state class, or a subclass of dict in a list
        return bool(found == value)


def encode_headers(headers: TextHeaders) -> RawHeaders:
    """Return text headers as bytes; WSGI spells bytes as Latin-1 (PEP 3333)."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def decode_headers(headers: RawHeaders) -> TextHeaders:
    """Return raw headers as text; see ``encode_headers``."""
    return [_COMMON_HEADERS.get(header) or _decode_header(header) for header in headers]


def _decode_header(header: tuple[bytes, bytes]) -> tuple[str, str]:
    name, value = header
    return name.decode("latin-1"), value.decode("latin-1")


#: The headers of most responses as text.
_COMMON_HEADERS: Final[dict[tuple[bytes, bytes], tuple[str, str]]] = {
    header: _decode_header(header)
    for header in (
        cache_headers.VARY_COOKIE,
        cache_headers.PRIVATE,
        cache_headers.PRIVATE_NO_STORE,
    )
}


def warn_overruled(header: str) -> None:
    """Log that a header of the application was replaced; see ``cache_headers.apply``."""
    logger.warning(
        "%r was replaced by 'Cache-Control: private, no-store', because this response sets the "
        "session cookie and a shared cache would give it to other visitors",
        header,
    )
