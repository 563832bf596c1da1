"""The audit log: its events, the form of a line, and errors that never affect a request."""

import io
import json
import logging
import os
import stat
import subprocess
import sys

import pytest

from sojourn.audit import Audit
from sojourn.errors import ConfigurationError
from sojourn.events import (
    KINDS,
    Conflicted,
    Created,
    Dispatcher,
    Event,
    Expired,
    Read,
    Rejected,
    Revoked,
    StoreFailed,
    Written,
)

ID = "00112233445566778899aabbccddeeff"
AT = 1_767_225_600_007  # 2026-01-01 00:00:00.007 UTC


class FutureEvent(Event, frozen=True):
    """An event kind of a later release."""

    user: str | None
    methods: tuple[str, ...]
    actor: object


def collect(*events):
    """Return the lines that the audit passes to a function for these events."""
    lines = []
    audit = Audit(lines.append, clock=lambda: AT)
    for event in events:
        audit.write(event)
    return lines


def test_a_line_contains_time_event_session_and_reason():
    """ASVS 16.2.1, 16.3.1: ISO 8601 in UTC, the event, the session, and all its fields."""
    (line,) = collect(Revoked(ID, "stolen phone"))
    assert line == (
        '{"time":"2026-01-01T00:00:00.007Z","event":"Revoked",'
        f'"session":"{ID}","reason":"stolen phone","actor":null,"instant":0}}'
    )


@pytest.mark.parametrize(
    ("event", "more"),
    [
        (Created(ID), {}),
        (Expired(ID, "idle"), {"limit": "idle"}),
        (Rejected(ID, "replaced"), {"reason": "replaced"}),
        (Conflicted(ID, 3), {"attempts": 3}),
        (StoreFailed(ID, "load", "refused"), {"operation": "load", "error": "refused"}),
        (FutureEvent(ID, None, ("password", "otp"), "admin"),
         {"user": None, "methods": ["password", "otp"], "actor": "admin"}),
        (FutureEvent(ID, "ada", (), frozenset()), {"user": "ada", "methods": [], "actor": []}),
        (FutureEvent(ID, "ada", (), ValueError("x")), {"user": "ada", "methods": [], "actor": "x"}),
    ],
    ids=lambda each: type(each).__name__,
)  # fmt: skip
def test_every_field_of_every_kind_is_written(event, more):
    """ASVS 16.3: also fields of any type, of kinds that are added later."""
    (line,) = collect(event)
    entry = json.loads(line)
    assert entry.pop("time") == "2026-01-01T00:00:00.007Z"
    assert entry == {"event": type(event).__name__, "session": ID, **more}


def test_an_event_without_a_session_has_a_null_session():
    assert json.loads(*collect(Rejected("", "forged")))["session"] is None


def test_all_kinds_are_audited_except_reads_and_writes():
    """ASVS 16.3.1: new kinds of events are included without a change."""
    lines, dispatcher = [], Dispatcher()
    Audit(lines.append).listen(dispatcher)
    assert {kind for kind in KINDS if kind in dispatcher.listeners} == KINDS - {Read, Written}
    dispatcher.emit(Created(ID))
    dispatcher.emit(Read(ID, 1))
    dispatcher.emit(Written(ID, 1))
    assert [json.loads(line)["event"] for line in lines] == ["Created"]


@pytest.mark.parametrize("reason", ["x\n{}", "x\r\ny", "\x00\x1b[2J", 'x","event":"Created'])
def test_no_field_can_start_another_line(reason):
    """ASVS 16.4.1: a logged value cannot forge a line."""
    (line,) = collect(Revoked(ID, reason))
    assert line.isprintable()
    assert json.loads(line)["reason"] == reason
    assert json.loads(line)["event"] == "Revoked"


def test_text_that_is_not_utf8_is_escaped():
    (line,) = collect(StoreFailed(ID, "load", "/srv/\udcff.db"))
    assert json.loads(line)["error"] == "/srv/\\udcff.db"


def test_without_a_clock_the_real_time_is_written():
    lines = []
    Audit(lines.append).write(Created(ID))
    assert json.loads(lines[0])["time"] > "2026-01-01"


