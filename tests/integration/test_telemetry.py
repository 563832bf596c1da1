"""Prometheus over several processes: a scrape of one worker has the metrics of all."""

import asyncio
import re
import time
from collections import Counter
from contextlib import AsyncExitStack

import httpx
import pytest
import websockets
from opentelemetry.trace import StatusCode

from sojourn import Sessions
from sojourn.errors import StoreUnavailable
from sojourn.testing.app_suite.served_app import SECRET
from tests.integration.valkey import Valkey, running
from tests.support.processes import serving
from tests.support.servers import uvicorn
from tests.support.telemetry import Exporters

VISITORS = 20
REQUESTS = 15
APPLICATION = "tests.integration.apps.metrics"


@pytest.fixture
def valkey(tmp_path):
    with running(Valkey(tmp_path)) as server:
        yield server


def samples(text):
    """Return the sums of a scrape over all realms, by name and other labels."""
    found = Counter()
    for name, labels, value in re.findall(r"^(\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        kept = tuple(sorted(label for label in labels.split(",") if not label.startswith("realm=")))
        found[name, kept] += float(value)
    return found


async def load(url):
    """Send requests of several visitors in parallel; return the IDs of the workers."""
    workers = set()
    # A connection for each request, so that they reach every worker.
    limits = httpx.Limits(max_keepalive_connections=0)

    async def visitor():
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
            for _ in range(REQUESTS):
                workers.add((await http.get("/increment")).text)
            assert (await http.get("/login")).text == "ok"
            assert (await http.get("/logout")).text == "ok"

    await asyncio.gather(*(visitor() for _ in range(VISITORS)))
    return workers


def check_sums(scraped):
    def calls(operation, result="ok"):
        labels = (f'operation="{operation}"', f'result="{result}"')
        return scraped.get(("sojourn_store_call_duration_seconds_count", labels), 0)

    assert calls("create") == VISITORS
    # All but the first request of a visitor have a ticket.
    assert calls("load") == VISITORS * (REQUESTS + 1)
    assert calls("save") == VISITORS * (REQUESTS - 1)
    assert calls("save_login") == VISITORS
    assert calls("delete") + calls("delete_many") == VISITORS
    assert scraped["sojourn_creations_total", ()] == VISITORS
    assert scraped["sojourn_logins_total", ()] == VISITORS
    assert scraped["sojourn_revocations_total", ('reason="destroyed"',)] == VISITORS
    assert not any(name == "sojourn_store_failures_total" for name, _ in scraped)
    assert calls("load", "error") == calls("save", "error") == 0


def environment(folder):
    shared = folder / "metrics"
    shared.mkdir()
    return {"PROMETHEUS_MULTIPROC_DIR": str(shared), "STORE": f"sqlite:///{folder}/sessions.db"}


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_scrape_sums_the_metrics_of_four_workers(tmp_path):
    """Requests, open sockets and sessions of four workers of uvicorn."""
    server = uvicorn("metrics", tmp_path, workers=4)
    server._environment |= environment(tmp_path)
    with server:
        workers = asyncio.run(load(server.url))
        assert len(workers) > 1
        scraped = samples(httpx.get(f"{server.url}/metrics").text)
        check_sums(scraped)
        asyncio.run(check_sockets(server))


async def check_sockets(server):
    async with httpx.AsyncClient(base_url=server.url) as http:
        await http.get("/increment")
        cookie = "; ".join(f"{name}={value}" for name, value in http.cookies.items())

        async def until(name, number):
            deadline = time.monotonic() + 30
            while samples((await http.get("/metrics")).text)[name, ()] != number:
                assert time.monotonic() < deadline, f"{name} is not {number}"
                await asyncio.sleep(0.05)  # other processes update the metrics

        async with AsyncExitStack() as sockets:
            for _ in range(8):
                url, headers = f"{server.socket_url}/socket", {"Cookie": cookie}
                connecting = websockets.connect(url, additional_headers=headers)
                await sockets.enter_async_context(connecting)
            await until("sojourn_open_connections", 8)
            await until("sojourn_live_sessions", 1)
        await until("sojourn_open_connections", 0)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
def test_scrape_sums_the_metrics_of_workers_with_threads(preload, tmp_path):
    """Four workers of gunicorn with four threads each; also with a preloaded application."""
    command = (
        *("gunicorn", "--bind", "127.0.0.1:PORT", "--worker-class", "gthread", *preload),
        *("--workers", "4", "--threads", "4", "--backlog", "256", "--log-level", "warning"),
        f"{APPLICATION}:wsgi_app",
    )
    with serving(*command, folder=tmp_path, environ=environment(tmp_path)) as url:
        workers = asyncio.run(load(url))
        assert len(workers) > 1
        check_sums(samples(httpx.get(f"{url}/metrics").text))


async def requests_in_parallel(sessions, cookies):
    """Make a request of each visitor; return their cookies."""

    async def request(cookie):
        opened = sessions.open(cookies=cookie)
        async with opened:
            opened.session.increment("n")
        headers = dict(opened.response_headers())
        return headers.get("set-cookie", cookie or "").partition(";")[0]

    return await asyncio.gather(*map(request, cookies))


def test_metrics_show_batches_and_an_outage_of_valkey(valkey):
    """Ten parallel requests share batches; A15: requests of an outage are counted as errors."""
    with Exporters() as exporters:
        sessions = Sessions(store=valkey.url, secret=SECRET, store_timeout=0.5)
        exporters.prometheus(sessions)
        exporters.opentelemetry(sessions)

        async def requests():
            cookies = await requests_in_parallel(sessions, [None] * 10)
            await requests_in_parallel(sessions, cookies)
            assert exporters.calls("load") == 10
            assert exporters.calls("create") == 10
            assert exporters.calls("save") == 10
            calls = exporters.sample("sojourn_store_batch_size_sum")
            batches = exporters.sample("sojourn_store_batch_size_count")
            assert calls >= 30
            assert batches < calls / 2
            assert exporters.points("sojourn.store.batch.size") == {(): batches}
            attributes = exporters.spans()[0].attributes
            assert attributes["db.system.name"] == "redis"
            valkey.stop()
            try:
                with pytest.raises(StoreUnavailable):
                    await requests_in_parallel(sessions, cookies[:1])
            finally:
                valkey.start()
            assert exporters.calls("load", "error") == 1
            assert exporters.sample("sojourn_store_failures_total", operation="load") == 1

        asyncio.run(requests())
        assert exporters.spans()[-1].status.status_code is StatusCode.ERROR
        sessions.close()


def test_the_samples_of_a_scrape_are_read():
    text = (
        'a_total{realm="x"} 1.5\na_total{realm="y"} 0.5\n'
        'b_count{operation="load",realm="x",result="ok"} 3.0\n'
    )
    assert samples(text) == {
        ("a_total", ()): 2.0,
        ("b_count", ('operation="load"', 'result="ok"')): 3.0,
    }
