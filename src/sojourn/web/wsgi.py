"""SessionMiddleware for WSGI (PEP 3333): translates calls for ``SessionLifecycle``.

``start_response`` is passed on when the first byte is due; the session is committed before it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

from sojourn.errors import ConfigurationError, StoreUnavailable
from sojourn.session import Session
from sojourn.store import RequiresEventLoop
from sojourn.web.asgi_scope import client_labels
from sojourn.web.cache_headers import TextHeaders
from sojourn.web.installation import HasWebInstallation, OnStoreFailure, WebInstallation
from sojourn.web.lifecycle import (
    UNAVAILABLE_BODY,
    UNAVAILABLE_HEADERS,
    SessionLifecycle,
    decode_headers,
    encode_headers,
    run,
)
from sojourn.web.origin import refusal_response
from sojourn.web.wsgi_environ import Environ, check_origin, is_proxied, read_header, read_path

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication

#: The environ key of the session.
SESSION: Final = "sojourn.session"

#: The environ key of the ``WSGIExchange``, for ``get_session`` and nested middleware.
EXCHANGE: Final = "sojourn.exchange"

_SERVER_ERROR: Final = 500
_UNAVAILABLE: Final = "503 Service Unavailable"
_HEADERS: Final = tuple((name.decode(), value.decode()) for name, value in UNAVAILABLE_HEADERS)

logger: logging.Logger = logging.getLogger("sojourn")


class SessionMiddleware:
    """Gives each request of a WSGI application its session, as ``environ["sojourn.session"]``.

    Args:
        app: the application.
        sessions: the installation.

    Raises:
        ConfigurationError: the store requires an event loop, which WSGI does not have.
    """

    def __init__(self, app: WSGIApplication, sessions: HasWebInstallation) -> None:
        self.app = app
        self.web: WebInstallation = sessions.web
        store = self.web.engine.store
        advice = store.requires_event_loop() if isinstance(store, RequiresEventLoop) else None
        if advice is not None:
            raise ConfigurationError(
                f"{store!r} waits for an event loop, because its client is an asyncio one, and "
                f"WSGI has none: {advice}"
            )

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        web = self.web
        if not web.active:
            return self.app(environ, start_response)
        config = web.config
        wanted = config.patterns.everything or config.patterns.match(read_path(environ))
        outer = environ.get(EXCHANGE)
        if outer is not None and outer.web is web:  # a nested middleware
            if wanted:
                environ[SESSION] = outer.load()
            return self.app(environ, start_response)
        if config.protect and wanted and (reason := check_origin(web, environ)) is not None:
            headers, body = refusal_response(reason)
            start_response(
                "403 Forbidden",
                [(name.decode(), value.decode("latin-1")) for name, value in headers],
            )
            return [body]
        exchange = WSGIExchange(web, environ, start_response)
        return exchange.serve(self.app, autoload=wanted and config.autoload)


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
            raise RuntimeError("the response has ended; ask for the session before that")
        raise ConfigurationError(
            "this request asks for a session, and no session middleware saw it. Wrap the "
            "application: app = sojourn.wsgi.SessionMiddleware(app, sessions)"
        )
    environ[SESSION] = session = exchange.load(on_store_failure)
    return session


class WSGIExchange(SessionLifecycle):
    """One request and its response; the ``Request`` of its lifecycle.

    It is the iterable that the server gets, and therefore closes.
    """

    __slots__ = (
        "_chunks",
        "_closed",
        "_environ",
        "_headers",
        "_result",
        "_start_response",
        "_status",
        "_store_failed",
        "_write",
    )

    def __init__(
        self, web: WebInstallation, environ: Environ, start_response: StartResponse
    ) -> None:
        super().__init__(web)
        self._environ = environ
        self._start_response = start_response
        self._status: str | None = None
        self._headers: TextHeaders = []
        self._result: Iterable[bytes] = ()
        self._chunks: Iterator[bytes] | None = None
        self._store_failed = False  # 503 was sent; no further commit
        self._closed = False

    def load(self, on_store_failure: OnStoreFailure | None = None) -> Session[Any]:
        """Load the session of this request, once.

        Args:
            on_store_failure: the route's choice; None for the installation's.

        Raises:
            StoreUnavailable: the store failed.
        """
        environ = self._environ
        waiting = self.begin(
            environ["wsgi.url_scheme"],
            read_header(environ, "HTTP_HOST"),
            read_header(environ, "HTTP_COOKIE"),
            is_proxied(environ),
            on_store_failure,
        )
        if waiting is not None:
            run(waiting)
        session = self.session
        assert session is not None  # noqa: S101 - begin has set it
        return session

    def labels(self) -> dict[str, str]:
        """Return the labels of the client."""
        environ = self._environ
        return client_labels(environ.get("REMOTE_ADDR"), environ.get("HTTP_USER_AGENT"))

    def path(self) -> str:
        """Return the path of the request."""
        return read_path(self._environ)

    def serve(self, app: WSGIApplication, *, autoload: bool) -> Iterable[bytes]:
        """Run the application and return what the server iterates over.

        A list is a complete response: it is committed now and passed on unchanged, so that the
        server can see its length. So is a file for the server's ``wsgi.file_wrapper``, which the
        server sends efficiently only if it is not wrapped.
        """
        environ = self._environ
        environ[EXCHANGE] = self
        try:
            if autoload:
                environ[SESSION] = self.load()
            self._result = result = app(environ, self.start_response)
            if type(result) in (list, tuple) or self._is_file(result):
                self._finish()
                self._release()
                return result
        except BaseException as error:
            if not self._handle_error(error):
                try:
                    self._close_result()
                finally:
                    self._release()  # the server gets no iterable that it could close
                raise
        return self

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
        """Return the next part of the body.

        Empty parts before the first byte are skipped: servers send the headers with any part.
        """
        try:
            if self._chunks is None:
                self._chunks = iter(self._result)
            for chunk in self._chunks:
                if self.response_started:
                    return chunk
                if chunk:
                    self._start()
                    return chunk
            self._finish()
        except BaseException as error:
            if not self._handle_error(error):
                raise
            return next(self)
        raise StopIteration

    def close(self) -> None:
        """End the response: complete, failed, or because the client disconnected.

        What a stream did up to here is kept (law A11); a request without a response keeps nothing
        (A12). Changes by the application's own ``close`` are committed as well.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._close_result()
        finally:
            if not self.response_started:
                self._commit_failed(cancelled=True)
            else:
                self._commit_late_changes()
            self._release()

    # In between

    def _start(self, *, complete: bool = False) -> None:
        """Commit, then hand the status and the headers to the server."""
        status = self._status
        if status is None:
            raise RuntimeError("the application returned a body before it called start_response")
        headers = self._headers
        code = int(status[:3])
        raw = encode_headers(headers)
        if self.unavailable and code >= _SERVER_ERROR:
            status = _UNAVAILABLE
            raw = self.unavailable_headers(raw)
            headers = decode_headers(raw)
        sent = self.respond(code, raw, complete=complete)
        if isinstance(sent, CoroutineType):
            sent = run(sent)
        if sent is not raw:
            headers = decode_headers(sent)
        self._write = self._start_response(status, headers)

    def _finish(self) -> None:
        """Commit what the application did until its last part, which may also be its first."""
        if self.response_started:
            self._commit_late_changes()
        else:
            self._start(complete=True)

    def _commit_late_changes(self) -> None:
        if not self._store_failed:
            _wait(self.finish())

    def _commit_failed(self, *, cancelled: bool = False) -> None:
        if not self._store_failed:
            _wait(self.fail(cancelled=cancelled))

    def _handle_error(self, error: BaseException) -> bool:
        """Commit what is kept of a failed request; return whether a response was made of it.

        If the store failed and nothing was sent, the response is 503: to continue would lose what
        the store holds (law A15). Any other error is raised to the server.
        """
        unavailable = isinstance(error, StoreUnavailable)
        self.mark_failed()
        if not unavailable or self.destroys_session():
            try:
                self._commit_failed()
            except StoreUnavailable as failure:
                logger.error(  # noqa: TRY400 - one line, as below
                    "the session of a failed request could not be committed: %s",
                    failure,
                    exc_info=failure.application_error,
                )
                self._store_failed = True
        if self.response_started or not isinstance(error, StoreUnavailable):
            return False
        # One line: an outage has one for each request.
        logger.error(
            "answered 503 because the session store failed: %s",
            error,
            exc_info=error.application_error,
        )
        self.response_started = self._store_failed = True
        self._chunks = iter((UNAVAILABLE_BODY,))
        self._start_response(_UNAVAILABLE, [*_HEADERS])
        return True

    def _close_result(self) -> None:
        close: Callable[[], object] | None = getattr(self._result, "close", None)
        if close is not None:
            close()

    def _release(self) -> None:
        """Drop references that form cycles: the request and its body are freed at once."""
        self._environ[EXCHANGE] = None
        self.end()


def _wait(waiting: Coroutine[Any, Any, None] | None) -> None:
    if waiting is not None:
        run(waiting)
