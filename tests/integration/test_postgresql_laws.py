"""The laws of stores on the system's PostgreSQL, Debian's 15 for example, and with other options.

``tests/unit/stores/postgresql/test_store.py`` runs them on the newest server.
"""

import pytest

from tests.integration.postgresql import Postgres
from tests.integration.postgresql_binaries import INSTALLED, NEEDS_INSTALLED, NEEDS_PGBOUNCER
from tests.unit.stores.postgresql import test_store as newest

pytestmark = pytest.mark.slow


class TestPrepared(newest.OnServer):
    """S1 to S18: each statement is prepared at its first execution."""

    options = "?prepare_threshold=0"


class TestInSchema(newest.OnServer):
    """S1 to S18: in a schema whose name needs quotes."""

    options = "?schema=Odd%20%22name%22%20100%25"
    table = '"Odd ""name"" 100%%".sojourn_sessions'
    history_table = '"Odd ""name"" 100%%".sojourn_history'

    @pytest.fixture(autouse=True)
    def dropped_schema(self, server):
        yield
        self.postgresql.query('DROP SCHEMA IF EXISTS "Odd ""name"" 100%" CASCADE')

    async def overwrite(self, store, session_id, data):
        query = f"UPDATE {self.table} SET record = %s WHERE id = %s"  # noqa: S608 - a constant
        self.postgresql.query(query, data, session_id)

    async def index_size(self, store):
        pytest.skip("tested in the ordinary schema")


@pytest.fixture(scope="module")
def shared_installed():
    server = Postgres(programs=INSTALLED)
    server.start()
    yield server
    server.remove()


class OnInstalled:
    """On the system's server."""

    @pytest.fixture
    def postgresql(self, shared_installed):
        shared_installed.reset()
        return shared_installed


@NEEDS_INSTALLED
class TestInstalled(OnInstalled, newest.OnServer):
    """S1 to S18 on the system's PostgreSQL."""


@NEEDS_INSTALLED
@NEEDS_PGBOUNCER
class TestInstalledBehindPgBouncer(OnInstalled, newest.TestPgBouncer):
    """S1 to S18 behind PgBouncer in front of the system's PostgreSQL."""


@NEEDS_INSTALLED
class TestInstalledRelaxed(OnInstalled, newest.TestRelaxed):
    """S1 to S18 over a Unix socket, with commits that do not wait for the disk."""
