"""The laws of stores on PostgreSQL: versions, poolers, transports and durability.

``make test`` runs one other variant, in ``tests/unit/stores/postgresql``.
"""

import pytest

from tests.integration.postgresql import PgBouncer, Postgres
from tests.integration.postgresql_binaries import INSTALLED, NEEDS_INSTALLED, NEEDS_PGBOUNCER
from tests.support.postgresql_suites import OnPostgres

#: PgBouncer 1.18 shares the server's connections and knows no prepared statements.
BEHIND_PGBOUNCER = "?prepare_threshold=none&listen_url="


@pytest.fixture(scope="module")
def shared_installed():
    server = Postgres(programs=INSTALLED)
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def shared_bouncer(shared_postgresql):
    bouncer = PgBouncer(shared_postgresql)
    bouncer.start()
    yield bouncer
    bouncer.stop()


@pytest.fixture(scope="module")
def installed_bouncer(shared_installed):
    bouncer = PgBouncer(shared_installed)
    bouncer.start()
    yield bouncer
    bouncer.stop()


@pytest.mark.slow
class TestOverTCP(OnPostgres):
    """S1 to S18, in an event loop and in threads."""


@pytest.mark.slow
class TestOverUnixSocket(OnPostgres):
    """S1 to S18."""

    def store_url(self):
        return self.postgresql.socket_url


@pytest.mark.slow
class TestRelaxed(OnPostgres):
    """S1 to S18: a commit that does not wait for the disk is visible at once."""

    options = "?durability=relaxed"


@pytest.mark.slow
class TestPrepared(OnPostgres):
    """S1 to S18: each statement is prepared at its first execution."""

    options = "?prepare_threshold=0"


@pytest.mark.slow
class TestInSchema(OnPostgres):
    """S1 to S18: in a schema with a name that needs quotes."""

    options = "?schema=Odd%20%22name%22%20100%25"

    async def overwrite(self, store, session_id, data):
        self.postgresql.query(
            'UPDATE "Odd ""name"" 100%%".sojourn_sessions SET record = %s WHERE id = %s',
            data,
            session_id,
        )

    @pytest.fixture(autouse=True)
    def empty_schema(self, server):
        yield
        self.postgresql.query('DROP SCHEMA IF EXISTS "Odd ""name"" 100%" CASCADE')


class Installed(OnPostgres):
    """On the system's server."""

    @pytest.fixture
    def postgresql(self, shared_installed):
        shared_installed.reset()
        return shared_installed


@NEEDS_INSTALLED
@pytest.mark.slow
class TestInstalled(Installed):
    """S1 to S18 on the system's PostgreSQL."""


class BehindPgBouncer(OnPostgres):
    """In transaction mode: each transaction may have another connection to the server."""

    @pytest.fixture(autouse=True)
    def bouncer(self, shared_bouncer):
        self.bouncer = shared_bouncer

    def store_url(self):
        return self.bouncer.url + BEHIND_PGBOUNCER + self.postgresql.url


@NEEDS_PGBOUNCER
@pytest.mark.slow
class TestBehindPgBouncer(BehindPgBouncer):
    """S1 to S18 behind PgBouncer in transaction mode."""


@NEEDS_INSTALLED
@NEEDS_PGBOUNCER
@pytest.mark.slow
class TestInstalledBehindPgBouncer(BehindPgBouncer, Installed):
    """S1 to S18 behind PgBouncer in front of the system's PostgreSQL."""

    @pytest.fixture(autouse=True)
    def bouncer(self, installed_bouncer):
        self.bouncer = installed_bouncer
