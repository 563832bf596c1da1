"""A page of one origin and an API of another, and streams, through uvicorn (laws A13 and A23)."""

import time

import httpx
import pytest

from tests.support.servers import Server

PAGE = "http://localhost:5173"
COMMAND = ("uvicorn", "tests.integration.apps.spa:app", "--port", "{port}")


@pytest.fixture
def server(tmp_path):
    with Server(COMMAND, tmp_path, options={"page": PAGE}) as started:
        yield started


def test_page_of_another_origin_uses_its_session(server):
    """A23: for example a page of Vite's development server."""
    headers = {"origin": PAGE, "sec-fetch-site": "same-site", "accept": "application/json"}
    with httpx.Client(base_url=server.url, headers=headers) as client:
        preflight = {"access-control-request-method": "POST"}
        assert client.options("/count", headers=preflight).status_code == 200
        for number in (1, 2):
            reply = client.post("/count")
            assert reply.json() == number
            assert reply.headers["access-control-allow-origin"] == PAGE
            assert reply.headers["access-control-allow-credentials"] == "true"
        client.get("/outage")
        reply = client.post("/count")
        assert reply.status_code == 503
        assert reply.headers["access-control-allow-origin"] == PAGE
        assert "unavailable" in reply.json()["detail"]
        reply = client.post("/count", headers={"origin": "http://localhost:9999"})
        assert reply.status_code == 403
        assert "allowed_origins" in reply.json()["detail"]
        assert client.post("/count").json() == 3
    assert "allowed_origins" in server.log


def test_headers_of_an_event_stream_are_sent_before_its_first_event(server):
    """A13: its headers are private."""
    started = time.monotonic()
    with httpx.Client(base_url=server.url) as client, client.stream("GET", "/events") as reply:
        assert time.monotonic() - started < 10
        assert reply.headers["vary"] == "Cookie, Origin"
        assert reply.headers["cache-control"] == "private"


def test_late_access_in_a_body_of_known_length_is_private(server):
    """A13: for visitors with and without a session."""
    with httpx.Client(base_url=server.url) as client:
        for expected in ("n=00", "n=01"):
            reply = client.get("/late")
            assert reply.text == expected
            assert "Cookie" in reply.headers["vary"]
            assert reply.headers["cache-control"] == "private"
            client.post("/count")
