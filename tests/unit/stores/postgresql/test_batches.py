"""Batches: the statements for calls of several callers, locks, settings and isolation levels."""

import asyncio
import secrets
import threading

import psycopg
import pytest

from sojourn._core.concurrency import run
from sojourn.errors import StoreError, StoreUnavailable
from sojourn.store import GONE, SAVED, Conflict, LimitPolicy, LoginSaved, SessionLimit
from sojourn.stores.postgresql import connection, pipeline, transactions
from sojourn.stores.postgresql.encoding import advisory_key, digest
from sojourn.stores.postgresql.errors import ServerError
from sojourn.stores.postgresql.schema import Schema
from sojourn.stores.postgresql.schema_migration import Migrator
from sojourn.stores.postgresql.statements import Statements
from sojourn.stores.urls import open_store
from sojourn.testing.decorators import in_threads
from sojourn.testing.records import MINUTE, login, make_body, make_record, next_version, save_login
from tests.support.postgresql_faults import until


@pytest.fixture
def open_url(postgresql):
    stores = []

    def open_url(options="", timeout=5.0):
        stores.append(open_store(postgresql.url + options, realm="default", timeout=timeout))
        return stores[-1]

    yield open_url
    for store in stores:
        store.close()


async def create_all(store, number, **fields):
    records = [make_record(**fields) for _ in range(number)]
    assert all(await store.create_many(records))
    return records


