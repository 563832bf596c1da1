"""SQLiteStore in several processes: concurrent, forked, killed and stopped ones.

Each test starts real processes, whose programs are at the top. One process: test_sqlite.py.
"""

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from sojourn._core.concurrency import run
from sojourn.errors import StoreUnavailable
from sojourn.stores.sqlite import SQLiteStore
from sojourn.testing.records import make_record, next_version

# Creates records and saves each twice, 40 at a time; prints an ID when its saves are acknowledged.
WRITE = """
import asyncio, sys
from sojourn.stores.sqlite import SQLiteStore
from sojourn.testing.records import make_body, make_record, next_version

async def live(store):
    while True:
        record = make_record(body=make_body(blob=bytes(3000)))
        assert await store.create(record)
        for _ in range(2):
            saved = next_version(record)
            await store.save(saved, record.version)
            record = saved
        sys.stdout.write(record.id.hex() + "\\n")
        sys.stdout.flush()

async def main():
    store = SQLiteStore(sys.argv[1])
    await asyncio.gather(*(live(store) for _ in range(40)))

asyncio.run(main())
"""

# Increments the version of one record 200 times, from 4 threads.
INCREMENT = """
import sys, threading
from sojourn._core.concurrency import run
from sojourn.store import SAVED, Conflict
from sojourn.stores.sqlite import SQLiteStore
from sojourn.testing.records import next_version

store = SQLiteStore(sys.argv[1], timeout=30)
session_id = bytes.fromhex(sys.argv[2])

def work():
    for _ in range(50):
        record = run(store.load(session_id))
        while True:
            answer = run(store.save(next_version(record), record.version))
            if answer is SAVED:
                break
            assert isinstance(answer, Conflict)
            record = answer.newer

threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""

# Uses a store before a fork, in both processes after it, and during many forks.
FORK = """
import os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # the test forks a process with threads
from sojourn._core.concurrency import run
from sojourn.stores.sqlite import SQLiteStore
from sojourn.testing.records import make_record, next_version

store = SQLiteStore(sys.argv[1], timeout=20)
idle = SQLiteStore(sys.argv[1], realm="idle")
before = make_record()
assert run(store.create(before))
assert run(store.load(before.id)) == before

stop = threading.Event()
written = []

def load():
    while not stop.is_set():
        record = make_record()
        assert run(store.create(record))
        assert run(store.load(record.id)) == record
        written.append(record.id)

threads = [threading.Thread(target=load) for _ in range(3)]
[thread.start() for thread in threads]
children = []
for _ in range(12):
    child = os.fork()
    if child == 0:
        record = make_record()
        assert run(store.load(before.id)) == before
        assert run(store.create(record))
        assert run(store.save(next_version(record), 1)).value == "saved"
        assert run(idle.create(record))
        store.close()
        os._exit(0 if run(SQLiteStore(sys.argv[1]).load(record.id)).version == 2 else 1)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
stop.set()
[thread.join() for thread in threads]
assert codes == [0] * 12, codes
assert all(run(store.load(session_id)) is not None for session_id in written)
print(len(written))
"""

# Acknowledges one write and exits without closing the store.
END = """
import sys
from sojourn._core.concurrency import run
from sojourn.stores.sqlite import SQLiteStore
from sojourn.testing.records import make_record

store = SQLiteStore(sys.argv[1])
record = make_record()
assert run(store.create(record))
print(record.id.hex())
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sessions.db"


def start(program, *args):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, *map(str, args)],
        stdout=subprocess.PIPE,
        text=True,
    )


def check_integrity(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_kill_9_loses_no_acknowledged_write(path):
    """S11: three times in succession."""
    for acknowledged in (50, 500, 2000):
        writer = start(WRITE, path)
        lines = [writer.stdout.readline().strip() for _ in range(acknowledged)]
        writer.kill()
        lines += writer.communicate()[0].split()
        store = SQLiteStore(path)
        whole = [line for line in lines if len(line) == 32]  # the last line may be incomplete
        assert len(whole) >= acknowledged
        for line in whole:
            record = run(store.load(bytes.fromhex(line)))
            assert record is not None
            assert record.version == 3
            assert record.contents().data
        store.close()
        check_integrity(path)


def test_processes_and_threads_that_increment_lose_no_update(path):
    """S10: two processes of four threads each change one record."""
    store = SQLiteStore(path)
    record = make_record()
    run(store.create(record))
    others = [start(INCREMENT, path, record.id.hex()) for _ in range(2)]
    assert [other.wait(50) for other in others] == [0, 0]
    for other in others:
        other.stdout.close()
    assert run(store.load(record.id)).version == 1 + 2 * 4 * 50
    store.close()
    check_integrity(path)


def test_processes_can_create_the_database_concurrently(path):
    """The first start of several workers."""
    others = [start(END, path) for _ in range(6)]
    answers = [other.communicate(timeout=50)[0].strip() for other in others]
    assert [other.returncode for other in others] == [0] * 6
    store = SQLiteStore(path)
    assert None not in [run(store.load(bytes.fromhex(line))) for line in answers]
    store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_at_any_moment_affects_neither_process(path):
    """No connection is inherited: https://sqlite.org/howtocorrupt.html (gunicorn --preload)."""
    program = start(FORK, path)
    output, _ = program.communicate(timeout=50)
    assert program.returncode == 0
    assert int(output) > 0
    check_integrity(path)


def test_a_program_that_exits_without_close_leaves_a_complete_database(path):
    """S11: the log is checkpointed at the exit."""
    program = start(END, path)
    session_id = bytes.fromhex(program.communicate(timeout=50)[0].strip())
    assert program.returncode == 0
    assert not path.with_name("sessions.db-wal").exists()
    store = SQLiteStore(path)
    assert run(store.load(session_id)) is not None
    store.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no signals stop a process there")
@pytest.mark.parametrize("call", [run, asyncio.run], ids=["thread", "loop"])
def test_a_stopped_process_delays_others_until_the_deadline(path, call):
    """S12: it is stopped while it holds the write lock."""
    pytest.importorskip("fcntl")
    store = SQLiteStore(path, timeout=0.3)
    record = make_record()
    run(store.create(record))
    holder = start(
        "import fcntl, sys, time; lock = open(sys.argv[1] + '-lock', 'r+'); "
        "fcntl.flock(lock, fcntl.LOCK_EX); print('held', flush=True); time.sleep(60)",
        path,
    )
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        call(store.save(next_version(record), 1))
    SQLiteStore(path, realm="other", timeout=0.3).close()  # SQLite's own lock is free
    assert time.monotonic() - began < 2
    assert run(store.load(record.id)) == record
    holder.kill()
    holder.communicate()
    late = make_record()
    assert run(store.create(late)) is True
    assert run(store.load(record.id)) == record  # the failed save does not happen later
    store.close()
