"""Connections: own ones and those of a pool, after a fork, a restart and close."""

import asyncio
import gc
import os
import threading
import warnings

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from sojourn._core.concurrency import run
from sojourn.errors import ConfigurationError, StoreError, StoreUnavailable
from sojourn.store import SAVED
from sojourn.stores.postgresql import PostgresStore, connection
from sojourn.stores.postgresql.errors import ServerError, as_store_error
from sojourn.stores.urls import open_store
from sojourn.testing.records import make_record, next_version
from tests.support.postgresql_faults import fails_within, until


@pytest.fixture
def store(postgresql):
    store = open_store(postgresql.url, realm="default", timeout=5.0)
    yield store
    store.close()


def wait_for_connections(server, number):
    ended = threading.Event()
    for _ in range(100):
        if server.connections() == number:
            return
        ended.wait(0.05)  # a server process ends after its connection
    assert server.connections() == number


class TestOwnConnections:
    def test_a_save_after_a_restart_of_the_server_succeeds(self, postgresql, store):
        """S12: a closed idle connection is replaced before the save is sent."""
        record = make_record()
        run(store.create(record))
        postgresql.restart()
        assert run(store.save(next_version(record), 1)) is SAVED

        async def in_loop():
            assert await store.load(record.id) is not None
            assert await store.touch(record) is True
            await asyncio.to_thread(postgresql.restart)
            assert await store.touch(record) is True
            await asyncio.to_thread(postgresql.restart)
            await asyncio.sleep(0.05)  # the loop detects the end of the connection
            assert await store.touch(record) is True

        asyncio.run(in_loop())

    def test_a_read_is_repeated_when_its_connection_breaks_but_a_save_is_not(
        self, store, monkeypatch
    ):
        """S12: the save may have been executed."""
        record = make_record()
        run(store.create(record))
        exchange, failures = connection.exchange, []

        def failing(*arguments):
            if failures:
                raise failures.pop()
            return exchange(*arguments)

        monkeypatch.setattr(connection, "exchange", failing)
        failures.append(psycopg.OperationalError("cut"))
        assert run(store.load(record.id)) == record
        failures.append(psycopg.OperationalError("cut"))
        assert run(store.touch(record)) is True
        failures.append(psycopg.OperationalError("cut"))
        with pytest.raises(StoreUnavailable, match=r"the connection broke \(cut\)"):
            run(store.save(next_version(record), 1))
        assert run(store.load(record.id)) == record

    def test_close_closes_all_connections(self, postgresql, store):
        """Also those of a loop that has ended."""

        async def work():
            await store.create(make_record())
            await store.load(bytes(16))
            await store.count(0)

        asyncio.run(work())
        run(work())
        assert postgresql.connections() == 6
        store.close()
        store.close()
        wait_for_connections(postgresql, 0)
        with pytest.raises(StoreError, match="was closed"):
            run(store.load(bytes(16)))

    def test_a_batch_in_flight_fails_when_the_store_is_closed(self, postgresql, store):
        """S12: before its deadline."""
        record = make_record()
        run(store.create(record))

        async def work():
            with postgresql.admin() as holder, holder.transaction():
                holder.execute("SELECT FROM sojourn_sessions FOR UPDATE")
                save = asyncio.create_task(store.save(next_version(record), 1))
                waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                await until(lambda: postgresql.query(waits) == [(1,)], "the save waits")
                store.close()
                await fails_within(save, 2.0, match="the connection broke")

        asyncio.run(work())

    def test_a_libpq_with_blocking_cancel_cancels_in_a_thread(self):
        """S12: before version 17, a cancel request waits for the network."""
        sent, may_end, threads = threading.Event(), threading.Event(), []

        class OldConnection:
            def cancel_conn(self):
                raise psycopg.NotSupportedError("libpq is too old")

            def get_cancel(self):
                return self

            def cancel(self):
                threads.append(threading.current_thread())
                sent.set()
                may_end.wait(10)

        async def work():
            connection.cancel_in_loop(OldConnection())
            assert await asyncio.to_thread(sent.wait, 10)

        asyncio.run(work())
        may_end.set()
        (thread,) = threads
        assert thread is not threading.main_thread()
        thread.join(10)

    def test_connections_of_an_ended_loop_are_closed(self, postgresql, store):
        for _ in range(3):
            asyncio.run(store.load(bytes(16)))
        assert postgresql.connections() <= 2

    def test_a_forked_child_opens_its_own_connections(self, postgresql, store):
        """S10: those of the parent stay usable, also after the child has ended."""
        record = make_record()
        run(store.create(record))

        async def in_loop():
            assert await store.load(record.id) == record
            child = os.fork()
            if child == 0:
                os._exit(self.work_in_child(store, record))
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            assert status == 0
            assert await store.load(record.id) == record

        with warnings.catch_warnings():
            # The child has one thread, which does not run code of the other tests.
            warnings.simplefilter("ignore", DeprecationWarning)
            asyncio.run(in_loop())
        assert run(store.load(record.id)) == record

    @staticmethod
    def work_in_child(store, record):
        """Return the exit status."""
        gc.collect()
        found = []
        worker = threading.Thread(target=lambda: found.append(run(store.load(record.id))))
        worker.start()
        worker.join(10)
        return 0 if found == [record] else 1

    def test_an_unreachable_server_fails_before_the_deadline(self, postgresql):
        """S12: the refused connection is reported at once, without the password."""
        store = open_store("postgresql://ada:secret@127.0.0.1:1/shop", realm="default", timeout=1.0)
        with pytest.raises(StoreUnavailable, match="could not be reached") as caught:
            run(store.load(bytes(16)))
        assert "secret" not in str(caught.value)
        with pytest.raises(StoreUnavailable, match="could not be reached"):
            asyncio.run(store.load(bytes(16)))
        store.close()

    def test_a_host_name_without_an_address_is_unavailable(self):
        """S12."""
        store = open_store("postgresql://missing.invalid/shop", realm="default", timeout=5.0)
        with pytest.raises(StoreUnavailable, match="could not be reached"):
            asyncio.run(store.load(bytes(16)))
        store.close()

    def test_a_name_that_is_not_resolved_in_time_is_unavailable(self):
        """S12: the text says so instead of naming no reason."""

        async def load():
            async def getaddrinfo(*_, **__):
                await asyncio.sleep(30)

            asyncio.get_running_loop().getaddrinfo = getaddrinfo
            await store.load(bytes(16))

        store = open_store("postgresql://db.example/shop", realm="default", timeout=0.1)
        with pytest.raises(StoreUnavailable, match="name was not resolved in time"):
            asyncio.run(load())
        store.close()

    def test_a_name_is_resolved_without_blocking_the_loop(self, postgresql):
        url = postgresql.url.replace("127.0.0.1", "localhost")
        store = open_store(url, realm="default", timeout=5.0)
        assert asyncio.run(store.load(bytes(16))) is None
        assert run(store.load(bytes(16))) is None
        store.close()


