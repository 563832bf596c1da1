"""Candidate, one application to measure; ASGI types and session contents that all share."""

from __future__ import annotations

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
Handlers = tuple[Callable[[Any], Awaitable[Any]], ...]
"""The handlers of `/`, `/read`, `/write` and the two seed routes, in this order."""

BODY_BYTES = 12
SECRET = "q7H2vX0sR9eK4mT1zB8nW5yL3uC6pJdF"
IDLE_SECONDS = 1800
STORE_TIMEOUT = 30.0
"""Seconds; a machine that stalls, or callgrind, must not produce a wrong answer."""

VALKEY_URL_VARIABLE = "BENCHMARK_VALKEY"
POSTGRESQL_URL_VARIABLE = "BENCHMARK_POSTGRESQL"

SMALL: dict[str, Any] = {
    "user_name": "Ada Lovelace",
    "language": "en",
    "theme": "dark",
    "cart": {"apple": 2, "pear": 1, "plum": 7},
    "recent": ["/", "/products/17", "/products/4", "/cart"],
}
"""The contents of a session besides its counter: about 150 bytes."""

LARGE: dict[str, Any] = SMALL | {
    "documents": [
        {"id": n, "title": f"Document number {n}", "tags": ["draft", "shared"], "owner": "Ada"}
        for n in range(240)
    ]
}
"""The same with 20 kB of documents, of which a page reads only the counter."""

TUNED = "gc.collect(); gc.freeze(); gc.set_threshold(10_000, 20, 50) after start-up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One application to measure.

    Attributes:
        name: the name on the command line.
        title: the name in the tables.
        configuration: how it was set up, as a user would type it.
        build: returns the application; the argument is a directory for its files.
        baseline: name of the same application without sessions; None if this is one.
        least_layer: name of the least layer over the same kind of store; None if there is none.
        keeps_values: whether a value written is there in the next request.
        holds_20_kb: whether 20 kB fit into its session.
        tuned: whether the server tunes the garbage collector as docs/production/scaling.md advises.
        needs_valkey: whether its sessions are in the Valkey server that throughput.py starts.
        needs_postgresql: whether they are in the PostgreSQL server that it starts.
        server: the server that runs it; aiohttp, Tornado and Sanic have their own.
        adapter: the module of sojourn that it needs; empty for none.
    """

    name: str
    title: str
    configuration: str
    build: Callable[[Path], Any]
    baseline: str | None = "bare"
    least_layer: str | None = None
    keeps_values: bool = True
    holds_20_kb: bool = True
    tuned: bool = False
    needs_valkey: bool = False
    needs_postgresql: bool = False
    server: Literal["uvicorn", "gunicorn", "aiohttp", "tornado", "sanic"] = "uvicorn"
    adapter: str = ""


VALKEY_INSTALL = 'sojourn.install(app, store="redis://127.0.0.1:…", secret=…, store_timeout=30)'


def install(app: Any) -> Any:
    """Install sojourn over the Valkey server in an application of any framework; return it."""
    import sojourn

    sojourn.install(app, store=valkey_url(), secret=SECRET, store_timeout=STORE_TIMEOUT)
    return app


def valkey_url() -> str:
    """Return the URL of the Valkey server that throughput.py started."""
    return os.environ[VALKEY_URL_VARIABLE]


def postgresql_url() -> str:
    """Return the URL of the PostgreSQL server that throughput.py started."""
    return os.environ[POSTGRESQL_URL_VARIABLE]
