"""Chromium on a page of one origin sends the ticket of an API of another origin in a header."""

import http.server
import threading
from functools import partial

import pytest

from tests.support.servers import Server

COMMAND = ("uvicorn", "tests.integration.apps.native:app", "--port", "{port}")

#: The code that docs/transports.md recommends for a page.
CLIENT = """async (url) => {
    const post = async (path) => {
        const response = await fetch(url + path, {
            method: "POST",
            credentials: "omit",
            headers: {Authorization: "Session " + (sessionStorage.ticket ?? "")},
        });
        const ticket = response.headers.get("Session-Ticket");
        if (ticket !== null) sessionStorage.ticket = ticket;
        return response.json();
    };
    const counts = [await post("/count"), await post("/count")];
    await post("/login");
    const protocols = ["sojourn", "sojourn-ticket." + sessionStorage.ticket];
    const socket = new WebSocket(url.replace("http", "ws") + "/ws", protocols);
    await new Promise((resolve) => { socket.onopen = resolve; });
    const message = new Promise((resolve) => { socket.onmessage = resolve; });
    socket.send("count");
    counts.push(JSON.parse((await message).data)[1]);
    const closed = new Promise((resolve) => { socket.onclose = resolve; });
    await post("/leave");
    return [counts, socket.protocol, (await closed).code, sessionStorage.ticket];
}"""


@pytest.fixture
def page_url(tmp_path):
    """Serve an empty page on a separate origin."""
    (tmp_path / "page.html").write_text("<title>page</title>")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    server = http.server.ThreadingHTTPServer(("localhost", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_page_without_cookies_sends_the_ticket_in_a_header(chromium, page_url, tmp_path):
    """W1, W4, ASVS 3.5.1: requests, a WebSocket and a logout, with ``protect``."""
    with Server(COMMAND, tmp_path, options={"pages": [page_url]}) as api:
        context = chromium.new_context()
        page = context.new_page()
        page.goto(f"{page_url}/page.html")
        assert page.evaluate(CLIENT, api.url) == [[1, 2, 3], "sojourn", 4401, ""]
        assert context.cookies() == []
        context.close()