class TestPools:
    def test_a_connection_is_taken_from_the_pool_for_one_batch(self, postgresql):
        with ConnectionPool(postgresql.url, min_size=1, max_size=1) as pool:
            store = PostgresStore(pool=pool, timeout=5.0)
            record = make_record()
            assert run(store.create(record)) is True
            with pool.connection() as client:
                assert client.execute("SELECT count(*) FROM sojourn_sessions").fetchone() == (1,)
            assert run(store.load(record.id)) == record
            store.close()
            with pool.connection() as client:
                client.execute("SELECT 1")

    def test_an_exhausted_pool_is_unavailable(self, postgresql):
        """S12."""
        with ConnectionPool(postgresql.url, min_size=1, max_size=1) as pool:
            store = PostgresStore(pool=pool, timeout=0.3)
            run(store.load(bytes(16)))
            with (
                pool.connection(),
                pytest.raises(StoreUnavailable, match="the pool has no connection"),
            ):
                run(store.load(bytes(16)))
            assert run(store.load(bytes(16))) is None
            store.close()

    def test_a_broken_connection_of_a_pool_is_replaced(self, postgresql):
        """S12: before a statement is sent on it."""
        with ConnectionPool(postgresql.url, min_size=2, max_size=2) as pool:
            pool.wait()
            store = PostgresStore(pool=pool, timeout=5.0)
            record = make_record()
            run(store.create(record))
            postgresql.restart()
            assert run(store.save(next_version(record), 1)) is SAVED
            store.close()

    def test_the_error_of_a_closed_pool_says_so(self, postgresql):
        pool = ConnectionPool(postgresql.url, open=False)
        store = PostgresStore(pool=pool, timeout=1.0)
        with pytest.raises(ConfigurationError, match="Open the pool before the first request"):
            run(store.load(bytes(16)))
        store.close()

    def test_an_asyncio_pool_requires_its_event_loop(self, postgresql):
        async def use():
            async with AsyncConnectionPool(postgresql.url, min_size=1, open=False) as pool:
                store = PostgresStore(pool=pool, timeout=5.0)
                record = make_record()
                assert await store.create(record) is True
                assert await store.load(record.id) == record
                return store

        store = asyncio.run(use())
        assert "ConnectionPool" in store.requires_event_loop()
        with pytest.raises(ConfigurationError, match="ConnectionPool"):
            run(store.load(bytes(16)))
        with pytest.raises(ConfigurationError, match="cannot leave the event loop"):
            asyncio.run(store.load(bytes(16)))
        store.close()

    def test_a_client_of_another_type_is_refused(self):
        with pytest.raises(ConfigurationError, match=r"expects psycopg_pool\.ConnectionPool"):
            PostgresStore(pool=object())

    def test_a_pool_without_prepared_statements_is_respected(self, postgresql):
        """The application has disabled them, for a pooler."""
        with ConnectionPool(
            postgresql.url, min_size=1, max_size=1, kwargs={"prepare_threshold": None}
        ) as pool:
            store = PostgresStore(pool=pool, timeout=5.0, prepare_threshold=0)
            for _ in range(3):
                run(store.load(bytes(16)))
            with pool.connection() as client:
                prepared = client.execute("SELECT count(*) FROM pg_prepared_statements")
                assert prepared.fetchone() == (0,)
            store.close()

    @pytest.mark.parametrize("schemas", [(None, None), (None, "other")])
    def test_statements_are_prepared_by_all_users_of_a_connection(
        self, postgresql, caplog, schemas
    ):
        """Loops, threads and other stores use the connections of a pool one after the other."""
        with ConnectionPool(postgresql.url, min_size=1, max_size=1) as pool:
            stores = [
                PostgresStore(pool=pool, timeout=5.0, schema=schema, prepare_threshold=0)
                for schema in schemas
            ]
            records = [make_record() for _ in stores]
            for store, record in zip(stores, records, strict=True):
                assert run(store.create(record)) is True
            for _ in range(2):
                for store, record in zip(stores, records, strict=True):
                    assert asyncio.run(store.load(record.id)) == record
                    assert run(store.load(record.id)) == record
            assert caplog.text == ""
            with pool.connection() as client:
                prepared = client.execute("SELECT count(*) FROM pg_prepared_statements")
                assert prepared.fetchone() == (2 * len(stores),)  # one to load, one to create
            for store in stores:
                store.close()

    def test_repr_contains_no_password(self, postgresql):
        """A18."""
        conninfo = "host=db user=ada password=secret dbname=shop"
        store = PostgresStore(pool=ConnectionPool(conninfo, open=False))
        assert repr(store) == "PostgresStore(db/shop, default)"
        store.close()

    def test_a_pool_with_a_computed_address_needs_a_listen_url(self, postgresql):
        """S17: the subscriber thread has its own connection."""
        pool = ConnectionPool(lambda: postgresql.url, open=False)
        store = PostgresStore(pool=pool)
        with pytest.raises(StoreError, match="listen_url"):
            store._source.connect(1.0)
        store.close()


