"""The table of ended sessions: its purge and its pages read an index, not the table."""

import pytest

from sojourn._core.concurrency import run
from sojourn.stores.postgresql.schema import Schema
from sojourn.stores.postgresql.statements import Statements
from sojourn.stores.urls import open_store
from sojourn.testing.records import HOUR, now
from sojourn.testing.store_suite.history import make_entry

COPY_OF_THE_ENTRY = """
INSERT INTO sojourn_history (realm, ended_at, expires_at, entry)
    SELECT realm, ended_at + number, expires_at + number, entry
    FROM sojourn_history, generate_series(1, 20000) AS number
"""


@pytest.fixture
def store(postgresql):
    store = open_store(postgresql.url, realm="default", timeout=5.0)
    yield store
    store.close()


@pytest.mark.parametrize(
    ("statement", "values", "index"),
    [
        ("delete_history", "('default', {end}, 500)", "sojourn_history_expires"),
        ("list_history", "('default', {end}, 1, 50)", "sojourn_history_pkey"),
    ],
)
def test_a_purge_and_a_page_read_an_index(postgresql, store, statement, values, index):
    """S8: also if the statistics say that nearly all entries have expired."""
    at = now()
    run(store.add_history([make_entry(at)], HOUR))
    chosen = getattr(Statements(Schema(), is_relaxed=False), statement)
    with postgresql.admin() as connection:
        connection.execute(COPY_OF_THE_ENTRY)
        connection.execute("ANALYZE sojourn_history")
        types = ", ".join(["text", *["bigint"] * values.count(",")])
        connection.execute(f"PREPARE chosen ({types}) AS {chosen.text.decode()}")
        execute = f"EXPLAIN EXECUTE chosen {values.format(end=at + 2 * HOUR)}"
        plan = "\n".join(line for (line,) in connection.execute(execute))
    assert index in plan
    assert "Seq Scan" not in plan
