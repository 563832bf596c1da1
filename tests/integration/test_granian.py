"""granian: WSGI, where it reads the status when the application returns, and files under ASGI."""

from pathlib import Path

import httpx
import pytest

from tests.support.processes import serving


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def url(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("granian")
    command = (
        *("granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", "PORT"),
        "tests.integration.apps.wsgi_forms:app",
    )
    store = "memory://" if request.param == "memory" else f"sqlite:///{folder}/sessions.db"
    with serving(*command, folder=folder, environ={"STORE": store}) as address:
        yield address


@pytest.mark.parametrize("form", ["list", "generator", "iterator", "page"])
def test_response_has_status_headers_and_cookie(url, form):
    """A2, A13: for each form of a body."""
    with httpx.Client(base_url=url) as visitor:
        first = visitor.get(f"/{form}")
        assert (first.status_code, first.text) == (201, "visits: 1")
        assert first.headers["x-form"] == form
        assert first.headers["set-cookie"].startswith("sid=")
        assert first.headers["vary"] == "Cookie"
        second = visitor.get(f"/{form}")
        assert (second.status_code, second.text) == (201, "visits: 2")
        assert "set-cookie" not in second.headers


def test_response_without_a_body_has_its_cookie(url):
    """A2."""
    answer = httpx.get(f"{url}/empty")
    assert (answer.status_code, answer.headers["x-form"]) == (204, "empty")
    assert answer.headers["set-cookie"].startswith("sid=")


def test_error_before_the_first_part_is_500(url):
    """A10."""
    answer = httpx.get(f"{url}/error")
    assert answer.status_code == 500
    assert "set-cookie" not in answer.headers


FILE = Path(__file__).parent / "apps" / "files.py"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    command = (
        *("granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "PORT"),
        "tests.integration.apps.files:app",
    )
    environ = {"STORE": f"sqlite:///{folder}/sessions.db"}
    with serving(*command, folder=folder, environ=environ) as address:
        yield address


@pytest.mark.parametrize("path", ["/download", "/file", "/static/files.py"])
def test_files_sent_by_the_server_have_the_session_headers(files, path):
    """A1, A2: granian receives the path of a file (http.response.pathsend)."""
    with httpx.Client(base_url=files) as visitor:
        for _ in range(2):
            answer = visitor.get(path)
            assert (answer.status_code, answer.content) == (200, FILE.read_bytes())
        assert ("sid" in visitor.cookies) is (path == "/download")
        visitor.get("/download")
        assert visitor.get(path).content == FILE.read_bytes()
