"""The session of one HTTP request through ASGI: what has to happen before each message is sent."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final, cast

from sojourn._core.working_copy import NO_COOKIE_CHANGE, WorkingCopy
from sojourn.errors import (
    ConfigurationError,
    SessionRequired,
    SojournError,
    StoreError,
    StoreUnavailable,
)
from sojourn.session import Session, create_session
from sojourn.web.asgi_scope import (
    CONNECTION,
    ASGIApp,
    Framework,
    Message,
    Receive,
    Scope,
    Send,
    check_replacement,
    read_accept,
    read_header,
    read_headers,
    read_labels,
    read_path,
)
from sojourn.web.cache_headers import RawHeaders
from sojourn.web.error_response import unauthorized_response, unavailable_response
from sojourn.web.installation import OnStoreFailure, WebInstallation
from sojourn.web.lifecycle import PlannedCommit, SessionLifecycle
from sojourn.web.origin import Refusal, refusal_response
from sojourn.web.status import SERVER_ERROR, UNAVAILABLE
from sojourn.web.ticket_protection import combine_added, find_added


class _NoLoop:
    """The event loop of an awaitable that never waits."""

    def get_debug(self) -> bool:
        return False


class _Done(asyncio.Future[None]):
    """An awaitable that is done, in every event loop; one object for all messages that are held.

    A future, because awaiting an object of another class costs each request 400 instructions more.
    """

    #: ``asyncio.isfuture`` returns False, so ``wait_for`` does not compare event loops.
    _asyncio_future_blocking = None  # type: ignore[assignment] # None marks no future


_DONE: Final = _Done(loop=cast("asyncio.AbstractEventLoop", _NoLoop()))
_DONE.set_result(None)


class HTTPExchange(SessionLifecycle):
    """One HTTP request and its response.

    Attributes:
        scope: of the request.
        outer_send: of the server, or of the middleware outside.
        held: the start of the response, until its headers can be decided; see ``send``.
        stream_start: the scheduled call, then the task, that sends the start of a stream; None
            for none.
        failure: the error because of which the response could not be started; frameworks may raise
            another one of it.
        settled: what is kept of a failed request was committed; after that, only what the handler
            of its error does is (``commit_after_error``).
        sent_unavailable: an error response of the framework became 503.
    """

    __slots__ = (
        "failure",
        "held",
        "outer_send",
        "scope",
        "sent_unavailable",
        "settled",
        "stream_start",
    )

    failure: Exception | None
    sent_unavailable: bool
    settled: bool
    held: Message | None
    outer_send: Send
    scope: Scope
    stream_start: asyncio.Handle | asyncio.Future[None] | None

    if TYPE_CHECKING:

        def __init__(self) -> None:
            """Create an object without attributes; ``SessionMiddleware`` sets them."""

    else:
        __init__ = object.__init__

    async def load(self, on_store_failure: OnStoreFailure | None = None) -> Session[Any]:
        """Load the session of this request, once, and put it into the scope.

        Args:
            on_store_failure: the route's choice; None for the installation's.

        Raises:
            StoreUnavailable: the store failed.
        """
        scope = self.scope
        host, cookies, _, proxied = read_headers(scope)
        if self.session is not None and scope.get("session") is not self.session:
            self.adopt_replacement()
        try:
            waiting = self.begin(scope["scheme"], host, cookies, proxied, on_store_failure)
            if waiting is not None:
                await waiting
        finally:
            if self.session is not None:
                scope["session"] = self.session
        session = self.session
        assert session is not None  # noqa: S101 - begin has set it
        return session

    def labels(self) -> dict[str, str]:
        """Return the labels of the client."""
        return read_labels(self.scope)

    def method(self) -> str:
        """Return the method of the request."""
        method: str = self.scope["method"]
        return method

    def path(self) -> str:
        """Return the path of the request."""
        return read_path(self.scope)

    def header(self, name: str) -> str | None:
        """Return a header of the request."""
        return read_header(self.scope, name)

    def may_load_later(self) -> bool:
        """Return whether the request has a ticket and its path may have a session."""
        scope, web = self.scope, self.web
        patterns = web.config.patterns
        if not (patterns.everything or patterns.match(read_path(scope))):
            return False
        host, cookies, _, proxied = read_headers(scope)
        transport = web.classify(scope["scheme"], host, proxied)
        return web.has_ticket(transport, cookies, self.header)

    def send(  # noqa: C901, PLR0912 - every case, top to bottom: called for every message
        self, message: Message
    ) -> Awaitable[None]:
        """Send a message to the server, after what has to be committed before it."""
        message_type = message["type"]
        copy = self.working_copy
        if message_type == "http.response.start":
            session = self.session
            try:
                replaced = session is not None and self.scope["session"] is not session
            except KeyError:
                replaced = True
            if replaced:
                self.adopt_replacement()
            if not self.may_load_later() if copy is None else copy.accessed:
                return self._send_start(message, True)
            # The first body message shows whether the response is a stream, which may access the
            # session later (law A13). Applications that know the length send it with the start.
            self.held = message
            for name, _ in message.get("headers", ()):
                if name == b"content-length":
                    return _DONE
            return self._await_body(message)
        if message_type == "http.response.body":
            start = self.held
            if start is not None:
                if (
                    copy is not None
                    and copy.record is None
                    and not copy.accessed
                    and self.stream_start is None
                    and start["status"] < SERVER_ERROR
                    and ("more_body" not in message or not message["more_body"])
                ):  # the usual anonymous request: as `_send_held` does
                    self.held = None
                    self.response_started = copy.response_started = True
                    return self._send_unchanged(start, message)
                return self._send_held(message)
            if self.stream_start is not None:
                return self._send_held(message)
            if "more_body" not in message or not message["more_body"]:
                if copy is not None and copy.changes is not None:
                    waiting: Awaitable[object] | None
                    if self.settled:
                        waiting = self.commit_after_error(store_failed=True)
                    else:
                        waiting = self.finish()
                    if waiting is not None:
                        return self._send_after(message, waiting)
                if self.response_started:
                    send = self.outer_send
                    return send(message)  # nothing depends on how this ends
        elif self.held is not None or self.stream_start is not None:
            return self._send_held(message)  # a body in another form, such as a file's path
        return self._send_recording_disconnect(message)

    async def _send_unchanged(self, start: Message, body: Message) -> None:
        send = self.outer_send
        await send(start)
        await send(body)

    def _await_body(self, start: Message) -> Awaitable[None]:
        """Hold the start of a response of unknown length until its first body message.

        That may come after a long time: if the event loop gets control before it, the response is a
        stream, and the start is sent.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # another event loop, such as trio's
            self.held = None
            return self._send_start(start, False)
        self.stream_start = loop.call_soon(self._start_stream)
        return _DONE

    def _start_stream(self) -> None:
        start, self.held = self.held, None
        assert start is not None  # noqa: S101 - `_send_held` cancels this call
        sending = self._send_stream_start(start)
        self.stream_start = asyncio.get_running_loop().create_task(sending)

    async def _send_stream_start(self, start: Message) -> None:
        await self._send_start(start, False)

    async def _send_held(self, message: Message | None) -> None:
        """Send the start that was held, then the body message that decided on its headers.

        Args:
            message: the first part of the body; None if the application ended without one.
        """
        stream_start, self.stream_start = self.stream_start, None
        start, self.held = self.held, None
        if start is not None:
            if stream_start is not None:
                stream_start.cancel()
            streamed = message is not None and message.get("more_body", False)
            await self._send_start(start, not streamed)
        elif isinstance(stream_start, asyncio.Future):
            await stream_start
        if message is not None:
            await self.send(message)

    def send_rest(self) -> Awaitable[None]:
        """Send a start that is still held, because the application has ended without a body."""
        return self._send_held(None)

    def drop_held(self) -> None:
        """Drop a start that is still held, because the application has failed."""
        self.held = None
        if self.stream_start is not None:
            self.stream_start.cancel()
            self.stream_start = None

    def _send_start(
        self,
        message: Message,
        complete: bool,  # noqa: FBT001 - positional: called for every request
    ) -> Awaitable[None]:
        """Commit, then send the start of the response."""
        status = message["status"]
        headers = message.get("headers", ())
        if status >= SERVER_ERROR and self._store_failed():
            if status == SERVER_ERROR:
                message["status"] = 503
                headers = self.unavailable_headers(headers)
                self.sent_unavailable = True
            if not self.has_kept_changes():
                # A store that has just failed is not called again.
                self.failed = self.settled = True
        if self.settled:
            waiting = self.commit_after_error(store_failed=self._store_failed())
            if waiting is not None:
                return self._send_settled_start(message, headers, waiting)
            message["headers"] = self.error_headers(headers)
            return self._send_recording_disconnect(message)
        try:
            planned = self.plan_response(status, headers, complete)
        except Exception as error:
            self.failure = error
            raise
        if type(planned) is PlannedCommit:
            return self._send_start_after(message, headers, complete, planned)
        message["headers"] = planned
        return self._send_recording_disconnect(message)

    async def _send_start_after(
        self,
        message: Message,
        headers: RawHeaders,
        complete: bool,  # noqa: FBT001 - positional, as the caller has it
        planned: PlannedCommit,
    ) -> None:
        copy = self.working_copy
        assert copy is not None  # noqa: S101 - the commit was planned for it
        try:
            await self.web.engine.execute(planned.step, copy, planned.now, failed=self.failed)
            message["headers"] = self.response_headers(headers, complete)
        except Exception as error:
            self.failure = error
            raise
        await self._send_recording_disconnect(message)

    async def _send_settled_start(
        self, message: Message, headers: RawHeaders, waiting: Awaitable[bool]
    ) -> None:
        """Send the start of a response whose error handler has ended or rotated the session."""
        if not await waiting:
            message["status"] = UNAVAILABLE
            headers = self.unavailable_headers(headers)
        message["headers"] = self.error_headers(headers)
        await self._send_recording_disconnect(message)

    def _store_failed(self) -> bool:
        """Return whether an error response is sent because the store failed.

        Frameworks send their error pages while they handle the exception.
        """
        return (
            self.unavailable
            or isinstance(self.failure, StoreError)
            or isinstance(sys.exc_info()[1], StoreError)
        )

    def _send_recording_disconnect(self, message: Message) -> Awaitable[None]:
        """Send a message; record that the client has disconnected, where the server raises it."""
        copy = self.working_copy
        if self.response_started:
            try:
                unreported = (
                    copy is None
                    or copy.record is None
                    or self.scope["asgi"]["spec_version"] < "2.4"
                )
            except KeyError:
                unreported = True  # a version of ASGI before 2.1
            if unreported:
                send = self.outer_send
                return send(message)
        # From ASGI 2.4 on, the server reports a disconnected client by raising from ``send``.
        return self._send_confirmed(message, self.outer_send)

    async def _send_after(self, message: Message, waiting: Awaitable[object]) -> None:
        await waiting
        await self._send_confirmed(message, self.outer_send)

    async def _send_confirmed(self, message: Message, send: Send) -> None:
        """Send a message and record whether the client has disconnected."""
        try:
            await send(message)
        except OSError:
            self.client_disconnected = True
            raise

    # Misuse and errors

    def adopt_replacement(self) -> None:
        """Adopt what the application has set in place of ``scope["session"]``."""
        scope = self.scope
        if scope.get(CONNECTION) is not self:
            return  # the place of a nested installation's session
        replacement = scope.get("session")
        scope["session"] = self.session  # also for the response to an error of it
        try:
            check_replacement(scope, replacement)
            self.adopt(replacement)
        except Exception as error:
            self.failure = error
            raise

    def defer(self, error: StoreUnavailable) -> bool:
        """Let every use of the session raise the error that loading it has raised.

        Returns:
            Whether a layer inside of the application responds to it.
        """
        copy = self.working_copy
        assert copy is not None  # noqa: S101 - set before the error is raised
        copy.transport_error = error
        return False

    def started(self) -> bool:
        """Return whether the start of a response cannot be replaced any more."""
        return self.response_started

    async def settle(self, error: BaseException) -> None:
        """Commit what is kept of a request that raised, once.

        Raises:
            StoreError: the store failed.
        """
        self.drop_held()
        if self.settled:
            return
        self.settled = True
        scope, session = self.scope, self.session
        if (
            session is not None
            and scope.get(CONNECTION) is self
            and (replacement := scope.get("session")) is not session
        ):
            scope["session"] = session
            self.adopt_after_error(replacement)
        if isinstance(error, asyncio.CancelledError):
            waiting = self.fail(cancelled=True)
            if waiting is not None:
                await asyncio.shield(waiting)
        elif isinstance(error, Exception):
            if isinstance(error, StoreError) and not self.has_kept_changes():
                return  # as in `_send_start`
            await self.commit_kept()

    async def commit_interrupted_page(self) -> None:
        """Commit what the stream of an error page has ended, if its last part was not sent."""
        if self.response_started:
            waiting = self.commit_after_error(store_failed=True)
            if waiting is not None:
                await asyncio.shield(waiting)

    async def answer(
        self,
        raised: Exception,
        receive: Receive,
        framework: Framework | None,
        *,
        call_handlers: bool = True,
    ) -> bool:
        """Respond to an error of sojourn, unless a response was started (law A23).

        Args:
            raised: by the application.
            receive: of the request.
            framework: of the application; None for none: the request is the scope.
            call_handlers: call the framework's own error handlers; False if they were called.

        Returns:
            False if the error is the server's, or the framework's, to answer.
        """
        error = self.failure or raised
        if self.started():
            if isinstance(error, StoreError) and self.sent_unavailable:
                _log_unavailable(self.web, error)
                return True
            return False
        if not isinstance(error, SojournError) or isinstance(error, ConfigurationError):
            return False
        try:
            await self.settle(error)
        except StoreError as failure:
            error = failure
        self.failure = error
        response = None
        request = self.scope if framework is None else framework.make_request(self.scope, receive)
        on_error = self.web.config.on_error
        if on_error is not None:
            response = on_error(request, error)
            if inspect.isawaitable(response):
                response = await response
        if response is None and framework is not None and call_handlers:
            response = await framework.call_handler(request, error)
        if response is not None:
            await response(self.scope, receive, self.send)
            return True
        return await self._answer_by_default(error)

    async def _answer_by_default(self, error: SojournError) -> bool:
        """Answer 503 if the store failed, 401 without a required session; False otherwise."""
        accept = read_accept(self.scope)
        if isinstance(error, StoreError):
            _log_unavailable(self.web, error)
            await self._send_complete(503, *unavailable_response(accept))
        elif isinstance(error, SessionRequired):
            await self._send_complete(401, *unauthorized_response(accept))
        else:
            return False
        return True

    def send_through(self, send: Send) -> Send:
        """Return what sends an error page with the headers of this session.

        Args:
            send: of the layer outside.
        """
        self.outer_send = send
        return self.send

    async def send_refusal(self, refusal: Refusal) -> None:
        """Send 403: a page of another origin sent the request (ASVS 3.5.1)."""
        headers, body = refusal_response(refusal, read_accept(self.scope))
        await self._send_complete(403, headers, body)

    async def _send_complete(self, status: int, headers: RawHeaders, body: bytes) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