class TestErrors:
    @pytest.mark.parametrize(
        ("sqlstate", "kind", "text"),
        [
            ("53100", StoreUnavailable, "free some space"),
            ("53300", StoreUnavailable, "max_connections"),
            ("57P01", StoreUnavailable, "try again later"),
            ("57014", StoreUnavailable, "try again later"),
            ("08006", StoreUnavailable, "try again later"),
            ("40P01", StoreUnavailable, "try again later"),
            ("55P03", StoreUnavailable, "try again later"),
            ("25006", StoreUnavailable, "name the primary"),
            ("28P01", StoreUnavailable, "user and password"),
            ("42501", StoreUnavailable, "grant the user"),
            ("42P01", StoreError, "`sojourn schema postgresql`"),
            ("42703", StoreError, "schema="),
            ("22003", StoreError, "nothing was written"),
        ],
    )
    def test_an_error_of_the_server_contains_advice(self, sqlstate, kind, text):
        """S12, A15."""
        error = as_store_error(ServerError("no", sqlstate=sqlstate), "the store")
        assert type(error) is kind
        assert text in str(error)
        assert sqlstate in str(error)

    def test_a_statement_timeout_of_the_role_keeps_the_connection(self, postgresql, store):
        """S12: it rolls back the statement only."""
        record = make_record()
        run(store.create(record))
        with postgresql.admin() as holder, holder.transaction():
            holder.execute("SELECT FROM sojourn_sessions FOR UPDATE")
            postgresql.query("ALTER ROLE postgres SET statement_timeout = '200ms'")
            fresh = open_store(postgresql.url, realm="default", timeout=5.0)
            try:
                with pytest.raises(StoreUnavailable, match="57014"):
                    run(fresh.save(next_version(record), 1))
            finally:
                postgresql.query("ALTER ROLE postgres RESET statement_timeout")
        assert run(fresh.save(next_version(record), 1)) is SAVED
        fresh.close()

    def test_a_connection_to_a_read_only_server_is_closed(self, postgresql, store):
        """S12: a former primary; the next call reconnects, and may reach another server."""
        record = make_record()
        run(store.create(record))
        postgresql.query("ALTER DATABASE postgres SET default_transaction_read_only = on")
        fresh = open_store(postgresql.url, realm="default", timeout=5.0)
        try:
            assert run(fresh.load(record.id)) == record
            with pytest.raises(StoreUnavailable, match="25006"):
                run(fresh.save(next_version(record), 1))
        finally:
            with postgresql.admin(options="-c default_transaction_read_only=off") as admin:
                admin.execute("ALTER DATABASE postgres RESET default_transaction_read_only")
        assert run(fresh.save(next_version(record), 1)) is SAVED
        fresh.close()
