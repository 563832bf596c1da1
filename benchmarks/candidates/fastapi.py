"""Candidates on FastAPI over Valkey: no sessions, fastapi-redis-sdk, starsessions and sojourn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.candidates.candidate import (
    IDLE_SECONDS,
    SECRET,
    STORE_TIMEOUT,
    ASGIApp,
    Candidate,
    Handlers,
    valkey_url,
)
from benchmarks.candidates.starlette import (
    bare_handlers,
    loading_handlers,
    session_handlers,
    starsessions_layer,
)


def fastapi_app(handlers: Handlers) -> Any:
    """Build the FastAPI application without OpenAPI; handlers take the request, as in Starlette."""
    from fastapi import FastAPI, Request
    from fastapi.responses import PlainTextResponse

    hello, read, write, seed = handlers
    app = FastAPI(openapi_url=None)
    routes = {"/": hello, "/read": read, "/write": write, "/seed": seed, "/seed-large": seed}
    for path, handler in routes.items():
        # FastAPI evaluates annotations in the handler's module, which does not import Request.
        handler.__annotations__ = {"request": Request}
        app.get(path, response_class=PlainTextResponse)(handler)
    return app


def bare_fastapi(directory: Path) -> ASGIApp:
    """Build the application without sessions."""
    app: ASGIApp = fastapi_app(bare_handlers())
    return app


def fastapi_redis_sdk(directory: Path) -> ASGIApp:
    """Build it with the sessions of fastapi-redis-sdk over the Valkey server."""
    from redis_fastapi import FastAPIRedis, get_settings

    settings = get_settings()
    settings.url = valkey_url()
    settings.session_cookie_https_only = False
    settings.session_idle_ttl = IDLE_SECONDS
    app: Any = fastapi_app(session_handlers())
    FastAPIRedis(app).lifespan().sessions()
    built: ASGIApp = app
    return built


def starsessions_fastapi(directory: Path) -> ASGIApp:
    """Build it with starsessions over the Valkey server."""
    from starsessions import load_session
    from starsessions.stores.redis import RedisStore

    app: Any = fastapi_app(loading_handlers(load_session))
    layer = starsessions_layer(RedisStore(valkey_url()))
    app.add_middleware(layer.cls, *layer.args, **layer.kwargs)
    built: ASGIApp = app
    return built


def sojourn_fastapi(directory: Path) -> ASGIApp:
    """Build it with sojourn over the Valkey server."""
    import sojourn

    app: Any = fastapi_app(session_handlers())
    sojourn.install(app, store=valkey_url(), secret=SECRET, store_timeout=STORE_TIMEOUT)
    built: ASGIApp = app
    return built


FASTAPI: tuple[Candidate, ...] = (
    Candidate(
        name="bare-fastapi",
        title="FastAPI, no sessions",
        configuration="FastAPI(openapi_url=None)",
        build=bare_fastapi,
        baseline=None,
        keeps_values=False,
    ),
    Candidate(
        name="fastapi-redis-sdk",
        title="fastapi-redis-sdk, Valkey",
        configuration=(
            "FastAPIRedis(app).lifespan().sessions() with url=…, session_cookie_https_only=False, "
            "session_idle_ttl=1800 and session_refresh_on_load=True, its default (False costs a "
            "second round trip); request.session"
        ),
        build=fastapi_redis_sdk,
        baseline="bare-fastapi",
        needs_valkey=True,
    ),
    Candidate(
        name="starsessions-fastapi",
        title="starsessions in FastAPI, Valkey",
        configuration="as on Starlette",
        build=starsessions_fastapi,
        baseline="bare-fastapi",
        needs_valkey=True,
    ),
    Candidate(
        name="sojourn-fastapi",
        title="**sojourn in FastAPI, Valkey**",
        configuration=(
            'sojourn.install(app, store="redis://127.0.0.1:…", secret=…, store_timeout=30); '
            "request.session"
        ),
        build=sojourn_fastapi,
        baseline="bare-fastapi",
        needs_valkey=True,
    ),
)
