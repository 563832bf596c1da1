"""SessionMiddleware for WSGI (PEP 3333): translates calls for ``SessionLifecycle``.

The session is committed and ``start_response`` is passed on when the first part of the body is
known, before the callable returns: some servers read the status and the headers then (granian).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sojourn.errors import (
    ConfigurationError,
    SessionError,
    SessionRequired,
    SojournError,
    StoreError,
)
from sojourn.session import Session
from sojourn.store import RequiresEventLoop
from sojourn.web.cache_headers import TextHeaders, has_caching
from sojourn.web.error_response import unauthorized_response, unavailable_response
from sojourn.web.installation import HasWebInstallation, OnStoreFailure, WebInstallation
from sojourn.web.lifecycle import SessionLifecycle, decode_headers, encode_headers, run
from sojourn.web.origin import refusal_response
from sojourn.web.wsgi_environ import (
    Environ,
    begin,
    check_origin,
    may_load_later,
    read_header,
    read_labels,
    read_path,
    read_text_header,
)

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication

#: The environ key of the session.
SESSION: Final = "sojourn.session"

#: The environ key of the ``id`` of the error that ``on_error`` was called for.
_ON_ERROR_CALLED: Final = "sojourn.on_error_called"

#: The environ key of the ``WSGIExchange``, for ``get_session`` and nested middleware.
EXCHANGE: Final = "sojourn.exchange"

#: Called for the response to an error in place of ``on_error``: gets the environ and the error, and
#: returns a WSGI application, or None for the default.
ErrorHandler: TypeAlias = "Callable[[Environ, SojournError], WSGIApplication | None]"

_SERVER_ERROR: Final = 500
_UNAVAILABLE: Final = "503 Service Unavailable"
_UNAUTHORIZED: Final = "401 Unauthorized"

logger: logging.Logger = logging.getLogger("sojourn")


class SessionMiddleware:
    """Gives each request of a WSGI application its session, as ``environ["sojourn.session"]``.

    Args:
        app: the application.
        sessions: the installation.
        autoload: load the session before the application runs. False if a part of the framework
            inside does it with ``get_session``, so that the framework's handlers answer its errors.
        error_handler: of a framework, which calls ``on_error`` with its own request.

    Raises:
        ConfigurationError: the store requires an event loop, which WSGI does not have.
    """

    def __init__(
        self,
        app: WSGIApplication,
        sessions: HasWebInstallation,
        *,
        autoload: bool = True,
        error_handler: ErrorHandler | None = None,
    ) -> None:
        self.app = app
        self._autoload = autoload
        self._error_handler = error_handler
        self.web: WebInstallation = sessions.web
        check_store(self.web)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        web = self.web
        if not web.active:
            return self.app(environ, start_response)
        config = web.config
        wanted = config.patterns.everything or config.patterns.match(read_path(environ))
        outer = environ.get(EXCHANGE)
        if outer is not None:
            if outer.web is web:  # a nested middleware
                if wanted and self._autoload:
                    outer.load()
                return self.app(environ, start_response)
            web.check_nested(outer.web)
            outer.adopt_replacement()  # another session takes its key in the environ below
        if config.protect and wanted and (reason := check_origin(web, environ)) is not None:
            headers, body = refusal_response(reason, read_header(environ, "HTTP_ACCEPT"))
            start_response(
                "403 Forbidden",
                [(name.decode(), value.decode("latin-1")) for name, value in headers],
            )
            return [body]
        exchange = WSGIExchange(web, environ, start_response, outer, self._error_handler)
        if not self._autoload:
            exchange.keep_path()
        return exchange.serve(self.app, autoload=wanted and config.autoload and self._autoload)


def check_store(web: WebInstallation) -> None:
    """Check that the store works without an event loop.

    Raises:
        ConfigurationError: it requires one, which WSGI does not have.
    """
    store = web.engine.store
    advice = store.requires_event_loop() if isinstance(store, RequiresEventLoop) else None
    if advice is not None:
        raise ConfigurationError(
            f"{store!r} waits for an event loop, because its client is an asyncio one, and "
            f"WSGI has none: {advice}"
        )


def get_session(environ: Environ, on_store_failure: OnStoreFailure | None = None) -> Session[Any]:
    """Return the session of a request; load it if necessary.

    For ``autoload=False``, and for paths that ``include`` and ``exclude`` leave out.

    Args:
        environ: of the request.
        on_store_failure: what to do if the store fails; None for the installation's choice.

    Raises:
        ConfigurationError: the request did not pass a session middleware.
        StoreUnavailable: the store failed.
    """
    exchange: WSGIExchange | None = environ.get(EXCHANGE)
    if exchange is None:
        if EXCHANGE in environ:
            raise RuntimeError("the response has ended; load the session before that")
        raise ConfigurationError(
            "this request needs a session, and did not pass a session middleware. Wrap the "
            "application: app = sojourn.wsgi.SessionMiddleware(app, sessions)"
        )
    environ[SESSION] = session = exchange.load(on_store_failure)
    return session


def call_on_error(
    web: WebInstallation, environ: Environ, request: object, error: SojournError
) -> Any:
    """Call ``on_error`` with the request of a framework, once for each error.

    Args:
        web: the installation.
        environ: of the request.
        request: of the framework.
        error: raised while the request was served.

    Returns:
        Its response; None if it has none, if it was called before, or for an error of the
        configuration, which is the server's to report.
    """
    on_error = web.config.on_error
    if (
        on_error is None
        or isinstance(error, ConfigurationError)
        or environ.get(_ON_ERROR_CALLED) == id(error)
    ):
        return None
    environ[_ON_ERROR_CALLED] = id(error)
    return on_error(request, error)


class WSGIExchange(SessionLifecycle):
    """One request and its response.

    It is the iterable that the server gets, and therefore closes.

    Args:
        web: the web layer of the installation.
        environ: of the request.
        start_response: of the server.
        outer: the exchange of the installation that this one is nested in; None for none.
        error_handler: of the framework; None for none.
    """

    __slots__ = (
        "_answered",
        "_chunks",
        "_closed",
        "_destroy_failed",
        "_environ",
        "_error_handler",
        "_first",
        "_headers",
        "_outer",
        "_path",
        "_result",
        "_settled",
        "_start_response",
        "_status",
        "_store_failed",
        "_write",
        "_written",
    )

    def __init__(
        self,
        web: WebInstallation,
        environ: Environ,
        start_response: StartResponse,
        outer: WSGIExchange | None = None,
        error_handler: ErrorHandler | None = None,
    ) -> None:
        super().__init__(web)
        self._environ = environ
        self._error_handler = error_handler
        self._outer = outer
        self._path: str | None = None
        self._start_response = start_response
        self._status: str | None = None
        self._headers: TextHeaders = []
        self._result: Iterable[bytes] = ()
        self._chunks: Iterator[bytes] | None = None
        self._first: bytes | None = None  # the part of the body that began the response
        self._answered = False  # the response is this module's or that of ``on_error``
        self._settled = False  # what is kept of a failed request was committed; see `_start`
        # A failed request destroyed the session, and it is still stored.
        self._destroy_failed = False
        self._store_failed = False  # the application raised an error of the store
        self._closed = False
        self._written = False  # an attempt before `restart` has written the session (law N3)

    def restart(self) -> None:
        """Drop the session and its changes; see ``SessionLifecycle.restart``."""
        self._written = self._written or (
            self.working_copy is not None and self.working_copy.written
        )
        super().restart()

    def load(self, on_store_failure: OnStoreFailure | None = None) -> Session[Any]:
        """Load the session of this request, once, and put it into the environ.

        Args:
            on_store_failure: the route's choice; None for the installation's.

        Raises:
            StoreUnavailable: the store failed.
        """
        environ = self._environ
        self.adopt_replacement()
        try:
            waiting = begin(self, environ, on_store_failure)
            if waiting is not None:
                run(waiting)
        finally:
            if self.session is not None:
                environ[SESSION] = self.session
        if self._written and self.working_copy is not None:
            self.working_copy.written = True
        session = self.session
        assert session is not None  # noqa: S101 - begin has set it
        return session

    def labels(self) -> dict[str, str]:
        """Return the labels of the client."""
        return read_labels(self._environ)

    def method(self) -> str:
        """Return the method of the request."""
        method: str = self._environ["REQUEST_METHOD"]
        return method

    def path(self) -> str:
        """Return the path of the request."""
        return read_path(self._environ) if self._path is None else self._path

    def keep_path(self) -> None:
        """Read the path now, for a framework that changes ``PATH_INFO``."""
        self._path = read_path(self._environ)

    def header(self, name: str) -> str | None:
        """Return a header of the request."""
        return read_text_header(self._environ, name)

    def may_load_later(self) -> bool:
        """Return whether the request has a ticket and its path may have a session."""
        return may_load_later(self.web, self._environ, self.path())

    def serve(self, app: WSGIApplication, *, autoload: bool) -> Iterable[bytes]:
        """Run the application and return what the server iterates over.

        The response has started then, for servers that read the status and the headers when they
        get the iterable.

        A list is a complete response: it is committed now and passed on unchanged, so that the
        server can determine its length. So is a file for the server's ``wsgi.file_wrapper``, which
        the server sends efficiently only if it is not wrapped.
        """
        environ = self._environ
        environ[EXCHANGE] = self
        try:
            if autoload:
                self.load()
            self._result = result = app(environ, self.start_response)
            if type(result) in (list, tuple) or self._is_file(result):
                self._finish()
                self._release()
                return result
            self._chunks = iter(result)
            if not self.response_started:
                self._first = self._begin(self._chunks)
        except BaseException as error:
            try:
                if self._handle_error(error):
                    return self
            except BaseException:
                self._abandon()
                raise
            self._abandon()
            raise
        return self

    def _abandon(self) -> None:
        """Close the body of a request that failed: the server gets no iterable to close."""
        try:
            self._close_result()
        finally:
            self._release()

    def _is_file(self, result: Iterable[bytes]) -> bool:
        wrapper = self._environ.get("wsgi.file_wrapper")
        return isinstance(wrapper, type) and isinstance(result, wrapper)

    # Called by the application

    def start_response(
        self, status: str, headers: TextHeaders, exc_info: Any = None, /
    ) -> Callable[[bytes], object]:
        """Keep the status and the headers until the first byte is due (laws A2, A5).

        Until then the application may replace its response with ``exc_info``.

        Raises:
            RuntimeError: called twice without ``exc_info``, which PEP 3333 forbids.
        """
        try:
            if self.response_started and exc_info is not None:
                self.mark_failed()
                # Raises exc_info, because the headers have been sent.
                return self._start_response(status, headers, exc_info)
            if self._status is not None and exc_info is None:
                raise RuntimeError("start_response was called twice without exc_info (PEP 3333)")
        finally:
            exc_info = None  # or this frame and its traceback would reference each other
        self._status = status
        self._headers = headers
        return self.write

    def write(self, data: bytes) -> None:
        """Send a part of the body at once, as older applications do."""
        if not self.response_started:
            if not data:
                return
            self._start()
        try:
            self._write(data)
        except BaseException:
            self.client_disconnected = True
            raise

    # Called by the server

    def __iter__(self) -> WSGIExchange:
        """Return the response itself; it is iterated over once."""
        return self

    def __next__(self) -> bytes:
        """Return the next part of the body."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        try:
            assert self._chunks is not None  # noqa: S101 - `serve` has set it
            for chunk in self._chunks:
                return chunk
            self._finish()
        except BaseException as error:
            self.settle(error)
            raise
        raise StopIteration

    def close(self) -> None:
        """End the response: complete, failed, or because the client disconnected.

        What a stream did up to here is kept (law A11), and what the application's own ``close``
        does.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._close_result()
        finally:
            self._commit_late_changes()
            self._release()

    # The start of the response

    def _begin(self, chunks: Iterator[bytes]) -> bytes | None:
        """Commit when the first part of the body is known, and return that part.

        Empty parts before it are skipped: servers send the headers with any part.

        Returns:
            None if the body is empty.
        """
        for chunk in chunks:
            if self.response_started:  # by ``write``
                return chunk
            if chunk:
                self._start(complete=self._is_complete_body(chunk))
                return chunk
        self._finish()
        return None

    def _is_complete_body(self, chunk: bytes) -> bool:
        """Return whether a part is the whole body, by the application's Content-Length.

        Frameworks return an iterator for every body, so that only its length distinguishes an
        ordinary page from a stream.
        """
        length = next((v for name, v in self._headers if name.lower() == "content-length"), None)
        return length is not None and length.strip() == str(len(chunk))

    def _start(self, *, complete: bool = False) -> None:
        """Commit, then hand the status and the headers to the server."""
        status = self._status
        if status is None:
            raise RuntimeError(
                "the application returned a body before it called start_response; call it first"
            )
        if self._settled:
            self._adopt_after_error()
        else:
            self.adopt_replacement()
        headers = self._headers
        code = int(status[:3])
        unavailable = self._store_failed or self.unavailable
        # Usually the application sets none that the session has to examine.
        passed = () if unavailable or has_caching(headers) else headers
        raw = [] if passed else encode_headers(headers)
        if unavailable and code == _SERVER_ERROR and not self._answered:
            status = _UNAVAILABLE
            raw = self.unavailable_headers(raw)
            headers = decode_headers(raw)
        if self._settled:
            late = self.commit_after_error(store_failed=unavailable)
            if self._destroy_failed or (late is not None and not run(late)):
                status = _UNAVAILABLE
                raw = self.unavailable_headers(raw or encode_headers(headers))
                headers, passed = decode_headers(raw), ()
            sent = self.error_headers(raw)
        else:
            waiting = self.respond(code, raw, complete=complete)
            sent = run(waiting) if isinstance(waiting, CoroutineType) else waiting
        if sent is not raw:
            headers = [*passed, *decode_headers(sent)]
        self._write = self._start_response(status, headers)

    def _finish(self) -> None:
        """Commit what the application did until its last part, which may also be its first."""
        if self.response_started:
            self._commit_late_changes()
        else:
            self._start(complete=True)

    def _commit_late_changes(self) -> None:
        if self._settled:
            late = self.commit_after_error(store_failed=True)
            if late is not None:
                run(late)
        else:
            self.adopt_replacement()
            _wait(self.finish())

    def adopt_replacement(self) -> None:
        """Adopt what the application has set in place of its session (law A24).

        Raises:
            SessionError: it is no mapping.
        """
        environ, session = self._environ, self.session
        if session is None or (replacement := environ.get(SESSION)) is session:
            return
        if environ.get(EXCHANGE) is self:  # otherwise it is the place of a nested installation
            environ[SESSION] = session
            self.adopt(replacement)

    def commit_response(self, status: int) -> None:
        """Commit before a framework's response is complete, while its error handlers can answer.

        Args:
            status: of the response.

        Raises:
            SessionError: the changes cannot be saved; call ``settle`` before it is answered.
            StoreError: the store failed; call ``settle`` before it is answered.
        """
        if not self._settled and not self.response_started:
            self.adopt_replacement()
            _wait(self.commit(status))

    def settle(self, error: BaseException) -> None:
        """Commit what is kept of a request that failed.

        After that, only what the handler of its error does is committed (``commit_after_error``).
        For an error that the framework answers. A response of status 500 to an error of the store
        becomes 503.
        """
        failing = isinstance(error, StoreError)
        self._store_failed = self._store_failed or failing
        if self._settled:
            return
        self._adopt_after_error()
        self.mark_failed()
        if not failing or self.has_kept_changes():
            self._commit_kept()
            self._destroy_failed = not failing and self.destroys_session()
        self._settled = not self.response_started

    def _adopt_after_error(self) -> None:
        """Adopt what a failed request has set in place of its session."""
        environ, session = self._environ, self.session
        if (
            session is not None
            and environ.get(EXCHANGE) is self
            and (replacement := environ.get(SESSION)) is not session
        ):
            environ[SESSION] = session
            self.adopt_after_error(replacement)

    def _handle_error(self, error: BaseException) -> bool:
        """Commit what is kept of a failed request, and answer the error if that is possible.

        An error of sojourn that the application did not catch is answered by ``on_error``, if the
        response has not started (law A23). Without an answer of it, a failing store is 503, because
        to continue would lose what the store holds (A15), and a missing session or login is 401.

        Returns:
            False if the error must be raised to the server.
        """
        self.settle(error)
        if self.response_started or not isinstance(error, SojournError):
            return False
        response = self._find_response(error)
        if response is None:
            return False
        self._answered = True
        self._close_result()
        self._result = ()
        self._status = None
        self._result = result = response(self._environ, self.start_response)
        self._chunks = iter(result)
        self._first = self._begin(self._chunks)
        return True

    def _commit_kept(self) -> None:
        """Commit what is kept of a failed request; log an error instead of raising it."""
        try:
            try:
                _wait(self.fail())
            except SessionError as refused:  # with save_on_error: the data cannot be saved
                logger.error("the data of a failed request was not saved: %s", refused)  # noqa: TRY400 - one line, as below
                self.failed = True
                _wait(self.finish())
        except StoreError as failure:
            self.web.event_log.log_failure(
                "the session of a failed request could not be committed: %s", failure
            )

    def _find_response(self, error: SojournError) -> WSGIApplication | None:
        """Return the application's response to an error, or the default; None if there is none."""
        call = self._error_handler or self.web.config.on_error
        response: WSGIApplication | None = None
        if call is not None and not isinstance(error, ConfigurationError):
            response = call(self._environ, error)
        return self.default_response(error) if response is None else response

    def default_response(self, error: SojournError) -> WSGIApplication | None:
        """Return the built-in response to an error, 503 or 401; None if there is none."""
        if isinstance(error, StoreError):
            self.web.event_log.log_failure(
                "answered 503 because the session store failed: %s", error
            )
            return _unavailable
        return _unauthorized if isinstance(error, SessionRequired) else None

    def _close_result(self) -> None:
        close: Callable[[], object] | None = getattr(self._result, "close", None)
        if close is not None:
            close()

    def _release(self) -> None:
        """Drop references that form cycles: the request and its body are freed at once.

        The environ is left to the installation that this one is nested in.
        """
        environ, outer = self._environ, self._outer
        if environ.get(EXCHANGE) is self:
            environ[EXCHANGE] = outer
            if outer is not None and outer.session is not None:
                environ[SESSION] = outer.session
        self.end()


def _unavailable(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer 503."""
    headers, body = unavailable_response(read_header(environ, "HTTP_ACCEPT"))
    start_response(_UNAVAILABLE, decode_headers(headers))
    return [body]


def _unauthorized(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer 401."""
    headers, body = unauthorized_response(read_header(environ, "HTTP_ACCEPT"))
    start_response(_UNAUTHORIZED, decode_headers(headers))
    return [body]


def _wait(waiting: Coroutine[Any, Any, None] | None) -> None:
    if waiting is not None:
        run(waiting)
