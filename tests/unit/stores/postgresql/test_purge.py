"""Purge by page ranges: law S8, on a table with only the columns that it reads."""

import secrets
import threading
import time

import pytest

from sojourn._core.concurrency import run
from sojourn.store import Purged
from sojourn.stores.postgresql.purge import TablePurger

NOW = 1_000
EXPIRED, ALIVE = NOW, NOW + 1


CREATE = """
CREATE TABLE sessions (
    realm text, id bytea, expires_at bigint, record bytea, PRIMARY KEY (realm, id)
) WITH (fillfactor = 80)
"""


WAIT = """
CREATE FUNCTION wait() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_lock(1), pg_advisory_unlock(1);
    RETURN false;
END $$
"""


class Table:
    """The table, and a connection to it."""

    def __init__(self, server):
        self.server = server
        self.connection = server.admin()
        self.connection.execute(CREATE)

    def insert(self, number, expires_at, *, realm="default", size=600):
        self.connection.execute(
            "INSERT INTO sessions"
            " SELECT %s, decode(md5(random()::text), 'hex'), %s, decode(repeat('ab', %s), 'hex')"
            " FROM generate_series(1, %s)",
            [realm, expires_at, size, number],
        )

    def execute(self, statement, parameters=None):
        return self.connection.execute(statement, parameters)

    def expiries(self, realm="default"):
        """Return the expiry of each row of a realm, in ascending order."""
        rows = self.execute("SELECT expires_at FROM sessions WHERE realm = %s ORDER BY 1", [realm])
        return [expires_at for (expires_at,) in rows]

    async def fetch(self, statement, parameters):
        return self.execute(statement, parameters).fetchall()

    def purge_once(self, purger, limit=50, now=NOW):
        """Purge until the end of the table is reached; return the results of the calls."""
        calls = []
        while not calls or not calls[-1].finished:
            calls.append(run(purger.purge(self.fetch, now, limit)))
        return calls


@pytest.fixture
def table(postgresql):
    table = Table(postgresql)
    yield table
    table.connection.close()


@pytest.fixture
def purger(table):
    return TablePurger("sessions", "default")


def test_an_empty_table_is_finished_at_once(table, purger):
    assert run(purger.purge(table.fetch, NOW, 10)) == Purged(0, finished=True)


def test_expired_rows_are_deleted_and_live_ones_kept(table, purger):
    """S8: a record expires in the millisecond of its deadline."""
    for _ in range(20):
        table.insert(7, EXPIRED)
        table.insert(3, ALIVE)
    calls = table.purge_once(purger)
    assert sum(call.removed for call in calls) == 140
    assert table.expiries() == [ALIVE] * 60


def test_a_call_deletes_at_most_its_limit(table, purger):
    """S8: the calls of one pass delete every expired row."""
    table.insert(120, EXPIRED)
    assert [call.removed for call in table.purge_once(purger)] == [50, 50, 20]
    assert table.expiries() == []


@pytest.mark.parametrize("number", [49, 50, 51, 500, 501])
def test_no_expired_row_is_missed_at_the_boundaries_of_a_call(table, purger, number):
    """S8: the limit, or the number of examined rows, may equal the number of rows."""
    table.insert(number, EXPIRED)
    assert sum(call.removed for call in table.purge_once(purger)) == number
    table.insert(number, ALIVE)
    table.insert(1, EXPIRED)
    assert sum(call.removed for call in table.purge_once(purger)) == 1


def test_a_call_examines_at_most_ten_rows_for_each_it_may_delete(table, purger):
    """S8: the cost of a call is independent of the number of live sessions."""
    table.insert(95, ALIVE)
    assert len(table.purge_once(purger, limit=1)) == 10
    table.insert(1, EXPIRED)
    removed = [call.removed for call in table.purge_once(purger, limit=1)]
    assert removed == [0] * 9 + [1]


