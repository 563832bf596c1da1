"""PostgresStore keeps every law of stores (S), with and without an event loop."""

import contextlib
import time
from urllib.parse import quote

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from sojourn._core.concurrency import complete, run, running_loop
from sojourn.stores.postgresql import PostgresStore, connection, pools
from sojourn.stores.postgresql.pipeline import exchange
from sojourn.stores.urls import open_store
from sojourn.testing import decorators
from sojourn.testing.records import now
from sojourn.testing.store_suite.counting import check_estimate
from tests.contract.store_suite import StoreSuite
from tests.integration.postgresql import PgBouncer
from tests.integration.postgresql_binaries import NEEDS_PGBOUNCER
from tests.support.million_sessions import fill


class OnServer(StoreSuite):
    """Parts that the tests share: a server that they can inspect."""

    timeout = 2.0
    publishes_changes = False  # a notification costs more than half of the throughput of writes
    options = ""
    history_table = "sojourn_history"

    @pytest.fixture(autouse=True)
    def server(self, postgresql, monkeypatch):
        self.postgresql = postgresql
        self.exchanges = 0

        def counting(*arguments):
            self.exchanges += 1
            return exchange(*arguments)

        monkeypatch.setattr(connection, "exchange", counting)
        monkeypatch.setattr(pools, "exchange", counting)

    def make_store(self, realm):
        return open_store(self.store_url(), realm=realm, timeout=self.timeout)

    def store_url(self):
        return self.postgresql.url + self.options

    async def overwrite(self, store, session_id, data):
        self.postgresql.query(
            "UPDATE sojourn_sessions SET record = %s WHERE id = %s", data, session_id
        )

    async def add_raw_history(self, store, data):
        self.postgresql.query(
            f"INSERT INTO {self.history_table} (realm, ended_at, expires_at, entry) "  # noqa: S608 - a constant
            "VALUES ('default', %s, 9999999999999, %s)",
            time.time_ns() // 1_000_000,
            data,
        )

    def outage(self, kind):
        return self.postgresql.refusing() if kind == "refuse" else self.postgresql.hanging()

    def round_trips(self, store):
        return self.exchanges

    async def index_size(self, store):
        listed = (
            "SELECT count(*) FROM sojourn_sessions "
            "WHERE user_key IS NOT NULL OR idp_key IS NOT NULL"
        )
        cutoffs = "SELECT count(*) FROM sojourn_cutoffs WHERE name <> ''::bytea"
        return sum(self.postgresql.query(query)[0][0] for query in (listed, cutoffs))


class TestOverTCP(OnServer):
    """S1 to S18."""


@pytest.mark.slow
class TestRelaxed(OnServer):
    """S1 to S18 over a Unix socket, with commits that do not wait for the disk."""

    def store_url(self):
        return f"{self.postgresql.socket_url}&durability=relaxed"


@pytest.mark.slow
class TestSerializable(OnServer):
    """S1 to S18 in a database whose transactions are serializable unless they say otherwise."""

    @pytest.fixture(autouse=True)
    def isolation(self, server):
        self.postgresql.query(
            "ALTER DATABASE postgres SET default_transaction_isolation = 'serializable'"
        )
        yield
        self.postgresql.query("ALTER DATABASE postgres RESET default_transaction_isolation")


@NEEDS_PGBOUNCER
@pytest.mark.slow
class TestPgBouncer(OnServer):
    """S1 to S18 through a pooler in transaction mode."""

    @pytest.fixture(autouse=True)
    def pooler(self, server):
        self.pgbouncer = PgBouncer(self.postgresql)
        self.pgbouncer.start()
        yield
        self.pgbouncer.stop()

    @contextlib.contextmanager
    def outage(self, kind):
        with super().outage(kind):
            yield
        # The pooler reports the failure to clients until it has connected again.
        for _ in range(50):
            try:
                with psycopg.connect(self.pgbouncer.url, connect_timeout=5) as client:
                    client.execute("SELECT 1")
                    return
            except psycopg.OperationalError:
                time.sleep(0.1)  # the pooler's own delay is 0.2 seconds

    def store_url(self):
        listen_url = quote(self.postgresql.url, safe="")
        return f"{self.pgbouncer.url}?prepare_threshold=none&listen_url={listen_url}"


@pytest.mark.slow
class TestBlockingPool(OnServer):
    """S1 to S18 over a blocking pool of the application."""

    def make_store(self, realm):
        # The pool's own threads fill and repair it.
        pool = ConnectionPool(self.postgresql.url, min_size=1, max_size=4, open=True)
        self.pools.append(pool)
        return PostgresStore(pool=pool, realm=realm, timeout=self.timeout)

    @pytest.fixture(autouse=True)
    def closed_pools(self, server):
        self.pools = []
        yield
        for pool in self.pools:
            pool.close()

    def store_url(self):
        pytest.skip("a pool has no URL")

    def outage(self, kind):
        pytest.skip("the pool reconnects after its own delays, seconds after the server is back")


@pytest.mark.slow
class TestAsyncPool(OnServer):
    """S1 to S18 over an asyncio pool of the application."""

    requires_event_loop = True

    @pytest.fixture(autouse=True)
    def closed_pools(self, server, monkeypatch):
        """Close the pools in their loop."""
        self.pools = []
        with_timeout = decorators._with_timeout

        async def closing(coroutine):
            try:
                return await with_timeout(coroutine)
            finally:
                for pool in self.pools:
                    await pool.close()

        monkeypatch.setattr(decorators, "_with_timeout", closing)

    def outage(self, kind):
        pytest.skip("the pool reconnects after its own delays, seconds after the server is back")

    def make_store(self, realm):
        pool = AsyncConnectionPool(self.postgresql.url, min_size=1, max_size=4, open=False)
        self.pools.append(pool)
        if running_loop() is not None:
            complete(pool.open())  # suspends only if another task opens it
        return PostgresStore(pool=pool, realm=realm, timeout=self.timeout)

    def store_url(self):
        pytest.skip("a pool has no URL")


def test_the_count_of_a_large_table_is_an_estimate(postgresql, monkeypatch):
    """From pages that the server samples."""
    fill(postgresql.url, 30_000, ended=3_000)
    fill(postgresql.url, 10_000, realm="other", seed=1)
    store = open_store(postgresql.url, realm="default", timeout=10.0)
    at = now()
    assert run(store.count(at)).is_exact
    assert run(store.count(at)) == 27_000
    monkeypatch.setattr("sojourn.stores.postgresql.listing._MAX_COUNTED_PAGES", 10)
    monkeypatch.setattr("sojourn.stores.postgresql.listing._SAMPLED_PAGES", 800)
    check_estimate(run(store.count(at)), 27_000, error=0.25)  # nine standard deviations
    run(store.invalidate_all(at))
    assert run(store.count(at)) == 0
    store.close()
