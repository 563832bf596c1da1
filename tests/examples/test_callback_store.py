"""examples/callback_store.py, under uvicorn and over a real Valkey."""

import httpx
import pytest
import redis

from tests.integration.valkey import Valkey
from tests.support.processes import serving

SECRET = "7jQk2v9XwP4tLmZ8sRb1NcYd6HfGa3Ue"
SERVER = ("uvicorn", "examples.callback_store:app", "--port", "PORT")


@pytest.fixture
def valkey(tmp_path):
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.stop()


def test_example_counts_shares_and_revokes_sessions(valkey, tmp_path):
    """An example of the original requirements; a store failure is an error."""
    settings = {"REDIS_URL": valkey.url, "SOJOURN_SECRET": SECRET}
    with serving(*SERVER, folder=tmp_path, environ=settings) as url, httpx.Client() as ada:
        assert [ada.get(url).text for _ in range(3)] == ["visit 1\n", "visit 2\n", "visit 3\n"]
        assert httpx.get(url).text == "visit 1\n"

        # Another worker, started later, has the same sessions.
        with serving(*SERVER, folder=tmp_path, environ=settings) as other:
            assert ada.get(other).text == "visit 4\n"

        # Valkey has one expiring key per session and no ticket.
        client = redis.Redis.from_url(valkey.url)
        keys = client.keys("session:*")
        assert len(keys) == 2
        assert all(30 * 60 - 5 < client.ttl(key) <= 31 * 60 for key in keys)
        ticket = next(iter(ada.cookies.values()))
        assert not any(ticket.encode() in client.get(key) for key in keys)

        # In the original, a storage error became an empty session.
        with valkey.hanging():
            answer = ada.get(url)
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "2"
            assert "set-cookie" not in answer.headers
        assert ada.get(url).text == "visit 5\n"

        assert ada.post(f"{url}/logout").text == "logged out\n"
        assert ada.get(url).text == "visit 1\n"
        ada.cookies.set("sid", ticket)
        assert ada.get(url).text == "visit 1\n"
