"""Problems of any store: clocks, records, wrong results, lost messages, failing checks."""

import contextlib
import sqlite3
import time

import pytest

from sojourn import Sessions
from sojourn.cli.doctor_checks import deep_check, problems, records
from sojourn.stores import migrating
from sojourn.stores.memory import MemoryStore
from sojourn.stores.redis.store import RedisStore
from sojourn.stores.sqlite.store import SQLiteStore
from tests.support.examination import SECRET, codes, examined, found

MINUTE = 60_000_000_000


def test_problems_have_different_codes_and_complete_texts():
    found_codes = [problem.code for problem in problems()]
    assert len(found_codes) == len(set(found_codes))
    assert len(found_codes) > 50
    for problem in problems():
        assert problem.expected, problem.code
        assert problem.remedy, problem.code


@pytest.mark.parametrize(
    ("minutes", "code", "words"),
    [
        (60, "clock-wrong", "60 minutes ahead of"),
        (-60, "clock-wrong", "60 minutes behind"),
        (1, "clock-offset", "seconds ahead of"),
    ],
)
def test_a_clock_that_differs_from_the_servers(valkey, monkeypatch, minutes, code, words):
    """A22: sojourn tolerates an hour, other programs do not."""
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + minutes * MINUTE)
    report = examined(valkey.url)
    found(report, code, words, "timedatectl set-ntp true")
    assert ({"clock-wrong", "clock-offset"} - {code}).isdisjoint(codes(report))


def test_a_clock_that_differs_a_little(valkey, monkeypatch):
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + MINUTE // 30)
    assert {"clock-wrong", "clock-offset"}.isdisjoint(codes(examined(valkey.url)))


@pytest.fixture
def database(tmp_path):
    """A database with 30 sessions, and its URL."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    url = f"sqlite:///{folder}/s.db"
    with contextlib.closing(Sessions(store=url, secret=SECRET)) as sessions:
        for _ in range(30):
            with sessions.open() as visit:
                visit.session["a"] = 1
    return url, folder / "s.db"


def test_expired_records_that_no_purge_removes(database, monkeypatch):
    """S8."""
    url, _ = database
    assert "records-purge-lag" not in codes(examined(url))
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 60 * 24 * 60 * MINUTE)
    found(examined(url), "records-purge-lag", "30 of 30", "sojourn purge")


@pytest.mark.parametrize("length", [1, 138])
def test_unreadable_records(database, length):
    """S9: a record of an unknown format, and one whose body is damaged."""
    url, path = database
    damage = (
        "UPDATE sessions SET record = CAST(substr(record, 1, ?) || x'c1' AS BLOB) "
        "WHERE id = (SELECT min(id) FROM sessions)"
    )
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(damage, (length,))
    found(examined(url), "records-unreadable", "1 of 30 records", "upgrade sojourn here")


def test_a_sample_is_bounded(database, monkeypatch):
    url, _ = database
    monkeypatch.setattr(records, "_SAMPLE", 10)
    monkeypatch.setattr(records, "_PAGE", 5)
    sizes = []
    list_page = SQLiteStore.list_page

    async def counted(self, cursor, limit):
        sizes.append(limit)
        return await list_page(self, cursor, limit)

    monkeypatch.setattr(SQLiteStore, "list_page", counted)
    examined(url)
    assert sizes == [5, 5]


# Two stores during a migration


def test_both_stores_of_a_migration_are_examined(database, valkey):
    _, path = database
    path.chmod(0o644)
    store = migrating(f"sqlite:///{path}", valkey.url)
    with contextlib.closing(Sessions(store=store, secret=SECRET)) as sessions:
        path.chmod(0o644)  # the store has repaired it
        report = examined(store=sessions.store, config=sessions.config)
    found(report, "sqlite-mode", "old store: ")
    found(report, "valkey-persistence", "new store: ")
    assert report.server.startswith("SQLite ")
    assert " and Valkey " in report.server
    assert report.reached
    assert report.round_trip is not None


def test_a_migration_to_a_store_that_does_not_answer(database):
    url, _ = database
    store = migrating(url, "redis://127.0.0.1:1/0")
    with contextlib.closing(Sessions(store=store, secret=SECRET)) as sessions:
        report = examined(store=sessions.store, config=sessions.config)
    found(report, "store-unreachable", "new store: ")
    skipped = {each.name: each.reason for each in report.checks if each.state == "skipped"}
    assert skipped["deep check"] == "the server was not reached"


# Stores that break their contract


class ForgetfulStore(MemoryStore):
    """Keeps nothing, and says that it did."""

    async def create(self, record):
        return True


class ResurrectingStore(MemoryStore):
    """Creates what it should only replace (law S5)."""

    async def save(self, record, expected_version):
        result = await super().save(record, expected_version)
        if result.__class__.__name__ == "Status" and result.name == "GONE":
            await self.create(record)
        return result


class UndeletingStore(MemoryStore):
    """Says that it deleted."""

    async def delete(self, session_id):
        return await self.load(session_id) is not None


@pytest.mark.parametrize(
    ("store", "step"),
    [
        (ForgetfulStore, "create of the same ID"),
        (UndeletingStore, "load after delete"),
    ],
)
def test_a_store_with_wrong_results(store, step):
    """S2, S7."""
    report = examined(store=store())
    found(report, "deep-check-failed", step, "StoreSuite")


def test_a_deep_check_keeps_nothing():
    store = ResurrectingStore()
    examined(store=store)
    assert store._records == {}


class SilentStore(SQLiteStore):
    """Publishes nothing."""

    async def publish(self, kind, *session_ids, version=0, reason=""):
        """Do nothing."""


def test_a_message_that_does_not_arrive(database, monkeypatch):
    """S17."""
    monkeypatch.setattr(deep_check, "_MAX_DELAY", 0.05)
    _, path = database
    with contextlib.closing(SilentStore(path)) as store:
        report = examined(store=store)
    found(report, "broadcast-lost", "no message arrived", "&prefix:*")


class BrokenStore(MemoryStore):
    """Raises what no store may raise."""

    async def create(self, record):
        raise ZeroDivisionError("with the password s3cr3t-word")


def test_an_examination_continues_after_a_check_that_fails():
    report = examined(store=BrokenStore())
    found(report, "check-failed", "deep check: ZeroDivisionError", "report this")
    assert report.checks[-1].name == "broadcast"
    assert report.checks[-1].state == "ok"


def test_a_message_with_the_password_of_the_url_is_masked(valkey, monkeypatch):
    """A18: the error of a library might quote the URL, or the secret."""

    async def fail(*_):
        raise KeyError(url, SECRET)

    monkeypatch.setattr(RedisStore, "server_time", fail)
    url = f"redis://default:s3cr3t%2Fword@127.0.0.1:{valkey.port}/0"
    report = examined(url)
    assert "check-failed" in codes(report)
    assert "s3cr3t" not in repr(report)
    assert SECRET not in repr(report)
