"""Candidates on Litestar, Quart, Falcon and BlackSheep under uvicorn."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from benchmarks.candidates.candidate import (
    IDLE_SECONDS,
    SECRET,
    SMALL,
    STORE_TIMEOUT,
    VALKEY_INSTALL,
    ASGIApp,
    Candidate,
    install,
    valkey_url,
)
from benchmarks.candidates.litestar import litestar_app


def sojourn_litestar(directory: Path) -> ASGIApp:
    """Build Litestar with sojourn over the Valkey server."""
    from sojourn.frameworks import litestar as adapter

    plugin_class: Any = adapter.SojournPlugin
    plugin = plugin_class(store=valkey_url(), secret=SECRET, store_timeout=STORE_TIMEOUT)
    return litestar_app(middleware=[], session=True, plugins=[plugin])


def quart_app(*, session: bool) -> Any:
    """Build the Quart application."""
    import quart

    app = quart.Quart("benchmark")
    numbers = itertools.count(1)

    async def hello() -> str:
        return "hello, world"

    async def read() -> str:
        return f"{quart.session['counter'] if session else 0:012d}"

    async def write() -> str:
        number = next(numbers)
        if session:
            quart.session["counter"] = number
        return f"{number:012d}"

    async def seed() -> str:
        number = next(numbers) if session else 0
        if session:
            quart.session.update(SMALL | {"counter": number})
        return f"{number:012d}"

    app.add_url_rule("/", view_func=hello)
    for function in (read, write, seed):
        app.add_url_rule(f"/{function.__name__}", view_func=function)
    return app


def bare_quart(directory: Path) -> Any:
    """Build Quart without sessions: its own do nothing without a secret key."""
    return quart_app(session=False)


def quart_session(directory: Path) -> Any:
    """Build it with Quart-Session over the Valkey server."""
    from quart_session import Session

    app = quart_app(session=True)
    app.config.update(
        SESSION_TYPE="redis", SESSION_URI=valkey_url(), PERMANENT_SESSION_LIFETIME=IDLE_SECONDS
    )
    Session(app)
    return app


def sojourn_quart(directory: Path) -> Any:
    """Build it with sojourn over the Valkey server."""
    return install(quart_app(session=True))


def falcon_app(*, session: bool) -> Any:
    """Build the Falcon application for ASGI."""
    import falcon
    import falcon.asgi

    numbers = itertools.count(1)

    class Resource:
        def __init__(self, answer: Any) -> None:
            self._answer = answer

        async def on_get(self, request: Any, response: Any) -> None:
            response.content_type = falcon.MEDIA_TEXT
            response.text = self._answer(request)

    def read(request: Any) -> str:
        return f"{request.context.session['counter'] if session else 0:012d}"

    def write(request: Any) -> str:
        number = next(numbers)
        if session:
            request.context.session["counter"] = number
        return f"{number:012d}"

    def seed(request: Any) -> str:
        number = next(numbers) if session else 0
        if session:
            request.context.session.update(SMALL | {"counter": number})
        return f"{number:012d}"

    app = falcon.asgi.App()
    app.add_route("/", Resource(lambda _: "hello, world"))
    for function in (read, write, seed):
        app.add_route(f"/{function.__name__}", Resource(function))
    return app


def bare_falcon(directory: Path) -> Any:
    """Build Falcon without sessions."""
    return falcon_app(session=False)


def sojourn_falcon(directory: Path) -> Any:
    """Build it with sojourn over the Valkey server."""
    return install(falcon_app(session=True))


def blacksheep_app(*, session: bool) -> Any:
    """Build the BlackSheep application."""
    from blacksheep import Application, Request, Response, text

    app = Application()
    numbers = itertools.count(1)

    async def hello(request: Any) -> Any:
        return text("hello, world")

    async def read(request: Any) -> Any:
        return text(f"{request.session['counter'] if session else 0:012d}")

    async def write(request: Any) -> Any:
        number = next(numbers)
        if session:
            request.session["counter"] = number
        return text(f"{number:012d}")

    async def seed(request: Any) -> Any:
        number = next(numbers) if session else 0
        if session:
            request.session.update(SMALL | {"counter": number})
        return text(f"{number:012d}")

    routes = {"/": hello, "/read": read, "/write": write, "/seed": seed}
    for path, handler in routes.items():
        handler.__annotations__ = {"request": Request, "return": Response}
        app.router.add_get(path, handler)
    return app


def bare_blacksheep(directory: Path) -> Any:
    """Build BlackSheep without sessions."""
    return blacksheep_app(session=False)


def sojourn_blacksheep(directory: Path) -> Any:
    """Build it with sojourn over the Valkey server."""
    return install(blacksheep_app(session=True))


ASGI: tuple[Candidate, ...] = (
    Candidate(
        name="sojourn-litestar",
        title="**sojourn in Litestar, Valkey**",
        configuration='plugins=[SojournPlugin(store="redis://…", secret=…, store_timeout=30)]',
        build=sojourn_litestar,
        baseline="bare-litestar",
        needs_valkey=True,
        adapter="sojourn.frameworks.litestar",
    ),
    Candidate(
        name="bare-quart",
        title="Quart, no sessions",
        configuration="Quart(__name__), no secret key",
        build=bare_quart,
        baseline=None,
        keeps_values=False,
    ),
    Candidate(
        name="quart-session",
        title="Quart-Session, Valkey",
        configuration=(
            'Session(app) with SESSION_TYPE="redis", SESSION_URI=…, PERMANENT_SESSION_LIFETIME=1800'
        ),
        build=quart_session,
        baseline="bare-quart",
        needs_valkey=True,
    ),
    Candidate(
        name="sojourn-quart",
        title="**sojourn in Quart, Valkey**",
        configuration=f"{VALKEY_INSTALL}; quart.session",
        build=sojourn_quart,
        baseline="bare-quart",
        needs_valkey=True,
        adapter="sojourn.frameworks.quart",
    ),
    Candidate(
        name="bare-falcon",
        title="Falcon, no sessions",
        configuration="falcon.asgi.App()",
        build=bare_falcon,
        baseline=None,
        keeps_values=False,
    ),
    Candidate(
        name="sojourn-falcon",
        title="**sojourn in Falcon, Valkey**",
        configuration=f"{VALKEY_INSTALL}; request.context.session",
        build=sojourn_falcon,
        baseline="bare-falcon",
        needs_valkey=True,
        adapter="sojourn.frameworks.falcon",
    ),
    Candidate(
        name="bare-blacksheep",
        title="BlackSheep, no sessions",
        configuration="Application()",
        build=bare_blacksheep,
        baseline=None,
        keeps_values=False,
    ),
    Candidate(
        name="sojourn-blacksheep",
        title="**sojourn in BlackSheep, Valkey**",
        configuration=f"{VALKEY_INSTALL}; request.session",
        build=sojourn_blacksheep,
        baseline="bare-blacksheep",
        needs_valkey=True,
        adapter="sojourn.frameworks.blacksheep",
    ),
)
