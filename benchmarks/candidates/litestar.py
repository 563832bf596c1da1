"""Candidates on Litestar: no sessions, and its server-side sessions in memory and in Valkey."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from benchmarks.candidates.candidate import (
    IDLE_SECONDS,
    LARGE,
    SMALL,
    ASGIApp,
    Candidate,
    valkey_url,
)


def litestar_app(
    *,
    middleware: list[Any],
    session: bool,
    stores: dict[str, Any] | None = None,
    plugins: list[Any] | None = None,
) -> ASGIApp:
    """Build the application with OpenAPI and logging switched off.

    Args:
        middleware: the session layer.
        session: False for the application that answers the same bytes without a session.
        stores: Litestar's stores by name; None for its own default in memory.
        plugins: of Litestar; None for none.
    """
    from litestar import Litestar, MediaType, Request, get

    numbers = itertools.count(1)

    @get("/", media_type=MediaType.TEXT)
    async def hello(request: Request[Any, Any, Any]) -> str:
        return "hello, world"

    @get("/read", media_type=MediaType.TEXT)
    async def bare_read(request: Request[Any, Any, Any]) -> str:
        return f"{0:012d}"

    @get("/write", media_type=MediaType.TEXT)
    async def bare_write(request: Request[Any, Any, Any]) -> str:
        return f"{next(numbers):012d}"

    @get(["/seed", "/seed-large"], media_type=MediaType.TEXT)
    async def bare_seed(request: Request[Any, Any, Any]) -> str:
        return f"{0:012d}"

    @get(["/seed", "/seed-large"], media_type=MediaType.TEXT)
    async def seed(request: Request[Any, Any, Any]) -> str:
        number = next(numbers)
        contents = LARGE if request.url.path == "/seed-large" else SMALL
        request.set_session(contents | {"counter": number})
        return f"{number:012d}"

    @get("/read", media_type=MediaType.TEXT)
    async def read(request: Request[Any, Any, Any]) -> str:
        return f"{request.session['counter']:012d}"

    @get("/write", media_type=MediaType.TEXT)
    async def write(request: Request[Any, Any, Any]) -> str:
        number = next(numbers)
        request.session["counter"] = number
        return f"{number:012d}"

    handlers = [hello, read, write, seed] if session else [hello, bare_read, bare_write, bare_seed]
    app: Any = Litestar(
        handlers,
        middleware=middleware,
        stores=stores,
        plugins=plugins,
        openapi_config=None,
        logging_config=None,
    )
    built: ASGIApp = app
    return built


def bare_litestar(directory: Path) -> ASGIApp:
    """Build the application without sessions."""
    return litestar_app(middleware=[], session=False)


def litestar_memory(directory: Path) -> ASGIApp:
    """Build it with Litestar's server-side sessions in memory, its default."""
    from litestar.middleware.session.server_side import ServerSideSessionConfig

    config = ServerSideSessionConfig(max_age=IDLE_SECONDS)
    return litestar_app(middleware=[config.middleware], session=True)


def litestar_valkey(directory: Path) -> ASGIApp:
    """Build it with Litestar's server-side sessions over the Valkey server."""
    from litestar.middleware.session.server_side import ServerSideSessionConfig
    from litestar.stores.redis import RedisStore

    config = ServerSideSessionConfig(max_age=IDLE_SECONDS)
    stores = {"sessions": RedisStore.with_client(url=valkey_url())}
    return litestar_app(middleware=[config.middleware], session=True, stores=stores)


BARE = Candidate(
    name="bare-litestar",
    title="Litestar, no sessions",
    configuration="Litestar(handlers, openapi_config=None, logging_config=None)",
    build=bare_litestar,
    baseline=None,
    keeps_values=False,
)

MEMORY = Candidate(
    name="litestar-memory",
    title="Litestar, memory",
    configuration="the same with middleware=[ServerSideSessionConfig(max_age=1800).middleware]",
    build=litestar_memory,
    baseline="bare-litestar",
)

OVER_VALKEY = Candidate(
    name="litestar-valkey",
    title="Litestar, Valkey",
    configuration='as in memory, with stores={"sessions": RedisStore.with_client(url)}',
    build=litestar_valkey,
    baseline="bare-litestar",
    needs_valkey=True,
)
