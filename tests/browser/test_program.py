"""The demo as a program: start, output, Ctrl-C, and what its page shows.

These tests need no browser; they use the same fixtures.
"""

import re
import socket

import httpx
import pytest

from examples.demo.headers import mask
from tests.integration.postgresql import Postgres
from tests.integration.valkey import Valkey, free_port


def test_code_shown_on_the_page_is_the_code_of_the_demo(repository):
    """Each Python snippet of the page is in the demo's source."""
    folder = repository / "examples" / "demo"
    source = "\n".join(path.read_text() for path in sorted(folder.glob("*.py")))
    page = (folder / "page" / "index.html").read_text()
    blocks = re.findall(r"<code>(.*?)</code>", page, re.DOTALL)
    quoted = [line for block in blocks for line in block.splitlines() if "session" in line]
    assert len(quoted) >= 6
    for line in quoted:
        found = re.fullmatch(r"(sessions = sojourn\.install\()app, (merge=.*)\)", line)
        for part in found.groups() if found else (line,):
            assert part in source


def test_demo_chooses_a_free_port_and_stops_at_ctrl_c(demo_process):
    """`make demo` works if port 8000 is in use; Ctrl-C prints no traceback."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8000))
            taken.listen()
        except OSError:
            pass  # another process uses it
        running = demo_process(PORT="")
        assert re.fullmatch(r"sojourn demo: http://localhost:\d+\n", running.first)
        assert not running.url.endswith(":8000")
        assert httpx.get(running.url).status_code == 200
    assert running.stop() == 0
    assert "Traceback" not in "".join(running.rest())
    with pytest.raises(httpx.ConnectError):
        httpx.get(running.url)


def test_demo_fails_if_the_given_port_is_in_use(demo_process):
    """With PORT, the demo does not choose another port."""
    first = demo_process(STORE="memory://")
    port = first.url.rsplit(":", 1)[1]
    second = demo_process(STORE="memory://", PORT=port)
    assert f"PORT={port} cannot be used" in second.first
    assert second.process.wait(timeout=20) == 1


def test_two_demos_on_one_store_share_a_session(demo_process):
    """A5: the next response of the other process has the write."""
    first, second = demo_process(), demo_process()
    with httpx.Client() as client:
        assert client.post(f"{first.url}/api/count").status_code == 204
        assert client.get(f"{second.url}/api/session").json()["data"] == {"counter": 1}
        assert client.post(f"{second.url}/api/count").status_code == 204
        assert client.get(f"{first.url}/api/session").json()["data"] == {"counter": 2}


def test_a_demo_on_a_shared_store_generates_a_secret_and_reports_it(demo_process, tmp_path):
    """`make demo STORE=redis://...` needs no secret; a given secret is used instead."""
    valkey = Valkey(tmp_path)
    valkey.start()
    try:
        running = demo_process(STORE=valkey.url)
        assert running.url.startswith("http://localhost:")
        assert "sessions are stored in RedisStore(127.0.0.1:" in running.line()
        assert "this run uses a generated secret" in running.line()
        given = {"STORE": valkey.url, "SOJOURN_SECRET": "9sVqX2mK7tLwR4bN8dJcF3hZ6yPgA5eU"}
        first, second = demo_process(**given), demo_process(**given)
        assert second.line().startswith("sessions are stored in RedisStore(")
        assert second.rest() == []
        with httpx.Client() as client:
            assert client.post(f"{first.url}/api/count").status_code == 204
            assert client.post(f"{second.url}/api/count").status_code == 204
            assert client.get(f"{first.url}/api/session").json()["data"] == {"counter": 2}
            assert "data" not in client.get(f"{running.url}/api/session").json()
    finally:
        valkey.stop()


def test_demo_on_postgresql_creates_its_tables(demo_process):
    """`make demo STORE=postgresql://...` needs no further set-up."""
    server = Postgres()
    server.start()
    try:
        running = demo_process(STORE=server.url)
        assert running.url.startswith("http://localhost:")
        assert "sessions are stored in PostgresStore(" in running.line()
        with httpx.Client() as client:
            assert client.post(f"{running.url}/api/count").status_code == 204
            assert client.get(f"{running.url}/api/session").json()["data"] == {"counter": 1}
        assert server.query("SELECT count(*) FROM sojourn_sessions") == [(1,)]
        assert running.stop() == 0
    finally:
        server.remove()


@pytest.mark.parametrize("scheme", ["postgresql", "redis"])
def test_demo_with_an_unavailable_server_prints_advice(demo_process, scheme):
    """Without the password of the URL."""
    running = demo_process(STORE=f"{scheme}://ada:password-7@127.0.0.1:{free_port()}/0")
    assert running.first.startswith("STORE cannot be used: ")
    assert "Start its server, or correct the URL" in running.first
    assert running.process.wait(timeout=20) == 1
    assert "password-7" not in running.first
    assert running.rest() == []


def test_a_demo_without_the_client_library_names_what_to_install(demo_process, tmp_path):
    """A module that cannot be imported shadows the library."""
    (tmp_path / "psycopg.py").write_text("raise ModuleNotFoundError(name='psycopg')")
    running = demo_process(STORE="postgresql://localhost/app")
    assert running.first.startswith("STORE cannot be used: the store for postgresql:// needs")
    assert "install 'sojourn[postgresql]'" in running.first
    assert running.process.wait(timeout=20) == 1
    assert running.rest() == []


def test_set_cookie_is_repeated_for_the_page_with_its_value_masked():
    """A18: HttpOnly has no effect if a script can read the ticket in another header."""
    assert mask(b"sid=secret; Max-Age=9; Path=/") == b"sid=(6 characters); Max-Age=9; Path=/"
    assert mask(b"sid=; Max-Age=0; Path=/") == b"sid=; Max-Age=0; Path=/"
