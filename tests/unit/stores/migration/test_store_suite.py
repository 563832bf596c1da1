"""The laws of stores (S) for ``migrating``, over pairs of stores and in both steps."""

import sqlite3
from contextlib import closing

import pytest
import redis

from sojourn.stores import migrating
from sojourn.stores.memory import MemoryStore
from sojourn.stores.sqlite import SQLiteStore
from sojourn.stores.urls import open_store
from tests.contract.store_suite import StoreSuite

SQLITE_INDEX = (
    "SELECT count(*) FROM sessions WHERE user NOT NULL OR idp_sid NOT NULL",
    "SELECT count(*) FROM 'marks:sessions' WHERE name <> ''",
)

POSTGRESQL_INDEX = (
    "SELECT count(*) FROM sojourn_sessions WHERE user_key IS NOT NULL OR idp_key IS NOT NULL",
    "SELECT count(*) FROM sojourn_cutoffs WHERE name <> ''",
)


class TestMemoryToMemory(StoreSuite):
    """S1 to S16."""

    lists_by_id = False

    prepare = False

    @pytest.fixture(autouse=True)
    def stores(self):
        self.stores = {}

    def make_store(self, realm):
        old, new = self.stores.setdefault(realm, (MemoryStore(), MemoryStore()))
        return migrating(old, new, prepare=self.prepare)

    async def index_size(self, store):
        both = store.old, store.new
        return sum(
            sum(1 + len(ids) for ids in each._index.values())
            + len(each._index_names)
            + len(each._login_cutoffs)
            for each in both
        )


class TestMemoryToMemoryWhilePreparing(TestMemoryToMemory):
    """S1 to S16."""

    prepare = True


class OverTwoServers(StoreSuite):
    """A pair of SQLite and Valkey."""

    lists_by_id = False

    prepare = False

    # Each message arrives from both stores, which is harmless (S17); test_migrating.py has a test.
    test_every_subscriber_receives_a_message = None
    test_one_call_publishes_a_message_for_each_session = None
    test_messages_of_realms_are_isolated = None

    @pytest.fixture(autouse=True)
    def places(self, tmp_path, valkey):
        self.path, self.url = tmp_path / "sessions.db", valkey.url

    def make_stores(self, realm):
        return SQLiteStore(self.path, realm=realm), open_store(self.url, realm=realm, timeout=2.0)

    def make_store(self, realm):
        return migrating(*self.make_stores(realm), prepare=self.prepare)

    async def overwrite(self, store, session_id, data):
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("UPDATE sessions SET record = ? WHERE id = ?", (data, session_id))
        with redis.Redis.from_url(self.url) as admin:
            admin.set(f"sojourn:default:s:{session_id.hex()}", b"\xa0" + data, xx=True)

    async def index_size(self, store):
        with closing(sqlite3.connect(self.path)) as other:
            listed = sum(other.execute(query).fetchone()[0] for query in SQLITE_INDEX)
        with redis.Redis.from_url(self.url) as admin:
            return listed + sum(admin.zcard(key) for key in admin.scan_iter("sojourn:default:u:*"))


@pytest.mark.slow
class TestSQLiteToValkey(OverTwoServers):
    """S1 to S16."""

    # Valkey removes expired records by itself, a minute later, and not when it is purged.
    test_purge_removes_expired_records_only = None
    test_purge_respects_its_limit_and_finishes = None
    test_a_purge_call_examines_a_bounded_number_of_records = None
    test_invalidate_all_makes_older_records_absent = None
    test_random_changes_keep_the_index_exact = None


@pytest.mark.slow
class TestSQLiteToValkeyWhilePreparing(OverTwoServers):
    """S1 to S16."""

    prepare = True


@pytest.mark.slow
class TestValkeyToSQLite(OverTwoServers):
    """S1 to S16."""

    def make_store(self, realm):
        return migrating(*reversed(self.make_stores(realm)))


@pytest.mark.slow
class TestSQLiteToPostgreSQL(OverTwoServers):
    """S1 to S16."""

    publishes_changes = False

    @pytest.fixture(autouse=True)
    def places(self, tmp_path, postgresql):
        self.path, self.url = tmp_path / "sessions.db", postgresql.url
        self.server = postgresql

    @pytest.fixture(autouse=True)
    def small_sizes(self, request):
        callspec = getattr(request.node, "callspec", None)
        parameters = callspec.params.values() if callspec else ()
        sizes = [each for each in parameters if isinstance(each, int)]
        if max(sizes, default=0) >= 10_000:
            pytest.skip("takes minutes: one call after the other, each of several round trips")

    async def overwrite(self, store, session_id, data):
        self.server.query("UPDATE sojourn_sessions SET record = %s WHERE id = %s", data, session_id)

    async def index_size(self, store):
        with closing(sqlite3.connect(self.path)) as other:
            listed = sum(other.execute(query).fetchone()[0] for query in SQLITE_INDEX)
        for query in POSTGRESQL_INDEX:
            listed += self.server.query(query)[0][0]
        return listed
