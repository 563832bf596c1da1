"""Each feature of sojourn's original requirements, over a real server.

The applications are in ``apps/seed.py``, mounted on one server.
"""

from __future__ import annotations

import asyncio

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.support.servers import browser, eventually, uvicorn

pytestmark = pytest.mark.anyio

WAYS = ["decorated", "dependent", "with-middleware", "matched"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with uvicorn("seed", tmp_path_factory.mktemp("seed")) as running:
        yield running


@pytest.fixture
async def client(server):
    async with browser(server) as made:
        yield made


async def text(client, path, **options):
    answer = await client.get(path, **options)
    assert answer.status_code == 200, answer.text
    return answer.text


async def usage(client, name):
    return (await client.get(f"/usage/{name}")).json()


def cookies(client):
    return {"cookie": "; ".join(f"{c.name}={c.value}" for c in client.cookies.jar)}


async def message(server, path, headers=None):
    """Send one message to a socket; return the reply and the headers of the handshake."""
    async with connect(server.socket_url + path, additional_headers=headers) as ws:
        await ws.send("count")
        async with asyncio.timeout(10):
            return await ws.recv(), ws.response.headers


async def test_installed_in_one_call(tmp_path):
    """Only `sojourn.install(app)`: several workers, and a restart."""
    with uvicorn("plain", tmp_path, workers=2) as server:
        processes = set()
        async with browser(server, limits=httpx.Limits(max_keepalive_connections=0)) as client:
            for n in range(1, 61):
                visits, process = (await text(client, "/")).split()
                assert visits == str(n)
                processes.add(process)
            kept = cookies(client)
        assert len(processes) == 2
    with uvicorn("plain", tmp_path) as server:
        async with browser(server, headers=kept) as client:
            assert (await text(client, "/")).split()[0] == "61"
    for path in (tmp_path / ".sojourn").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path


async def test_removed_again_on_a_running_server(tmp_path):
    """`sojourn.uninstall(app)`; after a second install the records are still stored."""
    with uvicorn("plain", tmp_path) as server:
        # This server closes a connection after a 500, so none of them is used twice.
        async with browser(server, limits=httpx.Limits(max_keepalive_connections=0)) as client:
            await text(client, "/")
            assert await text(client, "/has-session") == "true"
            await client.post("/uninstall")
            assert await text(client, "/has-session") == "false"
            assert (await client.get("/")).status_code == 500
            await client.post("/install")
            assert (await text(client, "/")).split()[0] == "2"


async def test_options_cookie_secret_and_timeout(server, client, tmp_path):
    """cookie=, secret= and timeout= take effect; a weak secret is refused."""
    assert await text(client, "/optioned/") == "1"
    assert [c.name for c in client.cookies.jar] == ["__ssid"]
    assert await text(client, "/optioned/") == "2"
    await asyncio.sleep(1.6)  # the server's clock measures the 1500 ms
    assert await text(client, "/optioned/") == "1"
    environment = {"SOJOURN_SECRET": "a-secret-of-some-length-1"}
    with uvicorn("plain", tmp_path, environment=environment) as other:
        async with browser(other, cookies=cookie_of(tmp_path)) as visitor:
            assert (await text(visitor, "/")).split()[0] == "2"
    # A24: another application in the same database is refused.
    environment = {"SOJOURN_SECRET": "another-secret-as-long-2"}
    with uvicorn("plain", tmp_path, environment=environment) as other:
        async with browser(other, cookies=cookie_of(tmp_path)) as visitor:
            assert (await visitor.get("/")).status_code == 500
    assert "ConfigurationError" in other.log  # complete after the server exited
    assert "realm=" in other.log
    with pytest.raises(AssertionError, match="did not start") as refused:
        uvicorn("plain", tmp_path, environment={"SOJOURN_SECRET": "N84"}).start()
    assert "ConfigurationError" in str(refused.value)
    assert "at least 16 random bytes" in str(refused.value)


@pytest.mark.parametrize("name", WAYS)
async def test_session_for_some_routes(client, name):
    """By decorator, dependency, route middleware or pattern; other routes make no store call."""
    before = await usage(client, name)
    assert await text(client, f"/{name}/without") == "false"
    assert list(client.cookies.jar) == []
    assert await text(client, f"/{name}/with") == "1"
    assert await text(client, f"/{name}/with") == "2"
    after = await usage(client, name)
    assert (after["creates"], after["reads"]) == (before["creates"] + 1, before["reads"] + 1)
    answer = await client.get(f"/{name}/without")  # from now on with a cookie
    assert answer.text == "false"
    assert "set-cookie" not in answer.headers
    assert "vary" not in answer.headers
    assert await usage(client, name) == after
    if name == "dependent":
        assert await text(client, "/dependent/with-typed") == "3"
        assert await text(client, "/dependent/with-decorator/7") == "4"


@pytest.mark.parametrize("name", WAYS)
async def test_session_for_some_sockets(server, client, name):
    """On WebSocket routes, by the same four means; the socket has the session of the page."""
    await text(client, f"/{name}/with")
    before = await usage(client, name)
    answer, headers = await message(server, f"/{name}/without-socket", cookies(client))
    assert answer == "no session"
    assert "set-cookie" not in headers
    assert await usage(client, name) == before
    answer, _ = await message(server, f"/{name}/with-socket", cookies(client))
    assert answer == "2"
    assert await text(client, f"/{name}/with") == "3"


async def test_session_for_all_routes(server, client):
    """The default of `install(app)`, for pages and sockets."""
    assert await text(client, "/everything/") == "1"
    assert (await message(server, "/everything/socket", cookies(client)))[0] == "2"


async def test_loaded_before_the_handler(client):
    """A plain function reads `request.session["visits"]` without an await."""
    assert [await text(client, "/everything/") for _ in range(3)] == ["1", "2", "3"]


async def test_session_is_saved_before_the_first_byte_at_the_stream_end_and_per_message(
    server, client
):
    """A client that received a response always sees its own write."""
    await text(client, "/everything/")
    async with client.stream("GET", "/everything/stream") as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == "first"
        async with browser(server, headers=cookies(client)) as other:
            page = (await other.get("/everything/keys")).json()
            assert page["before"] is True
            assert "after" not in page
            await other.get("/everything/go")
        assert await anext(lines) == "last"
        async for _ in lines:
            pass
    assert (await client.get("/everything/keys")).json()["after"] is True
    talk = server.socket_url + "/everything/talk"
    async with connect(talk, additional_headers=cookies(client)) as ws:
        for word in ("one", "two", "three"):
            await ws.send(word)
            assert await ws.recv() == word
            assert (await client.get("/everything/keys")).json()["said"] == word

    async def keys():
        return (await client.get("/everything/keys")).json()

    page = await eventually(keys, lambda page: "closed" in page)
    assert page["said"] == "three"


@pytest.mark.parametrize("way", ["assign", "attribute", "increment"])
async def test_attribute_style(server, client, way):
    """`session["counter"] += 1`, `session.state.counter += 1`, `session.increment`: 1,000 of each.

    The assignments use merge={"counter": "sum"}.
    """
    await text(client, "/everything/")
    requests = iter(range(1000))

    async def run():
        async with browser(server, headers=cookies(client)) as one:
            for _ in requests:
                await text(one, f"/everything/{way}")

    await asyncio.gather(*(run() for _ in range(32)))
    page = (await client.get("/everything/keys")).json()
    assert page["counter"] == 1000
    assert page["theme"] == "light"


async def test_storage_by_two_functions(client):
    """`CallbackStore(read=..., write=...)` with async functions, and with plain functions."""
    assert [await text(client, "/called/") for _ in range(3)] == ["1", "2", "3"]
    session_id = await text(client, "/called/id")
    assert session_id in (await client.get("/called/kept")).json()
    # Another installation with the same secret and the same dict, with plain functions.
    assert await text(client, "/called-later/") == "4"
    await client.get("/called/forget")
    assert session_id not in (await client.get("/called/kept")).json()
    assert await text(client, "/called-later/") == "1"


async def test_storage_by_two_functions_as_json(client):
    """An example of the original requirements: the functions serialize the state."""
    assert [await text(client, "/called-json/") for _ in range(3)] == ["1", "2", "3"]
    (state,) = (await client.get("/called-json/texts")).json()
    assert 3 in state.values()


@pytest.mark.parametrize(("store", "visits"), [("", "2"), ("memory://", "1")])
async def test_default_storage_is_kept_after_a_restart_and_memory_is_not(tmp_path, store, visits):
    """One SQLite file; `memory://` was the default of the original."""
    environment = {"SOJOURN_STORE": store} if store else {}
    server = uvicorn("plain", tmp_path, environment=environment)
    with server:
        async with browser(server) as client:
            assert (await text(client, "/")).split()[0] == "1"
            kept = cookies(client)
    with server:
        async with browser(server, headers=kept) as client:
            assert (await text(client, "/")).split()[0] == visits


async def test_installation_is_found_and_announced(client):
    """`sojourn.get(app)`, and `sojourn.on_install` with the app and its `Sessions`."""
    assert await text(client, "/installed") == "true"


async def test_events_and_usage(client):
    """Typed events with the session ID; counts of reads and writes."""
    before = await usage(client, "eventful")
    for _ in range(2):
        await text(client, "/eventful/")
    await text(client, "/eventful/forget")
    events = (await client.get("/events")).json()
    session_id = events[-1][1]
    mine = [kind for kind, event_id in events if event_id == session_id]
    assert mine == ["Created", "Read", "Written", "Read", "Revoked"]
    after = await usage(client, "eventful")
    counted = {key: after[key] - before[key] for key in after}
    assert counted == {"reads": 2, "writes": 1, "creates": 1, "touches": 0, "connections": 0}


async def test_cookie_is_sealed_and_contains_no_label(server, client):
    """Browser and address are labels, which are checked only with ``check_labels``."""
    phone, desktop = {"user-agent": "phone"}, {"user-agent": "desktop"}
    labels = {"address": "127.0.0.1", "browser": "phone"}
    assert (await client.get("/labelled/", headers=phone)).json()[0] == "1"
    assert (await client.get("/labelled/", headers=desktop)).json() == ["2", labels]
    (cookie,) = client.cookies.jar
    assert len(cookie.value) == 66
    for position in (0, 20, 65):  # sealed: no character can be changed
        other = "A" if cookie.value[position] != "A" else "B"
        forged = cookie.value[:position] + other + cookie.value[position + 1 :]
        async with browser(server, headers={"cookie": f"{cookie.name}={forged}"}) as forger:
            assert (await forger.get("/labelled/")).json()[0] == "1"
    client.cookies.clear()
    for headers, expected in ((phone, "1"), (phone, "2"), (desktop, "1")):
        assert await text(client, "/checked/", headers=headers) == expected


def cookie_of(folder):
    """Create a session in a folder's store with the first secret, once; return its cookie."""
    jar = folder / "cookie.txt"
    if not jar.exists():
        environment = {"SOJOURN_SECRET": "a-secret-of-some-length-1"}
        with uvicorn("plain", folder, environment=environment) as server:
            answer = httpx.get(server.url, timeout=30)
        jar.write_text(answer.cookies["sid"])
    return {"sid": jar.read_text()}
