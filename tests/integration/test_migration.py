"""Migrations between real stores while four processes work; the copy is killed and resumed."""

import asyncio
import json
import subprocess
import sys
from contextlib import ExitStack
from itertools import pairwise

import pytest

from sojourn import Sessions
from sojourn.store import Closeable
from sojourn.stores import amigrate
from sojourn.stores.urls import open_store
from sojourn.testing.records import make_record
from sojourn.testing.visitor import Visitor
from tests.integration.valkey import PATIENCE
from tests.support.migration_worker import SECRET
from tests.support.postgresql_fixtures import postgresql, shared_postgresql
from tests.support.valkey_fixtures import shared_valkey, valkey

__all__ = ["postgresql", "shared_postgresql", "shared_valkey", "valkey"]

COPY = """
import sys
from sojourn.stores import migrate
def show(progress):
    print(progress.moved, flush=True)
done = migrate(sys.argv[1], sys.argv[2], timeout=20.0, on_progress=show)
print("finished", done.finished, done.unreadable)
"""


class Migration:
    """The sessions of one test, and the processes that use them.

    Attributes:
        expected: the IDs of all sessions that must exist.
    """

    def __init__(self, folder, workers):
        self.folder = folder
        self.slots = range(workers)
        self.shared = []
        self.counts = {}
        self.idle = []
        self.expected = set()
        self.own = [[] for _ in self.slots]
        self.workers = {}
        self.started = 0

    def fill(self, url, total, used):
        """Create sessions in the first store: some through requests, the others as records."""

        async def work():
            sessions = Sessions(store=url, secret=SECRET)
            for number in range(used):
                visitor = Visitor(sessions)
                async with visitor.visit() as session:
                    session["number"], session["count"] = number, 0
                self.shared.append(visitor.cookie)
                self.expected.add(session.id)
            records = [make_record() for _ in range(total - used)]
            for start in range(0, len(records), 1000):
                await sessions.store.create_many(records[start : start + 1000])
            self.idle = [record.session_id for record in records]
            self.expected.update(self.idle)
            sessions.close()

        asyncio.run(work())

    def start(self, slot, step, old, new):
        """Start a process of a step of the deployment."""
        self.started += 1
        path = self.folder / f"worker-{self.started}.json"
        take = min(len(self.idle), 400)
        idle, self.idle = self.idle[:take], self.idle[take:]
        settings = {
            "old": old,
            "new": new,
            "step": step,
            "number": self.started,
            "shared": self.shared,
            "own": self.own[slot],
            "idle": idle,
        }
        path.write_text(json.dumps(settings))
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.migration_worker", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.workers[slot] = process, path
        line = process.stdout.readline()
        assert line == "ready\n", process.communicate(timeout=PATIENCE)[1][-3000:]

    def stop(self, slot):
        """End a process and read its records."""
        process, path = self.workers.pop(slot)
        process.terminate()
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors[-3000:]
        notes = json.loads(path.with_suffix(".notes").read_text())
        for number, count in notes["increments"].items():
            self.counts[int(number)] = self.counts.get(int(number), 0) + count
        self.expected |= set(notes["created"])
        self.expected -= set(notes["revoked"])
        self.own[slot] = notes["own"]

    def roll_out(self, step, old, new):
        """Replace one process after the other."""
        for slot in self.slots:
            if slot in self.workers:
                self.stop(slot)
            self.start(slot, step, old, new)

    def stop_all(self):
        """End all processes."""
        for slot in list(self.workers):
            self.stop(slot)

    def kill_all(self):
        """Kill the remaining processes."""
        for process, _ in self.workers.values():
            process.kill()
            process.communicate(timeout=PATIENCE)

    def copy(self, old, new, *, kills, total):
        """Run the bulk copy; kill it after parts of the sessions."""
        for kill in (*range(1, kills + 1), None):
            process = subprocess.Popen(
                [sys.executable, "-c", COPY, old, new], stdout=subprocess.PIPE, text=True
            )
            limit = total // (2 * (kills + 1))
            for line in process.stdout:
                if kill is not None and line.strip().isdigit() and int(line) >= limit:
                    process.kill()
                    break
            rest = process.stdout.read()
            process.stdout.close()
            assert (process.wait(PATIENCE) == 0) == (kill is None)
        assert line == "finished True 0\n", line + rest

    def check(self, url):
        """Compare a store with the operations that the processes recorded."""

        async def work():
            sessions = Sessions(store=url, secret=SECRET, store_timeout="20 seconds")
            found, cursor, is_last = [], "", False
            while not is_last:
                page = await sessions.store.list_page(cursor, 1000)
                found += [r.session_id for r in page.records if r.version and not r.in_transit]
                cursor, is_last = page.cursor, not page.cursor
            found = set(found)
            assert len(self.expected - found) == 0, "lost"
            assert len(found - self.expected) == 0, "revived or duplicated"
            for number, cookie in enumerate(self.shared):
                session = await Visitor(sessions, cookie=cookie).load()
                assert session["count"] == self.counts.get(number, 0), f"session {number}"
            for one in (each for own in self.own for each in own):
                listed = await sessions.alist_user(one["name"])
                alive = one["cookie"] and one["user"]
                assert [each.id for each in listed] == ([one["id"]] if alive else [])
            sessions.close()

        asyncio.run(work())


