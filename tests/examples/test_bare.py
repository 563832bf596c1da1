"""examples/bare_asgi.py and examples/bare_wsgi.py, under real servers."""

import httpx
import pytest
from websockets.sync.client import connect

from tests.support.processes import serving

GUNICORN = ("gunicorn", "--bind", "127.0.0.1:PORT", "--workers", "2", "--worker-class", "gthread")


@pytest.mark.parametrize(
    "command",
    [
        ("uvicorn", "--port", "PORT", "--workers", "2", "examples.bare_asgi:app"),
        (*GUNICORN, "examples.bare_wsgi:app"),
    ],
    ids=["asgi", "wsgi"],
)
def test_a_bare_callable_counts_across_workers_and_restarts(command, tmp_path):
    """The default store: one SQLite file next to the program."""
    with httpx.Client() as ada:
        for first in (1, 4):
            with serving(*command, folder=tmp_path) as url:
                found = [ada.get(url).text for _ in range(3)]
                assert found == [f"visit {n}\n" for n in range(first, first + 3)]
    assert (tmp_path / ".sojourn" / "sessions.db").exists()


def test_page_and_socket_of_a_bare_callable_share_one_counter(tmp_path):
    command = ("uvicorn", "--port", "PORT", "examples.bare_asgi:app")
    with serving(*command, folder=tmp_path) as url, httpx.Client() as ada:
        assert ada.get(url).text == "visit 1\n"
        cookie = f"sid={ada.cookies['sid']}"
        address = url.replace("http", "ws")
        with connect(address, additional_headers={"Cookie": cookie}) as socket:
            socket.send("again")
            assert socket.recv(10) == "visit 2"
        assert ada.get(url).text == "visit 3\n"
