"""Stores for the laws of requests, besides the memory store."""

import sqlite3
from contextlib import closing

import pytest
import redis

from sojourn.record import Record
from sojourn.stores import migrating
from sojourn.stores.memory import MemoryStore
from sojourn.stores.redis.encoding import created_at, decode_value
from sojourn.stores.sqlite.store import SQLiteStore
from sojourn.stores.urls import open_store

WHOLE = "sojourn:default:"


class OverValkey:
    """Gives each application a store in the emptied server, and reads its records."""

    timeout = 2.0

    @pytest.fixture(autouse=True)
    def server(self, valkey):
        self.valkey = valkey
        self.admin = redis.Redis.from_url(valkey.url)
        yield
        self.admin.close()

    def make_store(self):
        return open_store(self.valkey.url, realm="default", timeout=self.timeout)

    def stored(self, store):
        keys = list(self.admin.scan_iter(f"{WHOLE}s:*"))
        mark = self.admin.get(f"{WHOLE}void") or b""
        values = zip(keys, self.admin.mget(keys) if keys else [], strict=True)
        return [
            decode_value(bytes.fromhex(key.decode().rpartition(":")[2]), value)
            for key, value in values
            if created_at(value) >= mark
        ]


class OverPostgres:
    """Gives each application a store in the emptied database, and reads its records."""

    timeout = 2.0

    @pytest.fixture(autouse=True)
    def server(self, postgresql):
        self.postgresql = postgresql

    def store_url(self):
        return self.postgresql.url

    def make_store(self):
        return open_store(self.store_url(), realm="default", timeout=self.timeout)

    def stored(self, store):
        with self.postgresql.admin() as admin:
            if admin.execute("SELECT to_regclass('sojourn_cutoffs')").fetchone() == (None,):
                return []  # created at the first use
            rows = admin.execute("SELECT id, record FROM sojourn_sessions").fetchall()
            cutoff = admin.execute(
                "SELECT coalesce(max(instant), 0) FROM sojourn_cutoffs WHERE name = ''::bytea"
            ).fetchone()
        records = [Record.from_bytes(session_id, data) for session_id, data in rows]
        return [record for record in records if record.created_at >= cutoff[0]]


class OverSQLite:
    """Gives each application a store in a new file, and reads its records."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path):
        self.folder = tmp_path
        self.files = {}

    def make_store(self):
        path = self.folder / f"sessions-{len(self.files)}.db"
        store = SQLiteStore(path)
        self.files[store] = path
        return store

    def stored(self, store):
        with closing(sqlite3.connect(self.files[store])) as connection:
            rows = connection.execute("SELECT id, record FROM sessions").fetchall()
            cutoff = connection.execute(
                "SELECT before FROM \"marks:sessions\" WHERE name = ''"
            ).fetchone()
        records = [Record.from_bytes(session_id, data) for session_id, data in rows]
        before = 0 if cutoff is None else int.from_bytes(cutoff[0], "big")
        return [record for record in records if record.created_at >= before]


class OverMigration:
    """Gives each application two stores between which sessions move, and reads their records."""

    prepare = False

    def make_store(self):
        return migrating(MemoryStore(), MemoryStore(), prepare=self.prepare)

    def stored(self, store):
        records = [*store.old.records(), *store.new.records()]
        return [record for record in records if not record.in_transit]
