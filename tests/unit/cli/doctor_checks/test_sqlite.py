"""Problems of SQLite databases, planted in real files."""

import contextlib
import grp
import os
import pwd
import resource
import shutil
import sqlite3
import subprocess
import sys
import time

import pytest

from sojourn import Sessions
from sojourn._core.concurrency import run
from sojourn.cli.doctor_checks import CheckContext, sqlite
from sojourn.errors import ConfigurationError
from sojourn.stores.sqlite.store import SQLiteStore
from sojourn.testing.records import make_record
from tests.support.examination import SECRET, assert_healthy, codes, examined, found

HOUR = 3_600_000


@pytest.fixture
def path(tmp_path):
    """A database with a session, as an application has left it."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    with contextlib.closing(Sessions(store=f"sqlite:///{folder}/s.db", secret=SECRET)) as sessions:
        for _ in range(3):
            with sessions.open() as visit:
                visit.session["cart"] = "x" * 20_000
    return folder / "s.db"


def url_of(path):
    return f"sqlite:///{path}"


def rows(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM sessions ORDER BY id").fetchall()


def test_a_healthy_database_has_no_findings_and_stays_as_it_is(path):
    before = rows(path)
    report = examined(url_of(path))
    assert_healthy(report)
    assert report.server.startswith("SQLite 3.")
    assert rows(path) == before


def test_a_missing_database_is_not_created(tmp_path):
    report = examined(url_of(tmp_path / "typo" / "s.db"))
    found(report, "sqlite-missing", "does not exist", "start the application once")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file(path):
    path.write_bytes(b"")
    found(examined(url_of(path)), "sqlite-missing", "is empty", "start the application once")


def test_a_folder_instead_of_a_database(tmp_path):
    found(examined(url_of(tmp_path)), "sqlite-missing", "is not a regular file")


@pytest.mark.parametrize("url", ["sqlite:///", "sqlite:////"])
def test_a_url_without_a_file(url):
    with pytest.raises(ConfigurationError, match="names no file"):
        examined(url)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_folder_without_the_right_to_write():
    """/proc refuses files of every user, root included."""
    report = examined("sqlite:////proc/sojourn/s.db")
    found(report, "sqlite-folder", "/proc", "make the folder writable")


def test_a_network_file_system(path, tmp_path, monkeypatch):
    """No test can mount one, so the list of mounts names the folder."""
    mounts = tmp_path / "mountinfo"
    point = str(path.parent).replace(" ", r"\040")
    mounts.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        f"40 22 0:44 / {point} rw,relatime shared:2 - nfs4 server:/export rw,vers=4.2\n"
    )
    monkeypatch.setattr(sqlite, "_MOUNTS", mounts)
    found(examined(url_of(path)), "sqlite-network", "nfs4", "move the database to a local disk")
    assert sqlite.file_system(tmp_path, mounts) == "ext4"


def test_a_database_behind_a_link(path):
    link = path.with_name("link.db")
    link.symlink_to(path)
    report = examined(url_of(link))
    found(report, "store-unusable", "regular file", "do what the message says")
    assert "sqlite-mode" not in codes(report)  # chmod would change the database, not the link


@pytest.mark.parametrize("suffix", ["", "-lock"])
def test_files_that_others_can_read(path, suffix):
    path.with_name(f"s.db{suffix}").touch()
    path.with_name(f"s.db{suffix}").chmod(0o644)
    found(examined(url_of(path)), "sqlite-mode", f"s.db{suffix} has mode 644", "chmod go-rwx")


def test_a_folder_that_others_can_change(path):
    path.parent.chmod(0o777)
    found(examined(url_of(path)), "sqlite-mode", "mode 777", "chmod go-w")


def test_a_folder_that_a_group_can_change(path, monkeypatch):
    """A group without other members, as many systems create for each user, is no finding."""
    path.parent.chmod(0o775)
    owner = path.parent.stat().st_uid
    group = path.parent.stat().st_gid
    user = pwd.getpwuid(owner)
    for name, members, is_shared in (
        (user.pw_name, [], False),
        (user.pw_name, [user.pw_name], False),
        (user.pw_name, ["another"], True),
        ("staff", [], True),
    ):
        entry = grp.struct_group((name, "x", group, members))
        monkeypatch.setattr(grp, "getgrgid", lambda _, entry=entry: entry)
        findings = sqlite.check_files(CheckContext(url=url_of(path)))
        assert ["mode 775" in each.found for each in findings] == [True] * is_shared


def test_a_disk_that_is_almost_full(path, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("an almost full disk is not tested: this user may not mount a tmpfs")
    try:
        small.chmod(0o700)
        shutil.copy2(path, small / "s.db")
        found(examined(url_of(small / "s.db")), "sqlite-disk", "MB are free", "free some space")
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_disk_that_is_full(path):
    """S12: the log cannot grow, as with an exceeded quota."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with contextlib.closing(SQLiteStore(path)) as store:
        run(store.touch(make_record()))
        size = path.with_name("s.db-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            report = examined(url_of(path))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    found(report, "sqlite-disk", "free some space")


@pytest.mark.parametrize(("name", "code"), [("SQLITE_IOERR_READ", "sqlite-io")])
def test_a_disk_with_errors(path, monkeypatch, name, code):
    """No test has a broken disk, so the error is SQLite's, and only its place is not."""
    failure = sqlite3.OperationalError("disk I/O error")
    failure.sqlite_errorcode, failure.sqlite_errorname = getattr(sqlite3, name), name

    def fail(_):
        raise failure

    monkeypatch.setattr(sqlite, "_open", fail)
    found(examined(url_of(path)), code, name, "dmesg")


def test_a_damaged_page(path):
    with path.open("r+b") as file:
        file.seek(3 * 8192)
        file.write(os.urandom(2 * 8192))
    report = examined(url_of(path))
    found(report, "sqlite-damaged", "restore the file from a backup")
    assert "deep check" in {each.name for each in report.checks if each.state == "skipped"}


def test_a_file_that_is_no_database(path):
    path.write_bytes(b"PK\3\4" * 5_000)
    for suffix in ("-wal", "-shm"):
        path.with_name(f"s.db{suffix}").unlink(missing_ok=True)
    path.chmod(0o644)
    report = examined(url_of(path))
    found(report, "sqlite-damaged", "not a database", "check the path first")
    assert "sqlite-mode" not in codes(report)  # such as /etc/passwd, which all have to read


def test_the_database_of_another_program(tmp_path):
    other = tmp_path / "app.db"
    with contextlib.closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE users (name TEXT)")
    found(examined(url_of(other)), "sqlite-foreign", "another program", "a file of its own")


def pragma(path, statement):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(f"PRAGMA {statement}").fetchone()


def test_a_database_of_a_newer_release(path):
    pragma(path, "user_version = 99")
    found(examined(url_of(path)), "sqlite-schema-newer", "schema 99", "upgrade sojourn")


def test_a_database_of_an_older_release_is_not_migrated(path):
    pragma(path, "user_version = 1")
    found(examined(url_of(path)), "sqlite-schema-older", "schema 1", "restart all processes")
    assert pragma(path, "user_version") == (1,)


def test_a_realm_without_an_application(path):
    found(examined(url_of(path), realm="shpo"), "sqlite-realm", "'shpo'", "correct --realm")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        query = "SELECT count(*) FROM sqlite_master WHERE name LIKE '%shpo%'"
        assert connection.execute(query).fetchone() == (0,)


def test_a_file_system_without_shared_memory(path, monkeypatch):
    """SQLite's VFS unix-dotfile has none, as the shared folder of a virtual machine."""
    pragma(path, "journal_mode = DELETE")
    connect = sqlite3.connect

    def without_shared_memory(path, **options):
        return connect(f"{path}&vfs=unix-dotfile", **options)

    monkeypatch.setattr(sqlite.sqlite3, "connect", without_shared_memory)
    found(examined(url_of(path)), "sqlite-wal", "'delete'", "local disk")


def test_a_database_that_another_process_has_locked(path):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        report = examined(url_of(path), timeout=0.5)
    found(report, "sqlite-locked", "fuser")


def test_a_verification_that_takes_too_long(path, monkeypatch):
    monkeypatch.setattr(sqlite, "_MAX_VERIFICATION", 0.0)
    monkeypatch.setattr(sqlite, "_PROGRESS_STEPS", 1)
    found(examined(url_of(path)), "sqlite-not-verified", "PRAGMA quick_check")


def test_a_clock_that_was_set_back(path):
    """A22: sessions were seen in the future of the present clock."""
    real, real_ns = time.time, time.time_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: real() + 3600)
        patch.setattr(time, "time_ns", lambda: real_ns() + HOUR * 1_000_000)
        sessions = Sessions(store=url_of(path), secret=SECRET)
        with contextlib.closing(sessions), sessions.open() as visit:
            visit.session["a"] = 1
    found(examined(url_of(path)), "clock-stepped", "60 minutes in the future", "chrony")


def test_a_clock_that_jumps_during_the_examination(path, monkeypatch):
    real = time.time_ns
    jumps = iter([0])
    monkeypatch.setattr(time, "time_ns", lambda: real() + next(jumps, 90_000_000_000))
    found(examined(url_of(path)), "clock-stepped", "+90.0 s", "chrony")


def test_another_secret_than_the_applications(path):
    """B-48: the fingerprint of the wrong secret is not registered."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        before = connection.execute('SELECT * FROM "keys:sessions"').fetchall()
    report = examined(url_of(path), secret_text="of-another-machine-3Gk9TzW5")
    found(report, "secret-other", "'default'", "give every process the same secret")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute('SELECT * FROM "keys:sessions"').fetchall() == before