class TestOneBatch:
    """S13: callers of one batch do not affect each other."""

    def test_one_of_several_saves_of_a_session_in_one_tick_succeeds(self, open_url):
        """S3, S4: the others receive the stored record as a conflict."""
        store = open_url()

        async def check():
            (record,) = await create_all(store, 1)
            saves = [next_version(record, body=make_body(n=n)) for n in range(5)]
            results = await asyncio.gather(*[store.save(each, 1) for each in saves])
            assert results.count(SAVED) == 1
            stored = saves[results.index(SAVED)]
            assert [result for result in results if result is not SAVED] == [Conflict(stored)] * 4
            assert await store.load(record.id) == stored

        asyncio.run(check())

    def test_every_kind_of_call_can_share_a_batch(self, open_url):
        store = open_url("?durability=relaxed")

        async def check():
            one, two, three, four = await create_all(store, 4)
            new, gone = make_record(), make_record()
            results = await asyncio.gather(
                store.load(one.id),
                store.save(next_version(two), 1),
                store.save(next_version(three), 7),
                store.save(next_version(gone), 1),
                store.touch(three.with_seen_at(three.seen_at + MINUTE)),
                store.touch(gone),
                store.delete(four.id),
                store.delete(four.id),
                store.create(new),
                store.create(new),
                store.load(gone.id),
            )
            conflict = results[2]
            assert isinstance(conflict, Conflict)
            assert conflict.newer.id == three.id
            assert results[:2] + results[3:] == [
                *(one, SAVED, GONE, True, False, True, False, True, False, None)
            ]

        asyncio.run(check())

    def test_a_touch_keeps_the_limits_of_the_stored_record(self, postgresql, open_url):
        """S6: the caller's record may be of an earlier version."""
        store = open_url()
        record = make_record()
        run(store.create(record))
        saved = next_version(record, idle_timeout=7 * MINUTE)
        run(store.save(saved, 1))
        touched = record.with_seen_at(record.seen_at + MINUTE)
        assert run(store.touch(touched)) is True
        ((expires_at,),) = postgresql.query("SELECT expires_at FROM sojourn_sessions")
        assert expires_at == record.seen_at + 8 * MINUTE
        assert run(store.load(record.id)) == saved.with_seen_at(touched.seen_at)

    def test_an_unreadable_record_fails_only_its_own_caller(self, postgresql, open_url):
        """S9."""
        store = open_url()

        async def check():
            good, bad = await create_all(store, 2)
            postgresql.query(
                "UPDATE sojourn_sessions SET record = %s WHERE id = %s", b"\x07", bad.id
            )
            loaded = await asyncio.gather(
                store.load(good.id), store.load(bad.id), return_exceptions=True
            )
            assert loaded[0] == good
            assert type(loaded[1]).__name__ == "UnreadableRecord"

        asyncio.run(check())

    def test_a_failed_repetition_fails_only_its_own_callers(
        self, postgresql, open_url, monkeypatch
    ):
        """S13: results of other statements in the batch are returned."""
        store = open_url()
        (record,) = run(create_all(store, 1))
        exchange, calls = connection.exchange, []

        def failing(pgconn, transactions, prepared):
            """Roll back the save as after a deadlock, then lose the connection."""
            calls.append(len(transactions))
            if len(calls) > 1:
                raise psycopg.OperationalError("cut")
            outcomes = yield from exchange(pgconn, transactions, prepared)
            return [outcomes[0], ServerError("deadlock detected", sqlstate="40P01")]

        async def check():
            await store.load(record.id)
            await store.touch(record)
            monkeypatch.setattr(connection, "exchange", failing)
            new = make_record()
            results = await asyncio.gather(
                store.create(new), store.save(next_version(record), 1), return_exceptions=True
            )
            assert results[0] is True
            assert isinstance(results[1], StoreUnavailable)
            monkeypatch.undo()
            assert await store.load(new.id) == new

        asyncio.run(check())
        assert calls == [2, 1]

    def test_a_failed_retry_fails_only_its_own_callers(self, open_url, monkeypatch):
        """S13: the lost connection is replaced by one to a server with newer tables."""
        store = open_url()
        (record,) = run(create_all(store, 1))
        exchange, calls = connection.exchange, []

        async def refuse(*_):
            raise StoreError("the tables have version 2")

        def failing(pgconn, transactions, prepared):
            """Roll back the touch as after a deadlock, then lose the connection."""
            calls.append(len(transactions))
            if len(calls) > 1:
                monkeypatch.setattr(Migrator, "prepare", refuse)
                raise psycopg.OperationalError("cut")
            outcomes = yield from exchange(pgconn, transactions, prepared)
            return [outcomes[0], ServerError("deadlock detected", sqlstate="40P01")]

        async def check():
            await store.load(record.id)
            await store.touch(record)
            monkeypatch.setattr(connection, "exchange", failing)
            new = make_record()
            results = await asyncio.gather(
                store.create(new), store.touch(record), return_exceptions=True
            )
            assert results[0] is True
            assert isinstance(results[1], StoreUnavailable)

        asyncio.run(check())
        assert calls == [2, 1]

    def test_a_failed_login_fails_only_its_own_caller(self, postgresql, open_url):
        """S13: each login of a batch is a transaction of its own."""
        store = open_url("?options=-c%20lock_timeout%3D200")

        async def check():
            await store.load(bytes(16))  # creates the tables
            blocked, other = login(None, "ada"), login(None, "bob")
            with postgresql.admin() as holder, holder.transaction():
                key = advisory_key("default", "user:ada")
                holder.execute("SELECT pg_advisory_xact_lock(%s)", (key,))
                results = await asyncio.gather(
                    save_login(store, blocked, 0),
                    save_login(store, other, 0),
                    store.publish("revoked", bytes(16)),
                    store.invalidate_logins("user:eve", 5),
                    return_exceptions=True,
                )
            assert isinstance(results[0], StoreUnavailable)
            assert "55P03" in str(results[0])
            assert results[1:] == [LoginSaved(()), None, None]
            assert await store.load(blocked.id) is None
            assert await store.list_by_index("user:bob") == [other]

        asyncio.run(check())

    @pytest.mark.parametrize("most", [1, 2**20])
    def test_a_batch_of_large_records_is_split_into_several_statements(
        self, open_url, monkeypatch, most
    ):
        """S13: libpq parses a long statement in quadratic time."""
        monkeypatch.setattr(transactions, "_MAX_STATEMENT_BYTES", most)
        store = open_url()

        async def check():
            records = [make_record() for _ in range(5)]
            assert await store.create_many([*records, records[0]]) == [True] * 5 + [False]
            saves = [next_version(record) for record in records]
            calls = [store.touch(records[0]), *(store.save(each, 1) for each in saves)]
            assert await asyncio.gather(*calls) == [True, *[SAVED] * 5]
            again = await asyncio.gather(*(store.save(each, 1) for each in saves))
            assert again == list(map(Conflict, saves))
            assert await asyncio.gather(*(store.load(each.id) for each in records)) == saves

        asyncio.run(check())

    def test_the_size_of_the_records_in_a_statement_is_limited(self):
        """S13: the sum of their bodies; a larger record has a statement of its own."""
        planner = transactions.Planner(Statements(Schema(), is_relaxed=False), "default")
        bodies = [make_body(data="x" * size) for size in (600_000, 400_000, 2_000_000, 10)]
        batch = [transactions.Create(make_record(body=body)) for body in bodies]
        steps = planner.plan([*batch, *(transactions.Update(each.record, 1) for each in batch)])
        assert [sorted(step.positions) for step in steps] == [
            *([0, 1], [2], [3]),
            *([4, 5], [6], [7]),
        ]

    def test_a_session_whose_user_changed_is_not_evicted(self, postgresql, open_url):
        """S15: a login of another user was committed in it while this login waited."""
        store = open_url()
        record = login(None, "ada")
        run(save_login(store, record, 0))
        limit = SessionLimit(1, LimitPolicy.EVICT_OLDEST)
        results = []
        with postgresql.admin() as holder, holder.transaction():
            holder.execute("UPDATE sojourn_sessions SET user_key = %s", (digest("user:bob"),))
            waiting = threading.Thread(
                target=lambda: results.append(
                    run(save_login(store, login(None, "ada"), 0, limit=limit))
                )
            )
            waiting.start()
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            run(until(lambda: postgresql.query(waits) == [(1,)], "the login waits"))
        waiting.join()
        assert results == [LoginSaved(())]
        assert [each.id for each in run(store.list_by_index("user:bob"))] == [record.id]

    @pytest.mark.parametrize("options", ["", "?prepare_threshold=0", "?prepare_threshold=none"])
    def test_a_batch_does_not_save_sessions_that_a_cutoff_ended(self, open_url, options):
        """S3, S5: the cutoff of all sessions is read once for each batch."""
        store = open_url(options)

        async def check():
            (old,) = await create_all(store, 1)
            cutoff = old.created_at + 1
            new = await create_all(store, 3, created_at=cutoff)
            await store.invalidate_all(cutoff)
            saves = [store.save(next_version(record), 1) for record in (old, *new)]
            results = await asyncio.gather(*saves, store.touch(old), store.touch(new[0]))
            assert results == [GONE, SAVED, SAVED, SAVED, False, True]

        asyncio.run(check())

    @pytest.mark.parametrize("failure", [psycopg.OperationalError("cut"), TimeoutError()])
    def test_a_failed_load_after_a_conflict_fails_only_its_own_caller(
        self, open_url, monkeypatch, failure
    ):
        """S13: the saves of its batch are reported as done."""
        store = open_url()
        exchange, calls = connection.exchange, []

        def failing(pgconn, transactions, prepared):
            """Lose the connection at the load of the newer record."""
            calls.append(len(transactions))
            if len(calls) > 1:
                raise failure
            return (yield from exchange(pgconn, transactions, prepared))

        async def check():
            one, two = await create_all(store, 2)
            await store.touch(two)
            monkeypatch.setattr(connection, "exchange", failing)
            results = await asyncio.gather(
                store.save(next_version(one), 1),
                store.save(next_version(two), 7),
                return_exceptions=True,
            )
            monkeypatch.undo()
            assert results[0] is SAVED
            assert isinstance(results[1], StoreUnavailable)
            assert await store.load(one.id) == next_version(one)

        asyncio.run(check())
        assert calls == [1, 1]


