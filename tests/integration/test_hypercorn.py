"""hypercorn: its asyncio worker serves sessions; its trio worker is refused."""

import json

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.support.processes import serving

REFUSAL = "sojourn serves ASGI applications on asyncio or uvloop"


@pytest.fixture(params=["memory", "sqlite"])
def environ(request, tmp_path):
    store = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/sessions.db"
    return {"SOJOURN_TEST_OPTIONS": json.dumps({"store": store})}


def hypercorn(worker):
    return (
        *("hypercorn", "--worker-class", worker, "--bind", "127.0.0.1:PORT"),
        "tests.integration.apps.shop:app",
    )


def test_trio_is_refused_with_a_one_line_error(tmp_path, environ):
    """Also WebSockets. Without asyncio, a store would make blocking calls in the event loop."""
    with serving(*hypercorn("trio"), folder=tmp_path, environ=environ) as url:
        for _ in range(3):
            answer = httpx.get(f"{url}/put?name=Ada")
            assert answer.status_code == 500
            assert "event loop" in answer.text
            assert "set-cookie" not in answer.headers
        with pytest.raises(InvalidStatus) as refused:
            connect(url.replace("http", "ws") + "/echo")
        assert refused.value.response.status_code == 500
    log = (tmp_path / "server.log").read_text()
    assert log.count(REFUSAL) == 1
    assert "Traceback" not in log


def test_asyncio_worker_serves_pages_and_sockets(tmp_path, environ):
    """A2, W1, W4, W8."""
    serves = serving(*hypercorn("asyncio"), folder=tmp_path, environ=environ)
    with serves as url, httpx.Client(base_url=url) as visitor:
        visitor.get("/put?name=Ada")
        cookie = f"sid={visitor.cookies['sid']}"
        socket_url = url.replace("http", "ws")
        with connect(socket_url + "/echo", additional_headers={"cookie": cookie}) as ws:
            ws.send("count")
            answer = json.loads(ws.recv(timeout=10))
            assert answer["name"] == "Ada"
            visitor.get(f"/revoke/{answer['id']}")
            with pytest.raises(ConnectionClosed) as closed:
                ws.recv(timeout=10)
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4401, "revoked by hand")
        with connect(socket_url + "/begin") as ws:
            assert ws.response.headers["set-cookie"].startswith("sid=")
    assert REFUSAL not in (tmp_path / "server.log").read_text()
