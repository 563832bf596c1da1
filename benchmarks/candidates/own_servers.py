"""Candidates on frameworks with servers of their own: aiohttp, Tornado and Sanic."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from benchmarks.candidates.candidate import (
    IDLE_SECONDS,
    SMALL,
    VALKEY_INSTALL,
    Candidate,
    install,
    valkey_url,
)


def aiohttp_app(get_session: Any) -> Any:
    """Build the aiohttp application.

    Args:
        get_session: awaited for the session of a request; None for the application without.
    """
    from aiohttp import web

    app = web.Application()
    numbers = itertools.count(1)
    session = get_session is not None

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="hello, world")

    async def read(request: web.Request) -> web.Response:
        number = (await get_session(request))["counter"] if session else 0
        return web.Response(text=f"{number:012d}")

    async def write(request: web.Request) -> web.Response:
        number = next(numbers)
        if session:
            (await get_session(request))["counter"] = number
        return web.Response(text=f"{number:012d}")

    async def seed(request: web.Request) -> web.Response:
        number = next(numbers) if session else 0
        if session:
            (await get_session(request)).update(SMALL | {"counter": number})
        return web.Response(text=f"{number:012d}")

    routes = {"/": hello, "/read": read, "/write": write, "/seed": seed}
    app.add_routes([web.get(path, handler) for path, handler in routes.items()])
    return app


def bare_aiohttp(directory: Path) -> Any:
    """Build aiohttp without sessions."""
    return aiohttp_app(None)


def aiohttp_session(directory: Path) -> Any:
    """Build it with aiohttp-session over the Valkey server."""
    import aiohttp_session as peer
    from aiohttp_session.redis_storage import RedisStorage
    from redis.asyncio import Redis

    app = aiohttp_app(peer.get_session)
    peer.setup(app, RedisStorage(Redis.from_url(valkey_url()), max_age=IDLE_SECONDS))
    return app


def sojourn_aiohttp(directory: Path) -> Any:
    """Build it with sojourn over the Valkey server."""
    from sojourn.frameworks import aiohttp as adapter

    module: Any = adapter
    return install(aiohttp_app(module.get_session))


def tornado_app(*, session: bool) -> Any:
    """Build the Tornado application."""
    from tornado.web import Application, RequestHandler

    numbers = itertools.count(1)

    class Hello(RequestHandler):
        def get(self) -> None:
            self.finish("hello, world")

    class Read(RequestHandler):
        def get(self) -> None:
            self.finish(f"{self.session['counter'] if session else 0:012d}")

    class Write(RequestHandler):
        def get(self) -> None:
            number = next(numbers)
            if session:
                self.session["counter"] = number
            self.finish(f"{number:012d}")

    class Seed(RequestHandler):
        def get(self) -> None:
            number = next(numbers) if session else 0
            if session:
                self.session.update(SMALL | {"counter": number})
            self.finish(f"{number:012d}")

    return Application([("/", Hello), ("/read", Read), ("/write", Write), ("/seed", Seed)])


def bare_tornado(directory: Path) -> Any:
    """Build Tornado without sessions."""
    return tornado_app(session=False)


def sojourn_tornado(directory: Path) -> Any:
    """Build it with sojourn over the Valkey server."""
    return install(tornado_app(session=True))


def sanic_app(*, session: bool) -> Any:
    """Build the Sanic application."""
    from sanic import Sanic
    from sanic.response import text

    app = Sanic("benchmark", configure_logging=False)
    app.config.update(ACCESS_LOG=False, AUTO_EXTEND=False, KEEP_ALIVE_TIMEOUT=3600, MOTD=False)
    numbers = itertools.count(1)

    async def hello(request: Any) -> Any:
        return text("hello, world")

    async def read(request: Any) -> Any:
        return text(f"{request.ctx.session['counter'] if session else 0:012d}")

    async def write(request: Any) -> Any:
        number = next(numbers)
        if session:
            request.ctx.session["counter"] = number
        return text(f"{number:012d}")

    async def seed(request: Any) -> Any:
        number = next(numbers) if session else 0
        if session:
            request.ctx.session.update(SMALL | {"counter": number})
        return text(f"{number:012d}")

    for path, handler in {"/": hello, "/read": read, "/write": write, "/seed": seed}.items():
        app.add_route(handler, path)
    return app


def bare_sanic(directory: Path) -> Any:
    """Build Sanic without sessions."""
    return sanic_app(session=False)


def sojourn_sanic(directory: Path) -> Any:
    """Build it with sojourn over the Valkey server."""
    return install(sanic_app(session=True))


OWN: tuple[Candidate, ...] = (
    Candidate(
        name="bare-aiohttp",
        title="aiohttp, no sessions",
        configuration="web.Application()",
        build=bare_aiohttp,
        baseline=None,
        keeps_values=False,
        server="aiohttp",
    ),
    Candidate(
        name="aiohttp-session",
        title="aiohttp-session, Valkey",
        configuration="setup(app, RedisStorage(redis.asyncio.Redis.from_url(…), max_age=1800))",
        build=aiohttp_session,
        baseline="bare-aiohttp",
        needs_valkey=True,
        server="aiohttp",
    ),
    Candidate(
        name="sojourn-aiohttp",
        title="**sojourn in aiohttp, Valkey**",
        configuration=f"{VALKEY_INSTALL}; await get_session(request)",
        build=sojourn_aiohttp,
        baseline="bare-aiohttp",
        needs_valkey=True,
        server="aiohttp",
        adapter="sojourn.frameworks.aiohttp",
    ),
    Candidate(
        name="bare-tornado",
        title="Tornado, no sessions",
        configuration="Application(handlers)",
        build=bare_tornado,
        baseline=None,
        keeps_values=False,
        server="tornado",
    ),
    Candidate(
        name="sojourn-tornado",
        title="**sojourn in Tornado, Valkey**",
        configuration=f"{VALKEY_INSTALL}; self.session",
        build=sojourn_tornado,
        baseline="bare-tornado",
        needs_valkey=True,
        server="tornado",
        adapter="sojourn.frameworks.tornado",
    ),
    Candidate(
        name="bare-sanic",
        title="Sanic, no sessions",
        configuration="Sanic(…) with ACCESS_LOG=False, AUTO_EXTEND=False",
        build=bare_sanic,
        baseline=None,
        keeps_values=False,
        server="sanic",
    ),
    Candidate(
        name="sojourn-sanic",
        title="**sojourn in Sanic, Valkey**",
        configuration=f"{VALKEY_INSTALL}; request.ctx.session",
        build=sojourn_sanic,
        baseline="bare-sanic",
        needs_valkey=True,
        server="sanic",
        adapter="sojourn.frameworks.sanic",
    ),
)
