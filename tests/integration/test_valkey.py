"""Valkey servers of the tests are removed completely and do not share ports."""

import runpy
from pathlib import Path

import pytest

from tests.integration import valkey
from tests.integration.valkey import PORTS, Valkey, free_port


def test_no_port_is_assigned_twice_nor_to_a_client():
    """Without this, a cluster of twelve ports got one port twice in each 230 starts."""
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200
    assert all(port in PORTS for port in ports)


def test_processes_of_pytest_xdist_have_different_ports(monkeypatch):
    """Two servers that start at once would choose one port in each 10,000 pairs."""
    parts = []
    for number in range(3):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", f"gw{number}")
        monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "3")
        parts.append(set(runpy.run_path(valkey.__file__)["PORTS"]))
    assert sum(map(len, parts)) == len(set.union(*parts)) == 10_000


def test_server_that_does_not_start_fails_at_once_and_is_removed(tmp_path):
    server = Valkey(tmp_path, "--no-such-option", "1")
    with pytest.raises(AssertionError, match="it ended"):
        server.start()
    assert not server.is_running
    assert not Path(server.socket).exists()


def test_stopped_server_leaves_no_process_and_no_file(tmp_path):
    server = Valkey(tmp_path)
    server.start()
    assert Path(server.socket).exists()
    process = server._process
    server.stop()
    assert process.poll() is not None
    assert not Path(server.socket).exists()
    assert list(tmp_path.iterdir()) == []
