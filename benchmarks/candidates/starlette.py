"""The applications that are compared: the same five routes, with each kind of session.

Every candidate answers the same bytes from the same amount of application code, so what differs
is its session layer. No measuring here; costs.py, instructions.py and throughput.py do that.

Routes: `/` looks at no session. `/seed` and `/seed-large` fill one and answer its counter, `/read`
answers the counter, `/write` sets it to the next number and answers that. Every body is twelve
digits, so that a client can check each answer without parsing.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_BYTES = 12
SECRET = "q7H2vX0sR9eK4mT1zB8nW5yL3uC6pJdF"

SMALL: dict[str, Any] = {
    "user_name": "Ada Lovelace",
    "language": "en",
    "theme": "dark",
    "cart": {"apple": 2, "pear": 1, "plum": 7},
    "recent": ["/", "/products/17", "/products/4", "/cart"],
}
"""What a session holds besides its counter: about 150 bytes."""

LARGE: dict[str, Any] = SMALL | {
    "documents": [
        {"id": n, "title": f"Document number {n}", "tags": ["draft", "shared"], "owner": "Ada"}
        for n in range(240)
    ]
}
"""The same with 20 kB of documents, of which a page reads only the counter."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One application to measure.

    Attributes:
        name: what the command line calls it.
        title: what the tables call it.
        baseline: name of the application it is compared with; None if it is one.
        configuration: how it was set up, as a reader would type it.
        build: makes the application, for ASGI or WSGI as its server wants; the folder is its own,
            for files.
        remembers: whether a value written is there in the next request.
        holds_20_kb: whether 20 kB fit into its session.
        freeze: whether the server calls `gc.freeze()` once it is set up.
        later: whether its collector begins at 10,000 young objects, not at 700, as docs/running.md
            advises.
        networked: whether its sessions are in the Valkey server that throughput.py starts.
        server: what serves it.
    """

    name: str
    title: str
    baseline: str | None
    configuration: str
    build: Callable[[Path], Any]
    remembers: bool = True
    holds_20_kb: bool = True
    freeze: bool = False
    later: bool = False
    networked: bool = False
    server: Literal["uvicorn", "gunicorn"] = "uvicorn"


def starlette_app(*, middleware: list[Any], load: Any = None, session: bool = True) -> Any:
    """Build the Starlette application.

    Args:
        middleware: the session layer, if it is Starlette middleware.
        load: awaited with the request before a session is touched, for layers that ask for it.
        session: False for the bare application, which answers the same without a session.
    """
    from starlette.applications import Starlette
    from starlette.routing import Route

    if not session:
        hello, read, write, seed = bare_handlers()
    elif load is None:
        hello, read, write, seed = session_handlers()
    else:
        hello, read, write, seed = loading_handlers(load)
    routes = [
        Route("/", hello),
        Route("/read", read),
        Route("/write", write),
        Route("/seed", seed),
        Route("/seed-large", seed),
    ]
    return Starlette(routes=routes, middleware=middleware)


Handlers = tuple[Callable[[Any], Awaitable[Any]], ...]
"""Of `/`, `/read`, `/write` and the two that seed, in this order."""


def bare_handlers() -> Handlers:
    """Return handlers that answer the same bytes and have no session."""
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
    """Return handlers that load their session themselves, for a layer that wants it so."""
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


def bare(folder: Path) -> ASGIApp:
    """Build the application without sessions: what everything is compared with."""
    app: ASGIApp = starlette_app(middleware=[], session=False)
    return app


def starlette_cookie(folder: Path) -> ASGIApp:
    """Build it with Starlette's own sessions: signed, in the cookie itself."""
    from starlette.middleware import Middleware
    from starlette.middleware.sessions import SessionMiddleware

    app: ASGIApp = starlette_app(
        middleware=[Middleware(SessionMiddleware, secret_key=SECRET, max_age=1800)]
    )
    return app


def starsessions_memory(folder: Path) -> ASGIApp:
    """Build it with starsessions; only the routes that use a session load one."""
    from starlette.middleware import Middleware
    from starsessions import InMemoryStore, SessionMiddleware, load_session

    layer = Middleware(
        SessionMiddleware, store=InMemoryStore(), lifetime=1800, cookie_https_only=False
    )
    app: ASGIApp = starlette_app(middleware=[layer], load=load_session)
    return app


def sojourn_on(url: str) -> Callable[[Path], ASGIApp]:
    """Return a builder of the application with sojourn on the store of that URL."""

    def build(folder: Path) -> ASGIApp:
        import sojourn

        app: Any = starlette_app(middleware=[])
        sojourn.install(app, store=url.format(folder=folder, **os.environ), secret=SECRET)
        built: ASGIApp = app
        return built

    return build