def left_in(url):
    """Return the number of sessions in a store."""

    async def work():
        store = open_store(url, realm="default", timeout=20.0)
        left, cursor, is_last = 0, "", False
        while not is_last:
            page = await store.list_page(cursor, 1000)
            left += sum(not record.in_transit for record in page.records)
            cursor, is_last = page.cursor, not page.cursor
        if isinstance(store, Closeable):
            store.close()
        return left

    return asyncio.run(work())


def test_sessions_move_from_sqlite_to_valkey(tmp_path, repository, monkeypatch, valkey):
    """S5, S10, S11, S15, S16: 0 lost, 0 revived, 0 duplicated while two processes work."""
    monkeypatch.chdir(repository)  # the modules of tests
    old, new = f"sqlite:///{tmp_path}/sessions.db", valkey.url
    migration = Migration(tmp_path, workers=2)
    migration.fill(old, 3_000, 40)
    with ExitStack() as cleanup:
        cleanup.callback(migration.kill_all)
        migration.roll_out("prepare", old, new)
        migration.roll_out("move", old, new)
        migration.copy(old, new, kills=1, total=3_000)
        migration.stop_all()
        migration.check(new)
        assert left_in(old) == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_100_000_sessions_move_from_sqlite_to_valkey_to_postgresql(
    tmp_path, repository, monkeypatch, valkey, postgresql
):
    """S5, S10, S11, S15, S16: 0 lost, 0 revived, 0 duplicated while four processes work.

    Each step of the deployment is rolled out, and the copy is killed twice.
    """
    monkeypatch.chdir(repository)
    urls = [f"sqlite:///{tmp_path}/sessions.db", valkey.url, postgresql.url]
    migration = Migration(tmp_path, workers=4)
    migration.fill(urls[0], 100_000, 400)
    with ExitStack() as cleanup:
        cleanup.callback(migration.kill_all)
        for old, new in pairwise(urls):
            for step in ("old", "prepare", "move"):
                migration.roll_out(step, old, new)
            migration.copy(old, new, kills=2, total=100_000)
            migration.roll_out("new", old, new)
            migration.stop_all()
            migration.check(new)
            assert left_in(old) == 0


@pytest.mark.anyio
async def test_sessions_move_back(tmp_path, valkey):
    """S11, S15: from Valkey to SQLite, with users, cutoffs and tombstones."""
    old = open_store(valkey.url, realm="default", timeout=5.0)
    new = open_store(f"sqlite:///{tmp_path}/sessions.db", realm="default", timeout=5.0)
    sessions = Sessions(store=old, secret=SECRET)
    visitors = [Visitor(sessions) for _ in range(30)]
    for number, visitor in enumerate(visitors):
        async with visitor.visit() as session:
            session["number"] = number
            session.login(f"user-{number % 3}")
    assert await sessions.arevoke_user("user-0", reason="theft") == 10
    progress = await amigrate(old, new, users=["user-0", "user-1", "user-2"])
    assert progress.finished
    assert (progress.moved, progress.cutoffs, progress.unnamed_cutoffs) == (30, 1, 1)
    after = Sessions(store=new, secret=SECRET)
    assert [len(await after.alist_user(f"user-{n}")) for n in range(3)] == [0, 10, 10]
    for number, visitor in enumerate(visitors):
        session = await visitor.at(after).load()
        assert session.get("number") == (number if number % 3 else None)
        assert session.ended_reason == (None if number % 3 else "theft")
    assert not await after.engine.revoker.accepts_login("user-0", 1)
    assert await after.engine.revoker.accepts_login("user-1", 1)
    for each in (sessions, after):
        each.close()
