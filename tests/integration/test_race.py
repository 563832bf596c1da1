"""Many clients change one session through several workers: no acknowledged write is lost.

Full races are marked slow; a smaller one of each kind always runs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from contextlib import closing, suppress

import httpx
import pytest

from tests.support.servers import browser, uvicorn

pytestmark = pytest.mark.anyio

STORE = "sqlite:///sessions.db"
WHOLE = pytest.param(64, 2000, marks=pytest.mark.slow)
#: With a timeout that suffices for parallel requests on a busy machine.
OPTIONS = {"store_timeout": "30 seconds", "merge": {"counter": "sum"}, "max_bytes": 1_000_000}


async def begin(server):
    """Begin a session; return the cookie as a header."""
    async with browser(server) as client:
        await client.get("/put", params={"name": "Ada"})
        return {"cookie": "; ".join(f"{c.name}={c.value}" for c in client.cookies.jar)}


async def show(server, cookie):
    async with browser(server, headers=cookie) as client:
        return (await client.get("/")).json()


class Load:
    """Requests from many parallel clients, each with a unique number.

    Attributes:
        answered: number and process of each request that got a response, in order.
    """

    def __init__(self, server, cookie, path, *, clients, requests):
        self.answered = {}
        self._server = server
        self._cookie = cookie
        self._path = path
        self._clients = clients
        self._numbers = iter(range(requests))
        self._progress = asyncio.Event()

    async def run(self):
        await asyncio.gather(*(self._client() for _ in range(self._clients)))
        return self.answered

    async def _client(self):
        # A connection for each request; otherwise the first worker would accept all connections.
        limits = httpx.Limits(max_keepalive_connections=0)
        async with browser(self._server, headers=self._cookie, limits=limits) as client:
            for n in self._numbers:
                with suppress(httpx.TransportError):  # of a worker that was killed
                    answer = await client.get(self._path, params={"n": n})
                    assert answer.status_code == 200, answer.text
                    self.answered[str(n)] = answer.text
                    self._progress.set()

    async def reach(self, count):
        """Wait for this number of responses; return the process of the last one."""
        while len(self.answered) < count:
            self._progress.clear()
            await self._progress.wait()
        return int(next(reversed(self.answered.values())))


def check(page, answered):
    """Check that the change of each request with a response is stored."""
    missing = [n for n in answered if page.get(f"key-{n}") != n or n not in page["nested"]]
    assert missing == []


class TestRace:
    @pytest.mark.timeout(180)
    @pytest.mark.parametrize("path", ["/count", "/increment"])
    @pytest.mark.parametrize(("clients", "requests"), [(16, 200), WHOLE])
    async def test_parallel_requests_of_one_session_lose_no_change(
        self, tmp_path, path, clients, requests
    ):
        """A6, S10: `session["counter"] += 1` with merge={"counter": "sum"}, and `increment`."""
        options = {**OPTIONS, "store": STORE}
        with uvicorn("shop", tmp_path, workers=4, options=options) as server:
            cookie = await begin(server)
            answered = await Load(server, cookie, path, clients=clients, requests=requests).run()
            page = await show(server, cookie)
        assert len(answered) == requests
        assert page["counter"] == requests
        check(page, answered)
        assert len(set(answered.values())) > 1, "only one worker took part"

    async def test_memory_store_with_one_worker_loses_no_change(self, tmp_path):
        """A6: the requests interleave in one process."""
        options = {**OPTIONS, "store": "memory://"}
        with uvicorn("shop", tmp_path, options=options) as server:
            cookie = await begin(server)
            answered = await Load(server, cookie, "/count", clients=16, requests=300).run()
            page = await show(server, cookie)
        assert page["counter"] == 300
        check(page, answered)


class TestCrash:
    @pytest.mark.timeout(180)
    @pytest.mark.parametrize(("clients", "requests"), [(8, 300), WHOLE])
    async def test_killed_worker_loses_no_acknowledged_change(self, tmp_path, clients, requests):
        """S11: kill -9 of workers under load; then of all processes, and a restart."""
        options = {**OPTIONS, "store": STORE}
        workers = clients // 16 or 2
        with uvicorn("shop", tmp_path, workers=workers, options=options) as server:
            cookie = await begin(server)
            load = Load(server, cookie, "/count", clients=clients, requests=requests)
            running = asyncio.create_task(load.run())
            # Some of these kills interrupt a request.
            for part in range(requests // 16, requests // 2 + 1, requests // 16):
                with suppress(ProcessLookupError):  # killed before; no other worker responded since
                    os.kill(await load.reach(part), signal.SIGKILL)
            answered = await running
            server.kill()
            server.start(server.port)
            page = await show(server, cookie)
        check(page, answered)
        # The change of a request without a response may be stored: at most those that failed.
        assert len(answered) <= page["counter"] <= requests
        assert len(answered) < requests, "no request was under way when the worker was killed"
        with closing(sqlite3.connect(tmp_path / "sessions.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


class TestRedirect:
    @pytest.mark.timeout(180)
    @pytest.mark.parametrize("times", [100, pytest.param(1000, marks=pytest.mark.slow)])
    async def test_redirect_after_a_write_never_shows_the_old_value(self, tmp_path, times):
        """A5: another process serves the redirect."""
        other = tmp_path / "b"
        other.mkdir()
        options = {"store": f"sqlite:///{tmp_path}/sessions.db"}
        with (
            uvicorn("shop", tmp_path, options=options) as a,
            uvicorn("shop", other, options=options) as b,
        ):
            cookie = await begin(a)
            async with httpx.AsyncClient(headers=cookie, timeout=20) as client:
                processes = set()
                for n in range(times):
                    first, second = (a, b) if n % 2 else (b, a)
                    answer = await client.get(first.url + "/put", params={"n": str(n)})
                    assert answer.status_code == 303
                    page = (await client.get(second.url + answer.headers["location"])).json()
                    assert page["n"] == str(n)
                    processes.add(page["process"])
        assert len(processes) == 2
