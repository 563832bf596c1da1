"""Each framework on its real servers and over each store: black-box tests through HTTP."""

import asyncio

import httpx
import pytest

import sojourn
from sojourn.testing.app_suite.served_app import SECRET
from tests.frameworks.matrix import COMMANDS, ROWS, SEVERAL_PROCESSES
from tests.integration.valkey import Valkey, running
from tests.support.processes import serving

STORES = ("memory", "sqlite", "valkey")


def cells():
    """Yield (framework, server, store); those that ``make test`` omits are slow."""
    for row in ROWS:
        for server in row.servers:
            for store in STORES[server in SEVERAL_PROCESSES :]:
                everyday = row.everyday and server == row.servers[0] and store == "sqlite"
                yield pytest.param(
                    (row.name, server, store),
                    id=f"{row.name}-{server}-{store}",
                    marks=[] if everyday else [pytest.mark.slow],
                )


@pytest.fixture(scope="module")
def valkey(tmp_path_factory):
    with running(Valkey(tmp_path_factory.mktemp("valkey"))) as server:
        yield server


@pytest.fixture(scope="class", params=cells())
def served(request, tmp_path_factory):
    """Return the address of a server, and the URL of its store."""
    framework, server, kind = request.param
    folder = tmp_path_factory.mktemp("served")
    store = {"memory": "memory://", "sqlite": f"sqlite:///{folder}/sessions.db"}.get(kind)
    if store is None:
        store = request.getfixturevalue("valkey").url
    environ = {"FRAMEWORK": framework, "STORE": store}
    with serving(*COMMANDS[server].split(), folder=folder, environ=environ) as url:
        yield url, store


def visitor(url):
    """Return a client that opens a connection for each request, because servers close idle ones."""
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=url, timeout=30, limits=limits)


async def start(client):
    """Begin a session."""
    assert (await client.get("/write")).text == "1"
    return client


@pytest.mark.anyio
@pytest.mark.timeout(120)
class TestServed:
    """Requests to each framework, server and store."""

    async def test_first_write_sets_one_strict_cookie_and_later_requests_none(self, served):
        """A1, A2, ASVS 3.3.2, ASVS 3.3.4: no cookie without a write; HttpOnly and SameSite."""
        async with visitor(served[0]) as client:
            assert "set-cookie" not in (await client.get("/ignore")).headers
            first = await client.get("/write")
            (cookie,) = first.headers.get_list("set-cookie")
            assert "httponly" in cookie.lower()
            assert "samesite=lax" in cookie.lower()
            assert "private" in first.headers["cache-control"]
            assert (await client.get("/write")).text == "2"
            assert (await client.get("/read")).text == "2"

    async def test_parallel_requests_lose_no_change(self, served):
        """A6: 60 parallel requests append one item each."""
        async with visitor(served[0]) as client:
            await start(client)
            answers = await asyncio.gather(*(client.get("/append") for _ in range(60)))
            assert {answer.status_code for answer in answers} == {200}
            items = (await client.get("/items")).text.split()
            assert sorted(items) == sorted(answer.text for answer in answers)

    async def test_interleaved_requests_see_their_own_session(self, served):
        """A16: 200 requests of 20 visitors at once, in threads, tasks or greenlets."""
        clients = [visitor(served[0]) for _ in range(20)]
        try:
            names = [(await client.get("/own")).text for client in clients]
            assert len(set(names)) == len(clients)
            answers = await asyncio.gather(
                *(client.get("/own") for _ in range(10) for client in clients)
            )
            assert [answer.text for answer in answers] == names * 10
        finally:
            for client in clients:
                await client.aclose()

    async def test_login_replaces_the_ticket_and_logout_destroys_the_session(self, served):
        """A7, A9, B-25: cookies from before the login and before the logout are invalid."""
        async with visitor(served[0]) as client, visitor(served[0]) as thief:
            await start(client)
            before = dict(client.cookies)
            await client.get("/login")
            during = dict(client.cookies)
            assert during != before
            assert (await client.get("/who")).text.startswith("ada")
            thief.cookies.update(during)
            await client.get("/logout")
            assert (await thief.get("/who")).text.startswith("None")
            assert (await client.get("/who")).text.startswith("None")

    async def test_failed_request_drops_the_changes(self, served):
        """A10."""
        async with visitor(served[0]) as client:
            await start(client)
            assert (await client.get("/fail")).status_code == 500
            assert (await client.get("/read")).text == "1"

    async def test_stream_commits_changes_after_its_start(self, served):
        """A11."""
        async with visitor(served[0]) as client:
            await start(client)
            assert (await client.get("/stream")).text == "first last"
            assert (await client.get("/read")).text == "2"

    async def test_another_process_revokes_a_user(self, served):
        """A7, S7: a revoked session is not restored."""
        url, store = served
        if store == "memory://":
            pytest.skip("the memory store belongs to one process")
        sessions = sojourn.Sessions(store=store, secret=SECRET)
        try:
            async with visitor(url) as client:
                await start(client)
                await client.get("/login")
                assert (await client.get("/who")).text.startswith("ada")
                assert await sessions.arevoke_user("ada") >= 1
                assert (await client.get("/who")).text == "None revoked"
                assert (await client.get("/read")).text == "None"
        finally:
            sessions.close()