def test_a_call_reads_a_bounded_number_of_empty_pages(table, purger):
    """S8: a table that was emptied keeps its pages until it is vacuumed."""
    table.insert(8_000, EXPIRED, size=900)
    (pages,) = table.execute("SELECT pg_relation_size('sessions') / 8192").fetchone()
    table.execute("DELETE FROM sessions")
    assert pages > 1024
    assert len(table.purge_once(purger, limit=500)) == -(-pages // 512)


def test_the_next_call_continues_at_the_position_of_the_previous(table, purger):
    """S8: a row that expires before the position is deleted in the next pass."""
    table.insert(100, ALIVE)
    assert run(purger.purge(table.fetch, NOW, 5)) == Purged(0, finished=False)
    table.execute("DELETE FROM sessions WHERE ctid = '(0,1)'")
    table.execute("VACUUM sessions")
    table.insert(1, EXPIRED)
    position = "SELECT ctid::text FROM sessions WHERE expires_at = %s"
    assert table.execute(position, [EXPIRED]).fetchone() == ("(0,1)",)
    assert sum(call.removed for call in table.purge_once(purger, limit=5)) == 0
    assert sum(call.removed for call in table.purge_once(purger, limit=5)) == 1


def test_a_table_that_became_shorter_is_purged_from_its_start(table, purger):
    """S8: VACUUM truncates the table below the position of the purge."""
    table.insert(100, EXPIRED)
    run(purger.purge(table.fetch, NOW, 90))
    table.execute("TRUNCATE sessions")
    assert run(purger.purge(table.fetch, NOW, 90)) == Purged(0, finished=True)
    table.insert(1, EXPIRED)
    assert run(purger.purge(table.fetch, NOW, 90)) == Purged(1, finished=True)


def test_rows_of_another_realm_are_kept(table, purger):
    """S14: a table contains several installations."""
    table.insert(5, EXPIRED, realm="other")
    table.insert(5, EXPIRED)
    table.purge_once(purger)
    assert table.expiries("other") == [EXPIRED] * 5
    assert table.expiries() == []


def test_rows_invalidated_by_a_cutoff_are_deleted_before_they_expire(table):
    """S8: every check includes that condition."""
    purger = TablePurger("sessions", "default", invalid="length(session.record) < 100")
    table.insert(5, ALIVE, size=50)
    table.insert(5, ALIVE)
    table.insert(5, EXPIRED)
    table.insert(5, ALIVE, size=50, realm="other")
    table.purge_once(purger)
    assert table.expiries() == [ALIVE] * 5
    assert table.expiries("other") == [ALIVE] * 5


@pytest.mark.parametrize("commits", [True, False])
def test_a_row_that_is_being_extended_is_kept(table, purger, commits):
    """S8: the purge neither waits for the save nor deletes the row."""
    table.insert(10, EXPIRED)
    with table.server.admin() as other:
        other.execute("BEGIN")
        other.execute("UPDATE sessions SET expires_at = %s WHERE ctid = '(0,1)'", [ALIVE])
        assert sum(call.removed for call in table.purge_once(purger)) == 9
        other.execute("COMMIT" if commits else "ROLLBACK")
    table.purge_once(purger)
    assert table.expiries() == [ALIVE] * commits


def test_a_row_that_was_extended_after_the_scan_is_kept(table):
    """S8: expiry is checked again when the row is locked."""
    table.insert(1, EXPIRED)
    table.insert(1, ALIVE)
    table.execute(WAIT)
    # The scan has found the first row and waits at the second.
    purger = TablePurger("sessions", "default", invalid="wait()")
    with table.server.admin() as other:
        other.execute("SELECT pg_advisory_lock(1)")
        results = []
        thread = threading.Thread(
            target=lambda: results.append(run(purger.purge(table.fetch, NOW, 10)))
        )
        thread.start()
        while not other.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall():
            time.sleep(0.01)  # polls the other process, which scans
        other.execute("UPDATE sessions SET expires_at = %s", [ALIVE])
        other.execute("SELECT pg_advisory_unlock(1)")
        thread.join(20)
    assert results == [Purged(0, finished=True)]
    assert table.expiries() == [ALIVE] * 2


def test_two_purges_share_the_rows_without_waiting(table, purger):
    """S8: one has locked rows in an open transaction, the other deletes the rest."""
    table.insert(200, EXPIRED)
    other = TablePurger("sessions", "default")
    with table.server.admin(options="-c lock_timeout=1s -c deadlock_timeout=10ms") as connection:
        connection.execute("BEGIN")

        async def execute(statement, parameters):
            return connection.execute(statement, parameters).fetchall()

        held = run(other.purge(execute, NOW, 50)).removed
        assert held == 50
        table.execute("SET lock_timeout = '1s'")
        assert sum(call.removed for call in table.purge_once(purger)) == 150
        connection.execute("COMMIT")
    assert table.expiries() == []


@pytest.mark.parametrize("purges", [2, 4])
def test_parallel_purges_delete_each_row_once(table, purges):
    """S8: while live rows are saved; no live row is deleted, and no purge waits long."""
    for _ in range(10):
        table.insert(100, EXPIRED)
        table.insert(20, ALIVE)
    counts, errors = [], []

    def purge():
        try:
            with table.server.admin(options="-c lock_timeout=2s") as connection:

                async def execute(statement, parameters):
                    return connection.execute(statement, parameters).fetchall()

                purger = TablePurger("sessions", "default")
                finished = 0
                while finished < 3:
                    removed, end = run(purger.purge(execute, NOW, 20))
                    counts.append(removed)
                    finished += end
        except Exception as error:  # noqa: BLE001 - shown by the test
            errors.append(error)

    threads = [threading.Thread(target=purge) for _ in range(purges)]
    for thread in threads:
        thread.start()
    key = secrets.token_bytes(8)
    for _ in range(20):
        table.execute("UPDATE sessions SET record = %s WHERE expires_at = %s", [key, ALIVE])
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert sum(counts) == 1000
    assert table.expiries() == [ALIVE] * 200


def test_the_scan_reads_a_tid_range(table, purger):
    """S8: no index and no sequential scan, whatever the statistics."""
    table.insert(2_000, ALIVE)
    table.execute("ANALYZE sessions")
    statements = []

    async def explain(statement, parameters):
        statements.append(table.execute("EXPLAIN " + statement, parameters).fetchall())
        return await table.fetch(statement, parameters)

    run(purger.purge(explain, NOW, 50))
    plan = "\n".join(line for (line,) in statements[0])
    assert plan.count("Tid Range Scan") == 1
    assert plan.count("Tid Scan") == 2
    assert "Seq Scan" not in plan
    assert "Index" not in plan


def test_table_names_are_quoted(table):
    """S14: a schema may have any name."""
    name = """"Odd ""name"" 100%s'" """.strip()
    table.execute(f"ALTER TABLE sessions RENAME TO {name}")
    purger = TablePurger(f"public.{name}", "default")
    assert run(purger.purge(table.fetch, NOW, 10)) == Purged(0, finished=True)
