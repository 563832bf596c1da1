"""Chromium on a page of one origin fetches from an API of another (law A23)."""

import http.server
import threading
from functools import partial

import pytest

from tests.support.servers import Server

FETCH = """async ([url, credentials]) => {
    try {
        const headers = {Accept: "application/json"};
        const reply = await fetch(url, {method: "POST", credentials, headers});
        return [reply.status, await reply.json()];
    } catch (error) {
        return String(error);
    }
}"""
COMMAND = ("uvicorn", "tests.integration.apps.spa:app", "--port", "{port}")


@pytest.fixture
def pages(tmp_path):
    """Serve empty pages on two origins, as a development server does."""
    (tmp_path / "page.html").write_text("<title>page</title>")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    servers = [http.server.ThreadingHTTPServer(("localhost", 0), handler) for _ in range(2)]
    for each in servers:
        threading.Thread(target=each.serve_forever, daemon=True).start()
    yield [f"http://localhost:{each.server_port}" for each in servers]
    for each in servers:
        each.shutdown()
        each.server_close()


def test_page_of_another_origin_uses_its_session_and_reads_errors(chromium, pages, tmp_path):
    """A23: with ``credentials: include``."""
    own, foreign = pages
    with Server(COMMAND, tmp_path, options={"page": own}) as api:
        context = chromium.new_context()
        page = context.new_page()
        page.goto(f"{own}/page.html")
        count = f"{api.url}/count"
        assert page.evaluate(FETCH, [count, "include"]) == [200, 1]
        assert page.evaluate(FETCH, [count, "include"]) == [200, 2]
        assert page.evaluate(FETCH, [count, "omit"]) == [200, 1]  # a visitor without a cookie
        page.evaluate("url => fetch(url)", f"{api.url}/outage")
        status, answer = page.evaluate(FETCH, [count, "include"])
        assert (status, "unavailable" in answer["detail"]) == (503, True)
        assert page.evaluate(FETCH, [count, "include"]) == [200, 3]
        page.goto(f"{foreign}/page.html")
        assert "Failed to fetch" in page.evaluate(FETCH, [count, "include"])
        page.goto(f"{own}/page.html")
        assert page.evaluate(FETCH, [count, "include"]) == [200, 4]
        context.close()
        assert "allowed_origins" in api.log