def litestar_app(
    *, middleware: list[Any], session: bool, stores: dict[str, Any] | None = None
) -> ASGIApp:
    """Build the same application on Litestar, without what it does besides routing."""
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
        held = LARGE if request.url.path == "/seed-large" else SMALL
        request.set_session(held | {"counter": number})
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
        handlers, middleware=middleware, stores=stores, openapi_config=None, logging_config=None
    )
    built: ASGIApp = app
    return built


def bare_litestar(folder: Path) -> ASGIApp:
    """Build Litestar without sessions: what Litestar's own are compared with."""
    return litestar_app(middleware=[], session=False)


def litestar_memory(folder: Path) -> ASGIApp:
    """Build it with Litestar's server-side sessions, which by default are in memory."""
    from litestar.middleware.session.server_side import ServerSideSessionConfig

    config = ServerSideSessionConfig(max_age=1800)
    return litestar_app(middleware=[config.middleware], session=True)


MEMORY = 'sojourn.install(app, store="memory://", secret=…)'
SQLITE = 'sojourn.install(app, store="sqlite:///…", secret=…)'
FREEZE = "gc.collect(); gc.freeze() once the server is set up"
TUNE = f"{FREEZE}, and gc.set_threshold(10_000, 20, 50)"

CANDIDATES: tuple[Candidate, ...] = (
    Candidate("bare", "Starlette, no sessions", None, "Starlette(routes)", bare, remembers=False),
    Candidate(
        "starlette-cookie",
        "Starlette, signed cookie",
        "bare",
        "SessionMiddleware(secret_key=…, max_age=1800)",
        starlette_cookie,
        holds_20_kb=False,
    ),
    Candidate(
        "starsessions-memory",
        "starsessions, memory",
        "bare",
        "SessionMiddleware(store=InMemoryStore(), lifetime=1800, cookie_https_only=False); "
        "`await load_session(request)` only in the handlers that use the session",
        starsessions_memory,
    ),
    Candidate(
        "bare-litestar",
        "Litestar, no sessions",
        None,
        "Litestar(handlers, openapi_config=None, logging_config=None)",
        bare_litestar,
        remembers=False,
    ),
    Candidate(
        "litestar-memory",
        "Litestar, memory",
        "bare-litestar",
        "the same with middleware=[ServerSideSessionConfig(max_age=1800).middleware]",
        litestar_memory,
    ),
    Candidate("sojourn-memory", "**sojourn, memory**", "bare", MEMORY, sojourn_on("memory://")),
    Candidate(
        "sojourn-sqlite",
        "**sojourn, SQLite**",
        "bare",
        SQLITE,
        sojourn_on("sqlite:///{folder}/sessions.db"),
    ),
)

FROZEN: tuple[Candidate, ...] = (
    Candidate(
        "bare-frozen",
        "Starlette, no sessions, frozen",
        None,
        FREEZE,
        bare,
        remembers=False,
        freeze=True,
    ),
    Candidate(
        "sojourn-memory-frozen",
        "**sojourn, memory**, frozen",
        "bare-frozen",
        f"{MEMORY}; {FREEZE}",
        sojourn_on("memory://"),
        freeze=True,
    ),
    Candidate(
        "sojourn-sqlite-frozen",
        "**sojourn, SQLite**, frozen",
        "bare-frozen",
        f"{SQLITE}; {FREEZE}",
        sojourn_on("sqlite:///{folder}/sessions.db"),
        freeze=True,
    ),
)


def choose(names: str | None, *, frozen: bool = False) -> tuple[Candidate, ...]:
    """Return the candidates named, comma-separated, with the baselines they need; None is all.

    Raises:
        SystemExit: a name is not known.
    """
    from benchmarks.candidates.flask import THREADED
    from benchmarks.candidates.valkey import NETWORKED

    offered = CANDIDATES + FROZEN + NETWORKED + THREADED if frozen else CANDIDATES
    if names is None:
        return offered
    wanted = set(names.split(","))
    unknown = wanted - {candidate.name for candidate in offered}
    if unknown:
        known = ", ".join(candidate.name for candidate in offered)
        raise SystemExit(f"unknown candidate {', '.join(sorted(unknown))}; there are: {known}")
    wanted |= {c.baseline for c in offered if c.name in wanted and c.baseline is not None}
    return tuple(candidate for candidate in offered if candidate.name in wanted)
