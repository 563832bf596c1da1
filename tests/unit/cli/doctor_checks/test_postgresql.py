"""Problems of PostgreSQL servers and of PgBouncer, planted in real servers."""

import contextlib
import time
from urllib.parse import quote

import psycopg_pool
import pytest

from sojourn import Sessions
from sojourn.cli.doctor_checks import deep_check
from sojourn.cli.doctor_checks import postgresql as checks
from sojourn.stores.postgresql import inspection
from sojourn.stores.postgresql.store import PostgresStore
from tests.integration.postgresql import PgBouncer, Postgres
from tests.integration.postgresql_binaries import NEEDS_PGBOUNCER
from tests.integration.valkey_groups import until
from tests.support.examination import SECRET, assert_healthy, examined, found
from tests.support.fake_server import answering


@pytest.fixture(scope="module")
def durable_server():
    """A server that waits for the disk, as in production."""
    server = Postgres(durable=True)
    server.start()
    yield server
    server.remove()


@pytest.fixture
def empty(shared_postgresql):
    """A server without tables; it does not wait for the disk, which is one more finding."""
    return emptied(shared_postgresql)


@pytest.fixture
def server(empty):
    """The same with the tables of sojourn and a session."""
    return filled(empty)


@pytest.fixture
def production(durable_server):
    """A healthy server with the tables of sojourn and a session."""
    return filled(emptied(durable_server))


def emptied(server):
    roles = server.query("SELECT rolname FROM pg_roles WHERE rolname LIKE 'visitor%'")
    for (role,) in roles:
        server.query(f'DROP OWNED BY "{role}"')
        server.query(f'DROP ROLE "{role}"')
    server.reset()
    return server


def filled(server):
    sessions = Sessions(store=server.url, secret=SECRET)
    with contextlib.closing(sessions), sessions.open() as visit:
        visit.session["a"] = 1
    return server


def role_url(server, role="visitor", **options):
    query = "&".join(f"{name}={quote(value)}" for name, value in options.items())
    return f"postgresql://{role}@127.0.0.1:{server.port}/postgres?{query}"


@pytest.fixture
def role(server):
    """The URL of a user with exactly the documented privileges."""
    return add_role(server)