class TestLocks:
    def test_batches_with_the_same_sessions_do_not_deadlock(self, postgresql, open_url):
        """S13: a batch locks its keys in one order."""
        records = run(create_all(open_url(), 40))

        def change(seed):
            store = open_url()

            async def work():
                for round_number in range(25):
                    order = sorted(records, key=lambda r: (hash((seed, r.id)), round_number))
                    if (round_number + seed) % 2:
                        order.reverse()
                    touched = [r.with_seen_at(r.seen_at + round_number) for r in order]
                    assert await asyncio.gather(*map(store.touch, touched)) == [True] * 40

            asyncio.run(work())

        in_threads(*[lambda seed=seed: change(seed) for seed in range(4)])
        assert "deadlock detected" not in postgresql.log

    def test_logins_and_batches_do_not_deadlock(self, postgresql, open_url):
        """S13: a login locks the sessions that it evicts."""
        store = open_url()
        user = "ada"
        records = [login(None, user) for _ in range(20)]
        for record in records:
            run(save_login(store, record, 0))

        def touch(seed):
            store = open_url()

            async def work():
                for _ in range(20):
                    await asyncio.gather(*map(store.touch, records[:: 1 - 2 * (seed % 2)]))

            asyncio.run(work())

        def log_in():
            store = open_url()
            for most in range(20, 0, -1):
                limit = SessionLimit(most, LimitPolicy.EVICT_IDLEST)
                run(save_login(store, login(None, user), 0, limit=limit))

        in_threads(log_in, lambda: touch(0), lambda: touch(1))
        assert "deadlock detected" not in postgresql.log
        assert len(run(store.list_by_index("user:ada"))) == 1

    def test_a_call_that_waits_for_a_lock_times_out(self, postgresql, open_url):
        """S12: its statement is cancelled, so that no server process keeps waiting."""
        store = open_url(timeout=0.5)
        (record,) = run(create_all(open_url(), 1))
        with postgresql.admin() as holder, holder.transaction():
            holder.execute("SELECT FROM sojourn_sessions FOR UPDATE")
            with pytest.raises(StoreUnavailable, match="no answer in time"):
                run(store.save(next_version(record), 1))
            assert run(store.load(record.id)) == record
            self.wait_until_none_waits(postgresql)

            async def in_loop():
                with pytest.raises(StoreUnavailable, match="no answer in time"):
                    await store.save(next_version(record), 1)
                assert await store.load(record.id) == record
                await asyncio.to_thread(self.wait_until_none_waits, postgresql)

            asyncio.run(in_loop())
        assert run(store.save(next_version(record), 1)) is SAVED

    @staticmethod
    def wait_until_none_waits(server):
        waiting = (
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE application_name = 'sojourn' AND wait_event_type = 'Lock'"
        )
        ended = threading.Event()
        for _ in range(100):
            if server.query(waiting) == [(0,)]:
                return
            ended.wait(0.05)  # the server cancels in a process of its own
        pytest.fail("a server process still waits")


