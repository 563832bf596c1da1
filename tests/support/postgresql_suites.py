"""The laws of stores over a real PostgreSQL server: what all variants have in common."""

import pytest

from sojourn.stores.postgresql import connection
from sojourn.stores.postgresql.protocol import exchange
from sojourn.stores.urls import open_store
from tests.contract.store_suite import StoreSuite

__all__ = ["OnPostgres"]


def is_repeated(transaction):
    """Return whether a transaction is one of a call, and not of the creation of the tables."""
    return all(query.statement.name is not None for query in transaction)


class OnPostgres(StoreSuite):
    """A server that the tests can look into.

    Attributes:
        options: of the store's URL.
    """

    timeout = 1.0
    deadline = 1.5
    publishes_changes = False  # a notification costs more than half of the throughput of writes
    options = ""

    @pytest.fixture(autouse=True)
    def server(self, postgresql, monkeypatch):
        self.postgresql = postgresql
        self.exchanges = 0

        def count(pgconn, transactions, prepared):
            # The first of all exchanges create the tables.
            self.exchanges += all(is_repeated(transaction) for transaction in transactions)
            return exchange(pgconn, transactions, prepared)

        monkeypatch.setattr(connection, "exchange", count)

    def make_store(self, realm):
        return open_store(self.store_url(), realm=realm, timeout=self.timeout)

    def store_url(self):
        return self.postgresql.url + self.options

    async def overwrite(self, store, session_id, data):
        self.postgresql.query(
            "UPDATE sojourn_sessions SET record = %s WHERE id = %s", data, session_id
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