def add_role(server):
    server.query("CREATE ROLE visitor LOGIN")
    server.query("GRANT USAGE ON SCHEMA public TO visitor")
    tables = "sojourn_sessions, sojourn_cutoffs, sojourn_keys, sojourn_history"
    server.query(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO visitor")
    server.query("GRANT SELECT ON sojourn_schema TO visitor")
    return role_url(server)


def rows(server):
    return server.query("SELECT * FROM sojourn_sessions ORDER BY id")


@pytest.mark.slow
def test_a_healthy_server_has_no_findings_and_keeps_nothing(production):
    before = rows(production)
    report = examined(production.url)
    assert_healthy(report)
    assert report.server.startswith("PostgreSQL 1")
    assert rows(production) == before


@pytest.mark.slow
def test_a_user_with_the_documented_privileges_is_healthy(production):
    assert_healthy(examined(add_role(production)))


def test_another_secret_than_the_applications(server):
    """B-48: the fingerprint of the wrong secret is not registered."""
    report = examined(server.url, secret_text="of-another-machine-3Gk9TzW5")
    found(report, "secret-other", "'default'", "give every process the same secret")
    assert server.query("SELECT count(*) FROM sojourn_keys") == [(1,)]


def test_missing_tables_are_not_created(empty):
    report = examined(empty.url)
    found(report, "postgresql-schema-missing", "may create them", "sojourn schema postgresql")
    assert empty.query("SELECT to_regclass('sojourn_sessions')") == [(None,)]
    report = examined(f"{empty.url}?schema=typo")
    found(report, "postgresql-schema-missing", "a schema that does not exist")


def test_a_user_who_may_not_create_the_tables(empty):
    empty.query("CREATE ROLE visitor LOGIN")
    report = examined(role_url(empty))
    found(report, "postgresql-schema-missing", "may not create them")


def test_tables_of_an_older_release_are_not_migrated(server):
    server.query("UPDATE sojourn_schema SET version = 0")
    report = examined(server.url)
    found(report, "postgresql-schema-older", "version 0", "restart all processes")
    assert server.query("SELECT version FROM sojourn_schema") == [(0,)]


def test_tables_of_a_newer_release(server):
    server.query("UPDATE sojourn_schema SET version = 99")
    found(examined(server.url), "postgresql-schema-newer", "version 99", "upgrade sojourn")


@pytest.mark.parametrize(
    ("statement", "missing"),
    [
        ("REVOKE UPDATE ON sojourn_sessions FROM visitor", "UPDATE on sojourn_sessions"),
        ("REVOKE INSERT ON sojourn_history FROM visitor", "INSERT on sojourn_history"),
        ("REVOKE SELECT ON sojourn_schema FROM visitor", "SELECT on sojourn_schema"),
    ],
)
def test_missing_privileges(server, role, statement, missing):
    server.query(statement)
    report = examined(role)
    found(report, "postgresql-privileges", missing, "GRANT SELECT, INSERT, UPDATE, DELETE")


def test_a_schema_that_the_user_may_not_use(server, role):
    server.query("REVOKE USAGE ON SCHEMA public FROM visitor, public")
    try:
        report = examined(role_url(server, schema="public"))
    finally:
        server.query("GRANT USAGE ON SCHEMA public TO public")
    found(report, "postgresql-privileges", "USAGE on schema public", "GRANT USAGE ON SCHEMA")


def test_a_table_that_another_session_has_locked(server):
    """The examination ends in time, and its query does not wait in the server any longer."""
    with server.admin() as admin:
        admin.autocommit = False
        admin.execute("LOCK TABLE sojourn_keys")
        report = examined(server.url, timeout=1.0)
        found(report, "store-failing", "no answer to a query in 1 s", "pg_stat_activity")
        assert "deep check" in {each.name for each in report.checks if each.state == "skipped"}
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        until(lambda: admin.execute(waiting).fetchone() == (0,), "the query was cancelled")


#: AuthenticationOk, BackendKeyData and ReadyForQuery.
GREETING = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\1\0\0\0\2Z\0\0\0\x05I"
NOTICE = b"N\0\0\0\x1bSNOTICE\0C00000\0Mhello\0\0"


@pytest.mark.parametrize("answer", [b"", NOTICE * 1000])
def test_a_server_that_answers_no_query(answer, monkeypatch):
    """Neither silence nor notices without end keep the doctor longer than its timeout."""
    monkeypatch.setattr(inspection, "_CANCEL_TIMEOUT", 0.1)
    with answering(answer, pause=0.001, greeting=GREETING) as port:
        started_at = time.monotonic()
        report = examined(
            f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable", timeout=0.5
        )
    found(report, "store-unreachable", "no answer to a query in 0.5 s")
    assert time.monotonic() - started_at < 5


def test_the_port_of_another_program():
    with answering(b"\0\1garbage" * 10) as port:
        report = examined(f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable")
    found(report, "store-unreachable", "authentication request", "correct the port")


@pytest.mark.slow
def test_commits_that_do_not_wait_for_the_disk(production):
    url = add_role(production)
    production.query("ALTER ROLE visitor SET synchronous_commit = off")
    report = examined(url)
    found(report, "postgresql-synchronous-commit", "SET synchronous_commit = on")
    assert_healthy(examined(f"{url}durability=relaxed"))


@pytest.mark.slow
def test_a_server_without_fsync(production):
    production.query("ALTER SYSTEM SET fsync = off")
    production.query("SELECT pg_reload_conf()")
    try:
        report = examined(production.url)
        for _ in range(200):
            if report.findings:
                break
            time.sleep(0.02)  # another process reads its settings: there is only the clock
            report = examined(production.url)
    finally:
        production.query("ALTER SYSTEM RESET fsync")
        production.query("SELECT pg_reload_conf()")
    found(report, "postgresql-fsync", "off: fsync", "postgresql.conf")
    until(lambda: production.query("SHOW fsync") == [("on",)], "fsync is on")


def test_a_statement_timeout_that_is_too_short(server, role):
    server.query("ALTER ROLE visitor SET statement_timeout = '250ms'")
    found(examined(role), "postgresql-statement-timeout", "250 ms", "SET statement_timeout = '10s'")


def test_too_few_connections(server, role, monkeypatch):
    monkeypatch.setattr(deep_check, "_MAX_SUBSCRIBING", 0.2)
    server.query("ALTER ROLE visitor CONNECTION LIMIT 3")
    found(examined(role), "postgresql-connections", "2 connections are free", "PgBouncer")
    server.query("ALTER ROLE visitor CONNECTION LIMIT 0")
    found(examined(role), "postgresql-connections", "too many connections")


def test_a_user_whose_transactions_are_read_only(server, role):
    server.query("ALTER ROLE visitor SET default_transaction_read_only = on")
    found(examined(role), "postgresql-read-only", "RESET default_transaction_read_only")


def test_a_database_that_does_not_exist(server):
    url = f"postgresql://postgres@127.0.0.1:{server.port}/shpo"
    found(examined(url), "store-database", '"shpo" does not exist', "correct the database")


def test_a_user_that_does_not_exist(server):
    found(examined(role_url(server, "visitor_typo")), "store-login", "visitor_typo")


@pytest.mark.slow
def test_a_wrong_password(production):
    production.query("CREATE ROLE visitor_guarded LOGIN PASSWORD 'correct-horse'")
    rules = production.data / "pg_hba.conf"
    before = rules.read_text()
    try:
        rules.write_text(f"host all visitor_guarded 127.0.0.1/32 scram-sha-256\n{before}")
        production.query("SELECT pg_reload_conf()")
        report = examined(role_url(production, "visitor_guarded:wrong-battery"))
        for _ in range(200):  # the server reads the rules soon: there is only the clock
            if report.findings:
                break
            time.sleep(0.02)  # as above
            report = examined(role_url(production, "visitor_guarded:wrong-battery"))
        found(report, "store-login", "correct user and password in the URL")
        assert "wrong-battery" not in repr(report)
        found(examined(role_url(production, "visitor_guarded")), "store-login", "password")
    finally:
        rules.write_text(before)
        production.query("SELECT pg_reload_conf()")


def test_an_unreachable_server():
    report = examined("postgresql://postgres@127.0.0.1:1/postgres")
    found(report, "store-unreachable", "Connection refused", "start the server")
    assert not report.reached


def test_tls_where_the_server_has_none(server):
    report = examined(f"{server.url}?sslmode=require")
    found(report, "store-tls", "does not support SSL", "sslmode=disable")


def test_an_old_server(server, monkeypatch):
    """No server of these tests is too old, so this release expects a newer one."""
    monkeypatch.setattr(checks, "_OLDEST", 990_000)
    found(examined(server.url), "postgresql-version", "PostgreSQL 1", "upgrade the server")


def test_unreadable_records(server):
    """S9."""
    server.query("UPDATE sojourn_sessions SET record = '\\x00'::bytea")
    found(examined(server.url), "records-unreadable", "1 of 1 records", "upgrade sojourn here")


def test_expired_records_that_no_purge_removes(server):
    """S8."""
    with contextlib.closing(Sessions(store=server.url, secret=SECRET)) as sessions:
        for _ in range(25):
            with sessions.open() as visit:
                visit.session["a"] = 1
    server.query(
        "UPDATE sojourn_sessions SET seen_at = 0, expires_at = 1, "
        "record = overlay(record placing int8send(0) from 11 for 8)"
    )
    found(examined(server.url), "records-purge-lag", "26 of 26 records", "sojourn purge")


@pytest.mark.slow
def test_a_pool_of_the_application(production):
    with psycopg_pool.ConnectionPool(production.url, min_size=1, max_size=8) as pool:
        pool.wait()
        with contextlib.closing(PostgresStore(pool=pool)) as store:
            assert_healthy(examined(store=store))


@pytest.mark.slow
def test_a_pool_that_is_not_open(production):
    pool = psycopg_pool.ConnectionPool(production.url, open=False)
    with contextlib.closing(PostgresStore(pool=pool)) as store:
        report = examined(store=store)
    found(report, "store-unusable", "Open the pool before the first request", "--store URL")


@pytest.mark.slow
def test_a_replica(production):
    replica = production.make_replica()
    try:
        report = examined(replica.url)
    finally:
        replica.remove()
    found(report, "postgresql-replica", "in recovery", "address of the primary")


# PgBouncer


@contextlib.contextmanager
def bouncer(server, **options):
    pooler = PgBouncer(server, options)
    pooler.start()
    try:
        yield pooler
    finally:
        pooler.stop()


@pytest.mark.slow
@NEEDS_PGBOUNCER
def test_transaction_mode_needs_other_options(production, monkeypatch):
    """PgBouncer before 1.21 has no prepared statements, and none delivers notifications."""
    monkeypatch.setattr(deep_check, "_MAX_SUBSCRIBING", 1.0)
    with bouncer(production) as pooler:
        report = examined(pooler.url)
        found(report, "pooler-listen", "add ?listen_url=")
        found(report, "pooler-prepared-statements", "prepare_threshold=none")
        found(report, "pooler-found", "transaction mode")
        found(report, "broadcast-lost", "did not begin", "listen_url=")
        listen = quote(production.url, safe="")
        report = examined(f"{pooler.url}?prepare_threshold=none&listen_url={listen}")
        found(report, "pooler-found", "transaction mode", "docs/postgresql.md")
        assert_healthy(report)


@pytest.mark.slow
@NEEDS_PGBOUNCER
def test_session_mode(production):
    listen = quote(production.url, safe="")
    with bouncer(production, pool_mode="session") as pooler:
        report = examined(f"{pooler.url}?listen_url={listen}")
    found(report, "pooler-found", "session mode")
    assert_healthy(report)


@pytest.mark.slow
@NEEDS_PGBOUNCER
def test_statement_mode(production):
    with bouncer(production, pool_mode="statement") as pooler:
        report = examined(pooler.url)
    found(report, "pooler-statement-mode", "rejects BEGIN", "pool_mode = transaction")
