"""SessionMiddleware for WSGI: loads before the application runs, commits before the first byte.

What lives here: the WSGI protocol (PEP 3333) around the same gate and engine as ``asgi.py``, driven
without an event loop. What must not: decisions; it moves calls between server, gate and engine.

``start_response`` is passed on only when the first byte is due: until then an application may still
change its mind (``exc_info``) and its session. So the first byte, and with it the cookie, comes
after the commit (laws A2, A5), also for generators, ``write()`` and responses without a body.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from sojourn._core.concurrency import run
from sojourn._core.null_session import NullSession
from sojourn._core.session import Session
from sojourn.errors import ConfigurationError, StoreUnavailable
from sojourn.store import RequiresEventLoop
from sojourn.web import cache_headers as caching
from sojourn.web.asgi import UNAVAILABLE_BODY, UNAVAILABLE_HEADERS, warn_overruled
from sojourn.web.environ import ENDED, Ended, Environ, is_proxied, judge, read_path
from sojourn.web.lifecycle import Gate, Guarded, OnStoreFailure
from sojourn.web.origin import answer
from sojourn.web.scope import describe

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication

#: Where an application finds its session.
SESSION: Final = "sojourn.session"

#: Where the ``Exchange`` of a request is found, for ``get_session`` and nested middleware.
EXCHANGE: Final = "sojourn.exchange"

#: How a failure of the store is answered.
_UNAVAILABLE: Final = "503 Service Unavailable"
_HEADERS: Final = tuple((name.decode(), value.decode()) for name, value in UNAVAILABLE_HEADERS)
_LASTING: Final = ("retry-after", "cache-control")  # those of them that do not describe its body

logger: logging.Logger = logging.getLogger("sojourn")


class SessionMiddleware:
    """Gives each request of a WSGI application its session, as ``environ["sojourn.session"]``.

    Args:
        app: the application.
        sessions: the installation.

    Raises:
        ConfigurationError: the store needs an event loop, and WSGI has none.
    """

    def __init__(self, app: WSGIApplication, sessions: Guarded) -> None:
        self.app = app
        self.gate: Gate = sessions.gate
        store = self.gate.engine.store
        advice = store.requires_event_loop() if isinstance(store, RequiresEventLoop) else None
        if advice is not None:
            raise ConfigurationError(
                f"{store!r} waits for an event loop, because its client is an asyncio one, and "
                f"WSGI has none: {advice}"
            )

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        gate = self.gate
        if not gate.active:
            return self.app(environ, start_response)
        rules = gate.rules
        wanted = rules.patterns.everything or rules.patterns.match(read_path(environ))
        outer = environ.get(EXCHANGE)
        if outer is not None and outer.gate is gate:  # this route has a middleware of its own
            if wanted:
                environ[SESSION] = outer.load()
            return self.app(environ, start_response)
        if rules.protect and wanted and (refusal := judge(gate, environ)) is not None:
            headers, body = answer(refusal)
            start_response(
                "403 Forbidden",
                [(name.decode(), value.decode("latin-1")) for name, value in headers],
            )
            return [body]
        exchange = Exchange(gate, environ, start_response)
        return exchange.serve(self.app, autoload=wanted and rules.autoload)


def get_session(environ: Environ, on_store_failure: OnStoreFailure | None = None) -> Session[Any]:
    """Return the session of a request, loading it if nothing did yet.

    For ``autoload=False``, and for paths that ``include`` and ``exclude`` leave out.

    Args:
        environ: of the request.
        on_store_failure: what becomes of it if the store fails; None for the installation's way.

    Raises:
        ConfigurationError: no middleware of ours saw the request.
        StoreUnavailable: the store failed.
    """
    exchange: Exchange | Ended | None = environ.get(EXCHANGE)
    if exchange is None:
        raise ConfigurationError(
            "this request asks for a session, and no session middleware saw it. Wrap the "
            "application: app = sojourn.wsgi.SessionMiddleware(app, sessions)"
        )
    environ[SESSION] = session = exchange.load(on_store_failure)
    return session


class Exchange:
    """One request and its response; also who asks, for the labels of a new session.

    It is the iterable that the server gets, and therefore closes.
    """

    __slots__ = (
        "_chunks",
        "_closed",
        "_environ",
        "_failed",
        "_headers",
        "_left",
        "_result",
        "_settled",
        "_start_response",
        "_started",
        "_status",
        "_transport",
        "_write",
        "gate",
        "session",
    )

    def __init__(self, gate: Gate, environ: Environ, start_response: StartResponse) -> None:
        self.gate: Gate = gate
        self.session: Session[Any] | None = None
        self._environ = environ
        self._start_response = start_response
        self._status: str | None = None
        self._headers: caching.TextHeaders = []
        self._result: Iterable[bytes] = ()
        self._chunks: Iterator[bytes] | None = None
        self._started = False  # the server has the status and the headers
        self._failed = False  # data changes are dropped (law A10)
        self._left = False  # the client is gone: the server said so when it was written to
        self._settled = False  # the store failed and 503 was answered: nothing more to write
        self._closed = False

    def load(self, policy: OnStoreFailure | None = None) -> Session[Any]:
        """Load the session of this request, once.

        Args:
            policy: what the route asks for where the store fails; None for the installation's.

        Raises:
            StoreUnavailable: the store failed.
        """
        session = self.session
        if session is None:
            environ = self._environ
            gate = self.gate
            asked: str | None = environ.get("HTTP_HOST")
            host = None if asked is None else asked.encode("latin-1", "replace")
            cookies: str | None = environ.get("HTTP_COOKIE")
            self._transport = gate.transport(
                environ["wsgi.url_scheme"], host, proxied=is_proxied(environ)
            )
            raw = None if cookies is None else cookies.encode("latin-1", "replace")
            try:
                session = run(gate.admit(self._transport, host, raw, self))
            except StoreUnavailable as failure:
                stranded = gate.strand(failure, read_path(environ), self, policy=policy)
                self.session = session = stranded
                if stranded._denied:
                    raise
            if gate.rules.passive is not None:
                gate.arrived(session, read_path(environ))
            if self._started:
                session._late()
            self.session = session
        elif isinstance(session, NullSession):
            session._insist(wanted=policy == "error")
        return session

    def labels(self) -> dict[str, str]:
        """Return what the request says of its client."""
        environ = self._environ
        return describe(environ.get("REMOTE_ADDR"), environ.get("HTTP_USER_AGENT"))

    def serve(self, app: WSGIApplication, *, autoload: bool) -> Iterable[bytes]:
        """Run the application and return what the server must iterate over.

        A list is a whole answer: nobody can change the session any more, so it is committed now
        and handed over as it is, and the server can still see its length. So is a file for the
        server's own ``wsgi.file_wrapper``, which it may only send fast if nothing wraps it.
        """
        environ = self._environ
        environ[EXCHANGE] = self
        try:
            if autoload:
                environ[SESSION] = self.load()
            self._result = result = app(environ, self.start_response)
            if type(result) in (list, tuple) or self._is_file(result):
                self._finish()
                self._part()
                return result
        except BaseException as error:
            if not self._rescue(error):
                self._close_result()
                raise
        return self

    def _is_file(self, result: Iterable[bytes]) -> bool:
        wrapper = self._environ.get("wsgi.file_wrapper")
        return isinstance(wrapper, type) and isinstance(result, wrapper)

    # What the application calls

    def start_response(
        self, status: str, headers: caching.TextHeaders, exc_info: Any = None, /
    ) -> Callable[[bytes], object]:
        """Note the status and the headers; the server hears of them when the first byte is due.

        Raises:
            RuntimeError: called twice without ``exc_info``, which PEP 3333 forbids.
        """
        try:
            if self._started and exc_info is not None:
                self._failed = not self.gate.rules.save_on_error
                # Raises exc_info, because the headers have left.
                return self._start_response(status, headers, exc_info)
            if self._status is not None and exc_info is None:
                raise RuntimeError("start_response was called twice without exc_info (PEP 3333)")
        finally:
            exc_info = None  # or this frame and its traceback would hold each other
        self._status = status
        self._headers = headers
        self._failed = status[:1] == "5" and not self.gate.rules.save_on_error
        return self.write

    def write(self, data: bytes) -> None:
        """Send a part of the body at once: what older applications do instead of returning it."""
        if not self._started:
            if not data:
                return
            self._begin()
        try:
            self._write(data)
        except BaseException:
            self._left = True
            raise

    # What the server calls

    def __iter__(self) -> Exchange:
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
                if self._started:
                    return chunk
                if chunk:
                    self._begin()
                    return chunk
            self._finish()
        except BaseException as error:
            if not self._rescue(error):
                raise
            return next(self)
        raise StopIteration

    def close(self) -> None:
        """End the response, however it ended: with its last part, an error, or a client gone.

        What a stream did up to here is kept (law A11); a request without an answer keeps nothing
        (A12). What the application's own ``close`` does to the session counts as well.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._close_result()
        finally:
            self._commit(failed=self._failed or not self._started)
            self._part()

    # In between

    def _begin(self, *, done: bool = False) -> None:
        """Commit, then give the status and the headers to the server: the first byte is due."""
        status = self._status
        if status is None:
            raise RuntimeError("the application returned a body before it called start_response")
        session = self.session
        headers = self._headers
        if isinstance(session, NullSession) and session._denied and status[:1] == "5":
            # What a framework makes of the store's failure.
            status = _UNAVAILABLE
            told = [(name, value) for name, value in _HEADERS if name in _LASTING]
            headers = [*headers, *told]
        if session is not None:
            self._commit(failed=self._failed)
            cleared = self.gate.farewell(session, self._transport)
            # A stream may look later, when no header can tell of it any more.
            follows = not done and session._record is not None and _is_stream(headers)
            headers = caching.apply_text(
                headers,
                looked=session._looked or follows,
                private=session._authenticated(),
                set_cookie=self.gate.set_cookie(session, self._transport),
                overruled=warn_overruled,
            )
            if cleared is not None:
                headers = [*headers, ("Clear-Site-Data", cleared.decode())]
            session._started = True
        self._started = True
        self._write = self._start_response(status, headers)

    def _finish(self) -> None:
        """Commit what the application did until its last word, which may also be its first."""
        if self._started:
            self._commit(failed=self._failed)
        else:
            self._begin(done=True)

    def _commit(self, *, failed: bool) -> None:
        session = self.session
        if session is None or self._settled:
            return
        if self._started and not failed and not session._touched():
            return  # three calls end a response of most frameworks; the first has written it all
        engine = self.gate.engine
        now = engine.clock()
        step = engine.due(session, now, failed)
        if step is not None:
            run(engine.carry_out(step, session, now, failed=failed))

    def _rescue(self, error: BaseException) -> bool:
        """Settle a request that met an error; tell whether an answer could be made of it.

        Where the store failed and nothing was sent, the answer is 503: to go on would lose what the
        store holds (law A15). Anything else is the server's to answer.
        """
        if self._left:
            self._failed = self._failed or not self._started
        else:
            self._failed = not self.gate.rules.save_on_error
        unavailable = isinstance(error, StoreUnavailable)
        if not unavailable or self._ends_session():
            try:
                self._commit(failed=self._failed)
            except StoreUnavailable as failure:
                logger.error("the session of a failed request could not be committed: %s", failure)  # noqa: TRY400 - one line, as below
                self._settled = True
        if self._started or not unavailable:
            return False
        # One line: an outage has as many of them as there are visitors.
        logger.error("answered 503 because the session store failed: %s", error)
        self._started = self._settled = True
        self._chunks = iter((UNAVAILABLE_BODY,))
        self._start_response(_UNAVAILABLE, [*_HEADERS])
        return True

    def _ends_session(self) -> bool:
        return self.session is not None and self.session._destroyed is not None

    def _close_result(self) -> None:
        close: Callable[[], object] | None = getattr(self._result, "close", None)
        if close is not None:
            close()

    def _part(self) -> None:
        """Let go of the request and the session, which point here.

        Cycles would leave them, and the body that was sent, to the garbage collector.
        """
        self._environ[EXCHANGE] = ENDED
        if self.session is not None:
            self.session._client = None


def _is_stream(headers: caching.TextHeaders) -> bool:
    return all(name.lower() != "content-length" for name, _ in headers)
