"""The laws of stores for MemoryStore and SQLiteStore.

Those for Redis and PostgreSQL are in ``tests/unit/stores/redis`` and
``tests/unit/stores/postgresql``, those for CallbackStore in
``tests/unit/stores/test_callback.py``.
"""

import contextlib
import sqlite3
import time

import pytest

from sojourn.stores.memory import MemoryStore
from sojourn.stores.sqlite import SQLiteStore
from tests.contract.store_suite import StoreSuite


class TestMemoryStore(StoreSuite):
    """S1 to S16 and S18, within one process."""

    @pytest.fixture(autouse=True)
    def stores(self):
        self.stores = {}

    def make_store(self, realm):
        return self.stores.setdefault(realm, MemoryStore())

    async def index_size(self, store):
        listed = sum(1 + len(ids) for ids in store._index.values())
        return listed + len(store._index_names) + len(store._login_cutoffs)

    async def add_raw_history(self, store, data):
        at = time.time_ns() // 1_000_000
        store._history_number += 1
        entry = (at, store._history_number, at + 86_400_000, data)
        store._history.append(type(store._history[0])(*entry))


class TestSQLiteStore(StoreSuite):
    """S1 to S17."""

    deadline = 1.5

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path):
        self.path = tmp_path / "sessions.db"

    def make_store(self, realm):
        return SQLiteStore(self.path, realm=realm, timeout=1.0)

    def store_url(self):
        return f"sqlite:///{self.path}"

    def connect(self):
        return contextlib.closing(sqlite3.connect(self.path, isolation_level=None))

    async def overwrite(self, store, session_id, data):
        with self.connect() as other:
            other.execute("UPDATE sessions SET record = ? WHERE id = ?", (data, session_id))

    async def index_size(self, store):
        with self.connect() as other:
            listed = "SELECT count(*) FROM sessions WHERE user NOT NULL OR idp_sid NOT NULL"
            marks = "SELECT count(*) FROM 'marks:sessions' WHERE name <> ''"
            return sum(other.execute(question).fetchone()[0] for question in (listed, marks))

    async def add_raw_history(self, store, data):
        at = time.time_ns() // 1_000_000
        with self.connect() as other:
            insert = "INSERT INTO 'history:sessions' (ended_at, expires_at, entry) VALUES (?, ?, ?)"
            other.execute(insert, (at, at + 86_400_000, data))

    @contextlib.contextmanager
    def outage(self, kind):
        if kind == "refuse":  # the file was moved, as by a failed restore
            away = self.path.with_suffix(".away")
            self.path.rename(away)
            time.sleep(0.11)  # each process checks the file every 0.1 s
            yield
            away.rename(self.path)
            return
        with self.connect() as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")