class LayeredExchange(HTTPExchange):
    """One HTTP request of a framework with error handlers and middleware of its own.

    Two layers of one installation share it. ``SessionMiddleware``, outside of everything, loads the
    session and commits what changes late. ``ErrorMiddleware``, inside of the application's own
    middleware, commits before a response starts there, and responds to errors, so that the
    framework's handlers are called and the application's middleware adds its headers (law A23).
    """

    __slots__ = (
        "_accessed_inside",
        "_added",
        "_bypassed",
        "_deferred",
        "_entered",
        "_hidden",
        "_origin_refusal",
        "_outward_headers",
        "_replaced",
        "_server_send",
        "_start",
    )

    _added: RawHeaders  # the ticket of this response, and what follows it
    _bypassed: bool  # the response did not come from inside, such as an error page
    _deferred: StoreUnavailable | None
    _entered: bool  # an ``ErrorMiddleware`` serves the request
    _hidden: bool  # an error page that is not sent, because ``on_error`` answers
    _accessed_inside: bool  # the session was accessed before the outer middleware got the start
    _outward_headers: RawHeaders  # those of the start with a ticket, for the outer middleware
    _origin_refusal: Refusal | None
    _replaced: bool
    _server_send: Send
    _start: Message | None

    def defer(self, error: StoreUnavailable) -> bool:
        """Keep the error for ``ErrorMiddleware``, and let every use of the session raise it."""
        super().defer(error)
        self._deferred = error
        return True

    def refuse(self, refusal: Refusal) -> None:
        """Let ``ErrorMiddleware`` refuse the request; until then its session is empty."""
        self._origin_refusal = refusal
        engine = self.web.engine
        copy = WorkingCopy(engine.context, revoked=True)  # nothing of it is saved
        self.working_copy: WorkingCopy | None = copy
        session: Session[Any] = create_session(copy, engine, self.web.session_class)
        self.scope["session"] = session
        self.session: Session[Any] | None = session

    def entered(self) -> bool:
        """Return whether an ``ErrorMiddleware`` serves this request already."""
        return self._entered

    def started(self) -> bool:
        """Return whether the start of a response was sent, or handed to the outer middleware."""
        return self.response_started or self._start is not None

    async def serve_inside(
        self, app: ASGIApp, receive: Receive, send: Send, framework: Framework
    ) -> None:
        """Run what is inside of the application's middleware; respond to errors."""
        scope = self.scope
        self.outer_send = send
        self._entered = True
        failure: Exception | None = self._deferred
        try:
            if self._origin_refusal is not None:
                await self.send_refusal(self._origin_refusal)
                return
            if failure is None:
                try:
                    await app(scope, receive, self.send)
                    if self.held is not None or self.stream_start is not None:
                        await self.send_rest()
                    failure = self.failure  # the framework may have dropped it
                except Exception as raised:  # noqa: BLE001 - raised below, unless answered
                    self.drop_held()  # now: an error handler may give control to the event loop
                    failure = self.failure or raised
            if failure is not None and not await self.answer(failure, receive, framework):
                if self.started():
                    # BaseHTTPMiddleware ends the body of a stream before it raises its error.
                    self.mark_failed()
                raise failure
        finally:
            # Break reference cycles: the middleware between the two layers holds this object, and
            # the traceback of an error holds this frame.
            self.outer_send: Send = self._server_send
            failure = None

    def send_outward(self, message: Message) -> Awaitable[None]:
        """Send a message that has passed the application's own middleware."""
        if self._bypassed:
            return _DONE if self._hidden else self.send(message)
        send = self._server_send
        if self._replaced:
            if message["type"] != "http.response.start":
                return self._send_replaced(message)
            self._bypassed = True  # an error page: the commit has failed
            self.outer_send = send
            return self.send(message)
        if message["type"] == "http.response.start":
            copy = self.working_copy
            if self._start is None:  # an error page, or the response of a middleware
                self._bypassed = True
                self.outer_send = send
                self._hidden = message["status"] == SERVER_ERROR and self._is_for_on_error()
                return _DONE if self._hidden else self.send(message)
            if (
                message is not self._start
                or (self._added and message["headers"] != self._outward_headers)
                or (copy is not None and copy.accessed and not self._accessed_inside)
                or (
                    copy is not None
                    and (not self.settled or copy.destroyed_record is not None)
                    and (
                        copy.cookie_change is not NO_COOKIE_CHANGE
                        or copy.renewal is not None
                        or copy.destroyed_record is not None
                        or (
                            copy.record is None
                            and copy.accessed
                            and not self.failed  # whose data is dropped
                            and copy.modified()
                        )
                    )
                )
            ):
                return self._send_changed(message)
            self.response_started = True
            if copy is not None:
                copy.response_started = True
                if copy.record is not None:
                    return self._send_confirmed(message, send)
        return send(message)

    def _is_for_on_error(self) -> bool:
        """Return whether ``on_error`` is to answer the error that this page is sent for."""
        error = self.failure or sys.exc_info()[1]
        on_error = self.web.config.on_error
        return on_error is not None and isinstance(error, SojournError) and not self.settled

    def _send_changed(self, message: Message) -> Awaitable[None]:
        """Send a start that a middleware has replaced, or during which it used the session.

        What is inside of the middleware goes on sending to it: it may change a stream, too.
        """
        self._replaced = True
        if self._added:
            message["headers"] = combine_added(self.web, message.get("headers", ()), self._added)
        return self._send_start(message, True)

    def _send_replaced(self, message: Message) -> Awaitable[None]:
        """Send what follows the start of a response that a middleware has replaced."""
        copy = self.working_copy
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if last and copy is not None and copy.changes is not None:
            waiting = self.commit_after_error(store_failed=True) if self.settled else self.finish()
            if waiting is not None:
                return self._send_last(message, waiting)
        return self._send_confirmed(message, self._server_send)

    async def _send_last(self, message: Message, waiting: Awaitable[object]) -> None:
        await waiting
        await self._send_confirmed(message, self._server_send)

    async def _send_unchanged(self, start: Message, body: Message) -> None:
        await self._send_recording_disconnect(start)
        await self._send_recording_disconnect(body)

    def _send_recording_disconnect(self, message: Message) -> Awaitable[None]:
        """Send a message; until the start has passed the outer middleware, it may be changed."""
        if self._bypassed or message["type"] != "http.response.start":
            return super()._send_recording_disconnect(message)
        if self._replaced:
            return self._send_confirmed(message, self._server_send)
        self._start = message
        self.response_started: bool = False
        copy = self.working_copy
        if copy is not None:
            copy.response_started = False
            self._accessed_inside = copy.accessed
            headers = message["headers"]
            if headers and headers[-1][0] in self.web.added_headers:
                self._added = find_added(self.web, headers)
                self._outward_headers = list(headers)
        send = self.outer_send
        return send(message)


def create_layered_exchange(web: WebInstallation, scope: Scope, send: Send) -> LayeredExchange:
    """Return the exchange of a request that two layers share."""
    self = LayeredExchange()
    self._added = []
    self._bypassed = False
    self._deferred = None
    self._entered = False
    self._hidden = False
    self._accessed_inside = False
    self._outward_headers = []
    self._origin_refusal = None
    self._replaced = False
    self._server_send = send
    self._start = None
    self.held = None
    self.scope = scope
    self.outer_send = send
    self.stream_start = None
    self.failure = None
    self.sent_unavailable = False
    self.settled = False
    SessionLifecycle.__init__(self, web)
    return self


def _log_unavailable(web: WebInstallation, error: StoreError) -> None:
    web.event_log.log_failure("answered 503 because the session store failed: %s", error)
