"""WSGI under gunicorn: threads, greenlets and processes that share one session lose no change."""

import asyncio
import json

import httpx
import pytest

from tests.integration.valkey import Valkey, running
from tests.support.processes import serving

REQUESTS = 2_000
CLIENTS = 64


def gunicorn(*, workers, threads):
    return (
        *("gunicorn", "--bind", "127.0.0.1:PORT", "--worker-class", "gthread"),
        *("--workers", str(workers), "--threads", str(threads), "--backlog", "256"),
        *("--log-level", "warning", "tests.integration.apps.wsgi_race:app"),
    )


async def race(url, path, cookie, requests=REQUESTS):
    """Send requests from parallel clients with one cookie; return the status of each response."""
    numbers = iter(range(requests))
    # A connection for each request: gunicorn closes idle ones after 2 s, perhaps at the moment in
    # which a client that had to wait for the processor sends the next request.
    limits = httpx.Limits(max_keepalive_connections=0)

    async def client():
        found = []
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
            for number in numbers:
                answer = await http.get(
                    path, params={"key": f"k{number}"}, headers={"Cookie": cookie}
                )
                found.append((answer.status_code, answer.text))
        return found

    found = await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return [answer for answers in found for answer in answers]


def begin(url):
    answer = httpx.get(f"{url}/increment", params={"key": "first"})
    return answer.headers["set-cookie"].split(";")[0]


def check(url, cookie, requests=REQUESTS):
    """Check that no change is lost; return the number of processes that served requests."""
    session = httpx.get(f"{url}/all", headers={"Cookie": cookie}).json()
    keys = {f"k{number}" for number in range(requests)} | {"first"}
    assert session["counter"] == requests + 1
    assert keys - set(session) == set()
    assert keys - set(session["nested"]) == set()
    return len({session[key] for key in keys})


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", ["/sum", "/increment", "/stream"])
def test_four_workers_with_threads_lose_no_change(path, tmp_path):
    """S10, A6 (and A11 for streams): 2,000 requests of one visitor, 64 at a time."""
    environ = {"STORE": f"sqlite:///{tmp_path}/sessions.db"}
    with serving(*gunicorn(workers=4, threads=16), folder=tmp_path, environ=environ) as url:
        cookie = begin(url)
        answers = asyncio.run(race(url, path, cookie))
        assert answers == [(200, "ok")] * REQUESTS
        assert check(url, cookie) > 1


@pytest.mark.parametrize("path", ["/sum", "/increment", "/stream"])
def test_threads_of_one_worker_lose_no_change(path, tmp_path):
    """S10, A6: with the memory store, where only threads compete."""
    environ = {"STORE": "memory://"}
    with serving(*gunicorn(workers=1, threads=16), folder=tmp_path, environ=environ) as url:
        cookie = begin(url)
        answers = asyncio.run(race(url, path, cookie, 300))
        assert answers == [(200, "ok")] * 300
        assert check(url, cookie, 300) == 1


@pytest.mark.parametrize(
    "more",
    [pytest.param((), id="", marks=pytest.mark.slow), pytest.param(("--preload",), id="preload")],
)
def test_gevent_workers_lose_no_change_and_do_not_hang(more, tmp_path):
    """S10, S12, A6: with --preload the store is built before gevent replaces locks and threads."""
    command = (
        *("gunicorn", "--bind", "127.0.0.1:PORT", "--worker-class", "gevent", *more),
        *("--workers", "2", "--log-level", "warning", "tests.integration.apps.wsgi_race:app"),
    )
    environ = {"STORE": f"sqlite:///{tmp_path}/sessions.db"}
    with serving(*command, folder=tmp_path, environ=environ) as url:
        cookie = begin(url)
        answers = asyncio.run(race(url, "/increment", cookie, 800))
        assert answers == [(200, "ok")] * 800
        assert check(url, cookie, 800) > 0
        for number in range(20):  # these stores publish broadcasts in the background
            answer = httpx.get(f"{url}/login", params={"key": f"user {number}"})
            cookie = answer.headers["set-cookie"].split(";")[0]
            assert httpx.get(f"{url}/logout", headers={"Cookie": cookie}).text == "ok"
            assert "user" not in httpx.get(f"{url}/all", headers={"Cookie": cookie}).json()


def test_gevent_workers_with_a_near_cache_do_not_hang(tmp_path):
    """N1, S12: with --preload its locks are made before gevent replaces them."""
    (tmp_path / "valkey").mkdir()
    command = (
        *("gunicorn", "--bind", "127.0.0.1:PORT", "--worker-class", "gevent", "--preload"),
        *("--workers", "2", "--log-level", "warning", "tests.integration.apps.wsgi_race:app"),
    )
    options = {"near_cache": "5 seconds", "secret": "gunicorn-4Jm7Qx2vWc9Rk5-Zt"}
    with running(Valkey(tmp_path / "valkey")) as valkey:
        environ = {"STORE": valkey.url, "OPTIONS": json.dumps(options)}
        with serving(*command, folder=tmp_path, environ=environ) as url:
            cookie = begin(url)
            for _ in range(40):
                answer = httpx.get(f"{url}/all", headers={"Cookie": cookie}, timeout=20)
                assert (answer.status_code, answer.json()["counter"]) == (200, 1)
