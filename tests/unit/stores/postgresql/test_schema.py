"""The tables: created at first use, migrated, and refused with advice."""

import logging
import subprocess
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from sojourn._core.concurrency import run
from sojourn.errors import StoreError
from sojourn.store import SAVED, LimitPolicy, LoginSaved, Purged, SessionLimit
from sojourn.stores.postgresql import schema, schema_sql
from sojourn.stores.urls import open_store
from sojourn.testing.decorators import in_threads
from sojourn.testing.records import login, make_record, next_version, save_login
from sojourn.testing.store_suite.history import make_entry


def tables(server, name="public"):
    rows = server.query("SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1", name)
    return [table for (table,) in rows]


ALL = ["sojourn_cutoffs", "sojourn_history", "sojourn_keys", "sojourn_schema", "sojourn_sessions"]


HOSTILE_UNNEST = sql.SQL("""
CREATE FUNCTION public.unnest({kind}[]) RETURNS SETOF {kind} LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO public.called VALUES (current_user);
    RETURN QUERY SELECT pg_catalog.unnest($1);
END $$""")


@pytest.fixture
def open_url(postgresql):
    stores = []

    def open_url(options="", url=None):
        stores.append(open_store((url or postgresql.url) + options, realm="default", timeout=5.0))
        return stores[-1]

    yield open_url
    for store in stores:
        store.close()


@pytest.fixture
def guest(postgresql):
    """Yield the URL of a user who may use the schema but not change it."""
    postgresql.query("CREATE ROLE guest LOGIN")
    yield postgresql.url.replace("postgres@", "guest@")
    postgresql.query("DROP OWNED BY guest; DROP ROLE guest")


