"""Health endpoint: whether the process is alive, and whether its store answers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any, Final, Literal, Protocol, overload

import msgspec

from sojourn._core.coroutine_function import mark_coroutine_function
from sojourn.errors import ConfigurationError, StoreError
from sojourn.web.asgi_scope import Receive, Scope, Send, read_path
from sojourn.web.cache_headers import RawHeaders
from sojourn.web.error_response import RETRY_HEADERS
from sojourn.web.wsgi_environ import Environ

logger: logging.Logger = logging.getLogger("sojourn")

#: The last segment of the path of the liveness probe.
_LIVENESS: Final = "live"

_METHODS: Final = ("GET", "HEAD")

_NO_STORE: Final = ((b"cache-control", b"no-store"),)

StartResponse = Callable[[str, list[tuple[str, str]]], object]


class SupportsPing(Protocol):
    """What the endpoint needs of ``Sessions``."""

    def ping(self) -> float:
        """Return the seconds until the store answered."""
        ...

    async def aping(self) -> float:
        """Return the seconds until the store answered."""
        ...


class HealthReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of a response, as JSON. It names neither the store's address nor the cause.

    Attributes:
        status: of the process.
        store: whether the store has answered; absent if it was not called.
        round_trip_ms: milliseconds until it answered.
    """

    status: Literal["ok", "unavailable"]
    store: Literal["ok", "unavailable", "misconfigured"] | None = None
    round_trip_ms: float | None = None


class HealthEndpoint:
    """An ASGI and WSGI application for the probes of a load balancer or of Kubernetes.

    A path that ends with ``/live`` is answered 200 without the store (liveness), every other path
    with the state of the store (readiness): 200, or 503 with ``Retry-After``.

    Args:
        sessions: of the application.
    """

    def __init__(self, sessions: SupportsPing) -> None:
        self._sessions = sessions
        self._is_misconfigured = False

    @overload
    def __call__(self, environ: Environ, start_response: StartResponse, /) -> Iterable[bytes]: ...
    @overload
    def __call__(self, scope: Scope, receive: Receive, send: Send, /) -> Awaitable[None]: ...
    @mark_coroutine_function
    def __call__(self, *args: Any) -> Iterable[bytes] | Awaitable[None]:
        """Answer a request: two arguments are WSGI's, three are ASGI's."""
        return self._respond_wsgi(*args) if len(args) == 2 else self._respond_asgi(*args)  # noqa: PLR2004 - PEP 3333

    async def areport(self) -> HealthReport:
        """Call the store; return its state."""
        try:
            seconds = await self._sessions.aping()
        except (StoreError, ConfigurationError) as error:
            return self._failed(error)
        return self._succeeded(seconds)

    def report(self) -> HealthReport:
        """Call the store; return its state. For threads."""
        try:
            seconds = self._sessions.ping()
        except (StoreError, ConfigurationError) as error:
            return self._failed(error)
        return self._succeeded(seconds)

    def _succeeded(self, seconds: float) -> HealthReport:
        self._is_misconfigured = False
        return HealthReport("ok", "ok", round(seconds * 1000, 3))

    def _failed(self, error: StoreError | ConfigurationError) -> HealthReport:
        if not isinstance(error, ConfigurationError):
            return HealthReport("unavailable", "unavailable")  # ``ping`` has reported the error
        if not self._is_misconfigured:  # once, not for each probe
            self._is_misconfigured = True
            logger.error("the store is misconfigured: %s", error)
        return HealthReport("unavailable", "misconfigured")

    async def _respond_asgi(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - a request without a body
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})  # the server answers 403
            return
        if scope["type"] != "http":
            raise ValueError(f"expected an HTTP request, found {scope['type']!r}")
        method: str = scope["method"]
        early = _respond_early(method, read_path(scope))
        status, headers, body = early or _response(await self.areport())
        await send({"type": "http.response.start", "status": int(status), "headers": headers})
        sent = b"" if method == "HEAD" else body
        await send({"type": "http.response.body", "body": sent})

    def _respond_wsgi(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        method: str = environ["REQUEST_METHOD"]
        path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        early = _respond_early(method, path)
        status, headers, body = early or _response(self.report())
        text = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        start_response(f"{int(status)} {status.phrase}", text)
        return [b"" if method == "HEAD" else body]


def health(sessions: SupportsPing) -> HealthEndpoint:
    """Return an application that answers the probes of load balancers and of Kubernetes.

    Mount it where probes reach it: ``app.mount("/health", sojourn.health(sessions))`` in Starlette
    and FastAPI. ``GET /health/`` is the readiness of the process, ``GET /health/live`` is its
    liveness.

    Args:
        sessions: what ``sojourn.get(app)`` returns.

    Returns:
        An ASGI and WSGI application.
    """
    return HealthEndpoint(sessions)


def _respond_early(method: str, path: str) -> tuple[HTTPStatus, RawHeaders, bytes] | None:
    """Return the response to a request that does not need the store; None if it needs it."""
    if method not in _METHODS:
        allow = ((b"allow", ", ".join(_METHODS).encode()), *_NO_STORE)
        return HTTPStatus.METHOD_NOT_ALLOWED, [*allow, (b"content-length", b"0")], b""
    if path.rstrip("/").rpartition("/")[2] == _LIVENESS:
        return _response(HealthReport("ok"))
    return None


def _response(report: HealthReport) -> tuple[HTTPStatus, RawHeaders, bytes]:
    is_ok = report.status == "ok"
    body = msgspec.json.encode(report)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *(_NO_STORE if is_ok else RETRY_HEADERS),
    ]
    return HTTPStatus.OK if is_ok else HTTPStatus.SERVICE_UNAVAILABLE, headers, body
