"""Serves the programs of the recipes from temporary folders; Chromium of the browser tests.

`make test-ui` installs the frameworks; elsewhere these tests are skipped.
"""

import shutil

import httpx
import pytest

from tests.browser.conftest import chromium
from tests.support.servers import Server

__all__ = ["chromium"]


@pytest.fixture
def serve(repository, tmp_path, monkeypatch):
    """Return a function that starts a program of ``tests/ui/programs`` and returns its server."""
    for program in (repository / "tests" / "ui" / "programs").glob("*.py"):
        shutil.copy(program, tmp_path)
    running = []

    def start(*command):
        monkeypatch.delenv("PYTEST_CURRENT_TEST")  # NiceGUI would start in its own test mode
        server = Server(command, tmp_path)
        server.__enter__()
        running.append(server)
        return server

    yield start
    for server in running:
        server.__exit__(None, None, None)
        assert "Traceback" not in server.log


@pytest.fixture
def visitor():
    """Return a function that opens a client of a server, with a cookie jar."""
    clients = []

    def open_client(server):
        client = httpx.Client(base_url=server.url, follow_redirects=True, timeout=30)
        clients.append(client)
        return client

    yield open_client
    for client in clients:
        client.close()