class TestSettings:
    def test_saves_and_touches_are_hot_updates(self, postgresql, open_url):
        """No index contains a column that they change."""
        store = open_url()

        async def check():
            records = await create_all(store, 400)
            for _ in range(5):
                records = [next_version(record) for record in records]
                for start in range(40):
                    batch = records[start::40]
                    saves = [store.save(each, each.version - 1) for each in batch]
                    assert await asyncio.gather(*saves) == [SAVED] * 10

        asyncio.run(check())
        store.close()  # a server process reports its statistics at its end
        ((updates, hot),) = self.statistics(postgresql)
        assert updates == 2000
        assert hot >= 0.99 * updates

    @staticmethod
    def statistics(server):
        wait = threading.Event()
        for _ in range(100):
            rows = server.query(
                "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables "
                "WHERE schemaname = 'public' AND relname = 'sojourn_sessions'"
            )
            if rows[0][0] >= 2000:
                break
            wait.wait(0.05)  # it ends after the connection
        return rows

    @pytest.mark.parametrize("durability", ["durable", "relaxed"])
    def test_durability_is_set_for_each_transaction(self, postgresql, open_url, durability):
        """A7: logins (which evict), deletions and cutoffs are always durable."""
        store = open_url(f"?durability={durability}")
        run(store.load(bytes(16)))
        postgresql.query("CREATE TABLE seen (kind text, value text)")
        postgresql.query(
            "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "INSERT INTO seen VALUES (TG_OP, current_setting('synchronous_commit')); "
            "RETURN NULL; END $$"
        )
        for table in ("sojourn_sessions", "sojourn_cutoffs"):
            postgresql.query(
                f"CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON {table} "
                "FOR EACH ROW EXECUTE FUNCTION note()"
            )

        def seen():
            return postgresql.query("DELETE FROM seen RETURNING kind, value")

        relaxed = "off" if durability == "relaxed" else "on"
        record, other = make_record(), make_record()
        for call, kinds in (
            (store.create_many([record, other]), ["INSERT", "INSERT"]),
            (store.save(next_version(record), 1), ["UPDATE"]),
            (store.touch(other), ["UPDATE"]),
        ):
            run(call)
            assert seen() == [(kind, relaxed) for kind in kinds]
        limit = SessionLimit(1, LimitPolicy.EVICT_OLDEST)
        for call, kinds in (
            (save_login(store, login(None, "ada"), 0), ["INSERT"]),
            (save_login(store, login(None, "ada"), 0, limit=limit), ["DELETE", "INSERT"]),
            (store.delete(record.id), ["DELETE"]),
            (store.delete_many([other.id]), ["DELETE"]),
            (store.invalidate_logins("user:ada", 5), ["INSERT"]),
            (store.invalidate_all(5), ["INSERT"]),
        ):
            run(call)
            assert sorted(seen()) == [(kind, "on") for kind in kinds]

    def test_settings_end_with_the_transaction(self, postgresql, open_url, monkeypatch):
        """A pooler in transaction mode keeps no settings, locks or cursors."""
        store = open_url("?durability=relaxed")
        run(store.create(make_record()))
        run(save_login(store, login(None, "ada"), 0))
        run(store.purge(10, 10))
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        assert postgresql.query(locks) == [(0,)]


