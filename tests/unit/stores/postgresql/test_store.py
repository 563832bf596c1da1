"""PostgresStore keeps every law of stores, with and without an event loop."""

import pytest

from sojourn.stores.urls import open_store
from tests.contract.store_suite import StoreSuite


class OnServer(StoreSuite):
    """What tests of the store have in common: a server they can look into."""

    timeout = 2.0
    publishes_changes = False  # a notification costs more than half of the throughput of writes
    options = ""

    @pytest.fixture(autouse=True)
    def server(self, postgresql):
        self.postgresql = postgresql

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

    async def index_size(self, store):
        listed = (
            "SELECT count(*) FROM sojourn_sessions "
            "WHERE user_key IS NOT NULL OR idp_key IS NOT NULL"
        )
        cutoffs = "SELECT count(*) FROM sojourn_cutoffs WHERE name <> ''::bytea"
        return sum(self.postgresql.query(query)[0][0] for query in (listed, cutoffs))


class TestDurable(OnServer):
    """S1 to S17, over TCP."""
