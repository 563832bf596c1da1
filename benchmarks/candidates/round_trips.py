"""Round trips alone: one GET for a read and one SET for a write, without a session layer.

They are the lower bound of a session library over redis-py: the cookie is the bare key, without
expiry, merging, encryption or error handling.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from benchmarks.candidates.candidate import Candidate, valkey_url
from benchmarks.candidates.flask import flask_app
from benchmarks.candidates.least_layer import LoadedValues
from benchmarks.candidates.own_servers import aiohttp_app
from benchmarks.candidates.wsgi_frameworks import django_app, pyramid_configurator

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_COOKIE: Final = "sid="
_VALUES: Final = "benchmark.values"

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder().decode


class RoundTripsWSGI:
    """Loads before the application runs, saves before its response starts.

    Args:
        app: the application; it finds the values in its environ.
    """

    def __init__(self, app: WSGIApplication) -> None:
        from redis import Redis

        self._app = app
        self._client = Redis.from_url(valkey_url())

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        key = environ.get("HTTP_COOKIE", "").removeprefix(_COOKIE)
        record = self._client.get(key) if key else None
        values = environ[_VALUES] = LoadedValues(_decode(record) if record else {})
        started: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
            started.append((status, headers))
            return started.append

        body = self._app(environ, start)
        ((status, headers),) = started
        if values.changed:
            if not key:
                key = os.urandom(16).hex()
                headers = [*headers, ("Set-Cookie", f"{_COOKIE}{key}")]
            self._client.set(key, _encode(values))
        start_response(status, headers)
        return body


class DjangoMiddleware:
    """Gives Django's views the values as ``request.session``."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response

    def __call__(self, request: Any) -> Any:
        """Serve one request."""
        request.session = request.META[_VALUES]
        return self._get_response(request)


def flask_round_trips(directory: Path) -> Any:
    """Build Flask with the round trips alone."""
    import flask

    return RoundTripsWSGI(flask_app(lambda: flask.request.environ[_VALUES]))


def django_round_trips(directory: Path) -> Any:
    """Build Django with the round trips alone."""
    name = f"{DjangoMiddleware.__module__}.{DjangoMiddleware.__qualname__}"
    return RoundTripsWSGI(django_app(middleware=[name]))


def pyramid_round_trips(directory: Path) -> Any:
    """Build Pyramid with the round trips alone."""
    config = pyramid_configurator(session=True)
    config.set_session_factory(lambda request: request.environ[_VALUES])
    return RoundTripsWSGI(config.make_wsgi_app())


def aiohttp_round_trips(directory: Path) -> Any:
    """Build aiohttp with the round trips alone, by redis-py for asyncio."""
    from aiohttp import web
    from redis.asyncio import Redis

    client = Redis.from_url(valkey_url())

    @web.middleware
    async def middleware(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        key = request.headers.get("Cookie", "").removeprefix(_COOKIE)
        record = await client.get(key) if key else None
        values = request[_VALUES] = LoadedValues(_decode(record) if record else {})
        response = await handler(request)
        if values.changed:
            if not key:
                key = os.urandom(16).hex()
                response.headers["Set-Cookie"] = f"{_COOKIE}{key}"
            await client.set(key, _encode(values))
        return response

    async def get_values(request: web.Request) -> Any:
        return request[_VALUES]

    app = aiohttp_app(get_values)
    app.middlewares.append(middleware)
    return app


_CONFIGURATION: Final = "GET and SET by redis-py with hiredis; the cookie is the bare key"

ROUND_TRIPS: tuple[Candidate, ...] = (
    Candidate(
        name="round-trips-flask",
        title="Flask, round trips alone",
        configuration=_CONFIGURATION,
        build=flask_round_trips,
        baseline="bare-flask",
        needs_valkey=True,
        server="gunicorn",
    ),
    Candidate(
        name="round-trips-django",
        title="Django, round trips alone",
        configuration=_CONFIGURATION,
        build=django_round_trips,
        baseline="bare-django",
        needs_valkey=True,
        server="gunicorn",
    ),
    Candidate(
        name="round-trips-pyramid",
        title="Pyramid, round trips alone",
        configuration=_CONFIGURATION,
        build=pyramid_round_trips,
        baseline="bare-pyramid",
        needs_valkey=True,
        server="gunicorn",
    ),
    Candidate(
        name="round-trips-aiohttp",
        title="aiohttp, round trips alone",
        configuration="redis-py for asyncio; the rest as in WSGI",
        build=aiohttp_round_trips,
        baseline="bare-aiohttp",
        needs_valkey=True,
        server="aiohttp",
    ),
)