class TestPreparedStatements:
    def test_statements_are_prepared_after_the_threshold(self, open_url, monkeypatch):
        prepared = self.watch(monkeypatch)
        store = open_url("?prepare_threshold=3")
        for _ in range(3):
            run(store.load(bytes(16)))
        assert prepared == []
        for _ in range(3):
            run(store.load(bytes(16)))
        assert len(prepared) == 1

    def test_with_threshold_none_no_statement_is_prepared(self, open_url, monkeypatch):
        prepared = self.watch(monkeypatch)
        store = open_url("?prepare_threshold=none")
        for _ in range(10):
            run(store.load(bytes(16)))
        assert prepared == []

    def test_a_statement_is_prepared_again_after_the_table_grew(self, open_url, monkeypatch):
        """The plan for an empty table scans the table until its statistics are updated."""
        prepared = self.watch(monkeypatch)
        monkeypatch.setattr(pipeline, "_FIRST_REPLAN", 0.0)
        monkeypatch.setattr(pipeline, "_MAX_REPLAN", 0.0)
        store = open_url("?prepare_threshold=0")
        for _ in range(3):
            assert run(store.load(bytes(16))) is None
        assert len(set(prepared)) == 3

    def test_deallocated_statements_are_prepared_again(self, postgresql, open_url, caplog):
        """A pooler may deallocate them, or use the connection of another server process."""
        store = open_url("?prepare_threshold=0")
        record = make_record()
        run(store.create(record))
        assert run(store.load(record.id)) == record
        reads = store._reads._for_threads[1]._transport._pgconn
        reads.exit_pipeline_mode()
        reads.exec_(b"DEALLOCATE ALL")
        reads.enter_pipeline_mode()
        assert run(store.load(record.id)) == record
        assert "add prepare_threshold=none to the URL" in caplog.text
        caplog.clear()
        for _ in range(3):
            assert run(store.load(record.id)) == record
        assert caplog.text == ""

    @staticmethod
    def watch(monkeypatch):
        """Return the list to which the names of prepared statements will be added."""
        names = []
        prepare = pipeline.PreparedStatements._prepare

        def watching(self, pgconn, statement, prepared):
            result = prepare(self, pgconn, statement, prepared)
            names.append(prepared.name)
            return result

        monkeypatch.setattr(pipeline.PreparedStatements, "_prepare", watching)
        return names


class TestIsolation:
    @pytest.mark.parametrize("level", ["repeatable read", "serializable"])
    def test_concurrent_changes_succeed_at_other_isolation_levels(
        self, postgresql, open_url, level
    ):
        """S10: a transaction that the server rolls back is repeated."""
        postgresql.query(f"ALTER DATABASE postgres SET default_transaction_isolation = '{level}'")
        try:
            store = open_url()
            (record,) = run(create_all(store, 1))

            def change():
                store = open_url()
                for _ in range(20):
                    while True:
                        newer = run(store.load(record.id))
                        if run(store.save(next_version(newer), newer.version)) is SAVED:
                            break

            in_threads(*[change] * 4)
            assert run(store.load(record.id)).version == 81
        finally:
            postgresql.query("ALTER DATABASE postgres RESET default_transaction_isolation")


def test_ids_with_any_bytes_are_found(open_url):
    """S9: no byte is special in an array of parameters."""
    store = open_url()
    records = [make_record(id=bytes([n]) * 16) for n in range(256)]
    records.append(make_record(id=secrets.token_bytes(16)))
    assert all(run(store.create_many(records)))

    async def load_all():
        return await asyncio.gather(*[store.load(record.id) for record in records])

    assert asyncio.run(load_all()) == records
