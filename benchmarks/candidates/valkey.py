"""The candidates whose sessions are in a Valkey server, over TCP on this machine.

throughput.py starts the server and says where it is in the environment. The applications are those
of candidates.py. In process, costs.py and instructions.py would measure waiting: they leave these
out.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks.candidates.least_layer import round_trips
from benchmarks.candidates.starlette import (
    FREEZE,
    SECRET,
    TUNE,
    ASGIApp,
    Candidate,
    bare,
    litestar_app,
    sojourn_on,
    starlette_app,
)


def starsessions_redis(folder: Path) -> ASGIApp:
    """Build it with starsessions over the benchmark's server."""
    from starlette.middleware import Middleware
    from starsessions import SessionMiddleware, load_session
    from starsessions.stores.redis import RedisStore

    store = RedisStore(server_url())
    layer = Middleware(SessionMiddleware, store=store, lifetime=1800, cookie_https_only=False)
    app: ASGIApp = starlette_app(middleware=[layer], load=load_session)
    return app


def server_url() -> str:
    """Return the URL of the Valkey server that throughput.py has started for the candidates."""
    return os.environ["BENCHMARK_VALKEY"]


def sojourn_over_redis_py(folder: Path) -> ASGIApp:
    """Build it with sojourn over a client of redis-py instead of sojourn's own connection."""
    import redis.asyncio

    import sojourn
    from sojourn.stores.redis import RedisStore

    app: Any = starlette_app(middleware=[])
    store = RedisStore(client=redis.asyncio.Redis.from_url(server_url()))
    sojourn.install(app, store=store, secret=SECRET)
    built: ASGIApp = app
    return built


def litestar_redis(folder: Path) -> ASGIApp:
    """Build it with Litestar's server-side sessions over the benchmark's server."""
    from litestar.middleware.session.server_side import ServerSideSessionConfig
    from litestar.stores.redis import RedisStore

    config = ServerSideSessionConfig(max_age=1800)
    stores = {"sessions": RedisStore.with_client(url=server_url())}
    return litestar_app(middleware=[config.middleware], session=True, stores=stores)


VALKEY = 'sojourn.install(app, store="redis://127.0.0.1:…", secret=…)'

NETWORKED: tuple[Candidate, ...] = (
    Candidate(
        "round-trips",
        "round trips alone, Valkey",
        "bare",
        "no session layer: a joined load, and a joined save where something changed (least.py)",
        round_trips,
        networked=True,
    ),
    Candidate(
        "starsessions-redis",
        "starsessions, Valkey",
        "bare",
        "as in memory, with store=RedisStore(url)",
        starsessions_redis,
        networked=True,
    ),
    Candidate(
        "litestar-redis",
        "Litestar, Valkey",
        "bare-litestar",
        'as in memory, with stores={"sessions": RedisStore.with_client(url)}',
        litestar_redis,
        networked=True,
    ),
    Candidate(
        "sojourn-redis-py",
        "**sojourn, Valkey by redis-py**",
        "bare",
        "sojourn.install(app, store=RedisStore(client=redis.asyncio.Redis.from_url(…)), secret=…)",
        sojourn_over_redis_py,
        networked=True,
    ),
    Candidate(
        "sojourn-valkey",
        "**sojourn, Valkey**",
        "bare",
        VALKEY,
        sojourn_on("{BENCHMARK_VALKEY}"),
        networked=True,
    ),
    Candidate(
        "sojourn-valkey-frozen",
        "**sojourn, Valkey**, frozen",
        "bare-frozen",
        f"{VALKEY}; {FREEZE}",
        sojourn_on("{BENCHMARK_VALKEY}"),
        freeze=True,
        networked=True,
    ),
    Candidate(
        "bare-tuned",
        "Starlette, no sessions, tuned",
        None,
        TUNE,
        bare,
        remembers=False,
        freeze=True,
        later=True,
    ),
    Candidate(
        "sojourn-valkey-tuned",
        "**sojourn, Valkey**, tuned",
        "bare-tuned",
        f"{VALKEY}; {TUNE}",
        sojourn_on("{BENCHMARK_VALKEY}"),
        freeze=True,
        later=True,
        networked=True,
    ),
)
