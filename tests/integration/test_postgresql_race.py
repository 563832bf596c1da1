"""Many clients change one session through several workers over PostgreSQL; see ``test_race.py``."""

import asyncio
import os
import signal
from contextlib import suppress

import pytest

from tests.integration.postgresql import PgBouncer, Postgres
from tests.integration.postgresql_binaries import INSTALLED, NEEDS_INSTALLED, NEEDS_PGBOUNCER
from tests.integration.test_race import Load, begin, check, show
from tests.support.servers import uvicorn

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

WHOLE = pytest.param(64, 2000, marks=pytest.mark.slow)


def options_for(url):
    """Return options whose timeouts suffice for parallel requests on a busy machine."""
    return {
        "store": url,
        "store_timeout": "30 seconds",
        "secret": "four workers: 7Jm2Qw9vXc4Rk1",
        "merge": {"counter": "sum"},
        "max_bytes": 1_000_000,
    }


async def race(url, folder, *, clients, requests, path="/count"):
    """Increment a counter with many clients through four workers; check its final value."""
    with uvicorn("shop", folder, workers=4, options=options_for(url)) as server:
        cookie = await begin(server)
        answered = await Load(server, cookie, path, clients=clients, requests=requests).run()
        page = await show(server, cookie)
    assert len(answered) == requests
    assert page["counter"] == requests
    check(page, answered)
    assert len(set(answered.values())) > 1, "only one worker took part"


@pytest.mark.parametrize(("clients", "requests"), [(16, 100), WHOLE])
async def test_four_workers_lose_no_assignment_of_a_sum(postgresql, tmp_path, clients, requests):
    """A6, S10: `session["counter"] += 1` with merge={"counter": "sum"}."""
    await race(postgresql.url, tmp_path, clients=clients, requests=requests)


@pytest.mark.slow
async def test_four_workers_lose_no_increment(postgresql, tmp_path):
    """A6, S10: `session.increment("counter")`."""
    await race(postgresql.url, tmp_path, clients=64, requests=2000, path="/increment")


@NEEDS_PGBOUNCER
@pytest.mark.slow
async def test_four_workers_behind_pgbouncer_lose_no_change(postgresql, tmp_path):
    """A6, S10: in transaction mode, each commit over any connection to the server."""
    bouncer = PgBouncer(postgresql)
    bouncer.start()
    try:
        url = f"{bouncer.url}?prepare_threshold=none&listen_url={postgresql.url}"
        await race(url, tmp_path, clients=64, requests=2000)
    finally:
        bouncer.stop()


@NEEDS_INSTALLED
@pytest.mark.slow
async def test_four_workers_on_the_installed_server_lose_no_change(tmp_path):
    """A6, S10: on the system's PostgreSQL."""
    server = Postgres(programs=INSTALLED)
    server.start()
    try:
        await race(server.url, tmp_path, clients=64, requests=2000)
    finally:
        server.remove()


@pytest.mark.slow
async def test_killed_workers_lose_no_acknowledged_change(postgresql, tmp_path):
    """S11: kill -9 of workers under load; their transactions are rolled back or complete."""
    clients, requests = 64, 2000
    with uvicorn("shop", tmp_path, workers=4, options=options_for(postgresql.url)) as server:
        cookie = await begin(server)
        load = Load(server, cookie, "/count", clients=clients, requests=requests)
        running = asyncio.create_task(load.run())
        for part in range(requests // 8, requests // 2 + 1, requests // 8):
            with suppress(ProcessLookupError):  # killed before; no other worker responded since
                os.kill(await load.reach(part), signal.SIGKILL)
        answered = await running
        page = await show(server, cookie)
    check(page, answered)
    assert len(answered) <= page["counter"] <= requests
    assert len(answered) < requests, "no request was under way when the worker was killed"
