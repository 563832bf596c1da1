"""SessionMiddleware for ASGI: loads before the application runs, commits before the first byte.

What lives here: the ``http`` half of the ASGI protocol; ``websocket`` is ``live/socket.py``,
anything else passes through. What must not: decisions; it moves messages between server, gate and
engine.

The order, from ``architecture.md``: cookie, load, handler; first byte due, commit, headers; stream;
its end, commit again what changed since (laws A2 to A5, A10 to A13).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any, Final

from sojourn._core.null_session import NullSession
from sojourn._core.session import Session
from sojourn._core.working_copy import NO_CHANGE
from sojourn._crypto.tickets import Ticket
from sojourn.errors import StoreUnavailable
from sojourn.live.socket import Socket
from sojourn.web import cache_headers as caching
from sojourn.web.lifecycle import Gate, Guarded, OnStoreFailure
from sojourn.web.origin import Refusal, answer
from sojourn.web.scope import (
    EXCHANGE,
    SERVER_ERROR,
    ASGIApp,
    Message,
    Receive,
    Scope,
    Send,
    read_headers,
    read_labels,
    read_path,
    read_site,
)
from sojourn.web.transport import Transport

_INSECURE: Final = Transport.INSECURE
_KINDS: Final = frozenset({"http", "websocket"})

logger: logging.Logger = logging.getLogger("sojourn")


class SessionMiddleware:
    """Gives each request and each socket of an ASGI application its session.

    ``scope["session"]`` is the session (``request.session`` in Starlette and FastAPI).

    Args:
        app: the application.
        sessions: the installation.
    """

    def __init__(self, app: ASGIApp, sessions: Guarded) -> None:
        self.app = app
        self.gate: Gate = sessions.gate

    async def __call__(  # noqa: C901, PLR0912 - every way a connection can go, from top to bottom
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve one connection."""
        # What is called is fetched first, here and below: `self.app(...)` looks for a method.
        gate, app = self.gate, self.app
        kind = scope["type"]
        if kind not in _KINDS or not gate.active:
            await app(scope, receive, send)
            return
        rules = gate.rules
        wanted = rules.patterns.everything or rules.patterns.match(read_path(scope))
        outer = scope.get(EXCHANGE)
        if outer is not None and outer.gate is gate:  # this route has a middleware of its own
            if wanted:
                await outer.load()
            await app(scope, receive, send)
        elif kind == "websocket":
            socket = Socket(gate, scope, receive, send)
            await socket.serve(app, autoload=wanted and rules.autoload)
        else:
            # Written out here, not in a method: every coroutine in between costs each request.
            if rules.protect and wanted and (refusal := _judge(gate, scope)) is not None:
                await refuse(send, refusal)
                return
            scope[EXCHANGE] = exchange = Exchange(gate, scope, send)
            try:
                try:
                    if wanted and rules.autoload and (ticket := exchange.arrive()) is not None:
                        try:
                            load = gate.engine.load
                            session = await load(ticket, exchange)
                        except StoreUnavailable as failure:
                            session = exchange.strand(failure)
                        scope["session"] = exchange.session = session  # as `show` does
                        if rules.passive is not None:
                            gate.arrived(session, read_path(scope))
                    await app(scope, receive, exchange.send)
                except BaseException as error:
                    await exchange.fail(error)
                    raise
                known = exchange.session
                if known is not None and known._view is not None and known._touched():
                    await exchange.commit()
            except StoreUnavailable as error:
                if exchange.started and not exchange.denied:
                    raise
                # One line: an outage has as many of them as there are visitors.
                logger.error("answered 503 because the session store failed: %s", error)  # noqa: TRY400 - one line each
                await exchange.answer_unavailable()
            finally:
                # Undo two cycles: what the request held is freed at once, without the collector.
                scope[EXCHANGE] = None
                if exchange.session is not None:
                    exchange.session._client = None


