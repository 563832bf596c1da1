"""Candidates on Starlette: no sessions, signed cookie, starsessions, sojourn, least layers."""

from __future__ import annotations

import itertools
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.candidates import telemetry
from benchmarks.candidates.candidate import (
    IDLE_SECONDS,
    LARGE,
    SECRET,
    SMALL,
    STORE_TIMEOUT,
    TUNED,
    VALKEY_INSTALL,
    ASGIApp,
    Candidate,
    Handlers,
    valkey_url,
)
from benchmarks.candidates.least_layer import (
    MemoryLeastLayer,
    SQLiteLeastLayer,
    ValkeyLeastLayer,
)

NEAR_CACHE_VARIABLE = "BENCHMARK_NEAR_CACHE"


def bare_handlers() -> Handlers:
    """Return handlers that answer the same bytes without a session."""
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse

    numbers = itertools.count(1)

    async def hello(request: Request) -> PlainTextResponse:
        return PlainTextResponse("hello, world")

    async def read(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{0:012d}")

    async def write(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{next(numbers):012d}")

    return hello, read, write, read


def session_handlers() -> Handlers:
    """Return handlers whose session is loaded before they run."""
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse

    numbers = itertools.count(1)
    hello, *_ = bare_handlers()

    async def read(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{request.session['counter']:012d}")

    async def write(request: Request) -> PlainTextResponse:
        number = next(numbers)
        request.session["counter"] = number
        return PlainTextResponse(f"{number:012d}")

    async def seed(request: Request) -> PlainTextResponse:
        number = next(numbers)
        request.session.update(LARGE if request.url.path == "/seed-large" else SMALL)
        request.session["counter"] = number
        return PlainTextResponse(f"{number:012d}")

    return hello, read, write, seed


def loading_handlers(load: Callable[[Any], Awaitable[Any]]) -> Handlers:
    """Return handlers that load their session themselves, for a layer that requires it."""
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse

    numbers = itertools.count(1)
    hello, *_ = bare_handlers()

    async def read(request: Request) -> PlainTextResponse:
        await load(request)
        return PlainTextResponse(f"{request.session['counter']:012d}")

    async def write(request: Request) -> PlainTextResponse:
        await load(request)
        number = next(numbers)
        request.session["counter"] = number
        return PlainTextResponse(f"{number:012d}")

    async def seed(request: Request) -> PlainTextResponse:
        await load(request)
        number = next(numbers)
        request.session.update(LARGE if request.url.path == "/seed-large" else SMALL)
        request.session["counter"] = number
        return PlainTextResponse(f"{number:012d}")

    return hello, read, write, seed


def starlette_app(handlers: Handlers, *middleware: Any) -> Any:
    """Build the Starlette application."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    hello, read, write, seed = handlers
    routes = [
        Route("/", hello),
        Route("/read", read),
        Route("/write", write),
        Route("/seed", seed),
        Route("/seed-large", seed),
    ]
    return Starlette(routes=routes, middleware=middleware)


def bare(directory: Path) -> ASGIApp:
    """Build the application without sessions."""
    app: ASGIApp = starlette_app(bare_handlers())
    return app


def signed_cookie(directory: Path) -> ASGIApp:
    """Build it with Starlette's own sessions: signed, in the cookie itself."""
    from starlette.middleware import Middleware
    from starlette.middleware.sessions import SessionMiddleware

    layer = Middleware(SessionMiddleware, secret_key=SECRET, max_age=IDLE_SECONDS)
    app: ASGIApp = starlette_app(session_handlers(), layer)
    return app


def starsessions_layer(store: Any) -> Any:
    """Return the middleware of starsessions over a store."""
    from starlette.middleware import Middleware
    from starsessions import SessionMiddleware

    return Middleware(
        SessionMiddleware, store=store, lifetime=IDLE_SECONDS, cookie_https_only=False
    )


def starsessions_memory(directory: Path) -> ASGIApp:
    """Build it with starsessions; only the routes that use a session load one."""
    from starsessions import InMemoryStore, load_session

    layer = starsessions_layer(InMemoryStore())
    app: ASGIApp = starlette_app(loading_handlers(load_session), layer)
    return app


def starsessions_valkey(directory: Path) -> ASGIApp:
    """Build it with starsessions over the Valkey server."""
    from starsessions import load_session
    from starsessions.stores.redis import RedisStore

    layer = starsessions_layer(RedisStore(valkey_url()))
    app: ASGIApp = starlette_app(loading_handlers(load_session), layer)
    return app


def least_memory(directory: Path) -> ASGIApp:
    """Build it with the least layer over a dict."""
    from starlette.middleware import Middleware

    app: ASGIApp = starlette_app(session_handlers(), Middleware(MemoryLeastLayer))
    return app


def least_sqlite(directory: Path) -> ASGIApp:
    """Build it with the least layer over SQLite."""
    from starlette.middleware import Middleware

    layer = Middleware(SQLiteLeastLayer, path=directory / "sessions.db")
    app: ASGIApp = starlette_app(session_handlers(), layer)
    return app


def least_valkey(directory: Path) -> ASGIApp:
    """Build it with the joined round trips alone over the Valkey server."""
    from starlette.middleware import Middleware

    layer = Middleware(ValkeyLeastLayer, url=valkey_url())
    app: ASGIApp = starlette_app(session_handlers(), layer)
    return app


def _install(store: Any, **options: Any) -> ASGIApp:
    import sojourn

    app: Any = starlette_app(session_handlers())
    telemetry.switch_on(sojourn.install(app, store=store, secret=SECRET, **options))
    built: ASGIApp = app
    return built


def sojourn_memory(directory: Path) -> ASGIApp:
    """Build it with sojourn in memory."""
    return _install("memory://")


def sojourn_sqlite(directory: Path) -> ASGIApp:
    """Build it with sojourn over SQLite."""
    return _install(f"sqlite:///{directory}/sessions.db", store_timeout=STORE_TIMEOUT)


def sojourn_valkey(directory: Path) -> ASGIApp:
    """Build it with sojourn over the Valkey server."""
    return _install(valkey_url(), store_timeout=STORE_TIMEOUT)


def sojourn_near_cache(directory: Path) -> ASGIApp:
    """Build it with sojourn over the Valkey server and a near cache."""
    near_cache = os.environ.get(NEAR_CACHE_VARIABLE, "1 second")
    return _install(valkey_url(), store_timeout=STORE_TIMEOUT, near_cache=near_cache)


def sojourn_redis_py(directory: Path) -> ASGIApp:
    """Build it with sojourn over a client of redis-py instead of sojourn's own connection."""
    import redis.asyncio

    from sojourn.stores.redis import RedisStore

    return _install(RedisStore(client=redis.asyncio.Redis.from_url(valkey_url())))


MEMORY_AND_SQLITE: tuple[Candidate, ...] = (
    Candidate(
        name="bare",
        title="Starlette, no sessions",
        configuration="Starlette(routes)",
        build=bare,
        baseline=None,
        keeps_values=False,
    ),
    Candidate(
        name="starlette-cookie",
        title="Starlette, signed cookie",
        configuration="SessionMiddleware(secret_key=…, max_age=1800)",
        build=signed_cookie,
        holds_20_kb=False,
    ),
    Candidate(
        name="starsessions-memory",
        title="starsessions, memory",
        configuration=(
            "SessionMiddleware(store=InMemoryStore(), lifetime=1800, cookie_https_only=False); "
            "`await load_session(request)` only in the handlers that use the session"
        ),
        build=starsessions_memory,
    ),
    Candidate(
        name="least-memory",
        title="least layer, memory",
        configuration=(
            "no session layer: cookie, one dict look-up, msgpack, two response headers "
            "(candidates/least_layer.py)"
        ),
        build=least_memory,
    ),
    Candidate(
        name="least-sqlite",
        title="least layer, SQLite",
        configuration="the same with one SELECT, and one UPDATE in a group with other requests'",
        build=least_sqlite,
    ),
    Candidate(
        name="sojourn-memory",
        title="**sojourn, memory**",
        configuration='sojourn.install(app, store="memory://", secret=…)',
        build=sojourn_memory,
        least_layer="least-memory",
    ),
    Candidate(
        name="sojourn-sqlite",
        title="**sojourn, SQLite**",
        configuration='sojourn.install(app, store="sqlite:///…", secret=…, store_timeout=30)',
        build=sojourn_sqlite,
        least_layer="least-sqlite",
    ),
)

OVER_VALKEY: tuple[Candidate, ...] = (
    Candidate(
        name="least-valkey",
        title="least layer, Valkey: joined round trips alone",
        configuration=(
            "no session layer: a joined load, and a joined save after a change "
            "(candidates/least_layer.py)"
        ),
        build=least_valkey,
        needs_valkey=True,
    ),
    Candidate(
        name="starsessions-valkey",
        title="starsessions, Valkey",
        configuration="as in memory, with store=RedisStore(url)",
        build=starsessions_valkey,
        needs_valkey=True,
    ),
    Candidate(
        name="sojourn-redis-py",
        title="**sojourn, Valkey through redis-py**",
        configuration=(
            "sojourn.install(app, store=RedisStore(client=redis.asyncio.Redis.from_url(…)), "
            "secret=…)"
        ),
        build=sojourn_redis_py,
        least_layer="least-valkey",
        needs_valkey=True,
    ),
    Candidate(
        name="sojourn-valkey",
        title="**sojourn, Valkey**",
        configuration=VALKEY_INSTALL,
        build=sojourn_valkey,
        least_layer="least-valkey",
        needs_valkey=True,
    ),
    Candidate(
        name="bare-tuned",
        title="Starlette, no sessions, tuned",
        configuration=TUNED,
        build=bare,
        baseline=None,
        keeps_values=False,
        tuned=True,
    ),
    Candidate(
        name="sojourn-valkey-tuned",
        title="**sojourn, Valkey**, tuned",
        configuration=f"{VALKEY_INSTALL}; {TUNED}",
        build=sojourn_valkey,
        baseline="bare-tuned",
        tuned=True,
        needs_valkey=True,
    ),
)

NEAR_CACHE = Candidate(
    name="sojourn-near-cache",
    title="**sojourn, Valkey**, near cache",
    configuration=f'{VALKEY_INSTALL[:-1]}, near_cache="1 second")',
    build=sojourn_near_cache,
    least_layer="least-valkey",
    needs_valkey=True,
)
"""For `python -m benchmarks.near_cache`."""
