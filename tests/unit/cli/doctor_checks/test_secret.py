"""Problems of secrets and of the files they are in."""

import contextlib
from pathlib import Path

import pytest

from sojourn import Sessions
from tests.support.examination import SECRET, codes, examined, found

MEMORY = "memory://"


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        ("short", "has 5 bytes, fewer than 16"),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "repeats itself"),
        ("django-insecure-change-me-secret-key", "looks like a placeholder"),
    ],
)
def test_a_weak_secret(secret, reason):
    report = examined(MEMORY, secret_text=secret)
    found(report, "secret-weak", "SOJOURN_SECRET", reason, "sojourn secret new")
    assert secret not in repr(report)


def test_a_weak_secret_among_several(tmp_path):
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\nchangeme-changeme-changeme\n")
    path.chmod(0o600)
    report = examined(MEMORY, secret_file=path)
    found(report, "secret-weak", "secret 2 of 2")
    assert "changeme" not in repr(report)


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_secret_file_that_others_can_read(tmp_path, mode):
    path = tmp_path / "secret"
    path.write_text(SECRET)
    path.chmod(mode)
    report = examined(MEMORY, secret_file=path)
    found(report, "secret-readable", f"{path} has mode {mode:o}", "chmod 600")
    assert SECRET not in repr(report)


def test_the_generated_secret_of_a_database(tmp_path):
    """It is beside the file; a link could lead to a file of another user."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    url = f"sqlite:///{folder}/s.db"
    with contextlib.closing(Sessions(store=url)) as sessions:
        sessions.ping()
    assert "secret-unknown" not in codes(examined(url, secret_text=None))
    beside = folder / "s.db.secret"
    beside.chmod(0o644)
    found(examined(url, secret_text=None), "secret-readable", "mode 644")
    beside.chmod(0o600)
    beside.rename(folder / "elsewhere")
    beside.symlink_to(folder / "elsewhere")
    found(examined(url, secret_text=None), "secret-readable", "symbolic link")


def test_a_secret_file_that_does_not_exist(tmp_path):
    report = examined(MEMORY, secret_file=tmp_path / "typo")
    found(report, "secret-unusable", "No such file", "correct the path")


def test_an_empty_secret_file(tmp_path):
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    found(examined(MEMORY, secret_file=path), "secret-unusable", "is empty")


def test_no_secret():
    found(examined(MEMORY, secret_text=None), "secret-unknown", "set SOJOURN_SECRET")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a device without an end")
def test_a_secret_file_without_an_end():
    report = examined(MEMORY, secret_file=Path("/dev/zero"))
    found(report, "secret-unusable", "more than 65,536 bytes", "correct the path")