class TestCreation:
    def test_the_first_call_creates_the_tables(self, postgresql, open_url, caplog):
        caplog.set_level(logging.INFO, logger="sojourn")
        assert run(open_url().load(bytes(16))) is None
        assert tables(postgresql) == ALL
        assert "the tables of version 2 were created" in caplog.text
        caplog.clear()
        assert run(open_url().load(bytes(16))) is None
        assert caplog.text == ""

    def test_tables_are_created_in_the_given_schema(self, postgresql, open_url):
        """S14: its name needs quotes; another schema has other sessions."""
        store = open_url("?schema=My%20%22Shop%22")
        record = login(None, "ada")
        run(save_login(store, record, 0))
        assert run(store.load(record.id)) == record
        assert tables(postgresql, 'My "Shop"') == ALL
        assert tables(postgresql) == []
        assert run(open_url().load(record.id)) is None
        postgresql.query('DROP SCHEMA "My ""Shop""" CASCADE')

    @pytest.mark.parametrize(
        "name",
        ["@cutoffs@version @valid", "$1 %(realm)s 100%% %s {x}", "a' \\ $$; DROP", "ünïcödé"],
    )
    def test_any_schema_name_is_quoted(self, postgresql, open_url, name):
        """S14: no part of it is taken for a placeholder."""
        store = open_url(f"?schema={quote(name, safe='')}")
        limit = SessionLimit(1, LimitPolicy.EVICT_OLDEST)
        first, second = login(None, "ada"), login(None, "ada")
        run(save_login(store, first, 0))
        assert run(save_login(store, second, 0, limit=limit)) == LoginSaved((first.id,))
        assert run(store.list_by_index("user:ada")) == [second]
        assert run(store.save(next_version(second), 1)) is SAVED
        assert run(store.touch(second)) is True
        assert run(store.count(0)) == 1
        assert run(store.register_keys([bytes(8)])) is True
        run(store.invalidate_all(second.created_at + 1))
        assert run(store.purge(0, 10)) == Purged(1, finished=True)
        assert tables(postgresql, name) == ALL
        assert tables(postgresql) == []
        identifier = sql.Identifier(name)
        postgresql.query(sql.SQL("DROP SCHEMA {} CASCADE").format(identifier))

    def test_a_database_in_another_encoding_is_supported(self, postgresql, open_url):
        """S14: the name of the schema equals that in the URL."""
        postgresql.query("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        store = open_url("?schema=caf%C3%A9", url=f"{postgresql.url.rpartition('/')[0]}/latin")
        record = login(None, "ünïcödé €")
        run(save_login(store, record, 0))
        assert run(store.list_by_index("user:ünïcödé €")) == [record]
        with postgresql.admin(dbname="latin", client_encoding="UTF8") as connection:
            rows = connection.execute("SELECT id FROM café.sojourn_sessions").fetchall()
        assert rows == [(record.id,)]
        store.close()
        postgresql.query("DROP DATABASE latin WITH (FORCE)")

    def test_functions_of_another_user_are_not_called(self, postgresql, open_url, guest):
        """B-10: a function in `public` with a closer type than PostgreSQL's own would replace it.

        It would run with the rights of the user of the sessions (CVE-2018-1058).
        """
        postgresql.query(
            "GRANT CREATE ON SCHEMA public TO guest; CREATE TABLE called (name text);"
            "GRANT INSERT ON called TO PUBLIC"
        )
        with psycopg.connect(guest, autocommit=True) as connection:
            for kind in ("text", "bytea", "bigint"):
                connection.execute(HOSTILE_UNNEST.format(kind=sql.SQL(kind)))
        store = open_url()
        record = login(None, "ada")
        assert run(store.register_keys([bytes(8)])) is True
        run(save_login(store, record, 0))
        assert run(store.save(next_version(record), 1)) is SAVED
        run(store.invalidate_logins("user:ada", record.authenticated_at + 1))
        run(store.publish("revoked", record.id))
        run(store.add_history([make_entry()], lifetime=60_000))
        try:
            assert postgresql.query("SELECT name FROM called") == []
        finally:
            postgresql.query("DROP TABLE called")

    def test_threads_that_start_together_create_the_tables_once(self, postgresql, open_url):
        stores = [open_url() for _ in range(6)]
        in_threads(*[lambda store=store: run(store.load(bytes(16))) for store in stores])
        assert postgresql.query("SELECT version FROM sojourn_schema") == [(2,)]

    def test_dropped_tables_are_created_again(self, postgresql, open_url):
        """S12: without a restart."""
        store = open_url()
        record = make_record()
        run(store.create(record))
        postgresql.query("DROP TABLE sojourn_sessions, sojourn_cutoffs, sojourn_schema")
        assert run(store.load(record.id)) is None
        assert run(store.create(record)) is True

    def test_the_printed_sql_creates_the_same_tables(self, postgresql, open_url):
        """It can be executed repeatedly, and with psql."""
        run(open_url().load(bytes(16)))
        columns = (
            "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns"
            " WHERE table_name LIKE 'sojourn%%' ORDER BY 1, 2"
        )
        created = postgresql.query(columns)
        indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
        created_indexes = postgresql.query(indexes)
        postgresql.reset()
        for _ in range(2):
            self.psql(postgresql, schema_sql())
        assert postgresql.query(columns) == created
        assert postgresql.query(indexes) == created_indexes
        self.psql(postgresql, schema_sql("other"))
        assert tables(postgresql, "other") == ALL
        postgresql.query("DROP SCHEMA other CASCADE")

    @staticmethod
    def psql(server, text):
        subprocess.run(
            [server.programs / "psql", "-v", "ON_ERROR_STOP=1", "-q", server.url],
            input=text,
            text=True,
            check=True,
            capture_output=True,
        )


class TestPrivileges:
    def test_a_user_without_the_privilege_to_create_tables_gets_advice(self, guest, open_url):
        store = open_url(url=guest)
        for _ in range(2):
            with pytest.raises(StoreError, match="`sojourn schema postgresql`") as caught:
                run(store.load(bytes(16)))
            assert "do not exist" in str(caught.value)

    def test_tables_created_by_an_operator_are_found(self, postgresql, guest, open_url):
        """S12: without a restart."""
        store = open_url(url=guest)
        with pytest.raises(StoreError):
            run(store.load(bytes(16)))
        TestCreation.psql(postgresql, schema_sql() + "GRANT USAGE ON SCHEMA public TO guest;")
        with pytest.raises(StoreError, match="grant the user SELECT, INSERT, UPDATE and DELETE"):
            run(store.load(bytes(16)))
        postgresql.query(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest"
        )
        record = make_record()
        assert run(store.create(record)) is True
        assert run(store.load(record.id)) == record

    def test_a_missing_schema_without_the_privilege_to_create_it_gives_advice(
        self, guest, open_url
    ):
        store = open_url("?schema=shop", url=guest)
        with pytest.raises(StoreError, match="may not create or change tables"):
            run(store.load(bytes(16)))

    def test_a_foreign_table_of_the_same_name_is_refused(self, postgresql, open_url):
        """It is not changed."""
        postgresql.query("CREATE TABLE sojourn_sessions (id bytea)")
        with pytest.raises(StoreError, match="SQLSTATE 42703"):
            run(open_url().load(bytes(16)))
        assert tables(postgresql) == ["sojourn_sessions"]


class TestMigration:
    @pytest.fixture
    def next_version(self, monkeypatch):
        """Simulate a release whose table has one more column."""
        monkeypatch.setattr(schema, "SCHEMA_VERSION", 3)
        monkeypatch.setattr("sojourn.stores.postgresql.schema_migration.SCHEMA_VERSION", 3)
        monkeypatch.setattr(
            schema, "_MIGRATIONS", {2: ["ALTER TABLE @sessions ADD COLUMN note text"]}
        )

    def columns(self, server):
        return server.query(
            "SELECT count(*) FROM information_schema.columns WHERE column_name = 'note'"
        )

    def test_earlier_tables_are_migrated_with_their_sessions(
        self, postgresql, open_url, request, caplog
    ):
        record = make_record()
        run(open_url().create(record))
        request.getfixturevalue("next_version")
        caplog.set_level(logging.INFO, logger="sojourn")
        stores = [open_url() for _ in range(6)]
        found = []
        in_threads(
            *[lambda store=store: found.append(run(store.load(record.id))) for store in stores]
        )
        assert found == [record] * 6
        assert self.columns(postgresql) == [(1,)]
        assert postgresql.query("SELECT version FROM sojourn_schema") == [(3,)]
        assert "migrated from version 2" in caplog.text

    def test_a_failed_migration_changes_no_table(self, postgresql, open_url, request, monkeypatch):
        run(open_url().load(bytes(16)))
        request.getfixturevalue("next_version")
        steps = ["ALTER TABLE @sessions ADD COLUMN note text", "ALTER TABLE missing ADD x text"]
        monkeypatch.setattr(schema, "_MIGRATIONS", {2: steps})
        with pytest.raises(StoreError):
            run(open_url().load(bytes(16)))
        assert self.columns(postgresql) == [(0,)]
        assert postgresql.query("SELECT version FROM sojourn_schema") == [(2,)]

    def test_a_running_process_of_the_earlier_release_continues(
        self, postgresql, open_url, request
    ):
        """Including statements that it prepared before the migration."""
        earlier = open_url("?prepare_threshold=0")
        record = make_record()
        run(earlier.create(record))
        assert run(earlier.load(record.id)) == record
        request.getfixturevalue("next_version")
        assert run(open_url().load(record.id)) == record
        assert run(earlier.load(record.id)) == record

    def test_tables_of_a_newer_release_are_refused(self, postgresql, open_url):
        run(open_url().load(bytes(16)))
        postgresql.query("UPDATE sojourn_schema SET version = 3")
        with pytest.raises(StoreError, match=r"have version 3.* expects 2.*Update sojourn"):
            run(open_url().load(bytes(16)))


class TestVersion1:
    """Tables of the first release, without the history."""

    @pytest.fixture
    def earlier(self, postgresql, open_url):
        record = make_record()
        store = open_url()
        run(store.create(record))
        store.close()
        postgresql.query("DROP TABLE sojourn_history")
        postgresql.query("UPDATE sojourn_schema SET version = 1")
        return record

    def test_the_history_table_is_added_at_the_first_call(self, postgresql, open_url, earlier):
        store = open_url()
        assert run(store.load(earlier.id)) == earlier
        assert tables(postgresql) == ALL
        entry = make_entry()
        run(store.add_history([entry], 86_400_000))
        assert run(store.list_history("", 10)).entries == [entry]

    def test_an_operator_adds_the_history_table_with_the_printed_sql(
        self, postgresql, guest, open_url, earlier
    ):
        """The user of the application may not change tables."""
        grant = (
            "GRANT USAGE ON SCHEMA public TO guest; "
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest;"
        )
        postgresql.query(grant)
        store = open_url(url=guest)
        with pytest.raises(StoreError, match=r"have version 1, version 2 is .*schema_sql\(\)"):
            run(store.load(earlier.id))
        for _ in range(2):
            TestCreation.psql(postgresql, schema_sql() + grant)
        assert run(store.load(earlier.id)) == earlier
        entry = make_entry()
        run(store.add_history([entry], 86_400_000))
        assert run(store.list_history("", 10)).entries == [entry]