# Sinks


def test_a_file_is_appended_to(tmp_path):
    path = tmp_path / "audit.jsonl"
    path.write_text("an earlier line\n")
    for sink in (path, str(path)):
        Audit(sink).write(Created(ID))
    first, *lines = path.read_text("utf-8").splitlines()
    assert first == "an earlier line"
    assert [json.loads(line)["session"] for line in lines] == [ID, ID]


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")
def test_a_new_file_is_readable_by_its_owner_only(tmp_path):
    """B-50: an existing file keeps its mode."""
    new, known = tmp_path / "new", tmp_path / "known"
    known.touch(0o640)
    known.chmod(0o640)
    before = os.umask(0)
    try:
        for path in (new, known):
            Audit(path).write(Created(ID))
    finally:
        os.umask(before)
    assert stat.S_IMODE(new.stat().st_mode) == 0o600
    assert stat.S_IMODE(known.stat().st_mode) == 0o640


def test_a_rotated_file_is_created_again(tmp_path):
    path = tmp_path / "audit"
    audit = Audit(path)
    audit.write(Revoked(ID, "before"))
    path.rename(tmp_path / "audit.1")
    audit.write(Revoked(ID, "after"))
    assert "before" in (tmp_path / "audit.1").read_text("utf-8")
    assert "after" in path.read_text("utf-8")
    assert "before" not in path.read_text("utf-8")


def test_a_relative_path_is_resolved_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    audit = Audit("audit.jsonl")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    audit.write(Created(ID))
    assert (tmp_path / "audit.jsonl").read_text("utf-8").count("\n") == 1


PROGRAM = """
import sys
from sojourn.audit import Audit
from sojourn.events import Revoked

audit = Audit(sys.argv[1])
for n in range(500):
    audit.write(Revoked(sys.argv[2], sys.argv[2] * (1 + n % 40)))
"""


def test_lines_of_several_processes_are_not_interleaved(tmp_path):
    """ASVS 16.4: every line is complete, and none is lost."""
    path = tmp_path / "audit"
    running = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(path), letter * 32])
        for letter in "abcd"
    ]
    assert [process.wait(timeout=30) for process in running] == [0, 0, 0, 0]
    entries = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert len(entries) == 2_000
    assert all(set(entry["reason"]) == set(entry["session"]) for entry in entries)


@pytest.mark.parametrize("mode", ["w", "wb"])
@pytest.mark.parametrize("buffering", [-1, 0])
def test_a_file_object_receives_each_line_immediately(tmp_path, mode, buffering):
    path = tmp_path / "audit"
    if mode == "w" and not buffering:
        buffering = 1  # text has no unbuffered form
    with path.open(mode, buffering=buffering, encoding="utf-8" if mode == "w" else None) as file:
        audit = Audit(file)
        for n in (1, 2):
            audit.write(Revoked(ID, "ä"))
            lines = path.read_text("utf-8").splitlines()
            assert [json.loads(line)["reason"] for line in lines] == ["ä"] * n


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_writes_although_a_thread_of_its_parent_was_writing():
    """S12: the lock that the thread holds at the fork is never released in the child."""
    sink = Audit(io.StringIO())._write_line
    sink._lock.acquire()
    child = os.fork()
    if child == 0:
        os._exit(0 if sink._lock.acquire(timeout=0) else 1)
    sink._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("memory", [io.StringIO, io.BytesIO])
def test_each_line_is_one_write(memory):
    """Otherwise lines of several processes that share a pipe could be interleaved."""

    class Counting(memory):
        writes = 0

        def write(self, data):
            self.writes += 1
            return super().write(data)

    file = Counting()
    Audit(file).write(Created(ID))
    assert file.writes == 1
    assert json.loads(file.getvalue())["session"] == ID


def test_a_logger_of_the_standard_library_is_a_sink(caplog):
    with caplog.at_level(logging.INFO, logger="audit"):
        Audit(logging.getLogger("audit").info).write(Revoked(ID, "100 %s"))
    assert json.loads(caplog.messages[0])["reason"] == "100 %s"


