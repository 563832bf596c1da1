"""The laws of stores for ``migrating``, over pairs of stores and in both steps of a deployment."""

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


class TestMemoryToMemory(StoreSuite):
    """S1 to S16."""

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


class TestSQLiteToValkey(StoreSuite):
    """S1 to S17."""

    prepare = False

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
            return listed + sum(
                admin.zcard(key) for key in admin.scan_iter("sojourn:default:u:*")
            )


class TestSQLiteToValkeyWhilePreparing(TestSQLiteToValkey):
    """S1 to S17."""

    prepare = True


class TestValkeyToSQLite(TestSQLiteToValkey):
    """S1 to S17."""

    def make_store(self, realm):
        return migrating(*reversed(self.make_stores(realm)))
