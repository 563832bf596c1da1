"""The PostgreSQL servers of the tests start and are removed completely."""

import os
from pathlib import Path

import psycopg
import pytest

from tests.integration.postgresql import PgBouncer, Postgres
from tests.integration.postgresql_binaries import INSTALLED, NEEDS_INSTALLED, NEEDS_PGBOUNCER


@pytest.fixture
def server():
    server = Postgres()
    server.start()
    yield server
    server.remove()


def test_removed_server_leaves_no_process_and_no_file():
    server = Postgres()
    server.start()
    folder, processes = server.folder, server.processes()
    assert len(processes) > 1
    server.remove()
    assert not folder.exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in processes)
    assert not server.is_running


def test_server_that_does_not_start_reports_the_cause_and_is_removed():
    server = Postgres({"no_such_option": "1"})
    with pytest.raises(AssertionError, match="it ended") as caught:
        server.start()
    assert "no_such_option" in str(caught.value.__notes__)
    assert server.folder is None
    assert not server.is_running


@pytest.mark.slow
def test_data_is_kept_by_a_restart_and_deleted_by_a_reset(server):
    server.query("CREATE TABLE kept (id int)")
    for mode in ("fast", "immediate"):
        server.restart(mode)
        assert server.query("SELECT count(*) FROM kept") == [(0,)]
    server.reset()
    with pytest.raises(psycopg.errors.UndefinedTable):
        server.query("SELECT * FROM kept")


@pytest.mark.slow
def test_hanging_server_replies_on_no_connection(server):
    with server.admin() as connection:
        with server.hanging():
            with pytest.raises(psycopg.OperationalError, match="timeout expired"):
                psycopg.connect(server.url, connect_timeout=2)
            states = [Path(f"/proc/{pid}/stat").read_text() for pid in server.processes()]
            # Z: a zombie, which the stopped postmaster cannot reap.
            assert {state.rpartition(")")[2].split()[0] for state in states} <= {"T", "Z"}
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.slow
def test_a_promoted_replica_has_the_data_and_accepts_writes(server):
    server.query("CREATE TABLE kept (id int)")
    replica = server.make_replica()
    try:
        server.query("INSERT INTO kept VALUES (1)")
        server.wait_for_replica()
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            replica.query("INSERT INTO kept VALUES (2)")
        replica.promote()
        replica.query("INSERT INTO kept VALUES (2)")
        assert replica.query("SELECT id FROM kept ORDER BY id") == [(1,), (2,)]
    finally:
        replica.remove()


@pytest.mark.slow
@NEEDS_INSTALLED
def test_installed_server_and_packaged_server_run_in_parallel(server):
    other = Postgres(programs=INSTALLED)
    other.start()
    try:
        versions = [each.query("SHOW server_version_num")[0][0] for each in (server, other)]
        assert versions[0] != versions[1]
    finally:
        other.remove()


@pytest.mark.slow
@NEEDS_PGBOUNCER
def test_pgbouncer_pools_transactions(server):
    bouncer = PgBouncer(server, {"default_pool_size": "1"})
    bouncer.start()
    try:
        processes = set()
        connections = [psycopg.connect(bouncer.url, autocommit=True) for _ in range(3)]
        for connection in connections:
            processes |= {connection.execute("SELECT pg_backend_pid()").fetchone()}
        assert len(processes) == 1
        for connection in connections:
            connection.close()
    finally:
        bouncer.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts servers as another user")
def test_a_server_runs_unprivileged(server):
    status = Path(f"/proc/{server.pid}/status").read_text()
    assert "Uid:\t0" not in status
