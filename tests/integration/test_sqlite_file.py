"""Servers whose SQLite file is moved, deleted or damaged while they run: 503, and recovery."""

import asyncio

import pytest

from tests.support.servers import browser, uvicorn

pytestmark = pytest.mark.anyio

SECRET = "one file: 7Jm2Qw9vXc4Rk1"


@pytest.fixture
def database(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder / "sessions.db"


@pytest.fixture
def server(tmp_path, database):
    options = {"store": f"sqlite:///{database}", "secret": SECRET}
    with uvicorn("accounts", tmp_path, workers=2, options=options) as server:
        yield server


def unavailable(answer):
    return answer.status_code == 503 and int(answer.headers["retry-after"]) > 0


async def every(server, path, cookie, number=12):
    """Send requests on separate connections, so that both workers respond."""

    async def request():
        async with browser(server, headers={"cookie": cookie}) as http:
            return await http.get(path)

    return await asyncio.gather(*(request() for _ in range(number)))


async def login(server):
    async with browser(server) as http:
        answer = await http.get("/login", params={"user": "ada"})
        return answer.headers["set-cookie"].split(";")[0]


async def test_moved_file_is_503_in_every_worker_until_it_is_restored(server, database):
    """S12, A15, A23: for reads and writes; the sessions are kept."""
    cookie = await login(server)
    away = database.parent.rename(database.parent.with_name("away"))
    await asyncio.sleep(0.2)  # each worker checks the file every 0.1 s
    for path in ("/", "/do/put?n=1", "/login?user=ada", "/do/logout"):
        assert all(map(unavailable, await every(server, path, cookie)))
    away.rename(database.parent)
    for answer in await every(server, "/", cookie):
        assert answer.json()["user"] == "ada"
    assert "was deleted or renamed while it was in use" in server.log
    assert server.log.count("Until then all calls fail") in {1, 2}, "once for each worker"


async def test_workers_do_not_adopt_another_file(server, database, tmp_path):
    """S12: the folder was deleted, and a new process created another database."""
    cookie = await login(server)
    for each in database.parent.iterdir():
        each.unlink()
    await asyncio.sleep(0.2)
    (tmp_path / "new").mkdir()
    options = {"store": f"sqlite:///{database}", "secret": SECRET}
    with uvicorn("accounts", tmp_path / "new", options=options) as new:
        assert all(map(unavailable, await every(server, "/", cookie)))
        fresh = await login(new)
        assert all(map(unavailable, await every(server, "/", fresh)))
        for answer in await every(new, "/", fresh):
            assert answer.json()["user"] == "ada"
    server.stop()
    server.start(server.port)
    for answer in await every(server, "/", fresh):
        assert answer.json()["user"] == "ada"


async def test_a_damaged_file_is_503(server, database):
    """S12, A23: SQLITE_CORRUPT or SQLITE_NOTADB, for every request that needs the store."""
    cookie = await login(server)
    await asyncio.sleep(1.5)  # until the checkpointer has written the log to the database
    for each in (database, database.with_name("sessions.db-wal")):
        size = each.stat().st_size
        with each.open("r+b") as file:
            file.write(b"\xa5" * size)
    for path in ("/", "/do/put?n=1"):
        assert all(map(unavailable, await every(server, path, cookie)))