# Errors


def broken(_):
    raise RuntimeError("no room")


class Full(io.RawIOBase):
    """A file on a disk that has room for five bytes."""

    def write(self, data):
        return 5


class Closed(io.StringIO):
    def __init__(self):
        super().__init__()
        self.close()


@pytest.mark.parametrize("sink", [broken, Full(), Closed()], ids=["raises", "full", "closed"])
def test_a_line_that_cannot_be_written_is_logged_and_the_request_continues(sink, caplog):
    """B-34, ASVS 16.5: the event is not lost."""
    dispatcher, after = Dispatcher(), []
    Audit(sink).listen(dispatcher)
    dispatcher.on(Revoked, after.append)
    with caplog.at_level(logging.ERROR, logger="sojourn"):
        dispatcher.emit(Revoked(ID, "stolen phone"))
    assert after == [Revoked(ID, "stolen phone")]
    (record,) = caplog.records
    assert record.getMessage().startswith("an audit line could not be written: ")
    assert "stolen phone" in record.getMessage()


def test_a_file_whose_folder_was_removed_is_logged(tmp_path, caplog):
    """B-34."""
    folder = tmp_path / "logs"
    folder.mkdir()
    audit = Audit(folder / "audit")
    (folder / "audit").unlink()
    folder.rmdir()
    with caplog.at_level(logging.ERROR, logger="sojourn"):
        audit.write(Created(ID))
    assert ID in caplog.text


FULL_DISK = """
import logging, resource, sys
from sojourn.audit import Audit
from sojourn.events import Revoked
logging.disable(logging.CRITICAL)
audit = Audit(sys.argv[1])
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
for number in range(20):
    audit.write(Revoked("", f"full {number}"))
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
for number in range(3):
    audit.write(Revoked("", f"free {number}"))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs a limit of the size of a file")
def test_the_line_after_a_full_disk_is_whole(tmp_path):
    """The part of a line that fitted on the disk is a line of its own."""
    path = tmp_path / "audit.jsonl"
    subprocess.run([sys.executable, "-c", FULL_DISK, path], check=True, timeout=50)
    lines = path.read_text("utf-8").splitlines()
    *whole, part, first, second, third = lines
    assert len(whole) == 1000 // (len(first) + 1)
    assert first.startswith(part[:9])
    assert not part.endswith("}")
    reasons = [json.loads(each)["reason"] for each in (*whole, first, second, third)]
    assert reasons == [f"full {each}" for each in range(len(whole))] + [
        f"free {each}" for each in range(3)
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_without_a_reader_stops_no_request(tmp_path, caplog):
    """A log collector restarts: requests must not wait for it."""
    path = tmp_path / "audit.pipe"
    os.mkfifo(path)
    audit = Audit(path)
    audit.write(Revoked(ID, "left"))
    assert "an audit line could not be written" in caplog.text
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    audit.write(Revoked(ID, "left"))
    (line,) = os.read(reader, 10_000).splitlines()
    os.close(reader)
    assert json.loads(line)["event"] == "Revoked"


def test_an_event_that_cannot_be_formatted_is_logged(caplog):
    """B-34: here the clock fails."""
    audit = Audit(broken, clock=lambda: 10**30)
    with caplog.at_level(logging.ERROR, logger="sojourn"):
        audit.write(Created(ID))
    assert "no audit line could be made of Created" in caplog.text


@pytest.mark.parametrize("name", ["", ".", "missing/audit", "nul\0"])
def test_an_unwritable_path_is_an_error_at_startup(tmp_path, monkeypatch, name):
    """ASVS 16.1: not at the first event."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="audit cannot write to"):
        Audit(name)


async def coroutine(line):
    """A function that an event cannot await."""


@pytest.mark.parametrize("sink", [None, 1, True, [], coroutine, io.StringIO, b"audit.jsonl"])
def test_an_invalid_sink_is_a_configuration_error(sink):
    """B-60."""
    with pytest.raises(ConfigurationError, match="audit expects a path"):
        Audit(sink)