class Exchange:
    """One http request and its response; also who asks, for the labels of a new session.

    Attributes:
        session: None until it is known.
        started: the answer has begun.
    """

    __slots__ = ("_failed", "_left", "_scope", "_send", "_transport", "gate", "session", "started")

    def __init__(self, gate: Gate, scope: Scope, send: Send) -> None:
        self.gate: Gate = gate
        self._scope = scope
        self._send = send
        self.session: Session[Any] | None = None
        self.started: bool = False
        self._transport: Transport = _INSECURE
        self._failed = False
        self._left = False

    async def load(self, policy: OnStoreFailure | None = None) -> Session[Any]:
        """Load the session of this request, once, and show it to the application.

        Args:
            policy: what the route asks for where the store fails; None for the installation's.

        Raises:
            StoreUnavailable: the store failed.
        """
        session = self.session
        if session is None:
            ticket = self.arrive()
            if self.session is None:
                try:
                    session = await self.gate.engine.load(ticket, self)
                except StoreUnavailable as failure:
                    session = self.strand(failure, policy)
                self.show(session)
            else:
                session = self.session
            if self.started:
                session._late()
        elif isinstance(session, NullSession):
            session._insist(wanted=policy == "error")
        self._scope["session"] = session
        return session

    def arrive(self) -> Ticket | None:
        """Find the ticket of this request; without one its session is there at once."""
        gate = self.gate
        scope = self._scope
        host, cookies, _, proxied = read_headers(scope)
        self._transport = transport = gate.transport(scope["scheme"], host, proxied)
        ticket = None if cookies is None else gate.ticket(transport, cookies)
        if ticket is None:
            scope["session"] = self.session = gate.empty(transport, host, self)
        return ticket

    def show(self, session: Session[Any]) -> None:
        """Give the application its session."""
        self._scope["session"] = self.session = session
        if self.gate.rules.passive is not None:
            self.gate.arrived(session, read_path(self._scope))

    def strand(
        self, failure: StoreUnavailable, policy: OnStoreFailure | None = None
    ) -> NullSession:
        """Return a session for a request whose own cannot be loaded; see ``load``.

        Raises:
            StoreUnavailable: the request must not go on.
        """
        stranded = self.gate.strand(failure, read_path(self._scope), self, policy=policy)
        if stranded._denied:
            self._scope["session"] = self.session = stranded
            raise failure
        return stranded

    @property
    def denied(self) -> bool:
        """Whether an error of the framework's is 503, because the store failed."""
        return isinstance(self.session, NullSession) and self.session._denied

    def labels(self) -> dict[str, str]:
        """Return what the request says of its client."""
        return read_labels(self._scope)

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message to the server, having committed what must not come after it."""
        session = self.session
        if session is not None:
            kind = message["type"]
            if kind == "http.response.start":
                if message["status"] >= SERVER_ERROR:
                    self._failed = not self.gate.rules.save_on_error
                    if self.denied:
                        return self._pass(_instead(message))
                if session._record is None and not session._looked:
                    session._started = True
                    return self._pass(message)
                return self._begin(session, message)
            if kind == "http.response.body" and not message.get("more_body", False):
                if session._view is not None and session._touched():
                    return self._end(message)
                if self.started:
                    send = self._send
                    return send(message)  # nothing of ours depends on how this ends
        return self._pass(message)

    async def _begin(self, session: Session[Any], message: Message) -> None:
        engine, send = self.gate.engine, self._send
        if session._record is not None or session._touched():
            clock = engine.clock
            now = clock()
            step = engine.due(session, now, self._failed)
            if step is not None:
                await engine.carry_out(step, session, now, failed=self._failed)
        # A stream may look later, when no header can tell of it any more.
        looked = session._looked or (session._record is not None and _is_stream(message))
        if session._cookie is not NO_CHANGE or session._departed:
            self._hand_out(session, message, looked=looked)
        elif looked:
            message["headers"] = caching.looked_at(
                message.get("headers", ()), session._authenticated()
            )
        session._started = self.started = True
        try:
            await send(message)
        except OSError:
            self._left = True
            raise

    def _hand_out(self, session: Session[Any], message: Message, *, looked: bool) -> None:
        """Have the headers change the visitor's cookie."""
        cleared = self.gate.farewell(session, self._transport)
        message["headers"] = headers = caching.apply(
            list(message.get("headers", ())),
            looked=looked,
            private=session._authenticated(),
            set_cookie=self.gate.set_cookie(session, self._transport),
            overruled=warn_overruled,
        )
        if cleared is not None:
            headers.append((b"clear-site-data", cleared))

    async def _end(self, message: Message) -> None:
        await self.commit()
        await self._pass(message)

    async def _pass(self, message: Message) -> None:
        self.started = True
        try:
            await self._send(message)
        except OSError:  # how servers tell that the client has left (ASGI 2.4)
            self._left = True
            raise

    async def commit(self) -> None:
        """Write what was changed since the answer began."""
        if self.session is not None:
            await self.gate.engine.commit(self.session, failed=self._failed)

    # How it ends

    async def fail(self, error: BaseException) -> None:
        """Commit what is kept of a request that raised."""
        if isinstance(error, asyncio.CancelledError):
            # The client left or the server stops: what a stream did is kept (law A11), what a
            # request without an answer did is not (A12).
            self._failed = self._failed or not self.started
            await asyncio.shield(self.commit())
        elif isinstance(error, Exception):
            # Where a send told that the client has left, the handler did not fail (law A11); what
            # it or its framework makes of that error is any exception.
            if not self._left:
                self._failed = not self.gate.rules.save_on_error
            await self.commit()

    async def answer_unavailable(self) -> None:
        """Status 503 unless the framework did: to go on would lose what the store holds (A15)."""
        if not self.started:
            start = {"type": "http.response.start", "status": 503}
            await self._send({**start, "headers": list(UNAVAILABLE_HEADERS)})
            await self._send({"type": "http.response.body", "body": UNAVAILABLE_BODY})


def warn_overruled(header: str) -> None:
    """Say that a caching header of the application had to go."""
    logger.warning(
        "%r was replaced by 'Cache-Control: private, no-store', because this response sets the "
        "session cookie and a shared cache would give it to other visitors",
        header,
    )


#: The answer when the store failed, here and under WSGI.
UNAVAILABLE_BODY: Final = b"The session store is unavailable. Please try again in a moment.\n"
UNAVAILABLE_HEADERS: Final = (
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"content-length", str(len(UNAVAILABLE_BODY)).encode()),
    (b"retry-after", b"2"),
    (b"cache-control", b"no-store"),
)


def _judge(gate: Gate, scope: Scope) -> Refusal | None:
    host, cookies, origin, proxied = read_headers(scope)
    return gate.judge(
        scope["method"],
        scope["scheme"],
        site=read_site(scope),
        origin=origin,
        host=host,
        cookies=cookies,
        proxied=proxied,
    )


async def refuse(send: Send, refusal: Refusal) -> None:
    """Status 403: a page of somebody else sent the request (ASVS 3.5.1)."""
    headers, body = answer(refusal)
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _is_stream(message: Message) -> bool:
    return all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))


def _instead(message: Message) -> Message:
    """Return the beginning of 503 for the 500 that a framework makes of a store's failure."""
    kept = [(n, v) for n, v in message.get("headers", ()) if n.lower() != b"cache-control"]
    told = [(n, v) for n, v in UNAVAILABLE_HEADERS if n in (b"retry-after", b"cache-control")]
    return {**message, "status": 503, "headers": [*kept, *told]}
